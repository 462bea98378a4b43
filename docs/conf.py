"""Sphinx: the documentation site, from these pages and from docstrings (`make docs`)."""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import tomllib

project = "anomalib-clipad"
author = "the authors of anomalib-clipad"
release = version = installed("anomalib-clipad")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinxcontrib.mermaid"]
exclude_patterns = ["examples/*.py"]
html_theme = "furo"  # search, dark mode, nothing fetched from elsewhere
html_title = "CLIP-AD for anomalib"
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebook keeps its outputs; a test executes it
myst_fence_as_directive = ["mermaid"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_use_ivar = True
REPOSITORY_FILE = re.compile(r"\[([^\]]+)\]\(\.\./(?!\.)([^)\s]+)\)")
"""A link to a file of the repository that is no page of the site: its text and its path."""


_HOOKS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
REPOSITORY = _HOOKS["metadata"]["hooks"]["custom"]["repository"].rstrip("/")
"""The address of the repository, as long as it is entered."""


def lead_to_repository_files(app: Any, page: str, source: list[str]) -> None:
    """A link out of ``docs/`` leads to the repository; as long as that has no address, it is the file's name."""
    del app
    link = rf"[\1]({REPOSITORY}/blob/main/\2)" if REPOSITORY else r"\1 (`\2`)"
    if not page.startswith("examples/"):  # a notebook is no text
        source[0] = REPOSITORY_FILE.sub(link, source[0])


def setup(app: Any) -> None:
    """Connect what is ours."""
    app.connect("source-read", lead_to_repository_files)

"""What PyPI shows of this project, made of the one place where the repository's address is entered.

hatchling calls this when it builds the package. The address is ``repository`` in pyproject.toml, in the table of this
file; as long as it is empty, no link leads to a repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
"""A link of README that leads to a file of the repository."""


class Metadata(MetadataHookInterface):
    """Links, and the README with links that lead somewhere from anywhere."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in ``urls`` and ``readme``."""
        repository = self.config["repository"].rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["urls"] = {"Paper": "https://arxiv.org/abs/2311.00453", **links(repository)}
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, repository)}


def links(repository: str) -> dict[str, str]:
    """The links of a repository, by the names that PyPI knows."""
    if not repository:
        return {}
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/blob/main/docs/index.md",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def absolute(text: str, repository: str) -> str:
    """README for a page elsewhere: pictures and links lead to the repository, or, without an address, are left out."""
    if not repository:
        text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)\s]+\)\n", "", text)
        return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)\s]+\)", r"\1", text)
    text = re.sub(r"(!\[[^\]]*)\]\((?!https?:)([^)\s]+)\)", rf"\1]({repository}/raw/main/\2)", text)
    return _LINK.sub(rf"]({repository}/blob/main/\1)", text)

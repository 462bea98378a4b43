"""What a release needs beside its files, checked by `make release-check`; docs/releasing.md has the steps."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import tomllib


def missing(root: Path, tag: str | None) -> list[str]:
    """What is missing, each in a sentence.

    Args:
        root: The repository.
        tag: The tag that is released, if there is one yet.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    found = []
    if not project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]:
        found.append(
            "pyproject.toml: enter the repository's address, `repository` in [tool.hatch.metadata.hooks.custom]."
        )
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", _text(root / "CHANGELOG.md"), re.MULTILINE):
        found.append(f"CHANGELOG.md: the heading of {version} needs its date, such as `## [{version}] - 2026-12-01`.")
    if not re.search(rf"^version: {re.escape(version)}$", _text(root / "CITATION.cff"), re.MULTILINE):
        found.append(f"CITATION.cff: its version has to be {version}.")
    if tag is not None and tag != f"v{version}":
        found.append(f"The tag is {tag}; the version in pyproject.toml is {version}.")
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    of_tag = os.environ.get("GITHUB_REF_TYPE") == "tag"
    sys.exit("\n".join(missing(Path(__file__).parents[1], os.environ["GITHUB_REF_NAME"] if of_tag else None)))

"""What PyPI shows, and what a release needs: both hang on one address in pyproject.toml."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ADDRESS = "https://github.com/owner/anomalib-clipad"


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"ci_{name}", ROOT / f".ci/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(repository: str) -> tuple[dict[str, str], str]:
    """The links and the README of a distribution."""
    metadata: dict = {}
    script("metadata").Metadata(str(ROOT), {"repository": repository}).update(metadata)
    return metadata["urls"], metadata["readme"]["text"]


def test_every_link_comes_from_the_address() -> None:
    urls, text = shown(f"{ADDRESS}/")
    assert urls.keys() == {"Paper", "Homepage", "Documentation", "Changelog", "Issues"}
    assert urls["Changelog"] == f"{ADDRESS}/blob/main/CHANGELOG.md"
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert all(target.startswith("https://") for target in targets)
    assert f"{ADDRESS}/raw/main/docs/images/demo.png" in targets
    assert f"{ADDRESS}/blob/main/docs/thresholds.md" in targets
    for target in targets:
        if target.startswith(ADDRESS):
            assert (ROOT / target.partition("/main/")[2].partition("#")[0]).exists(), target


def test_without_an_address_nothing_leads_nowhere() -> None:
    urls, text = shown("")
    assert urls.keys() == {"Paper"}
    assert re.findall(r"\]\((?!https://)[^)\s]+\)", text) == []
    assert "thresholds" in text.lower()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
@pytest.mark.parametrize(
    ("file", "was", "now", "said"),
    [
        ("pyproject.toml", f'repository = "{ADDRESS}"', 'repository = ""', "enter the repository's address"),
        ("CHANGELOG.md", "## [0.3.0] - 2026-12-01", "## [0.3.0]", "the heading of 0.3.0 needs its date"),
        ("CITATION.cff", "version: 0.3.0", "version: 0.2.0", "its version has to be 0.3.0"),
        ("pyproject.toml", "", "", "The tag is v0.2.0; the version in pyproject.toml is 0.3.0"),
    ],
)
def test_what_a_release_lacks_is_said(tmp_path: Path, file: str, was: str, now: str, said: str) -> None:
    missing = script("release").missing
    project = '[project]\nversion = "0.3.0"\n[tool.hatch.metadata.hooks.custom]\n'
    (tmp_path / "pyproject.toml").write_text(f'{project}repository = "{ADDRESS}"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [0.3.0] - 2026-12-01\n")
    (tmp_path / "CITATION.cff").write_text("title: anomalib-clipad\nversion: 0.3.0\n")
    assert missing(tmp_path, None) == missing(tmp_path, "v0.3.0") == []
    (tmp_path / file).write_text((tmp_path / file).read_text().replace(was, now))
    (sentence,) = missing(tmp_path, "v0.3.0" if was else "v0.2.0")
    assert said in sentence

"""What results depend on: known by what files hold, wherever they lie."""

from pathlib import Path

import pytest
from conftest import shallow

from anomalib_clipad import Inspector
from anomalib_clipad.inspection.dependencies import depends_on, plain


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector("nut", **shallow())


@pytest.mark.parametrize("name", ["model", "product", "prompts", "adapter", "pretrained"])
@pytest.mark.parametrize("prefix", ["", "openai:"])
def test_a_file_counts_by_its_content(inspector: Inspector, tmp_path: Path, name: str, prefix: str) -> None:
    def digest(place: str, content: str) -> str:
        (tmp_path / place).write_text(content)
        return depends_on(inspector, {name: f"{prefix}{tmp_path / place}"})[name]

    first = digest("a", "one")
    assert digest("b", "one") == first
    assert digest("a", "two") != first
    assert name not in plain({name: f"{prefix}{tmp_path / 'a'}"})
    assert plain({name: "a tag"})[name] == "a tag"


def test_weights_beside_a_graph_of_openvino_count(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("graph")
    (tmp_path / "model.bin").write_text("one")
    first = depends_on(inspector, {"model": tmp_path / "model.xml"})
    (tmp_path / "model.bin").write_text("two")
    assert depends_on(inspector, {"model": tmp_path / "model.xml"}) != first


def test_a_backbone_in_a_folder_counts_by_its_files(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    given = {"backbone": f"local-dir:{tmp_path}"}
    first = depends_on(inspector, given)
    assert "backbone" not in plain(given)
    (tmp_path / "config.json").write_text("[]")
    assert depends_on(inspector, given)["backbone"] != first["backbone"]
    assert plain({"backbone": "clipad-mini"})["backbone"] == "clipad-mini"


def test_weights_count_whatever_they_are_called(inspector: Inspector) -> None:
    assert depends_on(inspector, {})["weights"] == inspector.live("").model.fingerprint


def test_the_version_counts() -> None:
    assert "version" in plain({})

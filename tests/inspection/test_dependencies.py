"""What a run depends on: contents, by whatever name they are called, and all settings that have none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import shallow
from stand_ins import Brightness

from anomalib_clipad import Inspector
from anomalib_clipad.inspection.dependencies import about_of, depends_on, plain
from anomalib_clipad.verdicts.decision import Decision
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores


def around(normal: NormalScores | None = None) -> Any:
    model = Brightness()
    model.keep_normal(normal)
    return SimpleNamespace(model=model, ignored=None)


@pytest.mark.parametrize("name", ["model", "product", "backbone", "pretrained", "prompts", "adapter"])
@pytest.mark.parametrize("called", ["{}", "tag:{}"])
def test_of_a_file_the_content_counts_and_not_its_name(tmp_path: Path, name: str, called: str) -> None:
    def digest(file: str, content: str) -> str:
        (tmp_path / file).write_text(content)
        asked = {name: called.format(tmp_path / file)}
        assert name not in plain(asked)
        return depends_on(around(), asked)[name]

    assert digest("a.file", "one") == digest("b.file", "one") != digest("a.file", "two")


def test_the_weights_beside_a_file_of_openvino_count(tmp_path: Path) -> None:
    file = tmp_path / "model.xml"
    file.write_text("graph")
    (tmp_path / "model.bin").write_text("one")
    before = depends_on(around(), {"model": str(file)})
    (tmp_path / "model.bin").write_text("two")
    assert depends_on(around(), {"model": str(file)}) != before


def test_of_a_folder_of_open_clip_all_files_count(tmp_path: Path) -> None:
    asked = {"backbone": f"local-dir:{tmp_path}"}
    (tmp_path / "open_clip_config.json").write_text("{}")
    before = depends_on(around(), asked)
    assert "backbone" not in plain(asked)
    (tmp_path / "open_clip_model.safetensors").write_text("weights")
    assert depends_on(around(), asked)["backbone"] != before["backbone"]


def test_a_name_that_is_no_file_is_a_setting() -> None:
    kept = {"class_name": "nut", "backbone": "clipad-mini", "prompts": "medical", "threshold": 0.4, "smoothing": 0.0}
    asked = {**kept, "tiles": None, "references": "normal"}
    settings = plain(asked)
    assert settings.pop("version")
    assert settings == kept
    assert depends_on(around(), asked) == {}


def test_the_image_tower_counts() -> None:
    inspector = Inspector("nut", **shallow())
    assert depends_on(inspector, {}) == {"weights": inspector.live("").model.fingerprint}


def test_calibration_images_count_or_where_they_are_not_known_their_scores() -> None:
    def digest(scores: float, *digests: str) -> str:
        known = tuple({"name": "a.png", "digest": one} for one in digests)
        normal = NormalScores(np.full(2, scores), np.full(2, scores), identities=known)
        return depends_on(around(normal), {})["calibration"]

    assert digest(0.1, "1", "2") == digest(0.1000001, "1", "2")  # on another processor
    assert digest(0.1, "1", "2") != digest(0.1, "1", "3")
    assert digest(0.1) != digest(0.2)


def test_the_command_that_decides_replaces_the_run() -> None:
    model = SimpleNamespace(taught=None)
    inspector: Any = SimpleNamespace(decision=Decision(Limits(0.5, 0.5)), notes=(), audited=(), model=model)
    about = about_of(inspector, "anomalib-clipad inspect parts")
    assert about["decision"].endswith(
        "run: anomalib-clipad inspect parts --calibration FOLDER --false_alarm_rate 0.05 --overwrite"
    )

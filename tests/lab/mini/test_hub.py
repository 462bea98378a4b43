"""The folder for a model hub, loaded by open_clip and by ourselves."""

import json
import runpy
from pathlib import Path

import open_clip
import pytest
import torch

from anomalib_clipad import ClipADModel, load_backbone
from anomalib_clipad.lab.mini.hub import write_hub_folder, write_space_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "clipad-mini")


@pytest.mark.slow
def test_our_own_loader_gives_the_same_scores(folder: Path) -> None:
    bundled, local = load_backbone("clipad-mini"), load_backbone(f"local-dir:{folder}")
    assert local.fingerprint == bundled.fingerprint
    images = torch.rand(1, 3, local.image_size, local.image_size)
    scores = []
    for backbone in (bundled, local):
        model = ClipADModel(backbone)
        model.setup("gear")
        scores.append(model.predict(images).pred_score)
    assert torch.equal(*scores)


def test_open_clip_loads_it(folder: Path) -> None:
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=True)
    expected = load_backbone("clipad-mini").clip.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_space_serves_the_playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    from anomalib_clipad.tools import playground

    served: dict[str, object] = {}
    monkeypatch.setattr(playground, "playground", lambda settings, **options: served.update(settings, **options))
    folder = write_space_folder(tmp_path / "space")
    runpy.run_path(str(folder / "app.py"), run_name="__main__")
    assert served == {"backbone": "clipad-mini", "host": "0.0.0.0", "port": 7860}
    assert (folder / "requirements.txt").read_text() == "anomalib-clipad[playground]\n"
    assert "sdk: gradio" in (folder / "README.md").read_text()


def test_the_card_has_metadata_and_the_configuration_its_normalisation(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: open_clip\n")
    preprocess = json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    assert tuple(preprocess["mean"]) == open_clip.OPENAI_DATASET_MEAN
    assert tuple(preprocess["std"]) == open_clip.OPENAI_DATASET_STD

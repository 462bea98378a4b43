"""ClipAD driven by anomalib's engine: every stage, checkpoints, class names, images of all kinds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch, MVTecAD, PredictDataset
from anomalib.engine import Engine
from conftest import OPTIONS, save
from torch import Tensor

from anomalib_clipad import ClipAD
from anomalib_clipad.host.baselines import WinClipBaseline
from anomalib_clipad.metrics import METRICS


def scores(predictions: list) -> Tensor:
    return torch.cat([batch.pred_score for batch in predictions])


@pytest.mark.slow
def test_one_image_is_predicted_without_any_validation_data(tiny: dict[str, str], engine: Engine, image: Path) -> None:
    (prediction,) = engine.predict(model=ClipAD(class_name="hazelnut", **tiny), data_path=str(image))
    assert 0 < prediction.pred_score.item() < 1
    assert prediction.anomaly_map.shape[-2:] == (64, 64)
    assert prediction.anomaly_map.isfinite().all()
    assert prediction.pred_label.item() == (prediction.pred_score.item() > 0.5)
    assert torch.equal(prediction.pred_mask, prediction.anomaly_map > 0.5)


@pytest.mark.slow
def test_a_class_once_encoded_stays_where_nothing_names_another(
    tiny: dict[str, str], datamodule: MVTecAD, parts: Path, tmp_path: Path
) -> None:
    model = ClipAD(**tiny, visualizer=False)
    options = {"logger": False, "accelerator": "cpu", "devices": 1}
    Engine(default_root_dir=tmp_path, **options).validate(model, datamodule=datamodule)
    Engine(default_root_dir=tmp_path, **options).predict(model, data_path=parts / "bolt/test/good")
    assert model.model.class_name == "bolt"


def test_the_whole_cycle_from_fit_to_predict(
    tiny: dict[str, str], engine: Engine, datamodule: MVTecAD, parts: Path, tmp_path: Path
) -> None:
    """What anomalib's integration tests do with every model of its own."""
    model = ClipAD(**tiny, **OPTIONS, visualizer=False)
    engine.fit(model, datamodule=datamodule)
    checkpoint = Path(engine.trainer.checkpoint_callback.best_model_path)
    assert checkpoint.stat().st_size < 200_000
    (results,) = engine.test(model, datamodule=datamodule)
    assert set(results) == set(METRICS)
    assert all(0 <= value <= 1 for value in results.values())
    engine.train(model, datamodule=datamodule)
    engine.validate(model, datamodule=datamodule)
    live = scores(engine.predict(model=model, data_path=parts / "bolt/test/scratch"))

    fresh = Engine(default_root_dir=tmp_path / "other", logger=False, accelerator="cpu", devices=1)
    other = ClipAD(**tiny, visualizer=False)
    restored = fresh.predict(model=other, data_path=parts / "bolt/test/scratch", ckpt_path=checkpoint)
    torch.testing.assert_close(scores(restored), live, atol=1e-6, rtol=0)
    assert other.model.class_name == "bolt"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "from_path", "name", "origin"),
    [
        ("rivet", False, "rivet", "given"),
        (None, False, "bolt", "the datamodule's category"),
        (None, True, "object", "default"),
    ],
)
def test_the_class_name_is_the_argument_then_the_category_then_object(
    tiny: dict[str, str],
    engine: Engine,
    datamodule: MVTecAD,
    image: Path,
    caplog: pytest.LogCaptureFixture,
    given: str | None,
    from_path: bool,
    name: str,
    origin: str,
) -> None:
    caplog.set_level("INFO", logger="anomalib_clipad")
    model = ClipAD(**tiny, class_name=given, visualizer=False)
    engine.predict(model=model, **({"data_path": image} if from_path else {"datamodule": datamodule}))
    assert model.model.class_name == name
    assert f"Class name: '{name}' ({origin})." in caplog.messages
    assert any("Naming the object" in message for message in caplog.messages) == (origin == "default")


@pytest.mark.slow
def test_one_model_follows_its_data_to_another_category(
    tiny: dict[str, str], engine: Engine, datamodule: MVTecAD
) -> None:
    model = ClipAD(**tiny, visualizer=False)
    engine.validate(model, datamodule=datamodule, verbose=False)
    datamodule.category = "screw"
    datamodule.prepare_data = lambda: None  # the images are there, under the other name
    engine.validate(model, datamodule=datamodule, verbose=False)
    assert model.model.class_name == "screw"


@pytest.mark.slow
def test_what_is_encoded_is_logged(
    tiny: dict[str, str], engine: Engine, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="anomalib_clipad")
    engine.predict(model=ClipAD(**tiny, class_name="brand new thing", text_cache=False), data_path=image)
    assert "Encoding 198 normal and 220 abnormal prompts of class 'brand new thing'." in caplog.messages


def test_the_default_pre_processor_is_a_bicubic_square_with_the_backbones_normalisation(tiny: dict[str, str]) -> None:
    resize, normalize = ClipAD(**tiny, image_size=96).pre_processor.transform.transforms
    assert (resize.size, resize.interpolation.value, resize.antialias) == ([96, 96], "bicubic", True)
    assert normalize.mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_components_can_be_switched_off(tiny: dict[str, str], engine: Engine, image: Path) -> None:
    model = ClipAD(**tiny, class_name="cup", evaluator=False, visualizer=False, post_processor=False)
    (prediction,) = engine.predict(model=model, data_path=image)
    assert (model.evaluator, model.visualizer, model.post_processor) == (None, None, None)
    assert prediction.pred_label is None


@pytest.mark.parametrize("name", ["", "   "])
def test_an_empty_class_name_is_refused_at_once(tiny: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match="class name is empty"):
        ClipAD(**tiny, class_name=name)


@pytest.mark.slow
def test_grey_and_rgba_images_are_scored_as_their_rgb_selves(
    tiny: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    grey = np.random.default_rng(2).integers(0, 255, (64, 64), np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    save(tmp_path / "kinds/a_rgb.png", rgb)
    save(tmp_path / "kinds/b_grey.png", grey)
    save(tmp_path / "kinds/c_rgba.png", np.dstack([rgb, np.full_like(grey, 255)]))
    result = scores(engine.predict(model=ClipAD(**tiny, class_name="cup"), data_path=tmp_path / "kinds"))
    torch.testing.assert_close(result, result[:1].expand(3))


def test_other_files_in_a_folder_are_left_alone(tiny: dict[str, str], engine: Engine, image: Path) -> None:
    (image.parent / "notes.txt").write_text("not an image")
    assert len(engine.predict(model=ClipAD(**tiny, class_name="cup"), data_path=image.parent)) == 1


@pytest.mark.slow
def test_predict_takes_datasets_too(tiny: dict[str, str], engine: Engine, image: Path) -> None:
    model = ClipAD(**tiny, class_name="cup")
    by_path = engine.predict(model=model, data_path=image)
    by_dataset = engine.predict(model=model, dataset=PredictDataset(image))
    assert torch.equal(scores(by_path), scores(by_dataset))


def test_every_setting_reaches_the_model(tiny: dict[str, str]) -> None:
    own = {"normal": ["good {}"], "abnormal": ["bad {}"], "templates": ["a {}."]}
    options = {**OPTIONS, "prompts": own, "image_size": 96, "precision": "bfloat16", "variant": "sdp_plus"}
    model = ClipAD(**tiny, **options).model
    settings = model.settings.as_dict()
    assert {name: settings[name] for name in options} == options
    assert (settings["backbone"], settings["pretrained"]) == tuple(tiny.values())
    assert model.detector.visual.proj.dtype == torch.bfloat16
    assert (model.detector.smoothing, model.detector.tap, model.detector.image_size) == (4.0, "block", 96)
    assert (model.encoder.rvs, model.encoder.rvs_options) == ("kde", {"bandwidth": 0.4})
    assert model.encoder.prompts.as_dict() == own


@pytest.mark.parametrize("kept", [True, False])
def test_embeddings_are_kept_on_disk_unless_switched_off(
    tiny: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE", str(tmp_path / "own"))
    ClipAD(**tiny, text_cache=kept).model.setup("cup")
    files = list((tmp_path / "own").rglob("*.safetensors"))  # the embeddings, and a vector of each state
    assert len(files) == 3 * kept


def test_the_backbones_normalisation_is_used(tiny: dict[str, str], tmp_path: Path) -> None:
    content = {"model_cfg": json.loads(Path(tiny["backbone"]).read_text())}
    other = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (tmp_path / "tiny.json").write_text(json.dumps({**content, "preprocess_cfg": other}))
    model = ClipAD(backbone=str(tmp_path / "tiny.json"), pretrained=tiny["pretrained"])
    _, normalize = model.pre_processor.transform.transforms
    assert (list(normalize.mean), list(normalize.std)) == (other["mean"], other["std"])


@pytest.mark.slow
def test_training_has_its_epochs_its_rate_and_no_sanity_check(tiny: dict[str, str]) -> None:
    model = ClipAD(**tiny, variant="sdp_plus", epochs=3, learning_rate=0.02)
    assert model.trainer_arguments == {"max_epochs": 3, "num_sanity_val_steps": 0}
    (group,) = model.configure_optimizers().param_groups
    assert group["lr"] == pytest.approx(0.02)
    assert len(group["params"]) == 8
    assert ClipAD(**tiny).trainer_arguments == {}
    assert ClipAD(**tiny).configure_optimizers() is None


def test_winclips_scores_are_left_as_they_are() -> None:
    processor = WinClipBaseline.configure_post_processor()
    assert not processor.enable_normalization
    raw = InferenceBatch(pred_score=torch.tensor([7.0]), anomaly_map=torch.full((1, 4, 4), -3.0))
    assert processor(raw).pred_score.item() == 7

"""What belongs to a class or to a run, and never to the next one: statistics, metrics, labels."""

import copy
from pathlib import Path

import pytest
import torch
from anomalib.data import ImageBatch, MVTecAD
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator
from anomalib.post_processing import PostProcessor
from conftest import TINY, make_engine
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from anomalib_clipad import ClipAD
from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.host.statistics import drop_statistics, required

FITTED = ("image_min", "image_max", "pixel_min", "pixel_max", "_image_threshold", "_pixel_threshold")


@pytest.fixture
def fitted(datamodule: MVTecAD, tmp_path: Path) -> ClipAD:
    model = ClipAD(**TINY, visualizer=False)
    make_engine(tmp_path).validate(model, datamodule=datamodule, verbose=False)
    return model


def statistics(model: ClipAD) -> list[float]:
    return [float(getattr(model.post_processor, name)) for name in FITTED]


@pytest.mark.slow
def test_another_class_drops_the_statistics_of_the_first(
    fitted: ClipAD, parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert all(torch.tensor(statistics(fitted)).isfinite())
    fitted.class_name = "granite"
    images = parts / "bolt/test/good"
    (batch, *_) = make_engine(tmp_path).predict(fitted, data_path=images)
    assert "Dropped, since it does not hold for the class 'granite': thresholds and ranges of before" in caplog.text
    assert all(torch.tensor(statistics(fitted)).isnan())
    fresh = ClipAD(**TINY, class_name="granite", visualizer=False)
    (wanted, *_) = make_engine(tmp_path).predict(fresh, data_path=images)
    assert torch.equal(batch.pred_score, wanted.pred_score)


@pytest.mark.slow
def test_an_export_is_of_the_class_the_model_has_now(fitted: ClipAD, caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(2, 3, 70, 90)
    fitted.class_name = "granite"
    graph, fresh = fitted.deployed(), ClipAD(**TINY, class_name="granite").deployed()
    assert graph.metadata["class_name"] == "granite"
    assert "Dropped, since" in caplog.text
    assert torch.equal(graph(images).pred_score, fresh(images).pred_score)


def test_a_validation_on_the_new_class_needs_no_warning(
    fitted: ClipAD, datamodule: MVTecAD, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted.class_name = "screw"
    make_engine(tmp_path).validate(fitted, datamodule=datamodule, verbose=False)
    assert "Dropped, since" not in caplog.text
    assert all(torch.tensor(statistics(fitted)).isfinite())


def test_calling_the_model_gives_what_predict_gives(parts: Path, tmp_path: Path) -> None:
    model = ClipAD(**TINY, class_name="bolt", visualizer=False)
    image = torch.rand(1, 3, 64, 64)
    by_call = model(image)  # encodes the class by itself
    assert model.model.class_name == "bolt"
    assert torch.equal(by_call.pred_score, model.deployed()(image).pred_score)


class Interrupt(Callback):
    def on_validation_batch_end(self, trainer: object, pl_module: object, outputs: object, *args: object) -> None:
        raise InterruptedError


@pytest.mark.slow
def test_a_stopped_run_leaves_nothing_behind(datamodule: MVTecAD, tmp_path: Path) -> None:
    model = ClipAD(**TINY, visualizer=False)
    with pytest.raises(InterruptedError):
        make_engine(tmp_path, Interrupt()).validate(model, datamodule=datamodule, verbose=False)
    noise = torch.rand(4)
    model.post_processor._image_scores.update(noise, 9 + noise, noise > 2)
    for metric in model.evaluator.test_metrics[:3]:
        metric.update(ImageBatch(torch.zeros(4, 3, 8, 8), pred_score=noise, gt_label=noise > 2))
    (after,) = make_engine(tmp_path).test(model, datamodule=datamodule, verbose=False)
    fresh = ClipAD(**TINY, visualizer=False)
    (wanted,) = make_engine(tmp_path).test(fresh, datamodule=datamodule, verbose=False)
    assert after == wanted
    assert statistics(model) == statistics(fresh)


@pytest.mark.slow
def test_validation_metrics_are_of_the_fused_score(datamodule: MVTecAD, tmp_path: Path) -> None:
    fields = ["pred_score", "gt_label"]
    evaluator = Evaluator(val_metrics=[AUROC(fields, prefix="val_")], test_metrics=[AUROC(fields, prefix="test_")])
    model = ClipAD(**TINY, visualizer=False, evaluator=evaluator)
    (validated,) = make_engine(tmp_path).validate(model, datamodule=datamodule, verbose=False)
    (tested,) = make_engine(tmp_path).test(model, datamodule=datamodule, verbose=False)
    assert validated["val_AUROC"] == tested["test_AUROC"]


@pytest.mark.slow
def test_labels_are_asked_for_and_the_model_stays_usable(datamodule: MVTecAD, tmp_path: Path) -> None:
    model = ClipAD(**TINY, class_name="bolt", visualizer=False)
    datamodule.setup()
    unlabelled = copy.copy(datamodule.test_data)

    def collate(items: list) -> ImageBatch:
        batch = ImageBatch.collate(items)
        return ImageBatch(image=batch.image, image_path=batch.image_path)

    loader = DataLoader(unlabelled, 4, collate_fn=collate)
    for stage in (make_engine(tmp_path).validate, make_engine(tmp_path).test):
        with pytest.raises(ValueError, match=r"compare predictions with labels.*Use predict for images without labels"):
            stage(model, dataloaders=loader)
    assert len(make_engine(tmp_path).predict(model, dataloaders=loader)) == 3
    (after,) = make_engine(tmp_path).test(model, datamodule=datamodule, verbose=False)
    assert 0 <= after["image_AUROC"] <= 1


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_that_casts_everything_is_refused(datamodule: MVTecAD, tmp_path: Path, precision: str) -> None:
    cast = Engine(default_root_dir=tmp_path, logger=False, accelerator="cpu", devices=1, precision=precision)
    with pytest.raises(ValueError, match=rf"precision '{precision}'.*ClipAD\(precision='bfloat16'\)"):
        cast.predict(ClipAD(**TINY, class_name="bolt"), data_path=datamodule.root / "bolt/test/good")


@pytest.mark.parametrize("own", [ClipADPostProcessor(image_sensitivity=0.6), PostProcessor(), True])
def test_a_post_processor_learns_the_scale_of_the_model_it_serves(own: PostProcessor | bool) -> None:
    model = ClipAD(**TINY, class_name="bolt", variant="sdp_plus", visualizer=False, post_processor=own)
    model.model.detector.adapter.trained.fill_(True)
    maps = model(torch.rand(2, 3, 64, 64)).anomaly_map
    assert maps.unique().numel() > 1000  # not one constant, as with the scale of SDP
    if isinstance(model.post_processor, ClipADPostProcessor):
        raw = model.model.detector(model.pre_processor(torch.rand(2, 3, 64, 64)), model.model.text_features).anomaly_map
        assert torch.equal(model.post_processor.scale.probability(raw) > 0.5, raw > 2)


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", -1), ("epochs", 0), ("epochs", 2.5), ("learning_rate", 0), ("class_name", 12)]
)
def test_wrong_arguments_are_named_before_a_backbone_is_loaded(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option.replace("_name", ".name")):
        ClipAD(backbone="no such backbone", **{option: value})


def test_dropping_says_whether_there_was_something_to_drop() -> None:
    processor = ClipADPostProcessor()
    assert not drop_statistics(processor)
    processor.peak_max.fill_(1.0)
    assert drop_statistics(processor)
    assert processor.peak_max.isnan()
    processor.part = torch.nn.BatchNorm1d(2)  # whose buffers are its own
    assert not drop_statistics(processor)
    assert processor.part.running_var.tolist() == [1, 1]


def test_an_empty_field_is_named_and_a_falsy_one_is_a_value() -> None:
    assert required(0, "count") == 0
    with pytest.raises(ValueError, match=r"The batch has no gt_mask\."):
        required(None, "gt_mask")

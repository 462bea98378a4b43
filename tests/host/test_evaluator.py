"""The seven metrics against scikit-learn and an independent per-region overlap."""

import math
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from test_post_processor import images, reference_metrics

from anomalib_clipad.host.evaluator import SevenMetrics
from anomalib_clipad.metrics import METRICS
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import named_sample


def evaluate(*batches: ImageBatch) -> dict[str, float]:
    metrics = SevenMetrics().test_metrics
    for batch in batches:
        for metric in metrics:
            metric.update(batch)
    return {metric.name: float(metric.compute()) for metric in metrics if metric.update_called}


def reference(*batches: ImageBatch) -> list[float]:
    """The metrics of scikit-learn and the independent PRO, in the evaluator's order."""
    labels, scores, masks, maps = (
        torch.cat([getattr(batch, field) for batch in batches])
        for field in ("gt_label", "pred_score", "gt_mask", "anomaly_map")
    )
    auroc, precision, f1, pixel_auroc, pixel_precision, pixel_f1, pro = reference_metrics(labels, scores, masks, maps)
    return [auroc, f1, precision, pixel_auroc, pixel_f1, pixel_precision, pro]


def test_they_have_plain_names() -> None:
    assert tuple(evaluate(images(6, 0))) == METRICS


@pytest.mark.parametrize("seed", range(3))
def test_they_are_scikit_learns_and_the_independent_pro(seed: int) -> None:
    batches = [images(8, seed), images(8, seed + 10)]
    for batch in batches:
        batch.anomaly_map = (50 * batch.anomaly_map).sigmoid()
    assert list(evaluate(*batches).values()) == pytest.approx(reference(*batches), abs=1e-4)


def test_they_are_the_same_references_on_generated_parts() -> None:
    """Masks of thin, small and several regions, and maps that have many ties."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack(
        [
            torch.from_numpy(named_sample("gear", "metrics", number, kind, 0, 64).mask)
            for kind in (None, *DEFECTS)
            for number in range(2)
        ]
    )
    maps = (0.3 * masks + 0.7 * torch.rand(masks.shape, generator=generator)).mul(64).round() / 64
    batch = images(len(masks), 0, labels=masks.any(dim=2).any(dim=1))
    batch.gt_mask, batch.anomaly_map = masks, maps
    assert list(evaluate(batch).values()) == pytest.approx(reference(batch), abs=1e-4)


def test_average_precision_is_no_trapezoid() -> None:
    batch = images(4, 0)
    batch.gt_label = torch.tensor([False, True, False, True])
    batch.pred_score = torch.tensor([0.9, 0.8, 0.4, 0.3])
    assert evaluate(batch)["image_AP"] == pytest.approx(0.5 * 0.5 + 0.5 * 0.5)


def test_without_masks_there_are_only_image_metrics() -> None:
    assert tuple(evaluate(images(6, 0, masks=False))) == METRICS[:3]


@pytest.mark.parametrize("abnormal", [False, True])
def test_metrics_of_one_sided_sets_are_nan_with_one_warning(abnormal: bool, caplog: pytest.LogCaptureFixture) -> None:
    batch = images(6, 0)
    batch.gt_label[:] = abnormal
    batch.gt_mask[:] = False
    values = evaluate(batch)
    assert tuple(values) == METRICS
    assert all(math.isnan(value) for value in values.values())
    state = "abnormal" if abnormal else "normal"
    assert [record.getMessage() for record in caplog.records] == [
        f"Every image of the test set is {state}: its image metrics are undefined (NaN).",
        "Every pixel of the test set is normal: its pixel metrics are undefined (NaN).",
    ]


def test_one_sided_means_that_no_label_differs() -> None:
    batch = images(6, 0)
    batch.gt_label[:] = torch.arange(6) == 5
    batch.pred_score = torch.arange(6) / 10
    assert evaluate(batch)["image_AUROC"] == evaluate(batch)["image_AP"] == 1


@pytest.mark.parametrize(("processes", "logged"), [(1, METRICS[:3]), (2, METRICS)])
def test_metrics_without_data_are_left_out_unless_another_process_may_have_some(
    processes: int, logged: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, seen = SevenMetrics(), []
    for metric in evaluator.test_metrics:
        metric.update(images(6, 0, masks=False))
    all_seven = evaluator.test_metrics

    def log(self: Evaluator, trainer: object, pl_module: object) -> None:
        seen.extend(metric.name for metric in self.test_metrics)
        raise InterruptedError

    monkeypatch.setattr(Evaluator, "on_test_epoch_end", log)
    with pytest.raises(InterruptedError):
        evaluator.on_test_epoch_end(SimpleNamespace(world_size=processes), None)
    assert tuple(seen) == logged
    assert evaluator.test_metrics is all_seven

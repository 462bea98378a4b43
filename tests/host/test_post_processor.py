"""ClipADPostProcessor: metrics of its outputs are those of the raw ones, and it has an answer for every data set."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.metrics import AUROC, Evaluator
from scipy.ndimage import label as connected_components
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor

from anomalib_clipad.host.post_processor import CertifiedBatch, ClipADPostProcessor
from anomalib_clipad.verdicts.normal_scores import NormalScores

SIDE = 16


def images(count: int, seed: int, spread: float = 1.0, masks: bool = True, labels: Tensor | None = None) -> ImageBatch:
    """Raw outputs in the model's units: probabilities, and maps of some hundredths; every second image abnormal."""
    generator = torch.Generator().manual_seed(seed)
    gt_label = torch.arange(count) % 2 == 1 if labels is None else labels
    gt_mask = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    gt_mask[gt_label, 4:9, 3:12] = True
    anomaly_map = spread * 0.01 * torch.randn(count, SIDE, SIDE, generator=generator) + 0.008 * gt_mask
    probability = (spread * torch.randn(count, generator=generator) + gt_label).sigmoid()
    return ImageBatch(
        image=torch.zeros(count, 3, SIDE, SIDE),
        gt_label=gt_label,
        gt_mask=gt_mask if masks else None,
        pred_score=probability,
        anomaly_map=anomaly_map,
    )


def fit(processor: ClipADPostProcessor, *batches: ImageBatch) -> ClipADPostProcessor:
    for batch in batches:
        processor.on_validation_batch_end(None, None, batch)
    processor.on_validation_epoch_end(None, None)
    return processor


def process(processor: ClipADPostProcessor, batch: ImageBatch) -> InferenceBatch:
    return processor(InferenceBatch(pred_score=batch.pred_score, anomaly_map=batch.anomaly_map))


def f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float((2 * precision * recall / (precision + recall + 1e-12)).max())


def pro(masks: np.ndarray, maps: np.ndarray, limit: float = 0.3) -> float:
    """Per-region overlap, threshold by threshold, integrated up to a false-positive rate."""
    regions = [(i, np.equal(found, k)) for i, mask in enumerate(masks)
               for found, n in [connected_components(mask, np.ones((3, 3)))] for k in range(1, n + 1)]  # fmt: skip
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        hit = maps >= threshold
        rates.append(hit[~masks].mean())
        overlaps.append(np.mean([hit[i][region].mean() for i, region in regions]))
    grid = np.linspace(0, limit, 20001)
    return float(np.trapezoid(np.interp(grid, rates, overlaps), grid) / limit)


def reference_metrics(labels: Tensor, scores: Tensor, masks: Tensor, maps: Tensor) -> list[float]:
    flat_masks, flat_maps = masks.numpy().ravel(), maps.numpy().ravel()
    return [
        *(f(labels.numpy(), scores.numpy()) for f in (roc_auc_score, average_precision_score, f1_max)),
        *(f(flat_masks, flat_maps) for f in (roc_auc_score, average_precision_score, f1_max)),
        pro(masks.numpy(), maps.numpy()),
    ]


def paper_score(batch: ImageBatch, fitted_on: ImageBatch) -> Tensor:
    """minmax(probability) + minmax(map maximum), over the images it is fitted on."""

    def min_max(values: Tensor, over: Tensor) -> Tensor:
        return (values - over.min()) / (over.max() - over.min())

    return min_max(batch.pred_score, fitted_on.pred_score) + min_max(
        batch.anomaly_map.amax((1, 2)), fitted_on.anomaly_map.amax((1, 2))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "test", [images(40, 1), images(30, 2, spread=4.0)], ids=["validation", "wider than validation"]
)
def test_metrics_of_the_outputs_are_those_of_the_raw_values(test: ImageBatch) -> None:
    validation = images(40, 1)
    output = process(fit(ClipADPostProcessor(), validation), test)
    raw = reference_metrics(test.gt_label, paper_score(test, validation), test.gt_mask, test.anomaly_map)
    ours = reference_metrics(test.gt_label, output.pred_score, test.gt_mask, output.anomaly_map)
    assert ours == pytest.approx(raw, abs=1e-4)
    assert output.anomaly_map.min() >= 0
    assert output.anomaly_map.max() <= 1


def test_statistics_do_not_depend_on_the_batches() -> None:
    whole, parts = images(9, 3), [images(9, 3).items[i : i + 4] for i in (0, 4, 8)]
    together = fit(ClipADPostProcessor(), whole)
    apart = fit(ClipADPostProcessor(), *(ImageBatch.collate(part) for part in parts))
    assert dict(together.named_buffers()) == dict(apart.named_buffers())


def test_thresholds_are_the_best_f1_thresholds_and_lie_at_one_half() -> None:
    validation = images(60, 4)
    processor = fit(ClipADPostProcessor(), validation)
    scores = paper_score(validation, validation)
    precision, recall, thresholds = precision_recall_curve(validation.gt_label, scores)
    best = thresholds[np.argmax(2 * precision * recall / (precision + recall + 1e-12))]
    assert processor.image_threshold.item() == pytest.approx(best, abs=1e-6)
    output = process(processor, validation)
    assert torch.equal(output.pred_label, scores > processor.image_threshold)
    assert torch.equal(output.pred_mask, validation.anomaly_map > processor.pixel_threshold)


def test_without_validation_outputs_are_probabilities() -> None:
    batch = images(6, 5)
    output = process(ClipADPostProcessor(), batch)
    probability = 1 / (1 + torch.exp(-50 * batch.anomaly_map))
    torch.testing.assert_close(output.anomaly_map, probability)
    torch.testing.assert_close(output.pred_score, (batch.pred_score + probability.amax((1, 2))) / 2)
    assert torch.equal(output.pred_label, output.pred_score > 0.5)
    assert torch.equal(output.pred_mask, batch.anomaly_map > 0)


@pytest.mark.parametrize("fitted", [False, True])
def test_an_image_gets_the_same_numbers_in_any_batch(fitted: bool) -> None:
    processor = fit(ClipADPostProcessor(), images(20, 1)) if fitted else ClipADPostProcessor()
    batch = images(6, 5)
    together = process(processor, batch)
    for index in range(6):
        alone = processor(InferenceBatch(batch.pred_score[index : index + 1], None, batch.anomaly_map[index][None]))
        assert alone.pred_score[0] == together.pred_score[index]
        assert torch.equal(alone.anomaly_map[0], together.anomaly_map[index])


NOBODY = {
    "all normal": {"labels": torch.zeros(8, dtype=torch.bool)},
    "all abnormal": {"labels": torch.ones(8, dtype=torch.bool)},
    "one normal image": {"labels": torch.zeros(1, dtype=torch.bool)},
    "one abnormal image": {"labels": torch.ones(1, dtype=torch.bool)},
    "no masks": {"labels": torch.arange(8) > 3, "masks": False},
    "no masks, all normal": {"labels": torch.zeros(8, dtype=torch.bool), "masks": False},
}


@pytest.mark.parametrize("case", NOBODY)
def test_degenerate_sets_give_defined_results(case: str) -> None:
    options = NOBODY[case]
    validation = images(len(options["labels"]), 6, **options)
    processor = fit(ClipADPostProcessor(), validation)
    assert not any(buffer.isnan() for buffer in processor.buffers())
    output = process(processor, validation)
    assert output.pred_score.isfinite().all()
    assert output.anomaly_map.isfinite().all()
    assert output.pred_label.dtype == output.pred_mask.dtype == torch.bool
    if not options["labels"].any():
        assert not output.pred_label.any()  # nothing normal is flagged


def test_constant_maps_and_probabilities() -> None:
    validation = images(8, 7)
    validation.anomaly_map = torch.full((8, SIDE, SIDE), 0.01)
    validation.pred_score = torch.full((8,), 0.4)
    output = process(fit(ClipADPostProcessor(), validation), validation)
    assert output.pred_score.tolist() == [0.5] * 8
    assert output.anomaly_map.unique().tolist() == [0.5]


def test_masks_without_any_defect_keep_pixels_below_the_threshold() -> None:
    validation = images(8, 8)
    validation.gt_mask = torch.zeros_like(validation.gt_mask)
    output = process(fit(ClipADPostProcessor(), validation), validation)
    assert not output.pred_mask.any()


def test_without_masks_the_pixel_threshold_tells_images_apart_by_their_maxima() -> None:
    validation = images(40, 9, masks=False)
    validation.anomaly_map[validation.gt_label, 0, 0] = 0.2
    processor = fit(ClipADPostProcessor(), validation)
    assert processor.pixel_threshold.item() == pytest.approx(0.2)


def test_sensitivities_move_the_decision_as_in_anomalib() -> None:
    validation = images(40, 10)
    processor = fit(ClipADPostProcessor(image_sensitivity=0.8, pixel_sensitivity=0.1), validation)
    output = process(processor, validation)
    assert torch.equal(output.pred_label, output.pred_score > 0.2)
    assert torch.equal(output.pred_mask, output.anomaly_map > 0.9)


def test_without_normalisation_values_keep_their_scale_and_labels_stay() -> None:
    validation = images(40, 11)
    normalised = process(fit(ClipADPostProcessor(), validation), validation)
    raw = process(fit(ClipADPostProcessor(enable_normalization=False), validation), validation)
    assert torch.equal(raw.anomaly_map, validation.anomaly_map)
    torch.testing.assert_close(raw.pred_score, paper_score(validation, validation))
    assert torch.equal(raw.pred_label, normalised.pred_label)
    assert torch.equal(raw.pred_mask, normalised.pred_mask)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_what_is_not_a_number_is_defective(fitted: bool, normalize: bool) -> None:
    processor = ClipADPostProcessor(enable_normalization=normalize)
    if fitted:
        fit(processor, images(40, 11))
    broken = images(6, 5)
    usual = process(processor, broken)
    broken.pred_score[0] = broken.anomaly_map[1, 2, 3] = torch.nan
    output = process(processor, broken)
    assert output.pred_score[:2].isnan().all()
    assert output.pred_label[:2].all()
    assert torch.equal(output.pred_label[2:], usual.pred_label[2:])
    usual.pred_mask[1, 2, 3] = True
    assert torch.equal(output.pred_mask, usual.pred_mask)


def test_without_thresholding_there_are_no_labels_and_the_same_values() -> None:
    validation = images(20, 1)
    output = process(fit(ClipADPostProcessor(enable_thresholding=False), validation), validation)
    assert output.pred_label is None
    assert output.pred_mask is None
    assert torch.equal(output.pred_score, process(fit(ClipADPostProcessor(), validation), validation).pred_score)


def test_statistics_survive_a_state_dict() -> None:
    processor = fit(ClipADPostProcessor(), images(20, 12))
    twin = ClipADPostProcessor()
    twin.load_state_dict(processor.state_dict())
    batch = images(6, 13)
    torch.testing.assert_close(process(twin, batch).pred_score, process(processor, batch).pred_score)


def test_a_second_validation_replaces_the_first() -> None:
    again = fit(fit(ClipADPostProcessor(), images(20, 14, spread=9.0)), images(20, 15))
    fresh = fit(ClipADPostProcessor(), images(20, 15))
    assert dict(again.named_buffers()) == dict(fresh.named_buffers())


def test_nothing_warns_on_an_ordinary_set() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(ClipADPostProcessor(), images(20, 16))


def test_an_epoch_without_images_fits_nothing() -> None:
    assert all(buffer.isnan() for buffer in fit(ClipADPostProcessor()).buffers())


def test_labels_and_masks_a_batch_has_already_are_kept() -> None:
    batch, processor = images(6, 5), ClipADPostProcessor()
    wanted = process(processor, batch)
    labels, masks = ~wanted.pred_label, ~wanted.pred_mask
    batch.pred_label, batch.pred_mask = labels, masks
    processor.post_process_batch(batch)
    assert torch.equal(batch.pred_score, wanted.pred_score)
    assert torch.equal(batch.anomaly_map, wanted.anomaly_map)
    assert torch.equal(batch.pred_label, labels)
    assert torch.equal(batch.pred_mask, masks)


def test_labels_and_masks_a_batch_lacks_are_added() -> None:
    batch, processor = images(6, 5), ClipADPostProcessor()
    wanted = process(processor, batch)
    processor.post_process_batch(batch)
    assert torch.equal(batch.pred_label, wanted.pred_label)
    assert torch.equal(batch.pred_mask, wanted.pred_mask)


@pytest.mark.parametrize(("score", "anomaly_map", "name"), [(None, 0.0, "pred_score"), (0.5, None, "map")])
def test_what_is_missing_is_named(score: float | None, anomaly_map: float | None, name: str) -> None:
    given = InferenceBatch(
        pred_score=None if score is None else torch.full((1,), score),
        anomaly_map=None if anomaly_map is None else torch.full((1, SIDE, SIDE), anomaly_map),
    )
    with pytest.raises(ValueError, match=f"The batch has no {name}"):
        ClipADPostProcessor()(given)


def test_only_validation_metrics_of_image_scores_get_the_fused_ones() -> None:
    fused, other = AUROC(["pred_score", "gt_label"]), AUROC(["anomaly_map", "gt_mask"], strict=False)
    evaluator, validation = Evaluator(val_metrics=[fused, other]), images(40, 1)
    for metric in evaluator.val_metrics:
        metric.update(validation)
    before = float(other.compute())
    processor = ClipADPostProcessor()
    processor.on_validation_batch_end(None, None, validation)
    processor.on_validation_epoch_end(None, SimpleNamespace(evaluator=evaluator))
    wanted = roc_auc_score(validation.gt_label, paper_score(validation, validation))
    assert float(fused.compute()) == pytest.approx(wanted, abs=1e-6)
    assert wanted != pytest.approx(roc_auc_score(validation.gt_label, validation.pred_score), abs=1e-3)
    assert float(other.compute()) == before


# With a false-alarm rate


def raw_scores(count: int = 19, seed: int = 17) -> NormalScores:
    """Of normal images, as they leave the model."""
    batch = images(count, seed, labels=torch.zeros(count, dtype=torch.bool))
    return NormalScores(batch.pred_score.numpy(), batch.anomaly_map.amax((1, 2)).numpy())


@pytest.mark.parametrize(("asked", "kept"), [(None, 0.1), (0.3, 0.3)])
def test_a_checkpoints_rate_counts_where_no_other_is_asked_for(asked: float | None, kept: float) -> None:
    processor = ClipADPostProcessor(asked)
    processor.load_checkpoint_config({"false_alarm_rate": 0.1})
    assert processor.false_alarm_rate == kept


def test_what_was_fitted_to_other_scores_is_let_go_of() -> None:
    processor = fit(ClipADPostProcessor(0.1), images(20, 1))
    processor.normal = raw_scores()
    assert processor.forget() == ["thresholds and ranges", "calibration"]
    assert processor.normal is None
    assert all(buffer.isnan() for buffer in processor.buffers())
    assert processor.forget() == []


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("fitted", [False, True])
def test_normal_scores_are_on_the_scale_of_the_outputs(fitted: bool, normalize: bool) -> None:
    """So that of the calibration images themselves each has the rank it has among them."""
    processor = ClipADPostProcessor(0.1, enable_normalization=normalize)
    if fitted:
        fit(processor, images(20, 1))
    batch = images(19, 17, labels=torch.zeros(19, dtype=torch.bool))
    processor.normal = raw_scores()
    output = process(processor, batch)
    assert isinstance(output, CertifiedBatch)
    known = processor.normal_scores()
    np.testing.assert_allclose(known.image_scores, output.pred_score, atol=1e-6)
    np.testing.assert_allclose(known.region_scores, output.anomaly_map.amax((1, 2)), atol=1e-6)
    assert known.rate == 0.1
    assert int(output.pred_label.sum()) == 1, "the p-values are 2 and more of 20"
    processor.false_alarm_rate = 0.5
    assert processor.normal_scores().rate == 0.5
    assert int(process(processor, batch).pred_label.sum()) == 9


def test_without_thresholding_there_are_no_verdicts_at_a_rate_either() -> None:
    processor = ClipADPostProcessor(0.1, enable_thresholding=False)
    processor.normal = raw_scores()
    assert process(processor, images(6, 5)).pred_label is None


def test_normal_images_alone_fit_nothing_beside_a_rate() -> None:
    normal = images(20, 1, labels=torch.zeros(20, dtype=torch.bool))
    assert all(buffer.isnan() for buffer in fit(ClipADPostProcessor(0.1), normal).buffers())
    assert not any(buffer.isnan() for buffer in fit(ClipADPostProcessor(0.1), images(20, 1)).buffers())

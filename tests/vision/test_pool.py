"""Images that judge each other: those of the pool, those from outside, and copies."""

import numpy as np
import pytest
import torch
from torch import Tensor

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.detector import Evidence
from anomalib_clipad.vision.pool import Pool, choose, joined, picked
from anomalib_clipad.vision.references import rescore, scores_against
from anomalib_clipad.vision.surgery import calibrate_reference_map

KEYS = ["a", "b", "c", "d", "e"]


@pytest.fixture(params=[0.5, 0.0])
def model(backbone: Backbone, request: pytest.FixtureRequest) -> ClipADModel:
    model = ClipADModel(backbone, text_weight=request.param)
    model.setup("bottle")
    return model


def seen(model: ClipADModel, count: int, seed: int) -> Evidence:
    return model.examine(torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))


def ranged(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min())


def image_scores(peak: Tensor, *evidence: Evidence) -> Tensor:
    """The sum of two min-maxes over all images, that of the peaks rescored; both parts weigh alike."""
    scores = rescore(peak, torch.cat([one.cls for one in evidence]))
    if evidence[0].probability is None:
        return scores
    return scores + ranged(torch.cat([one.probability for one in evidence]))


def test_images_of_the_pool_keep_the_scores_of_the_pool(model: ClipADModel) -> None:
    evidence = seen(model, 5, 0)
    pool = Pool(model.detector, evidence, KEYS)
    torch.testing.assert_close(pool.score, image_scores(pool.peak, evidence))
    found = pool.judge(picked(evidence, [3, 1]), ["d", "b"])
    torch.testing.assert_close(found.anomaly_map.amax(dim=(1, 2)), pool.peak[[3, 1]])
    expected = calibrate_reference_map(pool.score[[3, 1]], outlying(pool.score))
    torch.testing.assert_close(found.pred_score, expected)


def test_an_image_from_outside_has_a_score_of_its_own(model: ClipADModel) -> None:
    evidence, other = seen(model, 5, 0), seen(model, 1, 1)
    pool = Pool(model.detector, evidence, KEYS)
    found = pool.judge(other, ["new"])
    alone = model.detector.judge(other, 4 * scores_against(other.tokens, evidence.tokens))
    torch.testing.assert_close(found.anomaly_map, alone.anomaly_map)
    peak = torch.cat([pool.peak, alone.anomaly_map.amax(dim=(1, 2))])
    expected = image_scores(peak, evidence, other)[-1:]
    torch.testing.assert_close(found.pred_score, calibrate_reference_map(expected, outlying(pool.score)))


def test_images_of_both_kinds_in_a_batch_are_judged_as_alone(model: ClipADModel) -> None:
    evidence, others = seen(model, 5, 0), seen(model, 2, 1)
    pool = Pool(model.detector, evidence, KEYS)
    both = picked(joined([evidence, others]), [0, 5, 6, 4])
    keys = ["a", "x", "y", "e"]
    together = pool.judge(both, keys)
    for row, key in enumerate(keys):
        alone = pool.judge(picked(both, [row]), [key])
        torch.testing.assert_close(together.pred_score[row], alone.pred_score[0])
        torch.testing.assert_close(together.anomaly_map[row], alone.anomaly_map[0])


def test_copies_count_once(model: ClipADModel) -> None:
    evidence = seen(model, 5, 0)
    once = Pool(model.detector, evidence, KEYS)
    often = Pool(model.detector, picked(evidence, [0, 1, 1, 2, 3, 1, 4]), ["a", "b", "b", "c", "d", "b", "e"])
    assert often.rows == once.rows
    torch.testing.assert_close(often.score, once.score)


def outlying(values: Tensor) -> Tensor:
    """Three standard deviations above the median, by the median absolute deviation."""
    spread = 1.4826 * (values - values.median()).abs().median()
    return values.median() + 3 * spread


def test_half_lies_three_spreads_above_the_median_of_the_pool(model: ClipADModel) -> None:
    pool = Pool(model.detector, seen(model, 5, 0), KEYS)
    torch.testing.assert_close(pool.calibration.undecided, outlying(pool.peak))
    assert (pool.calibration.score_weight, pool.calibration.peak_weight) == (1.0, 0.0)


def test_of_more_images_than_the_limit_some_are_chosen_by_a_fixed_seed() -> None:
    assert choose(10, 10) == choose(10, 99) == list(range(10))
    chosen = choose(1000, 100)
    assert chosen == sorted(set(chosen)) == choose(1000, 100)
    assert len(chosen) == 100
    assert np.histogram(chosen, 4, (0, 1000))[0].min() > 10

"""Conformal p-values against crepes, scipy and simulation; certificates; regions."""

import numpy as np
import pytest
import torch
from conftest import Run
from crepes.base import p_values_batch
from scipy.stats import beta, binom

from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.conformal import (
    allowed,
    check_rate,
    false_alarms_at_most,
    images_needed,
    p_values,
    smallest_rate,
    standing_apart,
)
from anomalib_clipad.verdicts.regions import find_regions


@pytest.mark.parametrize("count", [1, 7, 19, 50, 99, 200])
def test_certificates_agree_with_crepes(count: int) -> None:
    """Ties included."""
    rng = np.random.default_rng(count)
    calibration = np.round(rng.random(count), 2).astype(np.float32)
    scores = np.concatenate([calibration, np.round(rng.random(60), 2).astype(np.float32), [-1, 2]]).astype(np.float32)
    expected = p_values_batch(calibration, scores, smoothing=False)
    maps = torch.from_numpy(scores)[:, None, None]
    for rate in (0.01, 0.05, 1 / 3, 0.5):
        verdict = Certificate(torch.from_numpy(calibration), torch.from_numpy(calibration)).judge(
            torch.from_numpy(scores), maps, rate
        )
        np.testing.assert_allclose(verdict.p_value, expected, atol=1e-7)
        np.testing.assert_array_equal(verdict.pred_label, expected <= rate + 1e-9)
        np.testing.assert_array_equal(verdict.pred_mask[:, 0, 0], verdict.pred_label)
    np.testing.assert_allclose(p_values(scores, calibration), expected)


def test_every_rate_of_a_whole_image_counts() -> None:
    """k / (n + 1) in float32 is k images, not k - 1."""
    for count in (19, 99, 999, 4999):
        certificate = Certificate(torch.arange(count).float(), torch.arange(count).float())
        for rank in {1, 2, 3, 7, min(29, count), min(57, count), count // 3, count}:
            rate = rank / (count + 1)
            assert allowed(rate, count) == rank
            values = torch.tensor([count - rank + 0.5, count - rank - 0.5])  # ranks: rank, rank + 1
            verdict = certificate.judge(values, values[:, None, None], rate)
            assert verdict.pred_label.tolist() == [True, False], (count, rank)
            assert verdict.pred_mask.flatten().tolist() == [True, False], (count, rank)


def test_a_rate_below_what_the_images_allow_flags_nothing_but_nan() -> None:
    certificate = Certificate(torch.rand(10), torch.rand(10))
    verdict = certificate.judge(torch.tensor([5.0, torch.nan]), torch.tensor([[[5.0]], [[torch.nan]]]), 0.05)
    assert verdict.pred_label.tolist() == [False, True]
    assert verdict.pred_mask.flatten().tolist() == [False, True]


@pytest.mark.parametrize("count", [19, 50, 200])
def test_the_rate_holds_over_calibration_sets(count: int) -> None:
    """4,000 calibration sets with one image each: exactly floor(rate * (n + 1)) / (n + 1), within binomial error."""
    rng = np.random.default_rng(count)
    draws = rng.standard_normal((4000, count + 1))
    rate = 0.05
    flagged = sum(int(p_values(row[-1:], row[:-1])[0] <= rate) for row in draws)
    expected = allowed(rate, count) / (count + 1)
    low, high = binom.ppf([1e-4, 1 - 1e-4], len(draws), expected)
    assert low <= flagged <= high


@pytest.mark.parametrize("count", [20, 50, 200])
def test_one_set_keeps_its_promise_with_the_stated_confidence(count: int) -> None:
    """Of uniform scores a set's own rate is known: one minus its k-th largest score."""
    sets = np.sort(np.random.default_rng(count).random((20_000, count)), axis=1)
    own = 1 - sets[:, -allowed(0.05, count)]
    promised = false_alarms_at_most(0.05, count)
    assert np.mean(own <= promised) == pytest.approx(0.95, abs=0.006)
    assert promised == pytest.approx(beta.ppf(0.95, allowed(0.05, count), count + 1 - allowed(0.05, count)))


def test_the_promises_of_the_documentation() -> None:
    assert [round(false_alarms_at_most(0.05, n), 3) for n in (20, 50, 200)] == [0.139, 0.091, 0.077]
    assert [images_needed(rate) for rate in (0.5, 0.1, 0.05, 0.01)] == [1, 9, 19, 99]
    for rate in (0.3, 0.07, 0.0123):
        assert smallest_rate(images_needed(rate)) <= rate < smallest_rate(images_needed(rate) - 1)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan"), True, "0.1", None])
def test_rates_outside_the_open_interval_are_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="share between 0 and 1"):
        check_rate(rate)


def test_scores_that_are_no_numbers_do_not_certify() -> None:
    with pytest.raises(ValueError, match="1 of the image_scores are no numbers"):
        Certificate(torch.tensor([0.1, torch.nan]), torch.rand(2))
    with pytest.raises(ValueError, match="one for each calibration image"):
        Certificate(torch.rand(3), torch.rand(2))


def test_scores_that_stand_apart() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(0.3, 0.02, 40)
    assert standing_apart(np.append(normal, [0.9, 0.8])) == [40, 41]
    assert standing_apart([0.1] * 5 + [0.9]) == []
    noted = sum(bool(standing_apart(rng.normal(size=40))) for _ in range(500))
    assert noted < 25  # normal images alone: in less than one set of twenty


def test_regions_are_those_of_the_mask() -> None:
    rng = np.random.default_rng(1)
    normal = rng.random(39).astype(np.float32)
    picture = np.full((20, 30), 0.1, np.float32)
    picture[2:5, 3:9], picture[5, 9], picture[14:17, 20:22] = 1.5, 2.0, 1.2  # the first two touch at a corner
    regions = find_regions(picture, normal, 0.05)
    assert [region.box for region in regions] == [(3, 2, 10, 6), (20, 14, 22, 17)]
    assert [region.area for region in regions] == [19, 6]
    assert [region.p_value for region in regions] == [1 / 40, 1 / 40]
    mask = Certificate(torch.from_numpy(normal), torch.from_numpy(normal)).judge(
        torch.zeros(1), torch.from_numpy(picture)[None], 0.05
    )
    assert int(mask.pred_mask.sum()) == 25
    assert find_regions(picture, normal, 0.02) == []
    assert find_regions(np.full((4, 4), np.nan, np.float32), normal, 0.05)[0].area == 16


@pytest.mark.slow
def test_verdicts_and_files_need_neither_anomalib_nor_lightning(run_python: Run) -> None:
    run_python(
        """
import sys
import anomalib_clipad.verdicts.drift, anomalib_clipad.verdicts.regions, anomalib_clipad.verdicts.certificate
import anomalib_clipad.deploy.certify, anomalib_clipad.predictor.runtimes, anomalib_clipad.deploy.verification
import anomalib_clipad.tools.verify
found = {name.partition(".")[0] for name in sys.modules} & {"anomalib", "lightning", "pytorch_lightning"}
assert not found, found
"""
    )

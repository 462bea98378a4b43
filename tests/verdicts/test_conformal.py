"""What n calibration images promise, against scipy and simulation."""

import numpy as np
import pytest
from conftest import Run
from scipy.stats import beta, binom

from anomalib_clipad.verdicts.conformal import (
    allowed,
    check_rate,
    false_alarms_at_most,
    images_needed,
    smallest_rate,
    standing_apart,
)
from anomalib_clipad.verdicts.normal_scores import NormalScores


@pytest.mark.parametrize("count", [19, 50, 200])
def test_the_rate_holds_over_calibration_sets(count: int) -> None:
    """4,000 calibration sets with one image each: exactly floor(rate * (n + 1)) / (n + 1), within binomial error."""
    rng = np.random.default_rng(count)
    draws = rng.standard_normal((4000, count + 1))
    rate = 0.05
    flagged = sum(NormalScores(row[:-1], row[:-1]).p_value(row[-1]) <= rate for row in draws)
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


def test_scores_that_stand_apart() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(0.3, 0.02, 40)
    assert standing_apart(np.append(normal, [0.9, 0.8])) == [40, 41]
    assert standing_apart([0.1] * 5 + [0.9]) == []
    noted = sum(bool(standing_apart(rng.normal(size=40))) for _ in range(500))
    assert noted < 25  # normal images alone: in less than one set of twenty


@pytest.mark.parametrize("count", [20, 30, 50])
def test_scores_of_good_images_rarely_stand_apart_and_a_defect_does(count: int) -> None:
    """Scores are probabilities: evenly spread as log-odds, they crowd at one end of [0, 1], with a long tail."""
    rng = np.random.default_rng(count)
    odds = rng.normal(-4, 1, (500, count))
    scores = 1 / (1 + np.exp(-odds))
    assert sum(bool(standing_apart(row)) for row in scores) < 25
    assert all(standing_apart(np.append(row, 0.98)) == [count] for row in scores)  # eight deviations above the mean


def test_defects_do_not_hide_each_other() -> None:
    odds = np.append(np.random.default_rng(0).normal(-2, 0.5, 38), [3, 3.1])
    assert standing_apart(1 / (1 + np.exp(-odds))) == [39, 38]


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

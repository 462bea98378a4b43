"""Verdicts on parts that several pictures show: exact for parts, whatever the views have to do with each other."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, median_abs_deviation, rankdata

from anomalib_clipad.verdicts.conformal import allowed
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.verdicts.parts import NormalParts

VIEWS = ("top", "left", "right", "front", "back")


def defective(p_value: float, rate: float, count: int) -> bool:
    return p_value * (count + 1) <= allowed(rate, count)


def plainly(normal: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """The p-value by its definition, all parts alike: the best rank of each counts, then how far out it lies there."""
    every = np.vstack([normal, new])
    ranks = np.stack([rankdata(-view, "max") for view in every.T], axis=1)
    out = np.stack([(view - np.median(view)) / median_abs_deviation(view) for view in every.T], axis=1)
    best = [min(zip(rank, -far, strict=True)) for rank, far in zip(ranks, out, strict=True)]
    return sum(one <= best[-1] for one in best) / len(best)


def test_the_p_value_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    for count in (3, 7, 40):
        normal = rng.random((count, 3))
        parts = NormalParts(normal, VIEWS[:3])
        for new in [*rng.random((20, 3)), np.full(3, 2.0)]:
            assert parts.score(new).p_value == pytest.approx(plainly(normal, new))


def test_one_view_gives_the_p_value_of_images() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random(30)
    parts, images = NormalParts(scores[:, None], ["only"]), NormalScores(scores, scores)
    for new in [*rng.random(20), *scores[:5], scores[7] + 5e-6, np.nan]:
        assert parts.score([new]).p_value == pytest.approx(images.p_value(new))


@pytest.mark.parametrize("dependence", [0.0, 0.7, 1.0], ids=["independent", "dependent", "one and the same"])
def test_the_rate_is_that_of_parts(dependence: float) -> None:
    """Within binomial error over many calibration sets, and not far below it either."""
    rng, rate, count, sets = np.random.default_rng(2), 0.1, 39, 3000

    def draw(parts: int) -> NDArray[np.float64]:
        common, own = rng.normal(size=(parts, 1)), rng.normal(size=(parts, len(VIEWS)))
        return dependence * common + np.sqrt(1 - dependence**2) * own

    alarms = 0
    for _ in range(sets):
        normal, new = draw(count), draw(1)[0]
        alarms += defective(NormalParts(normal, VIEWS).score(new).p_value, rate, count)
    assert binomtest(alarms, sets, rate, "greater").pvalue > 0.001
    assert alarms / sets > 0.8 * rate


def test_it_finds_more_than_one_rate_shared_by_all_views() -> None:
    """Bonferroni: each view at a fifth of the rate, which 39 parts do not even allow."""
    rng, rate, count, tries = np.random.default_rng(3), 0.1, 99, 300
    found = shared = 0
    for _ in range(tries):
        normal, new = rng.normal(size=(count, 5)) + rng.normal(size=(count, 1)), rng.normal(size=5) + rng.normal()
        new[1] += 3.5
        found += defective(NormalParts(normal, VIEWS).score(new).p_value, rate, count)
        images = [NormalScores(view, view) for view in normal.T]
        shared += any(one.p_value(value) <= rate / 5 for one, value in zip(images, new, strict=True))
    assert found > shared


def test_the_view_that_raised_it_is_named() -> None:
    normal = np.random.default_rng(4).random((19, 5))
    for place, view in enumerate(VIEWS):
        new = np.full(5, 0.5)
        new[place] = 2.0
        assert NormalParts(normal, VIEWS).score(new).view == view


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.1, np.nan]], "1 scores of normal parts are no numbers"),
        ([[0.1]], r"Expected scores of shape \(parts, 2\)"),
        (np.empty((0, 2)), r"Expected scores of shape \(parts, 2\)"),
    ],
)
def test_what_are_no_scores_is_refused(scores: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NormalParts(scores, ["a", "b"])  # type: ignore[arg-type]


def test_too_few_parts_for_a_rate_are_said() -> None:
    with pytest.raises(ValueError, match="takes 19 normal parts or more, each seen in all views; there are 4"):
        NormalParts(np.zeros((4, 2)), ["a", "b"]).check(0.05)

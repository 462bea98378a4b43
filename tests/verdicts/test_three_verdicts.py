"""Three verdicts: the definition, both promises over many splits, ties, what is no number, refusals, JSON."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom

from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.conformal import TIE
from anomalib_clipad.verdicts.defect_scores import VERDICTS, DefectScores
from anomalib_clipad.verdicts.normal_scores import NormalScores


def defects_of(scores: object, rate: float | None = 0.1) -> DefectScores:
    """The same scores of images and regions."""
    values = np.asarray(scores, np.float32)
    return DefectScores(values, values, rate)


def calibration(normal: object, defects: object, rates: tuple[float, float]) -> NormalScores:
    """The same scores of images and regions, of normal and of defective ones."""
    values = np.asarray(normal, np.float32)
    return NormalScores(values, values, rates[0], defects=defects_of(defects, rates[1]))


def by_definition(score: float, normal: list[float], defects: list[float], rates: tuple[float, float]) -> int:
    """Two p-values and the rule, written out; scores on a grid, so that ties are exact."""
    p_normal = (1 + sum(one >= score for one in normal)) / (len(normal) + 1)
    p_defect = (1 + sum(one <= score for one in defects)) / (len(defects) + 1)
    defective, good = p_normal <= rates[0] + 1e-9, p_defect <= rates[1] + 1e-9
    if defective and good:
        return VERDICTS.index("look")
    return VERDICTS.index("defective" if defective else "good" if good else "look")


@pytest.mark.parametrize("rates", [(0.05, 0.1), (0.1, 0.05), (0.3, 0.3), (0.5, 0.6)])
@pytest.mark.parametrize(("shift", "seed"), [(0.0, 1), (0.2, 2), (0.8, 3)])
def test_verdicts_are_those_of_the_definition(rates: tuple[float, float], shift: float, seed: int) -> None:
    """In numpy and in a graph, of images and of regions, with overlap, some, and none."""
    rng = np.random.default_rng(seed)
    normal, defects = np.round(rng.random(24) * 0.6, 2), np.round(rng.random(23) * 0.6 + shift, 2)
    own = calibration(normal, defects, rates)
    scores = np.round(np.concatenate([np.arange(0, 1.5, 0.01), [-1, 3]]), 2).astype(np.float32)
    lists = [[float(np.float32(one)) for one in values] for values in (normal, defects)]
    expected = [by_definition(float(score), *lists, rates) for score in scores]
    assert set(expected) >= ({0, 1, 2} if shift else {0, 1})
    assert own.judge(scores).tolist() == expected
    assert own.judge(scores, regions=True).tolist() == expected
    found = Certificate(own).judge(torch.from_numpy(scores), torch.zeros(len(scores), 1, 1), rates[0])
    assert found.verdict is not None
    assert found.verdict.tolist() == expected
    assert found.verdict.dtype == torch.int64


def test_a_score_that_is_rare_on_both_sides_is_to_look_at() -> None:
    own = calibration(np.linspace(0, 0.3, 19), np.linspace(0.7, 1, 9), (0.05, 0.1))
    assert own.judge([0.1, 0.5, 0.75]).tolist() == [0, 1, 2]


def test_what_is_no_number_is_never_good() -> None:
    own = calibration(np.linspace(0, 0.3, 19), np.linspace(0.2, 1, 9), (0.05, 0.1))
    assert own.judge([np.nan, np.inf, -np.inf]).tolist() == [2, 2, 0]
    scores = torch.tensor([torch.nan, torch.inf, -torch.inf])
    found = Certificate(own).judge(scores, torch.zeros(3, 1, 1), 0.05)
    assert found.verdict is not None
    assert found.verdict.tolist() == [2, 2, 0]
    assert own.defects is not None
    assert own.defects.p_values([np.nan, -np.inf]).tolist() == [1, 0.1]


def test_a_score_within_a_tie_is_as_low_as_a_known_defect() -> None:
    """So it is not called good by a rounding error, in numpy as in a graph."""
    own = calibration(np.linspace(0, 0.3, 19), np.linspace(0.5, 0.9, 9), (0.05, 0.1))
    scores = np.array([0.5, 0.5 - 0.9 * TIE, np.float32(0.5) - np.float32(TIE), 0.5 - 1.5 * TIE], np.float32)
    assert own.defects is not None
    assert own.defects.ranks(scores).tolist() == [2, 2, 2, 1]
    found = Certificate(own).judge(torch.from_numpy(scores), torch.zeros(4, 1, 1), 0.05)
    assert found.verdict is not None
    assert found.verdict.tolist() == own.judge(scores).tolist() == [2, 2, 2, 1]


def test_both_rates_hold_over_many_splits() -> None:
    """Of normal images at most the first share is called defective, of defects at most the second called good."""
    rng, rates, splits = np.random.default_rng(7), (0.05, 0.1), 2000
    alarms = misses = 0
    for _ in range(splits):
        own = calibration(rng.normal(0, 1, 99), rng.normal(1.5, 1, 19), rates)
        alarms += int(own.judge(rng.normal(0, 1, 1))[0] == 2)
        misses += int(own.judge(rng.normal(1.5, 1, 1))[0] == 0)
    # some of what is rare on one side is rare on the other side, too: at most the rates
    assert binom.sf(alarms - 1, splits, rates[0]) > 1e-3
    assert binom.sf(misses - 1, splits, rates[1]) > 1e-3
    assert alarms > 0.5 * splits * rates[0]
    assert misses > 0.5 * splits * rates[1]


def test_the_rate_of_one_set_of_defects_spreads_as_is_said() -> None:
    """Beta distributed: of 20 known defects 95 % of sets keep the bound."""
    rng, shares = np.random.default_rng(8), []
    for _ in range(3000):
        own = defects_of(rng.random(20))
        limit = np.sort(own.image_scores)[own.rank - 1]  # scores of defects are even here: the share below it
        shares.append(float(limit))
    assert beta.ppf(0.95, 2, 19) == pytest.approx(0.216, abs=1e-3)
    assert np.mean(np.array(shares) <= 0.2161) == pytest.approx(0.95, abs=0.012)
    said = defects_of(rng.random(20)).promise()
    assert said.startswith("10 % of defects called good, from 20 known ones; at most 21.6 % with 95 % confidence")
    assert "nothing for kinds of defects that are not among them" in said
    both = calibration(rng.random(20), rng.random(20), (0.05, 0.1)).promise(0.1)
    assert both == f"10 % false alarms, from 20 images; at most 21.6 % with 95 % confidence; {said}"


def test_what_cannot_be_promised_is_refused() -> None:
    scores = np.linspace(0, 1, 19)
    for count, rate in ((8, 0.1), (18, 0.05), (0, 0.5)):
        words = "one for each known defect" if not count else rf"{rate:g} takes {round(1 / rate - 1)} known defects"
        with pytest.raises(ValueError, match=words):
            defects_of(np.zeros(count), rate)
    assert [defects_of(np.zeros(count), rate).rank for count, rate in ((9, 0.1), (19, 0.05))] == [1, 1]
    for rate in (0, 1, -0.1, True, "0.1"):
        with pytest.raises(ValueError, match="miss_rate has to be a share between 0 and 1"):
            DefectScores(scores, scores, rate)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 of the image_scores are no numbers"):
        DefectScores(np.array([0.5, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match="region_scores for each of 19 known defects; got 3"):
        DefectScores(scores, np.zeros(3))
    with pytest.raises(ValueError, match="one identity for each of 19"):
        DefectScores(scores, scores, identities=({},))
    for without in (
        NormalScores(scores, scores, 0.05),
        NormalScores(scores, scores, 0.05, defects=defects_of([1], None)),
    ):
        assert not without.three
        assert Certificate(without).judge(torch.zeros(1), torch.zeros(1, 1, 1), 0.05).verdict is None
        with pytest.raises(ValueError, match="take known defects and a miss rate"):
            without.judge([0.5])
    with pytest.raises(ValueError, match=r"0\.01 takes 99 normal images"):
        calibration(scores, scores, (0.05, 0.1)).judge([0.5], 0.01)


def test_json_and_digest_know_the_defects() -> None:
    rng = np.random.default_rng(9)
    scores, bad = rng.random(19), rng.random(9)
    own = NormalScores(
        scores, scores, 0.05, defects=DefectScores(bad, bad[::-1], 0.1, tuple({"name": str(n)} for n in range(9)))
    )
    again = NormalScores.from_json(own.to_json())
    assert own.defects is not None
    assert again.defects is not None
    assert again.defects.to_plain() == own.defects.to_plain()
    assert again.judge(scores).tolist() == own.judge(scores).tolist()
    assert again.digest() == own.digest()
    without = NormalScores(scores, scores, 0.05)
    assert "defects" not in without.to_json()  # what was written before stays as it was
    others = [NormalScores(scores, scores, 0.05, defects=defects_of(bad, rate)) for rate in (0.2, 0.3)]
    others.append(NormalScores(scores, scores, 0.05, defects=defects_of(bad + 0.1)))
    assert len({one.digest() for one in (own, without, *others)}) == 5
    with pytest.raises(ValueError, match="calibration scores are damaged"):
        NormalScores.from_json(own.to_json().replace('"miss_rate": 0.1', '"miss_rate": 0.01'))

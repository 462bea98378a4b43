"""Verdicts by scores of normal images: against crepes, in numpy and in a graph, at ties, in JSON."""

import json

import numpy as np
import pytest
import torch
from conftest import Run
from crepes.base import p_values_batch

from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.conformal import TIE, allowed
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.verdicts.regions import find_regions

DRAWS = np.random.default_rng(0)


def both(scores: object, rate: float | None = None) -> NormalScores:
    """The same scores of images and regions."""
    return NormalScores(np.asarray(scores, np.float32), np.asarray(scores, np.float32), rate)


@pytest.mark.parametrize("count", [1, 7, 19, 50, 99, 200])
def test_p_values_are_those_of_crepes(count: int) -> None:
    """Ties included, near-ties not."""
    rng = np.random.default_rng(count)
    calibration = np.round(rng.random(count), 2).astype(np.float32)
    scores = np.concatenate([calibration, np.round(rng.random(60), 2).astype(np.float32), [-1, 2]]).astype(np.float32)
    expected = p_values_batch(calibration, scores, smoothing=False)
    normal = NormalScores(calibration, np.zeros(count))
    np.testing.assert_allclose(normal.p_values(scores), expected)
    assert [normal.p_value(float(one)) for one in scores] == normal.p_values(scores).tolist()
    peaks = NormalScores(np.zeros(count), calibration)
    assert [peaks.region_p_value(float(one)) for one in scores] == normal.p_values(scores).tolist()


@pytest.mark.parametrize("count", [1, 7, 19, 99, 200])
@pytest.mark.parametrize("rate", [0.01, 0.05, 1 / 3, 0.5, 0.99])
def test_labels_and_masks_are_where_the_p_value_is_at_most_the_rate(count: int, rate: float) -> None:
    """In numpy and in a graph, with scores on, a little above and a little below a tie."""
    rng = np.random.default_rng(count)
    calibration = np.round(rng.random(count), 2).astype(np.float32)
    steps = (0, TIE, -TIE, 0.9 * TIE, 1.1 * TIE, 2 * TIE, 3e-8, -3e-8, 6e-8, -6e-8)
    near = [np.nextafter(np.float32(one + TIE), np.float32(to)) for one in calibration[:20] for to in (0, 9)]
    scores = np.array([*(one + step for one in calibration for step in steps), *near, -1, 2, np.nan], np.float32)
    normal = both(calibration)
    verdict = Certificate(normal).judge(torch.from_numpy(scores), torch.from_numpy(scores)[:, None, None], rate)
    p_values = normal.p_values(scores)
    np.testing.assert_allclose(verdict.p_value, p_values, atol=1e-7)
    if not allowed(rate, count):
        np.testing.assert_array_equal(verdict.pred_label, np.isnan(scores))
        with pytest.raises(ValueError, match=f"calibrated on {count}"):
            normal.limits(rate)
        return
    limits = normal.limits(rate)
    defective = p_values <= rate + 1e-9
    assert [not float(one) <= limits.score for one in scores] == defective.tolist()
    assert [not float(one) <= limits.region for one in scores] == defective.tolist()
    np.testing.assert_array_equal(verdict.pred_label, defective)
    np.testing.assert_array_equal(verdict.pred_mask[:, 0, 0], defective)
    assert [bool(find_regions(np.full((1, 1), one), limits.region)) for one in scores] == defective.tolist()


def test_the_same_image_in_a_batch_and_alone_is_a_tie() -> None:
    """Its scores differ in their last bits."""
    normal = both([0.5, 0.25, 0.75])
    assert normal.p_value(float(np.nextafter(np.float32(0.75), np.float32(1)))) == 0.5
    assert normal.p_value(0.75 + 3e-5) == 0.25
    assert normal.region_p_value(0.75 + 5e-6) == 0.5
    assert normal.limits(0.25).score == pytest.approx(0.75, abs=2 * TIE)


def test_images_and_regions_have_scores_of_their_own() -> None:
    normal = NormalScores(np.array([0.1, 0.2, 0.3]), np.array([0.7, 0.8, 0.9]), 0.25)
    assert (normal.p_value(0.5), normal.region_p_value(0.5)) == (0.25, 1)
    assert normal.limits() == pytest.approx((0.3, 0.9), abs=2 * TIE)
    verdict = Certificate(normal).judge(torch.tensor([0.5]), torch.tensor([[[0.5]]]), 0.25)
    assert (bool(verdict.pred_label), bool(verdict.pred_mask)) == (True, False)


def test_every_rate_of_a_whole_image_counts() -> None:
    """k / (n + 1) in float32 is k images, not k - 1."""
    for count in (19, 99, 999, 4999):
        normal = both(np.arange(count))
        certificate = Certificate(normal)
        for rank in {1, 2, 3, 7, min(29, count), min(57, count), count // 3, count}:
            rate = rank / (count + 1)
            assert allowed(rate, count) == rank
            values = torch.tensor([count - rank + 0.5, count - rank - 0.5])  # ranks: rank, rank + 1
            verdict = certificate.judge(values, values[:, None, None], rate)
            assert verdict.pred_label.tolist() == [True, False], (count, rank)
            assert verdict.pred_mask.flatten().tolist() == [True, False], (count, rank)
            assert values[1] < normal.limits(rate).score < values[0]


def test_a_rate_below_what_the_images_allow_flags_nothing_but_nan() -> None:
    certificate = Certificate(both(DRAWS.random(10)))
    verdict = certificate.judge(torch.tensor([5.0, torch.nan]), torch.tensor([[[5.0]], [[torch.nan]]]), 0.05)
    assert verdict.pred_label.tolist() == [False, True]
    assert verdict.pred_mask.flatten().tolist() == [False, True]


def test_what_is_no_number_has_the_smallest_p_value() -> None:
    normal = both([0.1, 0.2, 0.3, 0.4])
    assert (normal.p_value(np.nan), normal.region_p_value(np.nan), normal.p_value(np.inf)) == (0.2, 0.2, 0.2)
    assert normal.p_value(-np.inf) == 1


def test_scores_of_batches_and_the_maxima_of_their_maps() -> None:
    maps = DRAWS.random((5, 4, 6)).astype(np.float32)
    scores = DRAWS.random(5).astype(np.float32)
    normal = NormalScores.of([(scores[:2], maps[:2]), (scores[2:], maps[2:])], rate=0.2, left_out=True)
    np.testing.assert_array_equal(normal.image_scores, scores)
    np.testing.assert_array_equal(normal.region_scores, [one.max() for one in maps])
    assert (len(normal), normal.rate, normal.left_out) == (5, 0.2, True)
    with pytest.raises(ValueError, match="no normal images"):
        NormalScores.of([])


def test_what_is_no_calibration_is_refused() -> None:
    good = np.array([0.1, 0.2])
    for scores, words in (([0.1, np.nan], "1 of the image_scores are no numbers"), ([], "one for each normal image")):
        with pytest.raises(ValueError, match=words):
            NormalScores(np.array(scores), good)
    with pytest.raises(ValueError, match="1 of the region_scores are no numbers"):
        NormalScores(good, np.array([0.1, np.inf]))
    with pytest.raises(ValueError, match=r"region_scores of shape \(n,\), one for each normal image; got \(3,\)"):
        NormalScores(good, np.zeros(3))
    with pytest.raises(ValueError, match="share between 0 and 1"):
        NormalScores(good, good, rate=1.5)
    with pytest.raises(ValueError, match="one identity for each of 2"):
        NormalScores(good, good, identities=({"name": "a"},))
    with pytest.raises(ValueError, match="no false-alarm rate of their own"):
        NormalScores(good, good).limits()
    with pytest.raises(ValueError, match=r"0\.1 takes 9 normal images or more; the model is calibrated on 2"):
        NormalScores(good, good).limits(0.1)


def test_promises_are_at_its_own_rate_or_another() -> None:
    normal = both(DRAWS.random(20), 0.05)
    assert normal.promise() == "5 % false alarms, from 20 images; at most 13.9 % with 95 % confidence"
    assert normal.promise(0.1) == "10 % false alarms, from 20 images; at most 21.6 % with 95 % confidence"
    left_out = NormalScores(normal.image_scores, normal.region_scores, 0.05, left_out=True)
    assert "5 % false alarms, from 20 references, each left out in turn" in left_out.promise()


def test_images_stand_apart_by_their_score_or_their_peak() -> None:
    scores, peaks = (DRAWS.normal(0.3, 0.02, 40) for _ in range(2))
    scores[7], peaks[3] = 0.9, 0.9
    assert NormalScores(scores, peaks).standing_apart() == [3, 7]


def test_what_looks_wrong_is_named() -> None:
    scores, peaks = (DRAWS.normal(0.3, 0.02, 40) for _ in range(2))
    scores[7] = 0.9
    names = tuple({"name": f"{row}.png"} for row in range(40))
    assert "The scores of 7.png stand apart" in str(NormalScores(scores, peaks, identities=names).doubt())
    assert "The scores of image 8 stand apart" in str(NormalScores(scores, peaks).doubt())
    assert NormalScores(peaks, peaks).doubt() is None


def test_json_keeps_all_of_it() -> None:
    about = {"rate": 0.05, "left_out": True, "computed_in": "bfloat16", "identities": ({"name": "a"}, {"name": "b"})}
    normal = NormalScores(DRAWS.random(2), DRAWS.random(2), **about)
    again = NormalScores.from_json(normal.to_json())
    np.testing.assert_array_equal(again.image_scores, normal.image_scores)
    np.testing.assert_array_equal(again.region_scores, normal.region_scores)
    assert {name: getattr(again, name) for name in about} == about
    assert again.digest() == normal.digest()


def test_json_of_version_0_2_0_is_read() -> None:
    old = {"image_scores": [0.5, 0.25], "region_scores": [0.75, 0.5], "false_alarm_rate": 0.4, "leave_one_out": True}
    normal = NormalScores.from_json(json.dumps(old))
    assert normal.image_scores.tolist() == [0.5, 0.25]
    assert normal.region_scores.tolist() == [0.75, 0.5]
    assert (normal.rate, normal.left_out, normal.computed_in, normal.identities) == (0.4, True, "float32", ())
    for damage in ({"image_scores": []}, {"region_scores": None}, {"false_alarm_rate": "much"}, {"identities": 3}):
        with pytest.raises(ValueError, match="calibration scores are damaged"):
            NormalScores.from_json(json.dumps({**old, **damage}))
    for text in ("{", "[]", "{}", "null"):
        with pytest.raises(ValueError, match="calibration scores are damaged"):
            NormalScores.from_json(text)


def test_a_digest_tells_calibrations_apart() -> None:
    scores, peaks = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6])
    own = NormalScores(scores, peaks, 0.3)
    assert own.digest() == NormalScores(scores[::-1], peaks[::-1], 0.3, computed_in="bfloat16").digest()
    others = [
        NormalScores(scores + 1e-4 * (scores == 0.2), peaks, 0.3),
        NormalScores(scores, peaks + 1e-4 * (peaks == 0.5), 0.3),
        NormalScores(scores, peaks, 0.31),
        NormalScores(scores, peaks, 0.3, left_out=True),
        NormalScores(peaks, scores, 0.3),
    ]
    assert len({own.digest(), *(one.digest() for one in others)}) == 6


@pytest.mark.slow
def test_it_is_quick_to_import(run_python: Run) -> None:
    run_python(
        """
import sys
import anomalib_clipad.verdicts.normal_scores, anomalib_clipad.verdicts.regions
found = {name.partition(".")[0] for name in sys.modules} & {"torch", "crepes", "scipy", "sklearn"}
assert not found, found
"""
    )

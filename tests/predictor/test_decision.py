"""From raw outputs to scores, and the limits that labels follow."""

import numpy as np
import pytest
import torch

from anomalib_clipad.predictor.decision import STATISTICS, Decision, unfitted
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.detector import Prediction
from anomalib_clipad.vision.surgery import SDP, ScoreScale

REFERENCES = ScoreScale(lambda values: values / 4, torch.tensor(2.0), score_weight=0.5, peak_weight=1.0)
"""The scale of a model with references, between whose map values 2 lies in the middle."""
FITTED = dict(zip(STATISTICS, map(torch.tensor, (0.0, 1.0, 0.0, 4.0, 0.0, 1.5, 0.6, 0.0, 4.0, 2.5)), strict=True))


def decision(fitted: bool, normalize: bool, label: bool = True) -> Decision:
    statistics = FITTED if fitted else dict.fromkeys(STATISTICS, torch.tensor(torch.nan))
    return Decision(statistics, REFERENCES, normalize, label, (0.4, 0.3))


def test_the_fitted_score_weighs_text_and_references_by_their_shares() -> None:
    fused = decision(True, False).fused(torch.tensor([0.5]), torch.tensor([1.0]))
    assert float(fused) == pytest.approx(0.5 * 0.5 + 1.0 * 0.25)


@pytest.mark.parametrize(
    ("fitted", "normalize", "limits"),
    [(True, True, (0.6, 0.7)), (False, True, (0.6, 0.7)), (True, False, (0.6, 2.5)), (False, False, (0.5, 2.0))],
)
def test_labels_follow_the_limits(fitted: bool, normalize: bool, limits: tuple[float, float]) -> None:
    one = decision(fitted, normalize)
    assert tuple(one.limits()) == pytest.approx(limits)
    raw = Prediction(torch.linspace(0, 1, 9), anomaly_map=torch.linspace(0, 4, 9).repeat(9, 2, 1))
    found = one(raw)
    assert torch.equal(found.pred_label, found.pred_score > limits[0])
    assert torch.equal(found.pred_mask, found.anomaly_map > limits[1])


def test_it_tells_whether_it_was_fitted() -> None:
    assert decision(True, True).fitted
    assert not decision(False, True).fitted
    assert not unfitted().fitted


def test_without_labels_there_are_no_limits() -> None:
    assert decision(True, True, label=False).limits() is None
    assert unfitted().limits() == (0.5, 0.5)
    assert unfitted().scale == SDP


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_normal_scores_are_scaled_as_outputs_are(fitted: bool, normalize: bool) -> None:
    one = decision(fitted, normalize)
    score, peak = torch.tensor([0.1, 0.5, 0.8]), torch.tensor([1.0, 3.0, 2.0])
    scaled = one.scaled(NormalScores(score.numpy(), peak.numpy(), 0.3, computed_in="bfloat16"))
    found = one(Prediction(score, anomaly_map=peak[:, None, None].expand(3, 2, 2)))
    np.testing.assert_allclose(scaled.image_scores, found.pred_score)
    np.testing.assert_allclose(scaled.region_scores, found.anomaly_map.amax((1, 2)))
    assert (scaled.rate, scaled.computed_in) == (0.3, "bfloat16")

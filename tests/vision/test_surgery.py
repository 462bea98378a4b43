"""Feature surgery against the formula spelled out per patch and class."""

import pytest
import torch
from torch.nn.functional import normalize

from anomalib_clipad.vision import surgery
from anomalib_clipad.vision.surgery import (
    SDP,
    SDP_PLUS,
    ScoreScale,
    abnormal_probability,
    abnormal_response,
    calibrate_adapted_map,
    calibrate_map,
    class_weights,
)


def test_the_response_is_the_abnormal_product_less_the_mean_of_both() -> None:
    patches = normalize(torch.randn(2, 9, 8), dim=-1)
    cls = normalize(torch.randn(2, 8), dim=-1)
    text = normalize(torch.randn(8, 2), dim=0)
    response = abnormal_response(patches, cls, text)
    for image in range(2):
        weights = 2 * torch.softmax(cls[image] @ text, dim=0)
        products = torch.stack([weights[state] * (patches[image] * text[:, state]) for state in range(2)])
        surgery = (products - products.mean(dim=0)).sum(dim=-1)
        torch.testing.assert_close(response[image], surgery[1])


def test_class_weights_have_mean_one() -> None:
    weights = class_weights(normalize(torch.randn(5, 8), dim=-1), normalize(torch.randn(8, 2), dim=0))
    torch.testing.assert_close(weights.mean(dim=1), torch.ones(5))


def test_the_probability_is_clips_softmax_at_100() -> None:
    text = torch.eye(3)[:, :2]
    cls = torch.tensor([[0.6, 0.61, 0.0], [0.8, 0.8, 0.0]])
    assert abnormal_probability(cls, text).tolist() == pytest.approx([1 / (1 + torch.e**-1), 0.5], abs=1e-5)


def test_a_calibrated_map_is_the_softmax_of_the_mean_stage() -> None:
    """Four stages with class weights 1 and cosines s_n, s_a."""
    normal, abnormal = torch.tensor([0.20, 0.21]), torch.tensor([0.22, 0.205])
    summed = 4 * (abnormal - normal) / 2
    softmax = torch.stack([100 * normal, 100 * abnormal]).softmax(dim=0)[1]
    torch.testing.assert_close(calibrate_map(summed), softmax)


def test_a_calibrated_map_of_sdp_plus_is_nearly_the_mean_within_zero_and_one() -> None:
    means = torch.tensor([-1.0, 0.0, 0.1, 0.3, 0.5, 0.9, 1.0, 2.0])
    calibrated = calibrate_adapted_map(4 * means).tolist()
    assert calibrated == pytest.approx([0.00001, 0.04150, 0.10768, 0.30002, 0.5, 0.89232, 0.95850, 0.99999], abs=1e-5)


@pytest.mark.parametrize("calibration", [SDP, SDP_PLUS])
def test_a_calibration_is_one_half_where_it_is_undecided(calibration: ScoreScale) -> None:
    assert calibration.probability(torch.tensor(calibration.midpoint)) == 0.5


def test_the_former_name_of_the_scale_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="now called ScoreScale"):
        assert surgery.Calibration is ScoreScale

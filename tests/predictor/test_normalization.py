"""Fusion and normalisation as pure functions."""

from collections.abc import Callable

import pytest
import torch

from anomalib_clipad.predictor.normalization import min_max, normalize_monotone


def scalars(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value) for value in values]


def test_the_threshold_is_at_one_half_and_everything_within_zero_and_one() -> None:
    values = torch.tensor([-1e6, -1.0, 0.2, 0.3, 0.4, 5.0, 1e6])
    normalised = normalize_monotone(values, *scalars(0.0, 1.0, 0.3))
    assert normalised[3] == 0.5
    assert ((normalised >= 0) & (normalised <= 1)).all()


def test_it_increases_strictly_far_outside_the_fitted_range() -> None:
    values = torch.linspace(-50, 50, 2001)
    assert (normalize_monotone(values, *scalars(0.0, 1.0, 0.7)).diff() > 0).all()


def test_one_fitted_range_above_the_threshold_is_nine_tenths() -> None:
    assert normalize_monotone(torch.tensor(2.5), *scalars(0.0, 2.0, 0.5)).item() == pytest.approx(0.9)


@pytest.mark.parametrize("function", [min_max, lambda *x: normalize_monotone(*x, x[1])])
def test_an_empty_range_is_no_division_by_zero(function: Callable) -> None:
    result = function(torch.tensor([0.1, 0.2, 0.3]), *scalars(0.2, 0.2))
    assert result.isfinite().all()
    assert (result.diff() > 0).all()


def test_min_max_is_zero_to_one_on_the_fitted_range() -> None:
    assert min_max(torch.tensor([2.0, 3.0, 4.0]), *scalars(2.0, 4.0)).tolist() == [0, 0.5, 1]

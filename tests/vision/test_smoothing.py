"""Smoothing as a matrix against torch's interpolation and scipy's Gaussian filter."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from anomalib_clipad.vision.smoothing import smooth, smoothing_matrix


@pytest.mark.parametrize("sigma", [0, 0.7, 2, 8, 100])
@pytest.mark.parametrize(("grid", "size"), [(15, 240), (4, 64), (24, 336), (1, 16)])
def test_a_smoothed_map_is_interpolated_then_filtered(grid: int, size: int, sigma: float) -> None:
    patch_map = torch.randn(2, grid * grid, dtype=torch.float64)
    pixels = interpolate(patch_map.view(2, 1, grid, grid), size=(size, size), mode="bilinear")[:, 0]
    filtered = torch.stack([torch.from_numpy(gaussian_filter(image.numpy(), sigma)) for image in pixels])
    ours = smooth(patch_map.float(), smoothing_matrix(grid, size, sigma))
    torch.testing.assert_close(ours, filtered.float(), atol=1e-5, rtol=0)


def test_a_constant_map_stays_constant() -> None:
    torch.testing.assert_close(
        smooth(torch.full((1, 225), 0.3), smoothing_matrix(15, 240, 8)), torch.full((1, 240, 240), 0.3)
    )

"""Upsampling and Gaussian smoothing as one matrix per axis: both are linear and separable."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn.functional import interpolate


def smoothing_matrix(grid: int, size: int, sigma: float) -> Tensor:
    """The map from ``grid`` patches to ``size`` smoothed pixels along one axis.

    Bilinear interpolation (``align_corners=False``), then ``scipy.ndimage.gaussian_filter`` as it is by default:
    truncated at four sigma, mirrored at the borders.

    Args:
        grid: Number of patches.
        size: Number of pixels.
        sigma: Standard deviation of the Gaussian in pixels; 0 leaves the interpolation as it is.

    Returns:
        Matrix A (size, grid); the smoothed map of a patch map P is A P A^T.
    """
    upsampled = interpolate(torch.eye(grid, dtype=torch.float64)[None], size=size, mode="linear")[0].T.numpy()
    smoothed = gaussian_filter1d(upsampled, sigma, axis=0) if sigma else upsampled
    return torch.from_numpy(np.ascontiguousarray(smoothed)).float()


def smooth(patch_map: Tensor, matrix: Tensor) -> Tensor:
    """Smoothed pixel maps (B, H, W) of square patch maps (B, N), by ``smoothing_matrix``."""
    grid = matrix.shape[1]
    return matrix @ patch_map.unflatten(1, (grid, grid)) @ matrix.T

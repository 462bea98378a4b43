"""Upsampling and Gaussian smoothing as one matrix per axis: both are linear and separable."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d, interpolate, pad


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

    Example:
        Two patches become four pixels, without a Gaussian.

        >>> smoothing_matrix(grid=2, size=4, sigma=0)
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500],
                [0.2500, 0.7500],
                [0.0000, 1.0000]])
    """
    upsampled = interpolate(torch.eye(grid, dtype=torch.float64)[None], size=size, mode="linear")[0].T.numpy()
    return _blurred(upsampled, sigma)


def upsampling_matrix(grid: int, size: int) -> Tensor:
    """Bilinear interpolation with ``align_corners=True`` along one axis: (size, grid)."""
    identity = torch.eye(grid, dtype=torch.float32)[None]
    return interpolate(identity, size=size, mode="linear", align_corners=True)[0].T.contiguous()


def blur_matrix(size: int, sigma: float) -> Tensor:
    """The Gaussian of ``smoothing_matrix`` alone, along one axis of a map that has its pixels already: (size, size)."""
    return _blurred(np.eye(size), sigma)


def patch_blur(grid: int, kernel: int, sigma: float, padding: Literal["zeros", "reflect"]) -> Tensor:
    """A short Gaussian over patches along one axis: matrix (grid, grid).

    Args:
        grid: Number of patches; more than half the kernel where the border reflects.
        kernel: Patches under the Gaussian, odd; its weights there sum to 1.
        sigma: Standard deviation in patches.
        padding: What is beyond the border: ``zeros``, which make patches at the edge smaller, or ``reflect``, the
            patches before the edge, the edge itself not repeated.
    """
    offsets = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    identity = torch.eye(grid, dtype=torch.float64)[:, None]  # columns, each a line of patches
    beyond = pad(identity, (kernel // 2, kernel // 2), mode="constant" if padding == "zeros" else "reflect")
    return conv1d(beyond, (weights / weights.sum())[None, None])[:, 0].T.contiguous().float()


def _blurred(columns: NDArray[np.float64], sigma: float) -> Tensor:
    from scipy.ndimage import gaussian_filter1d  # an exported file has its matrices, and starts faster without

    smoothed = gaussian_filter1d(columns, sigma, axis=0) if sigma else columns
    return torch.from_numpy(np.ascontiguousarray(smoothed)).float()


def smooth(patch_map: Tensor, matrix: Tensor) -> Tensor:
    """Smoothed pixel maps (B, H, W) of square patch maps (B, N), by ``smoothing_matrix``."""
    grid = matrix.shape[1]
    return matrix @ patch_map.unflatten(1, (grid, grid)) @ matrix.T

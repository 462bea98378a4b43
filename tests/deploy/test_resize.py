"""The resize of exports against torchvision's."""

import pytest
import torch
from torchvision.transforms.v2.functional import InterpolationMode, resize

from anomalib_clipad.deploy.resize import MatrixResize, cubic_matrix


@pytest.mark.parametrize("given", [(64, 64), (240, 240), (33, 50), (900, 700), (41, 1024), (2, 3)])
def test_it_is_torchvisions_antialiased_bicubic(given: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *given)
    expected = resize(images, [64, 64], InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(MatrixResize((64, 64))(images), expected, atol=2e-6, rtol=0)


def test_the_same_size_changes_nothing() -> None:
    torch.testing.assert_close(cubic_matrix(48, 48), torch.eye(48), atol=1e-6, rtol=0)

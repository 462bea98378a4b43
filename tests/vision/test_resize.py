"""The resize against Pillow's and torchvision's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HAZELNUT
from pictures import noise
from PIL import Image
from torch.export import Dim
from torchvision import tv_tensors
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize
from torchvision.transforms.v2.functional import resize

from anomalib_clipad.vision.matrix_resize import MatrixResize, Standardize, resize_matrix
from anomalib_clipad.vision.resize import PillowResize

SIZES = [(64, 64), (97, 64), (300, 400), (900, 701), (41, 1024), (240, 100), (600, 300), (90, 70), (2, 3)]
RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def as_images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).movedim(-1, 0)[None] / 255


def pillows(pixels: np.ndarray, size: int, interpolation: str = "bicubic") -> torch.Tensor:
    """The width before the height, as all versions of Pillow did before 13."""
    image, filtering = Image.fromarray(pixels), RESAMPLING[interpolation]
    return as_images(np.asarray(image.resize((size, image.height), filtering).resize((size, size), filtering)))


@pytest.mark.parametrize("given", SIZES)
def test_images_are_pillows(given: tuple[int, int]) -> None:
    assert torch.equal(PillowResize((240, 240))(as_images(noise(0, *given))), pillows(noise(0, *given), 240))


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize("given", SIZES)
def test_matrix_products_are_pillows_too(given: tuple[int, int], interpolation: str) -> None:
    found = MatrixResize([240, 240], interpolation)(as_images(noise(0, *given)))
    wanted = pillows(noise(0, *given), 240, interpolation)
    assert torch.equal(found, wanted)


@pytest.mark.skipif(not HAZELNUT.exists(), reason="the photographs are not part of the repository")
def test_photographs_are_pillows() -> None:
    with Image.open(next(HAZELNUT.glob("test/colour/*.jpg"))) as image:
        pixels = np.asarray(image.convert("RGB"))
    found, wanted = MatrixResize([240, 240])(as_images(pixels)), pillows(pixels, 240)
    assert torch.equal(found, wanted)
    assert torch.equal(PillowResize((240, 240))(as_images(pixels)), wanted)


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_without_whole_levels_it_is_torchvisions(interpolation: str) -> None:
    images = torch.rand(2, 3, 90, 41)
    expected = resize(images, [64, 64], InterpolationMode(interpolation), antialias=True)
    found = MatrixResize([64, 64], interpolation, whole_levels=False)(images)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_the_same_size_changes_nothing(interpolation: str) -> None:
    assert torch.equal(resize_matrix(48, 48, interpolation), torch.eye(48, dtype=torch.float64))
    images = as_images(noise(0, 48, 48))
    assert torch.equal(MatrixResize([48, 48], interpolation)(images), images)
    assert torch.equal(PillowResize((48, 48))(images), images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.2, 3.0])
def test_values_that_pillow_cannot_hold_are_treated_as_in_exports(value: float) -> None:
    images = as_images(noise(0, 90, 70))
    images[0, 1, 40, 30] = value
    found = PillowResize((64, 64))(images)
    torch.testing.assert_close(found, MatrixResize([64, 64])(images), atol=0, rtol=0, equal_nan=True)
    assert found[0, 1].isnan().any() == (not np.isfinite(value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_between_levels_are_rounded_first(dtype: torch.dtype) -> None:
    images = torch.rand(1, 3, 90, 70, dtype=dtype, generator=torch.Generator().manual_seed(0))
    wanted = pillows((255 * images[0]).round().byte().movedim(0, -1).numpy(), 64)
    assert torch.equal(PillowResize((64, 64))(images), wanted)
    assert torch.equal(MatrixResize([64, 64])(images), wanted)


def test_images_stay_on_their_device() -> None:
    assert PillowResize((64, 48))(torch.zeros(1, 3, 90, 70, device="meta")).device.type == "meta"


def test_images_may_have_any_number_of_channels_and_dimensions() -> None:
    images = as_images(noise(0, 90, 70))
    wanted = PillowResize((64, 48))(images)
    assert torch.equal(PillowResize((64, 48))(images[0]), wanted[0])
    assert torch.equal(PillowResize((64, 48))(images[:, :1]), wanted[:, :1])
    assert torch.equal(PillowResize((64, 48))(images[None]), wanted[None])


def test_images_of_whole_numbers_are_antialiased_too() -> None:
    pixels = noise(0, 300, 400)
    found = PillowResize((64, 64))(torch.from_numpy(pixels).movedim(-1, 0))
    assert found.dtype == torch.uint8
    torch.testing.assert_close(found / 255, pillows(pixels, 64)[0], atol=1.01 / 255, rtol=0)


def test_masks_are_resized_bilinearly_and_cut_at_one_half() -> None:
    mask = np.zeros((90, 70), np.uint8)
    mask[20:47, 33:61] = 255
    wanted = np.asarray(Image.fromarray(mask).resize((64, 64), Image.Resampling.BILINEAR)) / 255 > 0.5
    transform = Compose([PillowResize((64, 64)), Normalize([0.5] * 3, [0.5] * 3)])
    given = tv_tensors.Mask(torch.from_numpy(mask > 0)[None])
    images, masks = transform(tv_tensors.Image(torch.rand(1, 3, 90, 70)), given)
    assert images.shape == (1, 3, 64, 64)
    assert masks.dtype == torch.bool
    assert np.array_equal(masks[0].numpy(), wanted)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_masks_keep_their_dtype(dtype: torch.dtype) -> None:
    mask = PillowResize((8, 8))(tv_tensors.Mask(torch.ones(1, 9, 7, dtype=dtype)))
    assert type(mask) is tv_tensors.Mask
    assert torch.equal(mask.as_subclass(torch.Tensor), torch.ones(1, 8, 8, dtype=dtype))


def test_what_goes_in_comes_out() -> None:
    transform, image = PillowResize((64, 64)), as_images(noise(0, 90, 70))
    assert type(transform(image)) is torch.Tensor
    assert type(transform(tv_tensors.Image(image))) is tv_tensors.Image
    picture = Image.fromarray(noise(0, 90, 70))
    assert np.array_equal(transform(picture), picture.resize((64, 64), Image.Resampling.BICUBIC))


def test_standardised_images_are_torchvisions() -> None:
    images, mean, std = torch.rand(2, 3, 5, 7), [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]
    assert torch.equal(Standardize(mean, std)(images), Normalize(mean, std)(images))


def test_other_interpolations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Only bicubic and bilinear .* not nearest"):
        MatrixResize([8, 8], "nearest")


@pytest.mark.slow
def test_an_exported_resize_is_pillows(tmp_path: Path) -> None:
    """Whole numbers decide how a value half-way between two levels is rounded; a runtime has to keep them exact."""
    sides = {2: Dim("height", min=2), 3: Dim("width", min=2)}
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    example, path = torch.zeros(2, 3, 70, 90), tmp_path / "resize.onnx"
    torch.onnx.export(MatrixResize([304, 304]), (example,), path, input_names=["images"], dynamic_shapes=(sides,),
                      opset_version=18, dynamo=True, verbose=False)  # fmt: skip
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    for given in [(200, 200), (280, 320), (240, 260), (97, 64), (600, 300)]:
        (found,) = session.run(None, {"images": as_images(noise(0, *given)).repeat(2, 1, 1, 1).numpy()})
        np.testing.assert_allclose(found[:1], pillows(noise(0, *given), 304).numpy(), atol=1e-6)

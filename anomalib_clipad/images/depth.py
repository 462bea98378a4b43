"""Grey images of more than 8 bits: values in [0, 1] by the depth that the file states.

Pillow's own conversion of such images to RGB clips every value at 255. Colour images need no care: of 16 bits Pillow
takes the upper 8.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)
_BITS_PER_SAMPLE, _WHITE_IS_ZERO, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_FULL_SCALE = 2**16 - 1
_DARK = 2**14
_warned: set[Path] = set()


class UnknownDepthError(ValueError):
    """The file does not tell which value is white."""


def grey_levels(image: Image.Image, path: str | Path) -> tuple[np.ndarray | None, str | None]:
    """Values of a grey image of more than 8 bits, 0 for black and 1 for white.

    Warns, once for each folder, where a 16-bit file may hold values of a camera of fewer bits.

    Args:
        image: As ``Image.open`` gives it, its pixels not loaded yet.
        path: Its file, to be named in a warning.

    Returns:
        (H, W) float32, or None for all other images, which Pillow converts to RGB at the right scale; and what there is
        to say of a 16-bit file that may be dark.

    Raises:
        UnknownDepthError: If the file does not tell which value is white, or Pillow cannot read its layout.
    """
    raw_modes = _raw_modes(image)  # gone once the pixels are loaded
    sixteen_bit = any(";16" in raw_mode for raw_mode in raw_modes)
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS_PER_SAMPLE, (8,)))
    if image.mode != "F" and not image.mode.startswith("I"):
        if bits > 8 and not sixteen_bit:
            msg = f"its {bits}-bit colours are stored as separate planes, without compression"
            raise UnknownDepthError(msg)
        if not sixteen_bit:
            return None, None
        brightest = 256 * int(np.asarray(image.convert("RGB")).max()) + 255  # of 16 bits Pillow gives 8
        return None, _remark_if_dark(path, brightest)
    values, remark = np.asarray(image), None
    if image.mode == "F":
        _check_unit_range(values)
        full_scale = 1
    else:
        full_scale = _integer_scale(image, bits, values)
        if sixteen_bit:
            remark = _remark_if_dark(path, int(values.max()))
    levels = values.astype(np.float32) / np.float32(full_scale)
    return (1 - levels if tags.get(_WHITE_IS_ZERO) == 0 else levels), remark


def _raw_modes(image: Image.Image) -> list[str]:
    """How the file stores its pixels, as Pillow's decoders call it, such as ``I;16B``."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(value[0] if isinstance(value, tuple) and value else value) for value in arguments]


def _integer_scale(image: Image.Image, bits: int, values: np.ndarray) -> int:
    """The value of white."""
    if image.format == "TIFF":
        signed = 2 in image.tag_v2.get(_SAMPLE_FORMAT, (1,))  # type: ignore[attr-defined]  # TIFF has tags
        if bits <= 16 and not signed:
            return 2**bits - 1
        kind = f"{'signed ' if signed else ''}{bits}-bit integers"
    elif image.mode != "I" or image.format in {"PNG", "PPM"}:  # of PGM, Pillow scales any depth to 16 bits
        return _FULL_SCALE
    else:
        kind = f"{image.format or '32-bit'} integers"
    msg = f"it holds {kind}, here from {values.min()} to {values.max()}, and does not tell which value is white"
    raise UnknownDepthError(msg)


def _check_unit_range(values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        msg = f"it holds floats from {low:g} to {high:g}; only floats from 0 to 1 have a known scale"
        raise UnknownDepthError(msg)


def _remark_if_dark(path: str | Path, brightest: int) -> str | None:
    folder = Path(path).parent
    if not 0 < brightest < _DARK:
        return None
    if folder not in _warned:
        _warned.add(folder)
        logger.warning(
            "The 16-bit image %s has no value above %d, and white is %d. If its camera gives fewer bits, such as 12, "
            "the model sees a dark image: scale the values of all files in this folder to 16 bits.",
            path,
            brightest,
            _FULL_SCALE,
        )
    return (
        f"its 16 bits hold no value above {brightest}, and white is {_FULL_SCALE}: if its camera gives fewer bits, the "
        "model sees a dark image, and its values are to be scaled to 16 bits"
    )

"""The tiny CLIP of the two neighbours, and what their authors' modules compute on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from conftest import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

from anomalib_clipad import load_backbone
from anomalib_clipad.backbones import Backbone

SIZE, GRID = 112, 7
CLASSES = ("bottle", "metal_nut", "bottle", "bottle")
"""Of the four images, in training."""


FILES = {
    "af_clip": {"neighbours_prompt.pt": "visa_prompt.pt", "neighbours_adaptor.pt": "visa_adaptor.pt"},
    "aa_clip": {
        "neighbours_image_adapter.pth": "image_adapter.pth",
        "neighbours_text_adapter.pth": "text_adapter.pth",
    },
}
"""What the authors call their two files."""


def authors(folder: Path, variant: str) -> Path:
    """A new folder of the authors' two files, in another one."""
    made = folder / f"authors_{variant}"
    made.mkdir()
    for name, theirs in FILES[variant].items():
        shutil.copy(GOLDEN / name, made / theirs)
    return made


def numbers() -> dict[str, Tensor]:
    """The expected numbers; what is stored as float16 is exact in float32."""
    stored = load_file(GOLDEN / "neighbours_expected.safetensors")
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in stored.items()}


def weights(expected: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of a method, by their names without the prefix."""
    return {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}


def tiny(folder: Path, quick_gelu: bool, size: int | None = SIZE) -> Backbone:
    """The tiny CLIP at the size of the expected numbers."""
    config = json.loads((GOLDEN / "tiny_neighbours.json").read_text())
    path = folder / f"tiny_{quick_gelu}.json"
    path.write_text(json.dumps({**config, "quick_gelu": quick_gelu}))
    return load_backbone(str(path), str(GOLDEN / "tiny_neighbours.safetensors"), size)


def close(given: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal to an absolute tolerance."""
    torch.testing.assert_close(given.detach(), expected, atol=tolerance, rtol=0)


def close_gradient(given: Tensor | None, expected: Tensor) -> None:
    """Equal to a thousandth of the largest entry."""
    assert given is not None
    close(given, expected, 1e-3 * float(expected.abs().max()))


def close_loss(given: Tensor, expected: Tensor) -> None:
    """Equal to 1e-4 of its value, or absolutely where it is small."""
    close(given, expected, 1e-4 * max(1.0, float(expected.abs().max())))

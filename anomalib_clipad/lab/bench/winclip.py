"""Throughput beside WinClip's, which has one backbone; its weights are random here too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from anomalib.models.image.winclip import torch_model as winclip_module

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.torch_model import ClipADModel

from .comparison import CLASS, SHOTS, Comparison, random_model, remembering
from .timing import interleaved


def winclip(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """With the text alone."""
    yield from _beside_winclip(backbone, batch_size, repeats, random_model, 0)


def few_shot_winclip(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """With normal images, as many for both."""
    yield from _beside_winclip(backbone, batch_size, repeats, remembering, SHOTS)


def _beside_winclip(
    backbone: str, batch_size: int, repeats: int, make: Callable[..., ClipADModel], shots: int
) -> Iterator[Comparison]:
    loaded = load_backbone(backbone, None)
    exact, rounded = make(loaded), make(loaded, precision="bfloat16")
    with patch.object(winclip_module, "PRETRAINED", None):
        peer = winclip_module.WinClipModel(CLASS, torch.randn(shots, 3, 240, 240) if shots else None).eval()
    size = exact.image_size
    images, theirs = torch.randn(batch_size, 3, size, size), torch.randn(batch_size, 3, 240, 240)
    runs = {"float32": partial(exact, images), "bfloat16": partial(rounded, images), "WinClip": partial(peer, theirs)}
    with torch.inference_mode():
        seconds = interleaved(runs, min(repeats, 3))
    rate = {name: batch_size / value for name, value in seconds.items()}
    ours, its = (f"k_shot {shots}, ", f"WinClip, k_shot {shots}") if shots else ("", "WinClip")
    for name in ("float32", "bfloat16"):
        yield Comparison(f"{ours}{name}, images/s", rate[name], its, rate["WinClip"])

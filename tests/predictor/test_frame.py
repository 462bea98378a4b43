"""What a pre-processing shows of an image: the whole of it, or what stands in the way."""

import pytest
import torch
from anomalib.data.transforms import SquarePad
from torch import nn
from torchvision.transforms import v2

from anomalib_clipad import ClipAD
from anomalib_clipad.deploy.transforms import exportable
from anomalib_clipad.predictor.frame import frame
from anomalib_clipad.vision.resize import PillowResize

NORMALIZE = v2.Normalize([0.5] * 3, [0.5] * 3)


class Letterbox(nn.Module):
    """A transform of somebody else."""


class Normalize(v2.Normalize):
    """Another by a name that is known."""


@pytest.mark.parametrize(
    "transform",
    [
        None,
        nn.Identity(),
        NORMALIZE,
        v2.Resize((64, 48)),
        v2.Resize([64, 64]),
        PillowResize((64, 64)),
        v2.Compose([v2.Grayscale(3), v2.Compose([v2.Resize((64, 64))]), v2.ToDtype(torch.float32), NORMALIZE]),
        nn.Sequential(v2.Resize((64, 64)), nn.Identity()),
        exportable(v2.Compose([PillowResize((64, 64)), NORMALIZE])),
        ClipAD.configure_pre_processor().transform,
    ],
)
def test_stretched_to_one_size_it_is_the_whole_image(transform: nn.Module | None) -> None:
    assert frame(transform) == "whole"


@pytest.mark.parametrize(
    ("transform", "described"),
    [
        (v2.CenterCrop(64), "CenterCrop"),
        (v2.RandomCrop(64), "RandomCrop"),
        (v2.Pad(3), "Pad"),
        (SquarePad(), "SquarePad"),
        (v2.RandomHorizontalFlip(), "RandomHorizontalFlip"),
        (v2.Resize(64), "Resize(64) keeps the aspect"),
        (v2.Resize([64]), "Resize(64) keeps the aspect"),
        (v2.Resize(None, max_size=64), "Resize(None) keeps the aspect"),
        (v2.Compose([v2.Resize(80), v2.CenterCrop(64), NORMALIZE]), "Resize(80) keeps the aspect, CenterCrop"),
        (nn.Sequential(v2.Compose([SquarePad(), v2.Resize((64, 64))])), "SquarePad"),
        (Letterbox(), "Letterbox"),
        (Normalize([0.5] * 3, [0.5] * 3), "Normalize"),
        (len, "len"),
    ],
)
def test_what_stands_in_the_way_is_named(transform: object, described: str) -> None:
    assert frame(transform) == described

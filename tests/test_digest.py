"""Every byte of a tensor counts for its digest, and so does its place."""

import pytest
import torch

from anomalib_clipad.digest import digest

WEIGHT = torch.arange(4096, dtype=torch.float32).view(64, 64)


def swapped(first: int, second: int, words: int) -> torch.Tensor:
    """The weight with two runs of 4-byte words in each other's place."""
    flat = WEIGHT.flatten().clone()
    flat[first : first + words], flat[second : second + words] = (
        WEIGHT.flatten()[second : second + words],
        WEIGHT.flatten()[first : first + words],
    )
    return flat.view(64, 64)


@pytest.mark.parametrize(
    "changed",
    [
        swapped(0, 2, 2),  # neighbours of 8 bytes
        swapped(0, 64, 64),  # rows within a kilobyte
        swapped(0, 256, 256),  # kilobytes
        WEIGHT.flip(0),
        WEIGHT.view(32, 128),
        WEIGHT.double(),
        WEIGHT.view(torch.int32),
        torch.where(WEIGHT == 17, -WEIGHT, WEIGHT),
        torch.where((WEIGHT == 17) | (WEIGHT == 19), -WEIGHT, WEIGHT),
    ],
)
def test_any_change_changes_it(changed: torch.Tensor) -> None:
    assert digest({"weight": changed}) != digest({"weight": WEIGHT})


def test_names_belong_to_their_tensors() -> None:
    one, two = torch.zeros(3), torch.ones(3)
    assert digest({"a": one, "b": two}) != digest({"a": two, "b": one})
    assert digest({"a": one, "b": two}) == digest({"b": two, "a": one})


def test_details_count() -> None:
    assert len({digest({"a": WEIGHT}), digest({"a": WEIGHT}, "GELU"), digest({"a": WEIGHT}, "GELU", (0.5,))}) == 3


def test_memory_layout_does_not_count() -> None:
    assert digest({"a": WEIGHT.t()}) == digest({"a": WEIGHT.t().contiguous()})


@pytest.mark.parametrize("tensor", [torch.tensor(3.0), torch.zeros(0, 4), torch.ones(3, dtype=torch.bfloat16)])
def test_any_tensor_has_one(tensor: torch.Tensor) -> None:
    assert len(digest({"a": tensor})) == 64

"""Losses of SDP+: the reference's numbers, and the formulas written out."""

import torch
from torch import Tensor

from anomalib_clipad.adaptors.losses import adapter_losses, dice_loss, focal_loss, total
from anomalib_clipad.adaptors.sdp_plus import SDPPlus
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.dual_path import dual_path


def test_three_steps_are_the_references(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    """The golden batch mixes two classes: bottle, metal_nut, bottle, metal_nut."""
    adapter = SDPPlus(64, 32, 4, 64)
    layers = {name.removeprefix("adapter/"): value for name, value in expected.items() if name.startswith("adapter/")}
    adapter.load_state_dict({**layers, "trained": torch.tensor(True)})
    with torch.no_grad():
        stages = dual_path(backbone.clip.visual, expected["images"], patches=True)
    patches = [stage.ordinary[:, 1:] for stage in stages]
    text = torch.stack([expected[f"text/{name}/dbscan"] for name in ("bottle", "metal_nut") * 2])
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        loss = total(adapter_losses(adapter(patches, text), expected["train/masks"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), expected["train/losses"], atol=1e-5, rtol=0)
    for name, value in adapter.named_parameters():
        torch.testing.assert_close(value.detach(), expected[f"train/after3/{name}"], atol=1e-6, rtol=0)


def test_the_losses_are_the_formulas() -> None:
    torch.manual_seed(0)
    probability, mask = torch.rand(3, 5, 6), (torch.rand(3, 5, 6) > 0.6).float()
    onehot = torch.stack([1 - mask, mask], dim=1).clamp(1e-5, 1 - 1e-5)
    pt = (onehot * torch.stack([1 - probability, probability], dim=1)).sum(dim=1) + 1e-5
    torch.testing.assert_close(focal_loss(probability, mask), (-((1 - pt) ** 2) * pt.log()).mean())
    dice = [1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1) for p, m in zip(probability, mask, strict=True)]
    torch.testing.assert_close(dice_loss(probability, mask), torch.stack(dice).mean())


def test_masks_are_binarised_and_every_layer_counts() -> None:
    probabilities = torch.rand(4, 2, 8, 8, requires_grad=True)
    soft = torch.full((2, 8, 8), 0.51)
    losses = adapter_losses(probabilities, soft)
    assert list(losses) == [f"{term}_{layer}" for layer in range(1, 5) for term in ("focal", "dice")]
    torch.testing.assert_close(total(losses), total(adapter_losses(probabilities, torch.ones(2, 8, 8))))
    total(losses).backward()
    assert (probabilities.grad.flatten(1).abs().sum(dim=1) > 0).all()

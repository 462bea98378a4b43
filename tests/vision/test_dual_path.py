"""The dual path against the reference's features and against a plain re-reading of the formulas."""

import copy

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.dual_path import dual_path, project_features

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 12, "width": 32, "patch_size": 16, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tower(layers: int = 12, image_size: int = 48, quick_gelu: bool = False) -> nn.Module:
    torch.manual_seed(3)
    config = copy.deepcopy(CONFIG)
    config["vision_cfg"] |= {"layers": layers, "image_size": image_size}
    return open_clip.CLIP(**config, quick_gelu=quick_gelu).visual.eval().requires_grad_(False)


def attention(block: nn.Module, left: Tensor, right: Tensor, value: Tensor) -> Tensor:
    """softmax(left right^T / sqrt(d)) value, head by head, through out_proj."""
    heads, width = block.attn.num_heads, value.shape[-1]
    size = width // heads
    outputs = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = (left[..., part] @ right[..., part].transpose(1, 2) / size**0.5).softmax(dim=-1)
        outputs.append(weights @ value[..., part])
    return torch.cat(outputs, dim=-1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def formulas(visual: nn.Module, images: Tensor, quirk: bool) -> list[tuple[Tensor, Tensor]]:
    """(s, tapped h) of the four stages, all tokens, by the formulas of (docs/algorithm.md, Dual path)."""
    h = visual.conv1(images).flatten(2).transpose(1, 2)
    h = torch.cat([visual.class_embedding.expand(len(h), 1, -1), h], dim=1) + visual.positional_embedding
    h = visual.ln_pre(h)
    blocks = visual.transformer.resblocks
    stage, s, surgeries, clean, mutated = len(blocks) // 4, None, [], [], []
    for i, block in enumerate(blocks):
        y = block.ln_1(h)
        q, k, v = (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=-1)
        h = h + attention(block, q, k, v)
        if i % stage == 0 and i > 0:
            mutated.append(h)
        g = attention(block, v, v, v)
        s = g if i % stage == 0 else s + g
        h = h + block.mlp(block.ln_2(h))
        if (i + 1) % stage == 0:
            surgeries.append(s)
            clean.append(h)
    return list(zip(surgeries, [*mutated, h] if quirk else clean, strict=True))


def test_ordinary_features_are_the_references(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    stages = dual_path(backbone.clip.visual, expected["images"], patches=True)
    for stage, features in zip(stages, expected["taps/original"], strict=True):
        torch.testing.assert_close(stage.ordinary, features, atol=1e-4, rtol=0)


def test_surgery_features_are_the_references(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    visual = backbone.clip.visual
    for stage, features in zip(dual_path(visual, expected["images"]), expected["taps/surgery"], strict=True):
        tokens = torch.cat([stage.ordinary, stage.surgery], dim=1)
        torch.testing.assert_close(visual.ln_post(tokens) @ visual.proj, features, atol=1e-4, rtol=0)
        ours = project_features(visual, tokens)
        torch.testing.assert_close(ours, normalize(features, dim=-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tap", ["reference", "block"])
@pytest.mark.parametrize(("layers", "image_size"), [(4, 48), (8, 64), (12, 48), (24, 32), (12, 112)])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_both_paths_are_the_formulas(layers: int, image_size: int, quick_gelu: bool, tap: str) -> None:
    visual = tower(layers, image_size, quick_gelu)
    images = torch.randn(2, 3, image_size, image_size)
    stages = dual_path(visual, images, tap, patches=True)
    for ours, (surgery, ordinary) in zip(stages, formulas(visual, images, tap == "reference"), strict=True):
        torch.testing.assert_close(ours.surgery, surgery[:, 1:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.ordinary, ordinary, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tap", ["reference", "block"])
def test_cls_alone_is_the_same_cls(tap: str) -> None:
    visual, images = tower(), torch.randn(2, 3, 48, 48)
    for short, full in zip(dual_path(visual, images, tap), dual_path(visual, images, tap, patches=True), strict=True):
        torch.testing.assert_close(short.ordinary, full.ordinary[:, :1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(short.surgery, full.surgery, atol=1e-5, rtol=1e-4)


def test_the_last_cls_is_clips_image_embedding(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    clip = backbone.clip
    ours = project_features(clip.visual, dual_path(clip.visual, expected["images"])[-1].ordinary).squeeze(1)
    torch.testing.assert_close(ours, clip.encode_image(expected["images"], normalize=True), atol=1e-5, rtol=0)


def test_the_reference_tap_differs_from_the_clean_one_in_the_first_three_stages() -> None:
    visual, images = tower(), torch.randn(1, 3, 48, 48)
    differ = [
        not torch.allclose(reference.ordinary, clean.ordinary, atol=1e-4)
        for reference, clean in zip(dual_path(visual, images), dual_path(visual, images, "block"), strict=True)
    ]
    assert differ == [True, True, True, False]


def test_layer_scale_is_applied_to_both_paths() -> None:
    """A scaled block is a block whose output projections are scaled."""
    visual = tower(4)
    scaled = copy.deepcopy(visual)
    for block, twin in zip(visual.transformer.resblocks, scaled.transformer.resblocks, strict=True):
        twin.ls_1 = open_clip.transformer.LayerScale(32, 0.5)
        block.attn.out_proj.weight *= 0.5
        block.attn.out_proj.bias *= 0.5
    images = torch.randn(1, 3, 48, 48)
    for ours, twin in zip(dual_path(visual, images), dual_path(scaled, images), strict=True):
        torch.testing.assert_close(ours.surgery, twin.surgery, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.ordinary, twin.ordinary, atol=1e-5, rtol=1e-4)


def test_the_open_clip_model_is_not_modified(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    visual = backbone.clip.visual
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    modules = [(name, type(module), dict(vars(module))) for name, module in visual.named_modules()]
    dual_path(visual, expected["images"])
    assert modules == [(name, type(module), dict(vars(module))) for name, module in visual.named_modules()]
    assert all(torch.equal(value, visual.state_dict()[name]) for name, value in before.items())

"""AA-CLIP: the authors' numbers on a tiny CLIP."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from neighbours import CLASSES, GRID, SIZE, close, close_gradient, close_loss, numbers, tiny, weights
from torch import Tensor

from anomalib_clipad.adaptors.aa_clip import (
    AAClip,
    stage_one_features,
)
from anomalib_clipad.adaptors.aa_clip_losses import (
    detection_score,
    level_losses,
    level_maps,
    orthogonality,
    stage_one_losses,
    stage_two_losses,
)
from anomalib_clipad.adaptors.aa_clip_text import described
from anomalib_clipad.adaptors.base import Shape
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.positions import resize_positions
from anomalib_clipad.vision.references import ranged
from anomalib_clipad.vision.smoothing import patch_blur, smooth, upsampling_matrix

UNITS, MAPS, SCORES = 1e-5, 1e-4, 2e-5
UPSAMPLING = upsampling_matrix(GRID, SIZE)


class World(NamedTuple):
    expected: dict[str, Tensor]
    backbone: Backbone
    layers: AAClip
    visual: Any

    def text(self, names: tuple[str, ...] = CLASSES) -> Tensor:
        known = {name: self.layers.vectors(self.backbone.clip, self.backbone.tokenizer, name) for name in {*names}}
        return torch.stack([known[name] for name in names])


def build(folder: Path) -> World:
    expected, backbone = numbers(), tiny(folder, quick_gelu=False)
    layers = AAClip(Shape(64, 16, 32, GRID, SIZE))
    known = {"trained": torch.tensor(True), "relu": torch.tensor(False)}
    layers.load_state_dict(weights(expected, "aa/weights/") | known)
    return World(expected, backbone, layers, backbone.clip.visual)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("aa_clip"))


@pytest.fixture(scope="module")
def projected(world: World) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return world.layers.project(world.visual, world.layers.stages(world.visual, world.expected["images"]))


def test_positions_are_bicubic_and_antialiased(world: World, tmp_path: Path) -> None:
    own = tiny(tmp_path, quick_gelu=False, size=None).clip.visual.positional_embedding
    close(resize_positions(own, GRID), world.expected["aa/positions"], 1e-6)
    close(world.visual.positional_embedding, world.expected["aa/positions"], 1e-6)


@pytest.mark.parametrize("name", ["bottle", "metal_nut"])
@torch.no_grad()
def test_text(world: World, name: str) -> None:
    clip, tokenizer = world.backbone.clip, world.backbone.tokenizer
    sentences = torch.cat(world.layers.encode_sentences(clip, tokenizer, name))
    close(sentences, world.expected[f"aa/text_sentences/{name}"], UNITS)
    close(world.layers.vectors(clip, tokenizer, name), world.expected[f"aa/text/{name}"], UNITS)


def test_names_of_known_classes_describe_them() -> None:
    assert described("zipper") == "a black zipper"
    assert described("Retina") == "scan"
    assert described("washer") == "washer"


def test_image_features(world: World, projected: tuple[Tensor, Tensor]) -> None:
    close(projected[0], world.expected["aa/seg"], UNITS)
    close(projected[1], world.expected["aa/det"], UNITS)


@pytest.mark.parametrize(("kernel", "sigma", "suffix"), [(7, 1.0, ""), (9, 1.5, "_medical")])
def test_level_maps(world: World, projected: tuple[Tensor, Tensor], kernel: int, sigma: float, suffix: str) -> None:
    maps = level_maps(projected[0], world.expected["aa/text/bottle"])
    close(maps.unflatten(2, (GRID, GRID)), world.expected["aa/level_maps_grid"], MAPS)
    blur = patch_blur(GRID, kernel, sigma, "reflect")
    close(torch.stack([smooth(level, blur) for level in maps]), world.expected[f"aa/level_maps_blurred{suffix}"], MAPS)


def test_maps_and_scores(world: World, projected: tuple[Tensor, Tensor]) -> None:
    expected = world.expected
    text = expected["aa/text/bottle"]
    blur = patch_blur(GRID, 7, 1.0, "reflect")
    anomaly_map = smooth(level_maps(projected[0], text).sum(dim=0), UPSAMPLING @ blur)
    close(anomaly_map, expected["aa/map"], MAPS)
    peak = ranged(anomaly_map.flatten()).view_as(anomaly_map).amax(dim=(1, 2))
    close(peak, expected["aa/pixel_max"], SCORES)
    close(peak, expected["aa/score_medical"], SCORES)
    score = detection_score(projected[1], text)
    close(score, expected["aa/det_score"], SCORES)
    close(0.5 * peak + 0.5 * ranged(score), expected["aa/score"], SCORES)


@pytest.mark.parametrize("images", [slice(None), slice(2, 3)], ids=["a batch", "one image"])
@torch.no_grad()
def test_values_attend_to_values_within_an_image(world: World, images: slice) -> None:
    features = stage_one_features(world.visual, world.expected["images"][images])
    close(features, world.expected["aa/stage1/features"][:, images], UNITS)


@torch.no_grad()
def test_as_coded_values_attend_among_the_images_of_a_batch(world: World) -> None:
    images = world.expected["images"]
    batch, pair = (stage_one_features(world.visual, images[:count], as_coded=True) for count in (4, 2))
    assert (batch[:, :2] - pair).abs().max() > 0.01
    turned = stage_one_features(world.visual, images.flip(0), as_coded=True)
    close(turned.flip(1), batch, UNITS)  # whoever else is there counts, not where
    # each place attends to itself alone in a batch of one, so a block is linear in its values
    alone = stage_one_features(world.visual, images[:1], as_coded=True)
    twice = stage_one_features(world.visual, images[:1].expand(3, -1, -1, -1), as_coded=True)
    close(twice[:, 1:2], alone, UNITS)
    assert (alone - stage_one_features(world.visual, images[:1])).abs().max() > 0.01


@torch.no_grad()
def test_no_block_runs_twice_on_the_same_tokens(world: World) -> None:
    runs = []
    hooks = [
        block.ln_1.register_forward_hook(lambda *_, number=number: runs.append(number))
        for number, block in enumerate(world.visual.transformer.resblocks, start=1)
    ]
    stage_one_features(world.visual, world.expected["images"][:1])
    for hook in hooks:
        hook.remove()
    assert [runs.count(number) for number in range(1, 13)] == [1, 1] + [2] * 10


@pytest.mark.parametrize("reading", ["last_level", "all_levels"])
def test_the_losses_of_the_text(world: World, reading: str) -> None:
    expected, layers = world.expected, world.layers
    layers.zero_grad()
    features, text = expected["aa/stage1/features"], world.text()
    inputs = (features, text, expected["masks"], UPSAMPLING)
    for loss, value in zip(level_losses(*inputs), expected["aa/stage1/level_losses"], strict=True):
        close_loss(loss, value)
    close(orthogonality(text), expected["aa/stage1/orthogonality"], UNITS)
    losses = stage_one_losses(*inputs, last_level=reading == "last_level")
    total = torch.stack(list(losses.values())).sum()
    close_loss(total, expected[f"aa/stage1/{reading}/total"])
    total.backward()
    for name, weight in {
        "text_adapter.0": layers.text_adapter[0].weight,
        "text_projection": layers.text_projection.weight,
    }.items():
        close_gradient(weight.grad, expected[f"aa/stage1/{reading}/grad_{name}.weight"])


def test_the_losses_of_the_image_side(world: World) -> None:
    expected, layers = world.expected, world.layers
    layers.zero_grad()
    levels, image = layers.project(world.visual, layers.stages(world.visual, expected["images"]))
    text = world.text().detach()
    losses = stage_two_losses(levels, image, text, expected["masks"], expected["labels"], UPSAMPLING)
    close_loss(losses["image"], expected["aa/stage2/cross_entropy"])
    for level in range(4):
        close_loss(losses[f"level_{level + 1}"], expected["aa/stage2/level_losses"][level])
    total = torch.stack(list(losses.values())).sum()
    close_loss(total, expected["aa/stage2/total"])
    total.backward()
    for name in ("image_adapter.0", "seg_projection.0", "det_projection"):
        weight = layers.get_submodule(name).weight
        close_gradient(weight.grad, expected[f"aa/stage2/grad_{name}.weight"])

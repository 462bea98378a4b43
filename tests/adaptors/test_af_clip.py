"""AF-CLIP: the authors' numbers on a tiny CLIP."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from neighbours import GRID, SIZE, close, close_gradient, close_loss, numbers, tiny, weights
from torch import Tensor
from torch.nn.functional import conv2d, normalize

from anomalib_clipad.adaptors.af_clip import (
    RADII,
    AFClip,
)
from anomalib_clipad.adaptors.af_clip_losses import (
    abnormal_probabilities,
    af_clip_losses,
    alignment_terms,
    patch_targets,
)
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.detector import Detector
from anomalib_clipad.vision.dual_path import ordinary_path
from anomalib_clipad.vision.pool import Pool, picked
from anomalib_clipad.vision.positions import resize_positions
from anomalib_clipad.vision.references import rescore
from anomalib_clipad.vision.smoothing import smooth, smoothing_matrix

PROBABILITIES, TOKENS = 5e-5, 1e-4


class World(NamedTuple):
    expected: dict[str, Tensor]
    backbone: Backbone
    layers: AFClip
    visual: Any


def build(folder: Path) -> World:
    expected, backbone = numbers(), tiny(folder, quick_gelu=True)
    own = tiny(folder, quick_gelu=True, size=None).clip.visual.positional_embedding
    visual = backbone.clip.visual
    visual.positional_embedding.data = resize_positions(own, GRID, "bilinear", antialias=False)
    layers = AFClip(64, 16, GRID)
    layers.load_state_dict(weights(expected, "af/weights/") | {"trained": torch.tensor(True)})
    return World(expected, backbone, layers, visual)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("af_clip"))


@pytest.fixture(scope="module")
def stages(world: World) -> list[Tensor]:
    with torch.no_grad():
        return ordinary_path(world.visual, world.expected["images"])


@pytest.fixture(scope="module")
def probability(world: World, stages: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return abnormal_probabilities(world.layers.project(world.visual, stages), world.expected["af/text"])


def test_positions_are_bilinear(world: World) -> None:
    close(world.visual.positional_embedding, world.expected["af/positions"], 1e-6)


def test_learnt_tokens_stand_before_the_start(world: World) -> None:
    close(world.layers.vectors(world.backbone.clip, world.backbone.tokenizer), world.expected["af/text"], 1e-5)


@pytest.mark.parametrize("tap", [3, 12])
@pytest.mark.parametrize("radius", [1, 5])
@torch.no_grad()
def test_tokens_before_and_after_the_adaptor(world: World, stages: list[Tensor], tap: int, radius: int) -> None:
    place = RADII.index(radius)
    before = list(world.layers.adaptor.aggregate(stages[tap // 3 - 1]))[place]
    after = world.layers.project(world.visual, stages)[len(RADII) * (tap // 3 - 1) + place]
    for when, tokens in (("before", before), ("after", after)):
        close(tokens, world.expected[f"af/tokens/{when}/tap{tap}_r{radius}"], TOKENS)


def test_image_scores_and_maps(world: World, probability: Tensor) -> None:
    expected, grid = world.expected, probability[:, 1:]
    close(probability[:, 0], expected["af/cls_probability"], PROBABILITIES)
    close(grid.unflatten(1, (GRID, GRID)), expected["af/map_grid"], PROBABILITIES)
    close(smooth(grid, smoothing_matrix(GRID, SIZE, 0))[0], expected["af/map_upsampled_first"], PROBABILITIES)
    close(smooth(grid, smoothing_matrix(GRID, SIZE, 4)), expected["af/map"], PROBABILITIES)


@pytest.mark.parametrize(
    ("share", "score", "grid"), [(0.5, "score", "map_grid"), (0, "memory_score", "memory_map_grid")]
)
@torch.no_grad()
def test_few_shot(world: World, share: float, score: str, grid: str) -> None:
    expected = world.expected
    detector = Detector(world.visual, SIZE, 4.0, adapter=world.layers, text_weight=share)
    detector.keep(detector.describe(expected["references"]), expected["references"][:1])
    found = detector(expected["images"], expected["af/text"] if share else None)
    close(found.pred_score, expected[f"af/few_shot/{score}"], PROBABILITIES)
    smoothed = smooth(expected[f"af/few_shot/{grid}"].flatten(1), smoothing_matrix(GRID, SIZE, 4))
    close(found.anomaly_map, smoothed, PROBABILITIES)
    if share:
        close(found.anomaly_map, expected["af/few_shot/map"], PROBABILITIES)
    exported = detector(expected["images"], expected["af/text"], 3 * detector.memory.tokens)  # of any length
    if share:
        close(exported.anomaly_map, found.anomaly_map, PROBABILITIES)


def plain_mutual_distance(expected: dict[str, Tensor], stages: list[Tensor]) -> Tensor:
    """Half of what MuSc's formula says of the four images, the mean over twelve sets (4, N), patch by patch."""
    found = torch.zeros(4, GRID**2)
    for stage in stages:
        for radius in RADII:
            offsets = (torch.arange(radius) - radius // 2).float()
            kernel = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 32)
            grid = stage[:, 1:].mT.unflatten(2, (GRID, GRID))
            weight = (kernel / kernel.sum()).expand(grid.shape[1], 1, radius, radius)
            blurred = conv2d(grid, weight, padding=radius // 2, groups=grid.shape[1])
            centred = blurred - blurred.mean(dim=(1, 2, 3), keepdim=True)
            tokens = normalize(centred.flatten(2).mT, dim=-1)
            for image in range(4):
                others = [torch.cdist(tokens[image], tokens[j]).amin(dim=1) for j in range(4) if j != image]
                found[image] += torch.stack(others).amin(dim=0)  # 30 % of three: the nearest one
    return found / 24


@pytest.mark.parametrize("share", [0.5, 0.0])
@torch.no_grad()
def test_images_judge_each_other_by_the_tokens_of_its_few_shot_rule(
    world: World, stages: list[Tensor], share: float
) -> None:
    expected, keys = world.expected, list("abcd")
    detector = Detector(world.visual, SIZE, 4.0, adapter=world.layers, text_weight=share)
    text = expected["af/text"] if share else None
    evidence = detector.examine(expected["images"], text)
    pool = Pool(detector, evidence, keys)
    distance = plain_mutual_distance(expected, stages)
    grid, peak = distance, distance.amax(dim=1)
    if share:
        grid = grid + 0.1 * expected["af/map_grid"].flatten(1)
        peak = peak + 0.1 * expected["af/cls_probability"]
    found = pool.judge(evidence, keys)
    close(found.anomaly_map, smooth(grid, smoothing_matrix(GRID, SIZE, 4)), PROBABILITIES)
    close(pool.peak, peak, PROBABILITIES)
    torch.testing.assert_close(pool.score, rescore(pool.peak, evidence.cls))
    scale = pool.scale
    assert torch.equal(scale.score(found.pred_score, found.anomaly_map.amax(dim=(1, 2))), found.pred_score)
    outside = Pool(detector, picked(evidence, [0, 1, 2]), keys[:3]).judge(picked(evidence, [3]), ["d"])
    close(outside.anomaly_map[0], found.anomaly_map[3], PROBABILITIES)


@torch.no_grad()
def test_half_is_as_far_as_a_normal_image_is_from_the_others(world: World) -> None:
    references = world.expected["references"]
    detector = Detector(world.visual, SIZE, 4.0, adapter=world.layers)
    detector.keep(detector.describe(references), references[:1])
    left_out = detector.leave_one_out([references], world.expected["af/text"])
    alone = detector.leave_one_out([references], None)
    assert float(alone.pred_score.max()) == pytest.approx(float(detector.memory.farthest))
    peak = left_out.anomaly_map.amax(dim=(1, 2))
    scores = detector.scale.score(left_out.pred_score, peak)
    assert ((scores > 0.5) == (left_out.pred_score > detector.scale.midpoint)).all()
    assert float(detector.scale.midpoint) == pytest.approx(0.05 + float(detector.memory.farthest))


def test_half_a_patch_stays_half(world: World) -> None:
    targets = patch_targets(world.expected["masks"], GRID).unflatten(1, (GRID, GRID))
    assert (targets == 0.5).any()
    close(targets, world.expected["af/train/gt_grid"], 1e-6)


@pytest.mark.parametrize("reading", ["as_written", "as_coded"])
def test_losses_and_gradients(world: World, stages: list[Tensor], reading: str) -> None:
    expected, layers = world.expected, world.layers
    layers.zero_grad()
    projected = layers.project(world.visual, stages)
    text = layers.vectors(world.backbone.clip, world.backbone.tokenizer)
    losses = af_clip_losses(projected, text, expected["masks"], expected["labels"], as_coded=reading == "as_coded")
    for name in ("focal_image", "focal_map", "l1"):
        close_loss(losses[name], expected[f"af/train/{name}"])
    close(losses["align"], expected["af/train/align"], 1e-5)
    target = patch_targets(expected["masks"], GRID)
    terms = alignment_terms([tokens[:, 1:] for tokens in projected], target)
    close(terms, expected["af/train/align_terms"], 1e-5)
    total = torch.stack(list(losses.values())).sum()
    close_loss(total, expected["af/train/total"])
    total.backward()
    close_gradient(layers.prompt.grad, expected[f"af/train/{reading}/grad_prompt"])
    close_gradient(layers.adaptor.out.bias.grad, expected[f"af/train/{reading}/grad_adaptor.out.bias"])


@pytest.mark.parametrize("masks", [torch.zeros, torch.ones])
def test_patches_of_one_kind_have_nothing_to_align(masks: Any) -> None:
    target = patch_targets(masks(2, SIZE, SIZE), GRID)
    tokens = torch.randn(2, GRID**2, 8, requires_grad=True)
    terms = alignment_terms([tokens], target)
    terms.sum().backward()
    assert not terms.any()
    assert not tokens.grad.any()

"""The detector with references: shares, scale, memory."""

import pytest
import torch
from conftest import remember
from torch import Tensor

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.detector import Detector
from anomalib_clipad.vision.dual_path import dual_path, ordinary_path
from anomalib_clipad.vision.memory import Memory
from anomalib_clipad.vision.pool import Pool, key_of
from anomalib_clipad.vision.references import nearest_distance, rescore


def remembering(backbone: Backbone, numbers: dict[str, Tensor], **options: object) -> ClipADModel:
    model = ClipADModel(backbone, **options)
    model.setup("bottle")
    remember(model, numbers["references"])
    return model


def test_tokens_are_the_outputs_of_the_stages_last_blocks(
    backbone: Backbone, reference_numbers: dict[str, Tensor]
) -> None:
    visual, images = backbone.clip.visual, reference_numbers["images"]
    expected = reference_numbers["tokens"]
    alone = torch.stack([tokens[:, 1:] for tokens in ordinary_path(visual, images)], dim=1)
    beside = torch.stack([stage.output for stage in dual_path(visual, images, outputs=True)], dim=1)
    torch.testing.assert_close(alone, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(beside, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tap", ["reference", "block"])
def test_keeping_outputs_changes_neither_path(backbone: Backbone, expected: dict[str, Tensor], tap: str) -> None:
    visual, images = backbone.clip.visual, expected["images"]
    for kept, plain in zip(
        dual_path(visual, images, tap, patches=True, outputs=True),
        dual_path(visual, images, tap, patches=True),
        strict=True,
    ):
        torch.testing.assert_close(kept.surgery, plain.surgery, atol=1e-6, rtol=0)
        torch.testing.assert_close(kept.ordinary, plain.ordinary, atol=1e-6, rtol=0)


def test_the_few_shot_map_is_aprilgans(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model = remembering(backbone, reference_numbers, text_weight=0.0, smoothing=0.0)
    raw = model(reference_numbers["images"])
    torch.testing.assert_close(raw.anomaly_map, reference_numbers["few_shot/map"], atol=1e-5, rtol=0)
    assert torch.equal(raw.pred_score, raw.anomaly_map.amax(dim=(-2, -1)))


@pytest.mark.parametrize("variant", ["sdp", "sdp_plus"])
def test_by_default_text_and_references_are_summed(
    backbone: Backbone, reference_numbers: dict[str, Tensor], variant: str
) -> None:
    images = reference_numbers["images"]
    both = remembering(backbone, reference_numbers, variant=variant)
    text = ClipADModel(backbone, variant=variant)
    text.setup("bottle")
    if variant == "sdp_plus":
        text.detector.adapter.load_state_dict(both.detector.adapter.state_dict())
    alone = text(images)
    part = 4 * torch.sigmoid(50 * alone.anomaly_map) if variant == "sdp" else alone.anomaly_map
    matrix = both.detector.reference_matrix
    distance = nearest_distance(reference_numbers["tokens"], both.detector.memory.tokens).sum(dim=1)
    summed = part + matrix @ distance.unflatten(1, (4, 4)) @ matrix.T
    raw = both(images)
    torch.testing.assert_close(raw.anomaly_map, summed, atol=1e-5, rtol=0)
    torch.testing.assert_close(raw.pred_score, alone.pred_score, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("share", "factors"), [(0.0, (0, 1)), (0.2, (0.25, 1)), (0.5, (1, 1)), (0.75, (1, 1 / 3)), (1.0, (1, 0))]
)
def test_the_share_of_the_text(backbone: Backbone, share: float, factors: tuple[float, float]) -> None:
    joining = Detector(backbone.clip.visual, 64, text_weight=share).joining
    assert joining[:2] == pytest.approx(factors)
    assert joining[2:] == pytest.approx((factors[0], 1))


def test_all_of_the_share_is_the_texts_map(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model = remembering(backbone, reference_numbers, text_weight=1.0)
    with_memory = model(reference_numbers["images"])
    model.detector.memory = None
    plain = model(reference_numbers["images"])
    torch.testing.assert_close(with_memory.anomaly_map, 4 * torch.sigmoid(50 * plain.anomaly_map), atol=1e-6, rtol=0)


def test_the_scale_is_the_largest_leave_one_out_value(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model = remembering(backbone, reference_numbers, text_weight=0.0)
    references, largest = reference_numbers["references"], []
    for index in range(3):
        others = ClipADModel(backbone, text_weight=0.0)
        remember(others, torch.cat([references[:index], references[index + 1 :]]))
        largest.append(others(references[index : index + 1]).pred_score)
    expected = torch.cat(largest).max()
    torch.testing.assert_close(model.detector.memory.farthest, expected, atol=1e-5, rtol=0)
    assert model.detector.scale.probability(expected) == pytest.approx(0.5, abs=1e-4)


def test_one_image_is_compared_with_its_mirror_images(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model, image = ClipADModel(backbone, text_weight=0.0), reference_numbers["references"][:1]
    remember(model, image)
    expected = model(torch.cat([image.flip(-1), image.flip(-2)])).pred_score.max()
    torch.testing.assert_close(model.detector.memory.farthest, expected, atol=1e-6, rtol=0)
    assert expected > 0.01


def test_a_reference_has_no_distance(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model = remembering(backbone, reference_numbers, text_weight=0.0)
    assert model(reference_numbers["references"]).anomaly_map.abs().max() < 1e-5


@pytest.mark.parametrize("tokens", [torch.zeros(3, 5, 8), torch.zeros(4, 0, 8), torch.zeros(4, 8)])
def test_a_memory_of_another_shape_is_refused(tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(4, M, width\)"):
        Memory(tokens, 1.0)


def test_a_memory_with_nan_is_refused() -> None:
    tokens = torch.zeros(4, 5, 8)
    tokens[2, 3, 1] = torch.nan
    with pytest.raises(ValueError, match="damaged"):
        Memory(tokens, 1.0)


def pool_of(model: ClipADModel, images: Tensor) -> Pool:
    return Pool(model.detector, model.examine(images), [key_of(image) for image in images])


def test_mutual_maps_and_image_scores_are_muscs(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model, images = ClipADModel(backbone, text_weight=0.0, smoothing=0.0), reference_numbers["images"]
    model.pool = pool_of(model, images)
    torch.testing.assert_close(model(images).anomaly_map / 4, reference_numbers["mutual/map"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.pool.score, reference_numbers["mutual/rescored_mvtec"], atol=1e-4, rtol=0)
    order = reference_numbers["mutual/rescored_mvtec"].argsort()
    assert torch.equal(model(images).pred_score.argsort(), order)


def test_an_image_of_the_pool_is_found_by_its_content(backbone: Backbone, reference_numbers: dict[str, Tensor]) -> None:
    model, images = ClipADModel(backbone, text_weight=0.0), reference_numbers["images"]
    model.pool = pool_of(model, images)
    together = model(images)
    turned = model(images.flip(0))
    torch.testing.assert_close(turned.anomaly_map.flip(0), together.anomaly_map, atol=1e-6, rtol=0)
    torch.testing.assert_close(turned.pred_score.flip(0), together.pred_score, atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_image_from_outside_is_scored_beside_the_pool(
    backbone: Backbone, reference_numbers: dict[str, Tensor], share: float
) -> None:
    images = reference_numbers["images"]
    model = ClipADModel(backbone, text_weight=share, joining="sum")
    model.setup("bottle")
    model.pool = pool_of(model, images)
    inside = model(images[-1:])
    model.pool = pool = pool_of(model, images[:-1])
    outside, evidence = model(images[-1:]), model.examine(images)
    torch.testing.assert_close(outside.anomaly_map, inside.anomaly_map, atol=1e-4, rtol=0)
    peak = torch.cat([pool.peak, outside.anomaly_map.amax(dim=(-2, -1))])
    score = rescore(peak, evidence.cls)[-1]
    if share:
        low, high = evidence.probability.aminmax()
        score = score + (evidence.probability[-1] - low) / (high - low)
    middle = pool.score.median()
    middle = middle + 3 * 1.4826 * (pool.score - middle).abs().median()
    torch.testing.assert_close(outside.pred_score[0], score**2 / (score**2 + middle**2), atol=1e-4, rtol=0)

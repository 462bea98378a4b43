"""Text and references in units of the spread of their own peaks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.vision.joining import by_spread, published, spread
from anomalib_clipad.vision.pool import Pool
from anomalib_clipad.vision.references import nearest_distance
from anomalib_clipad.vision.smoothing import smooth


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def knowing(backbone: Backbone, count: int = 4, **settings: object) -> ClipADModel:
    """A model that has seen some normal images."""
    model = ClipADModel(backbone, **settings)
    model.setup("bottle")
    images = pictures(count)
    model.detector.keep(model.detector.describe(images, model.text_features), images[:1])
    return model


def text_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Maps of the text, in units of four probabilities."""
    model = ClipADModel(backbone)
    model.setup("bottle")
    return model.detector.reader.text_part(model(images).anomaly_map)


def distance_maps(model: ClipADModel, images: Tensor, others: Tensor) -> Tensor:
    """Smoothed distances of images to other images."""
    detector = model.detector
    memory = detector.describe(others).tokens[0].transpose(0, 1).flatten(1, 2)
    tokens = detector.describe(images).tokens[0]
    distance = nearest_distance(tokens, torch.nn.functional.normalize(memory, dim=-1)).sum(dim=1)
    return smooth(distance, detector.reference_matrix)


def peaks(maps: Tensor) -> np.ndarray:
    return maps.amax(dim=(-2, -1)).numpy()


def left_out(model: ClipADModel, images: Tensor) -> np.ndarray:
    """Peaks of the distances of images, each to the others."""
    rows = range(len(images))
    return np.concatenate(
        [peaks(distance_maps(model, images[[row]], images[[other for other in rows if other != row]])) for row in rows]
    )


def test_the_spread_of_few_is_their_standard_deviation_and_of_many_that_of_most() -> None:
    few, many = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([*map(float, range(9)), 1000.0])
    assert float(spread(few)) == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert float(spread(many)) == pytest.approx(1.4826 * 2)
    assert float(spread(few, robust=True)) == pytest.approx(1.4826)


def test_peaks_that_are_all_alike_do_not_make_a_part_infinitely_sharp() -> None:
    assert float(spread(torch.full((4,), 2.0))) == pytest.approx(0.002)
    assert float(spread(torch.zeros(4))) > 0


def test_factors_are_shares_in_units_of_the_spreads() -> None:
    assert by_spread(0.25, text=0.5, references=3.0) == pytest.approx((1, 0.5, 0, 1))
    assert by_spread(0.25, text=2.0, references=0.5) == pytest.approx((0.125 / 1.5, 1, 0, 1))
    assert published(0.5, by_patches=False) == (1, 1, 1, 1)
    assert published(0.5, by_patches=True) == (1, 1, 1, 0)


@pytest.mark.parametrize(("share", "given"), [(0.25, {}), (0.4, {"text_weight": 0.4})])
def test_each_part_is_measured_in_the_spread_of_its_own_peaks(
    backbone: Backbone, share: float, given: dict[str, float]
) -> None:
    model, references, images = knowing(backbone, **given), pictures(4), pictures(3, seed=1)
    text, distances = peaks(text_maps(backbone, references)), left_out(model, references)
    spreads = np.std(text, ddof=1), np.std(distances, ddof=1)
    parts = text_maps(backbone, images) / spreads[0], distance_maps(model, images, references) / spreads[1]
    joined = share * parts[0] + (1 - share) * parts[1]
    found = model(images)
    unit = joined.max() / found.anomaly_map.max()
    torch.testing.assert_close(unit * found.anomaly_map, joined, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.pred_score, found.anomaly_map.amax(dim=(-2, -1)))
    middle = share * text.max() / spreads[0] + (1 - share) * distances.max() / spreads[1]
    assert float(unit * model.detector.scale.midpoint) == pytest.approx(middle, rel=1e-3)
    assert float(model.detector.scale.score(found.pred_score, model.detector.midpoint)[0]) == pytest.approx(0.5)


def test_the_unit_of_a_part_does_not_matter(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(3, seed=1)
    plain = knowing(backbone)
    before = plain.detector.scale.probability(plain(images).anomaly_map)
    of_sdp = type(plain.detector.reader).text_part
    monkeypatch.setattr(type(plain.detector.reader), "text_part", lambda self, values: 10 * of_sdp(self, values))
    larger = knowing(backbone)
    after = larger.detector.scale.probability(larger(images).anomaly_map)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", ["sdp", "af_clip"])
def test_two_references_tell_no_spread(backbone: Backbone, variant: str) -> None:
    sums = [knowing(backbone, 2, variant=variant, joining=joining) for joining in ("spread", "sum")]
    for one in sums[1:]:
        if one.adapter is not None:
            one.adapter.load_state_dict(sums[0].adapter.state_dict())
            one.refresh()
    first, second = (one(pictures(2, seed=1)) for one in sums)
    torch.testing.assert_close(first.anomaly_map, second.anomaly_map)
    torch.testing.assert_close(first.pred_score, second.pred_score)
    assert sums[0].detector.share("sum") == 0.5
    assert knowing(backbone, 3, variant=variant).detector.joining.by_peak, "three do"


def test_all_variants_score_by_the_peak_of_the_joined_map(backbone: Backbone) -> None:
    model = knowing(backbone, variant="af_clip")
    found = model(pictures(2, seed=1))
    torch.testing.assert_close(found.pred_score, found.anomaly_map.amax(dim=(-2, -1)))
    scale = model.detector.scale
    assert float(scale.score(torch.tensor(0.0), scale.midpoint)) == pytest.approx(0.5)


def test_a_pool_is_joined_by_its_own_spread_from_eight_images_on(backbone: Backbone) -> None:
    model, images = ClipADModel(backbone), pictures(8)
    model.setup("bottle")
    pool = Pool(model.detector, model.examine(images), list("abcdefgh"))
    text = peaks(text_maps(backbone, images))
    distances = peaks(smooth(pool.distance, model.detector.reference_matrix))
    spreads = [np.sort(np.abs(one - np.sort(one)[3]))[3] for one in (text, distances)]
    assert pool.joining.text / pool.joining.references == pytest.approx(spreads[1] / spreads[0] / 3, rel=1e-4)
    assert pool.joining.by_peak
    fewer = Pool(model.detector, model.examine(images[:7]), list("abcdefg"))
    assert fewer.joining == published(0.5, by_patches=False)


def test_tiles_are_measured_as_one_image(backbone: Backbone) -> None:
    model, text_alone = (ClipADModel(backbone, tiles=[2, 2], **share) for share in ({}, {"text_weight": 1.0}))
    height, width = model.input_size
    images = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    for one in (model, text_alone):
        one.setup("bottle")
        one.detector.keep(one.detector.describe(images, one.text_features), images[:1])
    text = peaks(text_alone(images).anomaly_map)
    assert float(model.detector.memory.text_spread) == pytest.approx(np.std(text, ddof=1), rel=1e-4)
    assert float(model.detector.memory.text_peak) == pytest.approx(text.max(), rel=1e-5)

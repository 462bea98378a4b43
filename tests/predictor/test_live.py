"""A model in torch lets go of what does not hold any more, and is compared with the images it was given."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import picture

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor.base import Shown
from anomalib_clipad.predictor.building import Resized
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.predictor.products import read_product, save_product
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.matrix_resize import Standardize

Make = Callable[..., LivePredictor]


def shown(predictor: LivePredictor, seeds: Iterable[int], **size: int) -> list[Shown]:
    return [predictor.show(picture(seed, **size), f"{seed}.png", reference=True) for seed in seeds]


@pytest.fixture
def make(backbone: Backbone) -> Make:
    """Predictors of the tiny CLIP."""

    def make(class_name: str = "bottle", complete: Any = None, **settings: Any) -> LivePredictor:
        model = ClipADModel(backbone, **settings)
        if model.settings.uses_text:
            model.setup(class_name)
        transform = Resized(model.input_size, Standardize(backbone.mean, backbone.std))
        return LivePredictor(model, transform, complete=complete)

    return make


# What depends on what


def other_references(predictor: LivePredictor, _: Path) -> None:
    predictor.fit(shown(predictor, [5, 6]))


def no_references(predictor: LivePredictor, _: Path) -> None:
    predictor.forget_references()


def a_product(predictor: LivePredictor, path: Path) -> None:
    predictor.fit_product(read_product(path))


def another_class(predictor: LivePredictor, _: Path) -> None:
    predictor.look_for("cable")


def other_prompts(predictor: LivePredictor, _: Path) -> None:
    predictor.look_for(prompts="medical")


def another_share(predictor: LivePredictor, _: Path) -> None:
    predictor.look_for(text_weight=0.2)


CHANGES = [other_references, no_references, a_product, another_class, other_prompts, another_share]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_lets_go_of_the_calibration_and_tells_the_scale(change: Any, make: Make, tmp_path: Path) -> None:
    other, predictor = make(), make()
    other.fit(shown(other, [7, 8]))
    save_product(tmp_path / "other.safetensors", other)
    predictor.fit(shown(predictor, [1, 2]))
    predictor.keep_normal(NormalScores(np.ones(3), np.ones(3)))
    before = predictor.version
    with pytest.warns(UserWarning, match="Dropped, since it does not hold for"):
        change(predictor, tmp_path / "other.safetensors")
    assert predictor.normal is None
    assert predictor.version > before
    decides_by = predictor.processor.decision.scale
    assert float(decides_by.midpoint) == float(predictor.scale.midpoint)
    assert decides_by.score_weight == predictor.scale.score_weight


def test_what_changes_nothing_lets_go_of_nothing(make: Make) -> None:
    predictor = make(text_weight=0.5)
    predictor.keep_normal(NormalScores(np.ones(3), np.ones(3)))
    before = predictor.version
    predictor.look_for(text_weight=0.5)
    predictor.look_for("bottle", "industrial")
    predictor.forget_references()
    assert predictor.normal is not None
    assert predictor.version == before


def test_other_words_score_as_a_model_made_with_them(make: Make) -> None:
    predictor = make()
    predictor.look_for("cable", "medical")
    expected = make("cable", prompts="medical")
    image = predictor.prepare(picture(0))
    assert predictor.score([image]).score == pytest.approx(expected.score([image]).score, abs=1e-6)


@pytest.mark.parametrize("count", [2, 4])
def test_references_go_along_to_other_words_of_a_complete_model(make: Make, count: int) -> None:
    """With four of them the spread of what the text says of them is another one."""
    expected, quick = make("cable"), make(complete=lambda: make().model)
    for predictor in (expected, quick):
        predictor.fit(shown(predictor, [*range(1, count + 1), 1]))
    quick.look_for("cable")
    image = quick.prepare(picture(0))
    for one, other in zip(quick.score([image])[:2], expected.score([image])[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_share_for_the_text_needs_its_spread(make: Make) -> None:
    expected, predictor = make(), make(text_weight=0.0)
    predictor.model.setup("bottle")
    for one in (expected, predictor):
        one.fit(shown(one, range(1, 5)))
    predictor.look_for("bottle", text_weight=0.25)
    image = predictor.prepare(picture(0))
    assert predictor.score([image]).score == pytest.approx(expected.score([image]).score, abs=1e-5)


def test_other_words_are_refused_where_the_images_of_the_references_are_not_at_hand(make: Make, tmp_path: Path) -> None:
    predictor, plain = make(), make(joining="sum")
    for one in (predictor, plain):
        one.fit(shown(one, range(1, 5)))
        save_product(tmp_path / "product.safetensors", one)
        one.fit_product(read_product(tmp_path / "product.safetensors"))
    with pytest.raises(ValueError, match=r"joined with the text by the spread .* Pass the images again, or joining='"):
        predictor.look_for("cable")
    assert predictor.class_name == "bottle"
    plain.look_for("cable")


def test_without_words_the_class_of_before_is_none(make: Make) -> None:
    predictor = make()
    predictor.fit(shown(predictor, [1, 2]))
    predictor.look_for("cable", text_weight=0.0)
    assert predictor.class_name is None
    with pytest.raises(ValueError, match="Say what the images show"):
        predictor.look_for(text_weight=0.5)
    assert predictor.model.settings.text_weight == 0


def test_an_image_is_not_looked_at_again_after_others(make: Make) -> None:
    predictor = make()
    first, second = (predictor.prepare(picture(seed)) for seed in (0, 1))
    predictor.score_and_keep(first)
    predictor.score([second])
    with pytest.raises(RuntimeError, match="no image to look at again"):
        predictor.rescore()


# References


def test_copies_are_remembered_once(make: Make) -> None:
    predictor = make()
    with pytest.warns(UserWarning, match="Copies of an image count once"):
        predictor.fit(shown(predictor, [1, 2, 1]))
    assert predictor.model.detector.memory.tokens.shape == (4, 2 * 16, 64)
    assert [one.name for one in predictor.references] == ["1.png", "2.png"]


def test_no_reference_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="There are no references"):
        make().fit([])


def test_the_shape_of_references_is_kept_and_has_to_be_one_where_tiles_are_aligned(make: Make) -> None:
    aligned, free = (make(tiles=[2, 2], aligned=aligned) for aligned in (True, False))
    for predictor in (aligned, free):
        predictor.fit(shown(predictor, [1, 2], height=40, width=60))
        assert predictor.aspect == pytest.approx(1.5)
        assert predictor.model.detector.memory.aspect == pytest.approx(1.5)
    mixed = [*shown(free, [1], height=40, width=60), *shown(free, [2])]
    free.fit(mixed)
    with pytest.raises(ValueError, match="of another shape than the normal images"):
        aligned.fit(mixed)


def test_memory_size_bounds_what_is_remembered(make: Make) -> None:
    predictor = make()
    predictor.fit(shown(predictor, [1, 2]), memory_size=5)
    assert predictor.model.detector.memory.tokens.shape == (4, 5, 64)


def test_references_of_a_product_file_are_known_and_forgotten(make: Make, tmp_path: Path) -> None:
    writer, reader = make(), make()
    writer.fit(shown(writer, [1, 2]))
    save_product(tmp_path / "bottle.safetensors", writer)
    reader.fit_product(read_product(tmp_path / "bottle.safetensors"))
    assert reader.references == writer.references != ()
    reader.forget_references()
    assert (reader.references, reader.known()) == ((), None)


# Left out in turn


@pytest.mark.parametrize(
    "settings", [{"joining": "sum"}, {"text_weight": 0.0}, {"joining": "sum", "tiles": [1, 2]}], ids=str
)
def test_a_reference_left_out_scores_as_with_a_memory_of_the_others(make: Make, settings: dict) -> None:
    predictor, alone = make(**settings), make(**settings)
    images = shown(predictor, range(3))
    predictor.fit(images)
    predictor.calibrate_left_out(images, 0.3)
    known = predictor.processor.normal
    assert (known.left_out, known.rate, len(known)) == (True, 0.3, 3)
    for row, one in enumerate(images):
        alone.fit([*images[:row], *images[row + 1 :]])
        expected = alone.measure([one])
        assert known.image_scores[row] == pytest.approx(expected.score[0], abs=1e-5)
        assert known.region_scores[row] == pytest.approx(expected.peak[0], abs=1e-5)


def test_references_left_out_are_joined_as_new_images_are(make: Make) -> None:
    predictor, alone = make(), make(joining="sum")
    images = shown(predictor, range(4))
    predictor.fit(images)
    predictor.calibrate_left_out(images, 0.3)
    joining = predictor.model.detector.joining
    alone.model.detector.joining_of = lambda spreads: joining
    for row, one in enumerate(images):
        alone.fit([*images[:row], *images[row + 1 :]])
        raw = alone.model.predict(torch.from_numpy(one.prepared)[None])
        assert predictor.processor.normal.image_scores[row] == pytest.approx(float(raw.anomaly_map.max()), abs=1e-5)


def test_left_out_references_are_looked_at_in_part_too(make: Make) -> None:
    predictor = make()
    images = shown(predictor, range(3))
    predictor.fit(images)
    predictor.calibrate_left_out(images, None)
    everything = predictor.processor.normal.region_scores
    predictor.calibrate_left_out(images, None, lambda anomaly_map, size: anomaly_map - size[0])
    np.testing.assert_allclose(predictor.processor.normal.region_scores, everything - 40, atol=1e-5)


def test_references_are_left_out_only_where_two_or_more_are_at_hand(make: Make) -> None:
    predictor = make()
    images = shown(predictor, range(3))
    predictor.fit(images[:1])
    with pytest.raises(ValueError, match="two or more different ones and their images, and there are 1"):
        predictor.calibrate_left_out(images[:1], None)
    predictor.fit(images[:2])
    for others in (images, images[1:], images[:1]):
        with pytest.raises(ValueError, match="two or more different ones and their images"):
            predictor.calibrate_left_out(others, None)


def test_references_are_not_left_out_of_a_memory_of_some_patches(make: Make, tmp_path: Path) -> None:
    """However it came in: new images would be compared with fewer patches than the references were."""
    predictor, reader = make(), make()
    images = shown(predictor, range(3))
    predictor.fit(images, memory_size=20)
    save_product(tmp_path / "thin.safetensors", predictor)
    reader.fit(images)
    reader.fit_product(read_product(tmp_path / "thin.safetensors"))
    for thin in (predictor, reader):
        with pytest.raises(ValueError, match="with memory_size new images are compared with some"):
            thin.calibrate_left_out(images, None)
    predictor.fit(images)
    predictor.calibrate_left_out(images, None)
    assert predictor.normal is not None


# Images that judge each other


def test_a_pool_brings_its_scale_and_takes_it_along(make: Make) -> None:
    predictor = make()
    plain = predictor.scale
    predictor.gather([[predictor.prepare(picture(seed)) for seed in range(3)]])
    assert predictor.processor.decision.scale == predictor.scale == predictor.model.pool.scale
    predictor.judge_by(None)
    assert predictor.processor.decision.scale == predictor.scale == plain


def test_copies_in_a_pool_count_once(make: Make) -> None:
    single, copied = make(), make()
    images = [single.prepare(picture(seed)) for seed in range(3)]
    single.gather([images])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copied.gather([images, [images[1]], 4 * [images[1]]])
    assert len(copied.model.pool.rows) == 3
    torch.testing.assert_close(copied.model.pool.score, single.model.pool.score)


def test_a_reference_that_differs_from_the_others_is_named(make: Make) -> None:
    predictor = make()
    alike = [Picture(picture(0).pixels // 8 + 100 + seed % 3 + picture(seed).pixels // 64) for seed in range(1, 12)]
    scratched = alike[0].pixels.copy()
    scratched[10:30, 10:30] = picture(50).pixels[10:30, 10:30]
    images = [predictor.show(one, f"{number}.png", True) for number, one in enumerate([*alike, Picture(scratched)])]
    with pytest.warns(UserWarning, match=r"The references 11\.png differ much more from the others"):
        predictor.fit(images)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        predictor.fit(images[:-1])
    assert not [one for one in said if "differ much more" in str(one.message)]

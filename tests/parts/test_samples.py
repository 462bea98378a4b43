"""Generated pictures: every category with every defect, and masks that say exactly what changed."""

import numpy as np
import pytest

from anomalib_clipad.parts.categories import CATEGORIES, HELD_OUT_CATEGORIES, TRAINING_CATEGORIES
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import named_sample

PAIRS = [(category, kind) for category in CATEGORIES for kind in DEFECTS]


@pytest.mark.parametrize(("category", "kind"), PAIRS)
def test_the_mask_is_what_the_defect_changed(category: str, kind: str) -> None:
    sample = named_sample(category, "test", 3, kind, 0, 120)
    change = np.abs(sample.image.astype(int) - sample.flawless).max(axis=2)
    assert 0.0004 < sample.mask.mean() < 0.3
    assert change[sample.mask].mean() > 8
    # Outside lies only what is too faint to count; both pictures have the same noise.
    assert change[~sample.mask].max() <= 10


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_flawless_sample_has_no_mask(category: str) -> None:
    sample = named_sample(category, "test", 0, None, 0, 64)
    assert not sample.mask.any()
    np.testing.assert_array_equal(sample.image, sample.flawless)


@pytest.mark.parametrize("category", CATEGORIES)
def test_pictures_of_a_category_differ(category: str) -> None:
    first, second = (named_sample(category, "test", i, None, 0, 64).image.astype(int) for i in (0, 1))
    assert np.abs(first - second).mean() > 1


def test_a_sample_depends_on_nothing_but_its_arguments() -> None:
    again = named_sample("weave", "test", 4, "crack", 2, 96)
    named_sample("wood", "test", 0, "hole", 0, 96)
    once_more = named_sample("weave", "test", 4, "crack", 2, 96)
    np.testing.assert_array_equal(again.image, once_more.image)
    np.testing.assert_array_equal(again.mask, once_more.mask)


@pytest.mark.slow
def test_neither_brightness_nor_edges_alone_tell_defects() -> None:
    """On most categories the extreme colour and the strongest edge of a picture say little about its state."""
    wins = []
    for category in HELD_OUT_CATEGORIES:
        good = [named_sample(category, "test", i, None, 0, 120).image for i in range(12)]
        bad = [named_sample(category, "test", i, kind, 0, 120).image for kind in DEFECTS for i in range(2)]
        for cue in (_oddest_colour, _strongest_edge):
            normal, abnormal = np.array([cue(i) for i in good]), np.array([cue(i) for i in bad])
            wins.append((abnormal[:, None] > normal[None]).mean())
    assert np.mean(wins) < 0.75


def _oddest_colour(image: np.ndarray) -> float:
    pixels = image.reshape(-1, 3).astype(float)
    return float(np.abs(pixels - np.median(pixels, axis=0)).sum(axis=1).max())


def _strongest_edge(image: np.ndarray) -> float:
    grey = image.mean(axis=2)
    return float(np.hypot(*np.gradient(grey)).max())


def test_held_out_and_training_categories_share_no_name() -> None:
    assert "gear" in HELD_OUT_CATEGORIES
    assert not set(HELD_OUT_CATEGORIES) & set(TRAINING_CATEGORIES)

"""Copies count once, near-copies are named, and different images are told apart."""

import json
import warnings
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_clipad.images.alike import (
    Identity,
    Known,
    _Details,
    check_apart,
    distinct,
    from_plain,
    identify,
    to_plain,
)
from anomalib_clipad.images.picture import read
from anomalib_clipad.parts.categories import CATEGORIES
from anomalib_clipad.parts.samples import named_sample


def part(category: str, index: int) -> np.ndarray:
    return np.ascontiguousarray(named_sample(category, "alike", index, None, 0, 240).image)


def identity(pixels: np.ndarray, name: str) -> Identity:
    return identify(read(pixels), name)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height)))


PARTS = [part("gear", index) for index in range(4)]


def test_an_image_is_the_same_whatever_it_comes_in(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PARTS[0]).save(path)
    tensor = torch.from_numpy(PARTS[0]).permute(2, 0, 1)
    ways = [path, PARTS[0], PARTS[0] / 255, tensor, tensor.float() / 255, Image.open(path)]
    assert len({identify(read(way), "a") for way in ways}) == 1
    assert identity(PARTS[0], "a").digest != identity(PARTS[0].reshape(120, 480, 3), "a").digest
    changed = PARTS[0].copy()
    changed[3, 3] ^= 1
    assert identity(changed, "a").digest != identity(PARTS[0], "a").digest


def test_a_thumbnail_holds_means_of_areas() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    thumbnail = np.frombuffer(identity(pixels, "a").thumbnail, np.uint8).reshape(32, 32)
    assert np.abs(thumbnail - pixels.reshape(32, 2, 32, 3).mean(axis=(1, 3))).max() <= 0.5 + 1e-4
    uneven = np.zeros((48, 32), np.uint8)  # rows of 1.5 pixels
    uneven[1] = 90
    thumbnail = np.frombuffer(identity(uneven, "a").thumbnail, np.uint8).reshape(32, 32)
    assert thumbnail[:3, 0].tolist() == [30, 30, 0]


def test_identities_pass_through_json() -> None:
    identities = [identity(pixels, f"{index}.png") for index, pixels in enumerate(PARTS)]
    assert from_plain(json.loads(json.dumps(to_plain(identities)))) == identities
    broken = to_plain(identities)
    broken[1]["thumbnail"] = broken[1]["thumbnail"][:400]
    with pytest.raises(ValueError, match=r"1\.png .* is damaged: its thumbnail"):
        from_plain(broken)
    with pytest.raises(ValueError, match="is damaged"):
        from_plain([{"name": "a"}])  # type: ignore[typeddict-item]


def test_copies_count_once_and_are_named() -> None:
    given = [(PARTS[0], "a"), (PARTS[1], "b"), (PARTS[0], "c"), (PARTS[2], "d"), (PARTS[1], "e")]
    with pytest.warns(UserWarning, match="c is a copy of a, e is a copy of b") as caught:
        assert distinct([identity(*one) for one in given]) == [0, 1, 3]
    assert len(caught) == 1


@pytest.mark.parametrize("category", ["gear", "wood", "weave", "carpet", "brushed_metal", "nut"])
def test_near_copies_are_kept_but_named(category: str) -> None:
    pixels = part(category, 0)
    other = identity(part(category, 1), "other.png")
    copies = {
        "q50.jpg": jpeg(pixels, 50),
        "q75.jpg": jpeg(pixels, 75),
        "half.png": resized(pixels, 120, 120),
        "larger.png": resized(pixels, 360, 360),
        "narrow.png": resized(pixels, 173, 150),
    }
    for name, copy in copies.items():
        with pytest.warns(UserWarning, match=rf"{name} looks like a\.png"):
            assert distinct([other, identity(pixels, "a.png"), identity(copy, name)]) == [0, 1, 2]


@pytest.mark.parametrize("category", CATEGORIES)
def test_different_pictures_of_a_category_are_no_copies(category: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distinct([identity(part(category, index), str(index)) for index in range(12)]) == list(range(12))


def test_flat_images_are_alike_only_when_they_are_equal() -> None:
    flat = [identity(np.full((40, 40, 3), level, np.uint8), str(level)) for level in (0, 90, 91, 255)]
    slope = np.linspace(90, 92, 40).astype(np.uint8) * np.ones((40, 1), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distinct([*flat, identity(slope, "slope")]) == [0, 1, 2, 3, 4]
    assert Known(flat).find(identity(np.full((40, 40, 3), 91, np.uint8), "again")) == flat[2]


def test_references_and_calibration_images_are_apart() -> None:
    references = [identity(pixels, f"normal/{index}.png") for index, pixels in enumerate(PARTS[:2])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_apart(references, [identity(PARTS[2], "calibration/0.png")])
        check_apart([], [identity(PARTS[2], "calibration/0.png")])
    with pytest.raises(ValueError, match=r"calibration/9\.png is also a reference \(normal/1\.png\)"):
        check_apart(references, [identity(PARTS[1], "calibration/9.png")])
    with pytest.warns(UserWarning, match=r"calibration/3\.jpg looks like normal/1\.png"):
        check_apart(references, [identity(jpeg(PARTS[1], 60), "calibration/3.jpg")])


def test_an_inspected_image_is_found_among_the_known() -> None:
    identities = [identity(pixels, str(index)) for index, pixels in enumerate(PARTS[:3])]
    known = Known(identities)
    assert known.find(identity(PARTS[1], "new")) == identities[1]
    assert known.find(identity(jpeg(PARTS[2], 50), "new")) == identities[2]
    assert known.find(identity(PARTS[3], "new")) is None
    assert Known([]).find(identities[0]) is None
    again = identities[1]._replace(name="again")
    assert Known([*identities, again]).find(again) == identities[1], "the first of copies"


def test_a_thousand_images_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one product of matrices, and not pair by pair."""
    compare = Mock(side_effect=_Details.like)
    monkeypatch.setattr(_Details, "like", lambda *details: compare(*details))
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1024), np.uint8)
    rows = distinct([Identity(str(row), str(row), thumbnail.tobytes()) for row, thumbnail in enumerate(noise)])
    assert len(rows) == 1000
    assert compare.call_count == 1

"""What `verify` notices: moved scores, moved maps, and verdicts that are not those of the calibration."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from anomalib_clipad.deploy.certify import measure
from anomalib_clipad.deploy.verification import MAP_TOLERANCE, SCORE_TOLERANCE, Comparison, Record, record
from anomalib_clipad.predictor.runtimes import Arrays
from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.normal_scores import NormalScores

NORMAL = NormalScores(np.linspace(0, 0.5, 39), np.linspace(0.1, 1.1, 39), 0.3)


def run(
    images: np.ndarray,
    known: NormalScores | None = NORMAL,
    score: float = 0.0,
    pixel: float = 0.0,
    change: Callable[[Arrays], None] | None = None,
) -> Arrays:
    """A file whose score is the mean of the image, moved, and whose map is its red channel, one pixel moved."""
    scores, maps = images.mean(axis=(1, 2, 3)) + np.float32(score), images[:, 0].copy()
    maps[:, 0, 0] += np.float32(pixel)
    found = {"pred_score": scores, "anomaly_map": maps, "pred_label": ~(scores <= 0.5), "pred_mask": ~(maps <= 0.5)}
    if known is not None:
        judged = Certificate(known).judge(torch.from_numpy(scores), torch.from_numpy(maps), known.rate)
        found |= {name: value.numpy() for name, value in judged._asdict().items() if value is not None}
    if change is not None:
        change(found)
    return found


@pytest.fixture(scope="module")
def written() -> Record:
    """Of a file with verdicts."""
    text = record(run, None, None, {}, NORMAL).accept(run, "here").to_text()
    return Record.from_metadata({"verification": text})


def compared(written: Record, **changes: object) -> Comparison:
    return written.compare(partial(run, **changes), NORMAL)


def test_a_file_does_what_it_did(written: Record) -> None:
    found = compared(written)
    assert found == (0, 0, 0, 0, "")
    assert found.within(written)
    assert written.labels == (False, False, True)
    assert written.calibration == NORMAL.digest()


def blind(name: str, found: Arrays) -> None:
    """The last image alone."""
    if found["pred_label"][0]:
        found[name][..., 0] = np.nan


def test_moved_scores_and_maps_are_out_of_tolerance(written: Record) -> None:
    """By the stated 1e-4 and 2e-3, in any pixel that is kept; NaN is, too."""
    assert (written.score_tolerance, written.map_tolerance) == (SCORE_TOLERANCE, MAP_TOLERANCE) == (1e-4, 2e-3)
    assert compared(written, score=0.9e-4).near(written)
    assert not compared(written, score=1.2e-4).near(written)
    assert not compared(written, score=-1.2e-4).near(written)
    assert compared(written, pixel=1.9e-3).near(written)
    assert not compared(written, pixel=2.2e-3).near(written)
    for name in ("pred_score", "anomaly_map"):
        assert not compared(written, change=partial(blind, name)).near(written)


def test_a_compressed_file_may_differ_by_twice_what_it_did_where_it_was_written() -> None:
    moved = partial(run, score=0.15, pixel=0.02)
    written = record(run, None, None, {}, NORMAL).accept(moved, "here")
    assert written.score_tolerance == pytest.approx(0.3, abs=1e-6)
    assert written.map_tolerance == pytest.approx(0.04, abs=1e-6)
    assert written.p_values == tuple(float(moved(pixels)["p_value"][0]) for pixels in written.pixels())
    assert written.labels == (False, True, True)
    assert compared(written, score=0.15, pixel=0.02).within(written)
    assert compared(written).fault == "1 of 3 verdicts flip"


def edited(**changes: object) -> NormalScores:
    return replace(NORMAL, **changes)


@pytest.mark.parametrize(
    "other",
    [
        edited(image_scores=NORMAL.image_scores * np.float32(1.001)),
        edited(region_scores=NORMAL.region_scores[::-1] + np.float32(0.001)),
        edited(rate=0.31),
        edited(left_out=True),
        None,
    ],
    ids=["scores", "peaks", "rate", "left out", "none"],
)
def test_an_edited_calibration_is_named(written: Record, other: NormalScores | None) -> None:
    """Even where graph and metadata are edited alike."""
    found = written.compare(partial(run, known=other or NORMAL), other)
    assert "calibration scores or its false-alarm rate are not those it was written with" in found.fault
    assert found.near(written)
    assert not found.within(written)


def flip(found: Arrays) -> None:
    found["pred_label"] = ~found["pred_label"]


def without(found: Arrays) -> None:
    del found["p_value"]


def unmasked(found: Arrays) -> None:
    found["pred_mask"] = np.zeros_like(found["pred_mask"])


def rarer(found: Arrays) -> None:
    found["p_value"] = found["p_value"] - np.float32(1 / 40)


@pytest.mark.parametrize("change", [flip, without, unmasked, rarer])
def test_a_graph_that_does_not_follow_its_metadata_is_named(written: Record, change: Callable[[Arrays], None]) -> None:
    found = compared(written, change=change)
    assert "do not follow from the calibration scores" in found.fault
    assert not found.within(written)


@pytest.mark.parametrize("other", [edited(rate=0.2), edited(image_scores=NORMAL.image_scores + np.float32(0.1))])
def test_another_rate_or_other_scores_in_the_graph_are_named(written: Record, other: NormalScores) -> None:
    assert "do not follow from the calibration scores" in compared(written, known=other).fault


def test_verdicts_that_are_not_the_recorded_ones_are_named(written: Record) -> None:
    flipped = replace(written, labels=(not written.labels[0], *written.labels[1:]))
    found = flipped.compare(run, NORMAL)
    assert (found.flips, found.fault) == (1, "1 of 3 verdicts flip")
    assert not found.within(flipped)


def test_p_values_may_move_as_far_as_the_tolerance_of_scores_explains(written: Record) -> None:
    """The scores of normal images are 1 / 76 apart."""
    assert 14 / 76 < written.scores[0] < 15 / 76
    for score, tolerance, named in (
        (14 / 76 - 1e-3, 1e-4, True),
        (15 / 76 + 1e-3, 1e-4, True),
        (14 / 76 - 1e-3, 1.1e-3, False),
        (15 / 76 + 1e-3, 1.1e-3, False),
    ):
        other = (score, *written.scores[1:])
        found = replace(written, scores=other, score_tolerance=tolerance).compare(run, NORMAL)
        assert ("p-values differ by more than" in found.fault) == named


def test_files_by_a_threshold_have_their_labels_looked_at() -> None:
    plain = partial(run, known=None)
    written = record(plain, None, None, {}).accept(plain, "here")
    assert (written.p_values, written.calibration) == (None, "")
    assert written.compare(plain).within(written)
    assert written.compare(partial(plain, change=flip)).fault == "3 of 3 verdicts flip"
    assert "not those it was written with" in written.compare(plain, NORMAL).fault


def test_records_of_version_0_2_0_are_read(written: Record) -> None:
    """They know no calibration, and their verdicts are those of Python, which a compressed file need not share."""
    data = json.loads(written.to_text())
    assert data["version"] == 2
    del data["calibration"]
    labels = [not label for label in written.labels]
    old = {**data, "version": 1}
    read = Record.from_metadata({"verification": json.dumps(old)})
    assert read.calibration is None
    assert compared(read).within(read)
    compressed = {**old, "score_tolerance": 0.02, "labels": labels}
    assert Record.from_metadata({"verification": json.dumps(compressed)}).compare(run, NORMAL).fault == ""
    exact = Record.from_metadata({"verification": json.dumps({**old, "labels": labels})})
    assert exact.compare(run, NORMAL).fault == "3 of 3 verdicts flip"
    with pytest.raises(ValueError, match="of another version"):
        Record.from_metadata({"verification": json.dumps({**data, "version": 3})})


def test_every_fourth_pixel_of_every_fourth_row_is_kept(written: Record) -> None:
    """As docs/examples/onnx_verify.py expects."""
    for pixels, kept in zip(written.pixels(), written.maps, strict=True):
        np.testing.assert_array_equal(kept, pixels[0, 0, ::4, ::4])


def test_pixels_are_repeated_for_a_file_of_one_size(written: Record) -> None:
    whole = written.pixels()[0]
    other = replace(written, size=(48, 192)).pixels()[0]
    assert other.shape == (1, 3, 48, 192)
    np.testing.assert_array_equal(other, whole[:, :, ::2].repeat(2, axis=3))


def test_a_file_is_measured_by_its_scores_and_the_maxima_of_its_maps() -> None:
    images = np.random.default_rng(0).random((4, 3, 6, 5)).astype(np.float32)
    found = measure(run, ((str(index), image) for index, image in enumerate(images)), rate=0.2, computed_in="bfloat16")
    np.testing.assert_allclose(found.image_scores, images.mean(axis=(1, 2, 3)), atol=1e-6)
    np.testing.assert_array_equal(found.region_scores, images[:, 0].max(axis=(1, 2)))
    assert (found.rate, found.computed_in) == (0.2, "bfloat16")

"""What an inspector decides by, around a model that scores images by their brightness."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stand_ins import Brightness

from anomalib_clipad.images.alike import identify
from anomalib_clipad.images.picture import read
from anomalib_clipad.inspection import inspector
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.predictor.base import Scored
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores

HIDDEN = np.arange(40) < 10
"""Rows of an image that are not looked at."""


def noise(seed: int, shape: tuple[int, ...] = (40, 40, 3)) -> np.ndarray:
    """Light below, and lighter above, where it is hidden."""
    pixels = np.random.default_rng(seed).integers(60, 200, shape, np.uint8)
    pixels[:10] += 50
    return pixels


def grey(pixels: np.ndarray) -> np.ndarray:
    return (pixels / 255).mean(axis=2)


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Inspectors around such a model with other properties."""

    def around(properties: dict[str, Any] | None = None, **options: Any) -> Inspector:
        model = Brightness()
        for name, value in (properties or {}).items():
            setattr(model, name, value)
        monkeypatch.setattr(inspector, "_predictor", lambda *_: model)
        return Inspector(**options)

    return around


# The model's own decision, and others


def test_by_default_the_model_decides(around: Any) -> None:
    finding = around({"own_limits": Limits(0.9, 0.8)}).inspect(noise(0))
    assert (finding.threshold, finding.map_threshold, finding.label) == (0.9, 0.8, False)
    finding = around({"own_limits": Limits(0.1, 0.8)}).inspect(noise(0))
    assert (finding.threshold, finding.label) == (0.1, True)


def test_a_calibrated_model_decides_by_its_rate(around: Any) -> None:
    normal = NormalScores(np.linspace(0.1, 0.9, 9), np.linspace(0.2, 1, 9), rate=0.2)
    own = around({"normal": normal})
    assert own.inspect(noise(0)).threshold == pytest.approx(normal.limits(0.2).score)
    own.decide_by(false_alarm_rate=0.5)
    assert own.inspect(noise(0)).threshold == pytest.approx(normal.limits(0.5).score)
    own.decide_by(threshold=0.3)
    assert own.inspect(noise(0)).threshold == 0.3


def test_a_model_that_only_scores_needs_a_threshold(around: Any) -> None:
    with pytest.raises(ValueError, match="This model only scores images"):
        around({"own_limits": None})
    assert around({"own_limits": None}, threshold=0.3).inspect(noise(0)).threshold == 0.3


def test_thresholds_are_scores_of_the_model(around: Any) -> None:
    assert around({"normalized": False}, threshold=3.5).inspect(noise(0)).threshold == 3.5
    for threshold in (3.5, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"has to be a score in \[0, 1\]"):
            around(threshold=threshold)
    with pytest.raises(ValueError, match="has to be a score; got nan"):
        around({"normalized": False}, threshold=np.nan)


def test_a_midpoint_sorts_and_a_threshold_decides(around: Any) -> None:
    own = around()
    assert not own.inspect(noise(0)).decided
    assert not own.decision.decided
    assert own.decision.text.startswith("not calibrated: sorted by suspicion.")
    own.decide_by(threshold=0.5)
    assert own.look_again().decided
    assert own.decision.text == "threshold 0.5, as given"
    assert [one.decided for one in own.inspect([noise(1)])] == [True]
    own.decide_by()
    assert not own.inspect(noise(0)).decided


def test_a_model_with_a_decision_of_its_own_decides(around: Any) -> None:
    assert around({"fitted": True}).inspect(noise(0)).decided
    assert around({"own_limits": Limits(0.7, 0.5)}).inspect(noise(0)).decided
    normal = NormalScores(np.linspace(0.1, 0.9, 19), np.linspace(0.2, 1, 19), rate=0.1)
    own = around({"normal": normal})
    assert own.inspect(noise(0)).decided
    assert own.decision.text == normal.promise()


def test_a_midpoint_of_maps_is_no_threshold(around: Any) -> None:
    """Where something is ignored, scores are map values, whose midpoint may be any number."""
    mask = np.repeat(HIDDEN[:, None], 40, axis=1)
    own = around({"own_limits": Limits(0.5, 0.1), "normalized": False}, ignore=mask)
    finding = own.inspect(noise(0))
    assert (finding.threshold, finding.label, finding.decided) == (0.1, True, False)


def test_calibration_images_without_a_rate_decide_nothing(around: Any) -> None:
    own = around(calibration=[noise(seed) for seed in range(9)], threshold=0.4)
    assert own.inspect(noise(10)).decided
    own.decide_by()
    finding = own.inspect(noise(10))
    assert not finding.decided
    assert finding.p_value is not None
    assert "--false_alarm_rate" in own.decision.text


# What there is to say of the images it was fitted to


def test_what_was_warned_of_is_noted(around: Any) -> None:
    images = [noise(seed) // 2 for seed in range(20)]
    with pytest.warns(UserWarning, match="stand apart") as warned:
        own = around(calibration=[*images, images[3], noise(30) // 2 + 120], false_alarm_rate=0.05)
    assert len(own.notes) == 2
    assert "calibration 21 is a copy of calibration 4" in own.notes[0]
    assert "The scores of calibration 22 stand apart" in own.notes[1]
    assert {str(one.message) for one in warned} == {*own.notes}


def test_the_image_that_a_threshold_hangs_on_is_noted(around: Any) -> None:
    images = [noise(seed) for seed in range(20)]
    own = around(calibration=images, false_alarm_rate=0.05)
    highest = int(np.argmax([grey(pixels).mean() for pixels in images])) + 1
    (note,) = own.notes
    assert f"the most suspicious of 20: calibration {highest}." in note
    own.decide_by(false_alarm_rate=0.1)
    assert own.notes == ()


def test_a_calibration_that_comes_with_a_model_is_looked_at_too(around: Any) -> None:
    scores = np.append(np.linspace(0.1, 0.2, 19), 0.9)
    with pytest.warns(UserWarning, match="The scores of image 20 stand apart"):
        own = around({"normal": NormalScores(scores, scores, rate=0.1)})
    assert "image 20" in own.notes[0]


def test_what_is_no_number_is_defective(around: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = around()
    monkeypatch.setattr(own.model, "score", lambda _: Scored(np.array([np.nan]), np.zeros((1, 40, 40), np.float32)))
    assert own.inspect(noise(0)).label


# What is ignored


def test_what_is_ignored_is_ignored_in_calibration_too(around: Any) -> None:
    images = [noise(seed) for seed in range(9)]
    mask = np.repeat(HIDDEN[:, None], 40, axis=1)
    own = around(ignore=mask, calibration=images, false_alarm_rate=0.2)
    peaks = [grey(pixels)[~HIDDEN].max() for pixels in images]
    np.testing.assert_allclose(own.model.normal.region_scores, peaks, atol=1e-6)
    finding = own.inspect(noise(10))
    assert finding.score == pytest.approx(grey(noise(10))[~HIDDEN].max(), abs=1e-6)
    assert finding.threshold == finding.map_threshold == own.model.normal.limits(0.2).region
    assert finding.p_value == own.model.normal.region_p_value(finding.score)


def test_calibration_images_have_the_aspect_of_the_mask(around: Any) -> None:
    mask = np.repeat(HIDDEN[:, None], 40, axis=1)
    with pytest.raises(ValueError, match="they are of different aspects"):
        around(ignore=mask, calibration=[noise(0, (40, 60, 3))], false_alarm_rate=0.5)


# Images


def test_arrays_of_opencv_are_turned_wherever_they_come_in(around: Any) -> None:
    images = [noise(seed) for seed in range(4)]
    turned = [pixels[..., ::-1] for pixels in images]
    own = around(channels="bgr", references=turned[:1], calibration=turned[1:3], false_alarm_rate=0.5)
    known = [one.digest for one in own.model.references] + [one["digest"] for one in own.model.normal.identities]
    assert known == [identify(read(pixels), "").digest for pixels in images[:3]]
    np.testing.assert_array_equal(own.inspect(turned[3]).image, images[3])
    (found,) = own.inspect([turned[3]])
    np.testing.assert_array_equal(found.image, images[3])


def test_images_that_the_model_knows_are_remarked(around: Any) -> None:
    images = [noise(seed) for seed in range(4)]
    own = around(references=images[:1], calibration=images[1:3], false_alarm_rate=0.5)
    for image, name in ((images[0], "references 1"), (images[2], "calibration 2")):
        with pytest.warns(UserWarning, match=f"{name}: nothing can be said about it"):
            finding = own.inspect(image)
        assert finding.remark is not None
        with pytest.warns(UserWarning, match=f"{name}: nothing can be said about it"):
            assert own.look_again().remark == finding.remark
    assert own.inspect(images[3]).remark is None


def test_after_several_images_there_is_none_to_look_at_again(around: Any) -> None:
    own = around()
    own.inspect(noise(0))
    assert own.look_again().score == pytest.approx(grey(noise(0)).mean(), abs=1e-6)
    list(own.inspect([noise(1)]))
    with pytest.raises(RuntimeError, match="no image to look at again"):
        own.look_again()


# What does not go together


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_size": 9}, "number of patches that are kept of references"),
        ({"memory_size": 0, "references": ["a.png"]}, "memory_size has to be an integer, 1 or more; got 0"),
        ({"product": "a.safetensors", "references": ["a.png"]}, "has its references already"),
        ({"aligned": True, "tiles": [2, 2]}, "pass references with it"),
        ({"calibration": ["a.png"]}, "pass false_alarm_rate too"),
        ({"model": "a.ckpt", "smoothing": 4.0}, "A checkpoint has its settings already; pass it without smoothing"),
        ({"model": "a.ckpt", "product": "a.safetensors"}, "A checkpoint has its settings already"),
        ({"model": "a.onnx", "smoothing": 4.0}, "An exported file has its settings already; pass it without smoothing"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Inspector(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"batch_size": wrong}, "batch_size has to be an integer, 1 or more; got ")
            for wrong in (None, "a", 0, True)
        ),
        ({"workers": 1.5}, "workers has to be an integer, 1 or more; got 1.5"),
        ({"min_area": "a"}, "min_area has to be an integer, 0 or more; got 'a'"),
        ({"min_area": -1}, "min_area has to be an integer, 0 or more; got -1"),
        ({"max_pixels": "a"}, "max_pixels has to be an integer, 1 or more; got 'a'"),
        ({"mutual": ["a.png"], "pool": "a"}, "pool has to be an integer, 2 or more; got 'a'"),
        ({"mutual": ["a.png"], "pool": 1}, "pool has to be an integer, 2 or more; got 1"),
        ({"pool": 5}, "pool says how many images judge each other; pass it with mutual"),
        ({"memory_size": "a", "references": ["a.png"]}, "memory_size has to be an integer, 1 or more; got 'a'"),
        *(
            (
                {"false_alarm_rate": wrong, "calibration": ["a.png"]},
                "false_alarm_rate has to be a share between 0 and 1",
            )
            for wrong in ("a", float("nan"), 2, True)
        ),
    ],
    ids=str,
)
def test_a_value_of_a_wrong_type_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.setattr(inspector, "_predictor", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match=message):
        Inspector("nut", **options)


@pytest.mark.parametrize("threshold", ["a", True, [0.5]])
def test_a_threshold_that_is_no_number_is_refused(around: Any, threshold: Any) -> None:
    with pytest.raises(ValueError, match=r"threshold has to be a score in \[0, 1\]; got "):
        around(threshold=threshold)


def test_numbers_of_numpy_will_do(around: Any) -> None:
    own = around(threshold=np.float32(0.5), batch_size=np.int64(2), min_area=np.uint8(3))
    assert (own.batch_size, own.min_area) == (2, 3)


def test_a_model_that_does_not_see_the_whole_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "ExportedPredictor", lambda *_: SimpleNamespace(frame="CenterCrop"))
    with pytest.raises(ValueError, match=r"does not show the whole image \(CenterCrop\)"):
        Inspector(model=Path("a.onnx"))

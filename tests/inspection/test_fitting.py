"""What an inspector is fitted to in this process: references, those left out in turn, and a pool."""

import numpy as np
import pytest
from conftest import shallow
from pictures import noises

from anomalib_clipad.inspection.inspector import Inspector

MODEL = {**shallow(), "rvs": "mean"}


def test_memory_size_bounds_the_memory() -> None:
    own = Inspector("nut", **MODEL, references=noises(2), memory_size=5)
    assert own.model.model.detector.memory.tokens.shape == (4, 5, 64)


def test_references_left_out_are_looked_at_without_what_is_ignored() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:32] = True
    own = Inspector("nut", **MODEL, references=noises(4), false_alarm_rate=0.3, ignore=mask)
    found = own.model.processor.normal.region_scores
    shown = own.shown(noises(4), reference=True)
    own.model.calibrate_left_out(shown, 0.3, own.look)
    np.testing.assert_array_equal(own.model.processor.normal.region_scores, found)
    own.model.calibrate_left_out(shown, 0.3)
    assert (own.model.processor.normal.region_scores > found).any()


@pytest.mark.parametrize(("pool", "count"), [(4, 4), (100, 9)])
def test_a_pool_holds_at_most_so_many_images(pool: int, count: int) -> None:
    own = Inspector("nut", **MODEL, mutual=[*noises(9)], pool=pool, threshold=0.5)
    assert len(own.model.model.pool.rows) == count


@pytest.mark.filterwarnings("error")
def test_few_images_that_judge_each_other_are_said_and_one_is_refused() -> None:
    with pytest.warns(UserWarning, match="mutual compares only 3 images"):
        own = Inspector("nut", **MODEL, mutual=noises(3))
    Inspector("nut", **MODEL, mutual=noises(8))
    with pytest.raises(ValueError, match=r"1 of 2 can be read\. It takes 2 or more"):
        Inspector("nut", **MODEL, mutual=["absent.png", *noises(1)])
    own.inspect(noises(4)[3])
    for change in ({"class_name": "bolt"}, {"references": noises(1)}):
        with pytest.raises(ValueError, match="judged anew by another threshold alone"):
            own.again(**change)
    assert own.again(threshold=0.9).threshold == 0.9


def test_another_look_keeps_the_threshold_that_was_given_and_no_rate_for_other_words() -> None:
    own = Inspector("nut", **MODEL, threshold=0.2)
    own.inspect(noises(1)[0])
    assert own.again("bolt").threshold == 0.2
    with pytest.raises(ValueError, match="so there is no false-alarm rate for it"):
        own.again("nut", false_alarm_rate=0.3)
    assert own.model.class_name == "bolt"
    finding = own.again(references=noises(5)[1:], false_alarm_rate=0.3)
    assert finding.threshold == pytest.approx(own.model.normal.limits(0.3).score)


def test_references_that_calibrate_too_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    show = Inspector.show
    monkeypatch.setattr(Inspector, "show", lambda own, *given: (read.append(1), show(own, *given))[1])
    Inspector("nut", **MODEL, references=noises(4), false_alarm_rate=0.3)
    assert len(read) == 4

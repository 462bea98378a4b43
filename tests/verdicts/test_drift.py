"""Drift: the bets of crepes, few alarms where nothing changes, an alarm where something does, a state that lasts."""

from pathlib import Path

import numpy as np
import pytest
from crepes.martingales import SimpleJumper

from anomalib_clipad.images.content import Content
from anomalib_clipad.inspection.drift_log import DriftLog
from anomalib_clipad.inspection.records import RECORDS, Result, as_line
from anomalib_clipad.verdicts.drift import Drift


def online_p_values(scores: np.ndarray, calibration: int) -> np.ndarray:
    """Written out, for scores without ties."""
    found = []
    for end in range(calibration, len(scores)):
        share = np.random.default_rng(end - calibration).random()
        found.append(((scores[:end] > scores[end]).sum() + share) / (end + 1))
    return np.array(found)


def test_the_stake_is_that_of_crepes() -> None:
    scores = np.random.default_rng(0).normal(np.repeat([0, 0.7], [80, 60]))
    drift, stakes = Drift(scores[:50]), []
    for score in scores[50:]:
        drift.update(score)
        stakes.append(drift.evidence)
    np.testing.assert_allclose(stakes, SimpleJumper(J=0.01).apply(online_p_values(scores, 50)), rtol=1e-9)


@pytest.mark.slow
def test_it_rarely_alarms_without_a_change() -> None:
    """Stated: 1 in 20, over 1,000 images; 100 production lines, of scores that are often equal too."""
    alarms = 0
    for seed in range(100):
        scores = np.round(np.random.default_rng(seed).standard_normal(430), 1)
        alarms += Drift(scores[:30], level=0.05).extend(scores[30:].tolist())
    assert alarms <= 11  # more than 99 % of all cases where the chance is 0.05


def test_it_alarms_after_a_change_and_bears_some_defects() -> None:
    rng = np.random.default_rng(3)
    normal = rng.standard_normal(600)
    normal[100::25] += 6  # one part in 25 is defective
    drift = Drift(normal[:50])
    assert not drift.extend(normal[50:].tolist())
    assert drift.extend(rng.normal(1.0, 1, 200).tolist())
    assert drift.alarmed_at is not None
    assert 550 < drift.alarmed_at < 750
    assert "no longer fits: 1 in 1,000" in str(drift)


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    scores = np.random.default_rng(5).standard_normal(120).tolist()
    whole = Drift(scores[:40])
    whole.extend(scores[40:])
    for some in (scores[40:70], scores[70:]):
        log = DriftLog(tmp_path / "line.drift", scores[:40], {"class_name": "gear"})
        with log.going_on():
            for score in some:
                log.update(score)
    assert (log.drift.seen, log.drift.evidence) == (80, whole.evidence)
    assert [path.name for path in tmp_path.iterdir()] == ["line.drift"]


def test_an_alarm_lasts_through_a_restart(tmp_path: Path) -> None:
    """And keeps the number of the image that raised it, though the stake falls again."""

    def begun() -> DriftLog:
        return DriftLog(tmp_path / "line.drift", np.linspace(0, 1, 50), {"class_name": "gear"})

    with begun().going_on() as log:
        raised = next(number for number in range(1, 100) if log.update(1 + number / 10))
        assert not log.update(0.5)  # it is told once
    again = begun().drift
    assert (again.alarm, again.alarmed_at, again.seen) == (True, raised, raised + 1)
    normal = np.random.default_rng(0).random(100).tolist()
    assert again.extend(normal[:20])
    assert again.evidence < 1 / again.level
    assert again.extend(normal[20:])
    assert again.alarmed_at == raised
    assert f"since image {raised} of {raised + 101}" in str(again)


def test_a_calibration_that_comes_back_begins_anew(tmp_path: Path) -> None:
    def log(calibration: str) -> DriftLog:
        return DriftLog(tmp_path / "line.drift", [0.1, 0.2], {"class_name": "gear", "depends": calibration})

    for calibration, count in (("first", 3), ("second", 2), ("first", 1)):
        with log(calibration).going_on() as own:
            assert own.drift.seen == 0
            for _ in range(count):
                own.update(0.15)
    assert log("first").drift.seen == 1


def test_each_image_of_a_run_is_taken_in_once(tmp_path: Path) -> None:
    def seen(run: str, *files: str, calibration: str = "first") -> int:
        """How many images the watch has, where the record of a run has these: a place and a digest."""
        contents = [Content(file[0], file[1]) for file in files]
        lines = [as_line(Result("a.png", 0.1, None, "good", 0.5, 8, 8, (), "a", file=one)) for one in contents]
        (tmp_path / run).mkdir(exist_ok=True)
        (tmp_path / run / RECORDS).write_text("".join(lines))
        log = DriftLog(tmp_path / "line.drift", [0.1, 0.2], {"depends": calibration})
        with log.going_on(run, tmp_path / run):
            return log.drift.seen

    assert seen("day", "A1") == 1
    assert seen("day", "A1", "A2") == 2
    assert seen("day", "A1", "A2", "B2") == 3
    assert seen("day", "A1", "A2", "B2", "A1") == 4, "it is again what it was"
    assert seen("day", "A1", "A2", "B2", "A1") == 4
    assert seen("night", "A1") == 5, "of another run"
    assert seen("late", "A1", calibration="second") == 1
    assert seen("day", "A1", "A2", "B2") == 3, "whose watch begins anew"


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    log = DriftLog(tmp_path / "line.drift", [0.1, 0.2], {})
    with (
        log.going_on(),
        pytest.raises(BlockingIOError, match="Another run writes"),
        DriftLog(tmp_path / "line.drift", [0.1, 0.2], {}).going_on(),
    ):
        pass


def test_equal_scores_are_drawn_by_lot() -> None:
    """A line whose images all look alike does not drift."""
    assert not Drift(np.zeros(30)).extend([0.0] * 300)


def test_a_score_that_is_no_number_is_the_highest() -> None:
    drift, highest, lowest = (Drift(np.zeros(10)) for _ in range(3))
    drift.extend([np.nan] * 3)
    highest.extend([np.inf] * 3)
    lowest.extend([-np.inf] * 3)
    assert drift.seen == 3
    assert drift.evidence == highest.evidence != lowest.evidence


def test_levels_and_scores_are_checked() -> None:
    with pytest.raises(ValueError, match="level of a drift alarm"):
        Drift([0.1], level=0)
    with pytest.raises(ValueError, match="scores of normal images"):
        Drift([])

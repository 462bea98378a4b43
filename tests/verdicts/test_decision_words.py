"""Where a threshold comes from, in words; and whether it makes a verdict."""

import numpy as np
import pytest

from anomalib_clipad.verdicts.decision import Decision
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores

MIDPOINT = Limits(0.5, 0.5)
SCORES = 0.2 + 0.01 * np.arange(20)
NAMES = tuple({"name": f"{row}.png"} for row in range(20))
NORMAL = NormalScores(SCORES, SCORES, identities=NAMES)
LEFT_OUT = NormalScores(SCORES, SCORES, left_out=True)
UNDECIDED = "not calibrated: sorted by suspicion. To get verdicts, pass --calibration FOLDER --false_alarm_rate 0.05"


@pytest.mark.parametrize(
    ("decision", "decided", "words"),
    [
        (
            Decision(MIDPOINT),
            False,
            UNDECIDED,
        ),
        (
            Decision(MIDPOINT, mutual=True),
            False,
            "since images judge each other: sorted by suspicion. To get verdicts, pass --threshold 0.6",
        ),
        (
            Decision(MIDPOINT, normal=NORMAL),
            False,
            "calibrated, but without a false-alarm rate: sorted by suspicion. To get verdicts, pass "
            "--false_alarm_rate 0.05",
        ),
        (Decision(MIDPOINT, rate=0.05, normal=NORMAL), True, "5 % false alarms, from 20 images"),
        (Decision(Limits(0.4, 0.4), threshold=0.4), True, "threshold 0.4, as given"),
        (Decision(MIDPOINT, threshold=0.5), True, "threshold 0.5, as given"),
        (Decision(MIDPOINT, fitted=True), True, "the model's own threshold 0.5, fitted to validation images"),
        (Decision(Limits(0.7, 0.5)), True, "the model's own threshold 0.7"),
        (
            Decision(Limits(0.39, 0.39), rate=0.05, normal=NORMAL),
            True,
            "5 % false alarms, from 20 images; at most 13.9 % with 95 % confidence",
        ),
        (
            Decision(Limits(0.39, 0.39), rate=0.05, normal=LEFT_OUT),
            True,
            "5 % false alarms, from 20 references, each left out in turn; on average at most twice that",
        ),
    ],
)
def test_what_a_decision_says(decision: Decision, decided: bool, words: str) -> None:
    assert decision.decided is decided
    assert words in decision.text
    assert decided == (decision.options == "")


def test_a_single_image_that_the_threshold_hangs_on_is_named() -> None:
    hint = Decision(MIDPOINT, rate=0.05, normal=NORMAL).hint
    assert "the most suspicious of 20: 19.png" in str(hint)
    assert "From 39 images on" in str(hint)
    assert Decision(MIDPOINT, rate=0.1, normal=NORMAL).hint is None, "it hangs on two"
    assert Decision(MIDPOINT, threshold=0.4).hint is None
    apart = NormalScores(np.append(SCORES[1:], 0.99), SCORES, identities=NAMES)
    assert Decision(MIDPOINT, rate=0.05, normal=apart).hint is None, "the image is named already"

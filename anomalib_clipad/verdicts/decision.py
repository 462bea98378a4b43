"""By what images are called defective, and whether that makes a verdict, in the words of terminal and page."""

from __future__ import annotations

from dataclasses import dataclass

from .conformal import allowed, images_needed
from .normal_scores import Limits, NormalScores

SCORE = "A score says how suspicious an image looks to the model: the higher, the more; it is no chance of a defect."
"""What a score is."""
P_VALUE = "A p-value says how rare so high a score is among normal images: 0.02 means one in fifty."
"""What a p-value is."""
_MIDPOINT = 0.5


@dataclass(frozen=True)
class Decision:
    """By what an image is called defective.

    Attributes:
        limits: The largest score and map value that are not.
        threshold: The threshold that was given, if that decides.
        rate: The false-alarm rate, if that decides.
        normal: What the model is calibrated on, if it is.
        fitted: Whether the limits are the model's own and were fitted to images.
        mutual: Whether images judge each other, so that none can calibrate.

    Example:
        A model that nothing was fitted to has no more than the midpoint of its scale.

        >>> Decision(Limits(0.5, 0.5)).decided
        False
        >>> Decision(Limits(0.4, 0.4), threshold=0.4).text
        'threshold 0.4, as given'
    """

    limits: Limits
    threshold: float | None = None
    rate: float | None = None
    normal: NormalScores | None = None
    fitted: bool = False
    mutual: bool = False

    @property
    def decided(self) -> bool:
        """Whether labels are verdicts; else scores sort images by suspicion, and no more."""
        return self.threshold is not None or self.rate is not None or self._own

    @property
    def _own(self) -> bool:
        """Whether the model has a threshold of its own: a fitted one, or one that somebody has set."""
        return self.fitted or self.limits.score != _MIDPOINT

    @property
    def text(self) -> str:
        """Where the threshold comes from; if there is none, how to get one."""
        if self.threshold is not None:
            return f"threshold {self.threshold:.4g}, as given"
        if self.rate is not None and self.normal is not None:
            return self.normal.promise(self.rate)
        if self._own:
            origin = ", fitted to validation images" if self.fitted else ""
            return f"the model's own threshold {self.limits.score:.4g}{origin}"
        return self.sorting(f"pass {self.options}")

    @property
    def options(self) -> str:
        """What would make labels verdicts, as options of the command; nothing where they are."""
        if self.decided:
            return ""
        if self.normal is not None:
            return "--false_alarm_rate 0.05"
        return "--threshold 0.6" if self.mutual else "--calibration FOLDER --false_alarm_rate 0.05"

    def sorting(self, remedy: str) -> str:
        """That images are only sorted, why, and what to do."""
        lack = "calibrated, but without a false-alarm rate" if self.normal is not None else "not calibrated"
        why = ", since images judge each other" if self.mutual and self.normal is None else ""
        return f"{lack}{why}: sorted by suspicion. To get verdicts, {remedy}"

    @property
    def hint(self) -> str | None:
        """On which image the threshold hangs, where it is a single one and does not stand apart as it is."""
        if self.rate is None or self.normal is None or allowed(self.rate, len(self.normal)) > 1:
            return None
        if self.normal.standing_apart():
            return None
        highest = int(self.normal.image_scores.argmax())
        return (
            f"The threshold follows from one image alone, the most suspicious of {len(self.normal)}: "
            f"{self.normal.name(highest)}. If it shows a defect, remove it: it would hide others. From "
            f"{images_needed(self.rate / 2)} images on no single one decides."
        )

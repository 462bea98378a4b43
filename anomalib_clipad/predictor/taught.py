"""What a model was taught: which images ticked as good joined its references, and the list they were ticked from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from anomalib_clipad.images.alike import Identity


class Taught(NamedTuple):
    """What a model was taught.

    Attributes:
        digests: Of the images that joined the references, sorted; as of ``Identity``.
        rest: Of the other images of the list they were ticked from, sorted, where these are known.
        when: Day of the last lesson in UTC, such as ``2026-03-01``.
    """

    digests: tuple[str, ...]
    rest: tuple[str, ...]
    when: str

    def __str__(self) -> str:
        images = f"{len(self.digests)} image{'' if len(self.digests) == 1 else 's'}"
        return f"Taught on {self.when}: {images} ticked as good joined the references"

    def sentence(self) -> str:
        """The same as a sentence, with what calibrates such a model."""
        known = (
            f"; they and {len(self.rest)} more of the list they were ticked from do not calibrate"
            if self.rest
            else "; calibrate on images of another list than the one they were ticked from"
        )
        return f"{self}{known}."

    def check_apart(self, calibration: Iterable[Identity]) -> None:
        """Check that no calibration image is one that it was taught, or of the list these were ticked from.

        What was ticked is the top of a list sorted by score, so what is left of it is too good: in a trial 6.7 % false
        alarms for a promised 5 %.

        Raises:
            ValueError: If one is.
        """
        digests, rest = set(self.digests), set(self.rest)
        for one in calibration:
            if one.digest in digests or one.digest in rest:
                what = "was taught to the model" if one.digest in digests else "is of the list that was ticked"
                msg = (
                    f"The calibration image {one.name} {what}: calibrated on it, the false-alarm rate would not hold. "
                    "Calibrate on normal images of another list."
                )
                raise ValueError(msg)

    def to_plain(self) -> dict[str, Any]:
        """For JSON and checkpoints."""
        return {"digests": list(self.digests), "rest": list(self.rest), "when": self.when}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any] | None) -> Taught | None:
        """Of ``to_plain``; ``None`` for a model that was taught nothing.

        Raises:
            ValueError: If it is damaged.
        """
        if data is None:
            return None
        try:
            return cls(tuple(map(str, data["digests"])), tuple(map(str, data["rest"])), str(data["when"]))
        except (KeyError, TypeError) as error:
            msg = f"What the model was taught is damaged ({error!r}). Teach it anew."
            raise ValueError(msg) from error

"""How images arrive at what an inspector is fitted to: read in this process, or elsewhere (``scale/fits.py``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_clipad.predictor.base import Prepared, Shown
    from anomalib_clipad.verdicts.normal_scores import NormalScores

    from .inspector import Inspector


class Fitting:
    """Fits an inspector's predictor in this process."""

    def references(self, inspector: Inspector, images: Sequence[Any], memory_size: int | None) -> Sequence[Shown]:
        """Let images be compared with these from now on.

        Returns:
            What was read of them here, for ``left_out``; nothing where they were read elsewhere.
        """
        shown = inspector.shown(images, reference=True)
        inspector.live("references").fit(shown, memory_size)
        return shown

    def left_out(self, inspector: Inspector, images: Sequence[Any], shown: Sequence[Shown], rate: float) -> None:
        """Calibrate on the references, each judged by all the others; ``shown`` is of ``references``."""
        shown = shown or inspector.shown(images, reference=True)
        inspector.live("references").calibrate_left_out(shown, rate, inspector.look)

    def calibration(self, inspector: Inspector, images: Sequence[Any], rate: float | None) -> None:
        """Calibrate on these images."""
        inspector.model.calibrate(inspector.shown(images), rate, inspector.look)

    def defects(self, inspector: Inspector, images: Sequence[Any], rate: float | None) -> None:
        """Let verdicts follow a miss rate among these known defects, too."""
        shown = inspector.shown(images, purpose="defects")
        inspector.model.certify_defects(inspector.model.measure(shown, inspector.look), rate)

    def pool(self, inspector: Inspector, images: Sequence[Any], limit: int) -> None:
        """Let images judge each other, and those that are inspected: these, or so many of them that can be read."""
        from anomalib_clipad.vision.pool import drawn

        prepared: dict[int, Prepared] = {}
        for places in drawn(len(images), limit, lambda: len(prepared)):
            given = (images[place] for place in places)
            for batch in inspector.read_ahead(given, inspector.model.prepare, lambda *_: None):
                prepared.update((places[one.number], one.taken) for one in batch)
        check_several(len(prepared), len(images))
        chosen = [prepared[place] for place in sorted(prepared)]
        size = inspector.batch_size
        inspector.live("mutual").gather(chosen[start : start + size] for start in range(0, len(chosen), size))


def check_several(readable: int, count: int) -> None:
    """Check that there are images to judge each other.

    Raises:
        ValueError: If fewer than two of them can be read.
    """
    if readable < 2:
        msg = f"mutual compares images with each other; {readable} of {count} can be read. It takes 2 or more."
        raise ValueError(msg)


def remark_few(count: int) -> None:
    """Warn where so few different images judge each other that it is of little use."""
    from anomalib_clipad.vision.pool import FEW

    if count < FEW:
        msg = f"mutual compares only {count} images with each other; from {FEW} on it is worth more."
        warnings.warn(msg, stacklevel=4)


def remark_doubt(normal: NormalScores) -> None:
    """Warn where a calibration that came with a model looks wrong."""
    doubt = normal.doubt()
    if doubt is not None:
        warnings.warn(doubt, stacklevel=3)

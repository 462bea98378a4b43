"""How images arrive at what an inspector is fitted to: read in this process, or elsewhere (``scale/fits.py``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_clipad.predictor.base import Shown
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

    def pool(self, inspector: Inspector, images: Sequence[Any], limit: int) -> None:
        """Let these images judge each other, and those that are inspected."""
        from anomalib_clipad.vision.pool import choose

        chosen = (images[place] for place in choose(len(images), limit))
        groups = list(inspector.read_ahead(chosen, inspector.model.prepare, lambda *_: None))
        count = sum(map(len, groups))
        if count < 2:
            msg = f"mutual compares images with each other; {count} of {len(images)} can be read. It takes 2 or more."
            raise ValueError(msg)
        inspector.live("mutual").gather(groups)


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

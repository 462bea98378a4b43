"""How images arrive at what an inspector is fitted to: read in this process, or elsewhere (``scale/fits.py``)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inspector import Inspector


class Fitting:
    """Fits an inspector's predictor in this process."""

    def references(self, inspector: Inspector, images: Any, memory_size: int | None) -> None:
        """Let images be compared with these from now on."""
        inspector.live("references").fit(inspector.shown(images, reference=True), memory_size)

    def left_out(self, inspector: Inspector, images: Any, rate: float) -> None:
        """Calibrate on the references, each judged by all the others."""
        live = inspector.live("references")
        live.calibrate_left_out(inspector.shown(images, reference=True), rate, inspector.look)

    def calibration(self, inspector: Inspector, images: Any, rate: float | None) -> None:
        """Calibrate on these images."""
        inspector.model.calibrate(inspector.shown(images), rate, inspector.look)

    def pool(self, inspector: Inspector, images: Any, limit: int) -> None:
        """Let these images judge each other, and those that are inspected."""
        from anomalib_clipad.vision.pool import choose

        sources = list(images)
        chosen = (sources[place] for place in choose(len(sources), limit))
        groups = list(inspector.read_ahead(chosen, inspector.model.prepare, lambda *_: None))
        count = sum(map(len, groups))
        if count < 2:
            msg = f"mutual compares images with each other; {count} of {len(sources)} can be read. It takes 2 or more."
            raise ValueError(msg)
        inspector.live("mutual").gather(groups)


def remark_few(count: int) -> None:
    """Warn where so few different images judge each other that it is of little use."""
    from anomalib_clipad.vision.pool import FEW

    if count < FEW:
        msg = f"mutual compares only {count} images with each other; from {FEW} on it is worth more."
        warnings.warn(msg, stacklevel=4)

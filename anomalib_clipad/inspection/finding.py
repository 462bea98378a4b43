"""What is found in one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.verdicts.regions import Region, find_regions

if TYPE_CHECKING:
    from PIL import Image

_OPACITY = 0.55
_CALM, _SURE = 0.35, 0.65
"""Where a colour begins to show and where it is as strong as it gets, on a scale with the threshold at 0.5."""
_SHARE = (_OPACITY * np.clip((np.arange(256) / 255 - _CALM) / (_SURE - _CALM), 0, 1)).astype(np.float32)
"""How much of a colour shows, by its level."""


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """What is found in one image.

    Attributes:
        image: RGB image (H, W, 3) as a viewer shows it, uint8.
        score: Image score; 0.5 lies between good and defective.
        label: Whether the image is defective.
        threshold: The largest score that is not defective.
        anomaly_map: Map (h, w) of the model's size.
        regions: Defective regions, the most abnormal first.
        map_threshold: The map value above which a pixel is defective.
        ignored: Pixels that are never looked at (H, W), if any.
        p_value: How rare so high a score is among normal images, where the model is calibrated.
        class_name: What the image shows.
        path: Its file, if it came from one.
        remark: What else there is to say of the image, such as that the model was calibrated on it.
        decided: Whether the label is a verdict: by a threshold, a calibration, or a model that has one. Else scores
            only sort images by suspicion, and the label says no more than that the score is above the midpoint.
        text_score: The score of the text alone, where the model compares with images too: that of a model without
            these images that nothing is fitted to, 0.5 at its midpoint. ``None`` where the text has no share, of an
            exported file, and where something is ignored.
        reference_score: The score of that comparison alone, likewise: that of a model with ``text_weight=0``.
        verdict: ``good``, ``look`` or ``defective``, where known defects and a miss rate stand beside the false-alarm
            rate. ``label`` is by the false-alarm rate alone.
    """

    image: NDArray[np.uint8]
    score: float
    label: bool
    threshold: float
    anomaly_map: NDArray[np.float32]
    regions: tuple[Region, ...] = ()
    p_value: float | None = None
    class_name: str | None = None
    path: Path | None = None
    map_threshold: float = 0.5
    ignored: NDArray[np.bool_] | None = None
    remark: str | None = None
    decided: bool = True
    text_score: float | None = None
    reference_score: float | None = None
    verdict: str | None = None

    def __repr__(self) -> str:
        name = "" if self.path is None else f"{str(self.path)!r}, "
        decided = "" if self.p_value is None else f", p_value={self.p_value:.3f}"
        return f"Finding({name}score={self.score:.3f}{decided}, label={self.label}, regions={len(self.regions)})"

    @cached_property
    def map(self) -> NDArray[np.float32]:
        """The map at the size of the image (H, W)."""
        return at_size(self.anomaly_map, self.image.shape[:2], self.ignored)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Whether a pixel belongs to a defective region (H, W)."""
        # those that count are all that are as large as the smallest of them
        smallest = min((region.area for region in self.regions), default=self.map.size + 1)
        return find_regions(self.map, self.map_threshold, smallest).mask

    def overlay(self) -> Image.Image:
        """The image under its heat map, regions outlined.

        Colours have one scale for all images, with the threshold in its middle, so a good part looks calm.
        """
        from PIL import Image

        return Image.fromarray(_heated(self.image, self.map, self.map_threshold, self.mask))

    def small_overlay(self, small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same of the image in a smaller size, which takes less time.

        Args:
            small: The image in that size (h, w, 3).
        """
        height, width = size = small.shape[:2]
        ignored = None
        if self.ignored is not None:
            ignored = cv2.resize(self.ignored.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        mask = np.zeros(size, np.bool_)
        if self.regions:  # a region is never lost, however small
            share = cv2.resize(self.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            mask = share > 0
        return _heated(small, at_size(self.anomaly_map, size, ignored), self.map_threshold, mask)

    def show(self) -> None:
        """Show the overlay in the desktop's viewer; in a notebook a finding shows itself."""
        self.overlay().show()

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.overlay().save(buffer, "PNG")
        return buffer.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Everything but pixels, as plain data for JSON."""
        height, width = self.image.shape[:2]
        return {
            "path": None if self.path is None else str(self.path),
            "class_name": self.class_name,
            "score": self.score,
            "p_value": self.p_value,
            "label": self.label,
            "verdict": self.verdict,
            "decided": self.decided,
            "text_score": self.text_score,
            "reference_score": self.reference_score,
            "threshold": self.threshold,
            "width": width,
            "height": height,
            "remark": self.remark,
            "regions": [{**region._asdict(), "box": list(region.box)} for region in self.regions],
        }


def _heated(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], threshold: float, mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """An image (H, W, 3) under its map (H, W), with the borders of its mask (H, W)."""
    level = (255 * centred(anomaly_map, threshold)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    share = _SHARE[level]
    blended = cv2.blendLinear(np.ascontiguousarray(image), colours, 1 - share, share)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    width = max(1, round(min(image.shape[:2]) / 300))
    return np.asarray(cv2.drawContours(blended, outlines, -1, (255, 255, 255), width), np.uint8)


def at_size(
    anomaly_map: NDArray[np.float32], size: tuple[int, ...], ignored: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """A map (h, w), interpolated, at another size (H, W); where it is ignored it is the least there is."""
    height, width = size
    resized = np.asarray(cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return resized if ignored is None else np.where(ignored, np.nanmin(resized, initial=0), resized).astype(np.float32)


def centred(values: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Values in [0, 1] on a scale on which the threshold is 0.5; what is no number is 1.

    >>> centred(np.array([0, 0.4, 0.8, 0.9, 1], np.float32), 0.8).round(3).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not 0 <= threshold <= 1 or values.min(initial=0) < 0 or values.max(initial=1) > 1:  # not normalised
        spread = max(float(np.abs(values - threshold).max(initial=0)), 1e-12)
        return (0.5 + 0.5 * (values - threshold) / spread).astype(np.float32)
    low = 0.5 * values / max(threshold, 1e-6)
    high = 1 - 0.5 * (1 - values) / max(1 - threshold, 1e-6)
    return np.nan_to_num(np.clip(np.where(values <= threshold, low, high), 0, 1), nan=1).astype(np.float32)

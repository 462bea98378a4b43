"""What is asked at every door: files as cameras and programs write them, and the pixels that a viewer shows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from conftest import shallow
from numpy.typing import NDArray
from PIL import Image

from anomalib_clipad import Inspector
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.inspection.finding import Finding

_ORIENTATION = 0x0112
_STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}
"""From what a viewer shows to the pixels in a file of an EXIF orientation."""


class Shot(NamedTuple):
    """An image file.

    Attributes:
        name: Of the file.
        content: Of the file.
        pixels: What a viewer shows: RGB (H, W, 3), uint8, or float32 in [0, 1].
    """

    name: str
    content: bytes
    pixels: NDArray[Any]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def shot(name: str, pixels: NDArray[np.uint8], orientation: int = 1, kind: str = "png", **options: Any) -> Shot:
    """A file without loss, its pixels turned away so that EXIF has to turn them back."""
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][_ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(_STORED[orientation](pixels)))
    return Shot(f"{name}.{kind}", saved(stored, {"tif": "tiff"}.get(kind, kind), **options), pixels)


def texture(seed: int, size: tuple[int, int] = (48, 60), scratch: bool = False) -> NDArray[np.uint8]:
    """A picture of noise on a slope; no two seeds are alike."""
    rng = np.random.default_rng(seed)
    height, width = size
    slope = np.linspace(0, rng.uniform(20, 90), width)[None, :, None] + np.linspace(0, 30, height)[:, None, None]
    pixels = (60 + slope + rng.normal(0, 25, (height, width, 3))).clip(0, 255).astype(np.uint8)
    if scratch:
        pixels[height // 3 : height // 3 + 8, width // 4 : width // 4 + 30] = (250, 240, 20)
    return pixels


def textures(name: str, count: int, first: int, size: tuple[int, int] = (48, 60)) -> tuple[Shot, ...]:
    """So many files of pictures of their own."""
    return tuple(shot(f"{name}{number:03}", texture(first + number, size)) for number in range(count))


@dataclass(frozen=True, eq=False)
class Asked:
    """What a user asks, whatever the door.

    Attributes:
        images: To inspect.
        class_name: What they show.
        settings: By which the model is built, besides the backbone.
        references: Normal images to compare with.
        calibration: Normal images that set the threshold.
        rate: False-alarm rate.
        defects: Known defects.
        miss_rate: Of three verdicts.
        threshold: Of scores and maps.
        options: Whatever else a door may take or refuse, such as ``ignore`` or ``min_area``.
        mutual: Whether the images judge each other.
        product: A product file made of that, in place of references.
        before: What the model, the inspector, the file or the session was asked for before.
        earlier: What another process with the same cache asked before.
        processor: Options of the model's own post-processor.
        transform: The model's own pre-processing.
    """

    images: tuple[Shot, ...] = ()
    class_name: str | None = "nut"
    settings: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[Shot, ...] | None = None
    calibration: tuple[Shot, ...] | None = None
    rate: float | None = None
    defects: tuple[Shot, ...] | None = None
    miss_rate: float | None = None
    threshold: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mutual: bool = False
    product: Asked | None = None
    before: Asked | None = None
    earlier: Asked | None = None
    processor: Mapping[str, Any] = field(default_factory=dict)
    transform: Any = None

    @property
    def model(self) -> dict[str, Any]:
        """All settings by which the model is built."""
        return {**shallow(), **self.settings}

    @property
    def of_model(self) -> str:
        """All of which a model is made, files byte by byte: equal for questions that the same export answers."""

        def content(asked: Asked | None) -> object:
            if asked is None:
                return None
            others = {name: value for name, value in vars(asked).items() if name not in ("images", "before")}
            return {name: content(value) if isinstance(value, Asked) else value for name, value in others.items()}

        return repr(content(self))


class Answer(NamedTuple):
    """What a door says of an image; ``None`` where it does not say it.

    Attributes:
        score: Of the image.
        label: Whether it is defective.
        p_value: Of the image.
        map: Of the size of the image or of the model.
        mask: Of the size of the map.
        boxes: Of regions, left, top, width, height.
        count: How many regions there are.
        verdict: Of three.
    """

    score: float
    label: bool | None
    p_value: float | None
    map: NDArray[Any] | None = None
    mask: NDArray[Any] | None = None
    boxes: list[tuple[int, ...]] | None = None
    count: int | None = None
    verdict: str | None = None

    @classmethod
    def of(cls, finding: Finding) -> Answer:
        """Of an inspector's finding."""
        boxes = [tuple(region.box) for region in finding.regions]
        of_image = (finding.score, finding.label, finding.p_value)
        return cls(*of_image, finding.anomaly_map, None, boxes, len(boxes), finding.verdict)


class Refusal(str):
    """Why a door does not answer."""

    __slots__ = ()


Answers = dict[str, Answer | Refusal]
"""By the names of the images."""


def truth(asked: Asked) -> dict[str, Finding]:
    """What is right: of pixels in memory, each image looked at alone by a fresh inspector in Python."""

    def pictures(shots: tuple[Shot, ...] | None) -> list[Picture] | None:
        return None if shots is None else [Picture(one.pixels, Path(one.name)) for one in shots]

    given: dict[str, Any] = {
        "references": pictures(asked.references),
        "calibration": pictures(asked.calibration),
        "false_alarm_rate": asked.rate,
        "defects": pictures(asked.defects),
        "miss_rate": asked.miss_rate,
        "threshold": asked.threshold,
        "mutual": pictures(asked.images) if asked.mutual else None,
        **asked.options,
    }
    own = Inspector(asked.class_name, **given, **asked.model)
    if asked.processor.get("enable_normalization") is False:
        own.live("").processor.decision.normalize = False
        own.decide_by()
    return {one.name: own.inspect(Picture(one.pixels, Path(one.name))) for one in asked.images}

"""What an export carries to check itself: small images, and what was found in them in Python.

Imports neither anomalib nor Lightning.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalib_clipad.images.listing import files_in
from anomalib_clipad.images.picture import UnreadableError, read
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.predictor.runtimes import Arrays
from anomalib_clipad.verdicts.conformal import TIE
from anomalib_clipad.verdicts.normal_scores import NormalScores

KEY = "verification"
"""Name of the record in a file's metadata."""
_SIDES = (256, 192, 128, 96, 64)
_BYTES = 33_000
"""Most bytes of one image."""
_COUNT = 3
_GENERATED = (("gear", None), ("gear", "scratch"), ("wood", "hole"))
_STRIDE = 4
"""Of the maps every fourth pixel along an axis is kept."""
SCORE_TOLERANCE, MAP_TOLERANCE = 1e-4, 2e-3
"""Largest differences of a float32 file; OpenVINO's resize moves maps by up to 2e-3 (docs/deployment.md)."""
_SLACK = 2 * TIE
"""What rounding may change; files of version 0.2.0 knew no ties."""

T = TypeVar("T", bool, float)
Run = Callable[[NDArray[np.float32]], Arrays]
"""From images (B, 3, H, W) in [0, 1] to outputs by name."""


@dataclass(frozen=True)
class Record:
    """Images and results, as they are in a file's metadata.

    Attributes:
        images: PNG files.
        size: Height and width of the images the file takes, if it takes one size: pixels are repeated for it.
        inputs: How to make further inputs, by name: a ``shape`` with a ``scale``, or a ``value``; see ``inputs_of``.
        scores: Image scores in Python.
        p_values: Their p-values, by the file itself, if it has verdicts.
        labels: Whether they are defective, likewise.
        maps: Every fourth pixel of every fourth row of their maps.
        score_tolerance: Largest difference of scores that this file is allowed.
        map_tolerance: The same of map values.
        runtime: Where the file was run when it was written, and in what number format.
        calibration: Digest of the file's ``NormalScores``, empty if it has none; ``None`` if version 0.2.0 wrote it.
    """

    images: tuple[bytes, ...]
    size: tuple[int, int] | None
    inputs: dict[str, dict[str, Any]]
    scores: tuple[float, ...]
    p_values: tuple[float, ...] | None
    labels: tuple[bool, ...] | None
    maps: tuple[NDArray[np.float32], ...]
    score_tolerance: float = SCORE_TOLERANCE
    map_tolerance: float = MAP_TOLERANCE
    runtime: str = ""
    calibration: str | None = None

    def to_text(self) -> str:
        """JSON; images and maps in base64, maps as float32 after zlib."""
        data = {name: value for name, value in asdict(self).items() if name != "maps"}
        maps = [{"shape": list(one.shape), "values": _packed(zlib.compress(one.tobytes()))} for one in self.maps]
        return json.dumps({**data, "version": 2, "images": [_packed(image) for image in self.images], "maps": maps})

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Record:
        """The record of a file.

        Raises:
            LookupError: If it has none.
            ValueError: If the record is damaged or of another version.
        """
        if KEY not in metadata:
            msg = "The file carries no verification data: it was written by another program or an older version."
            raise LookupError(msg)
        try:
            data = json.loads(metadata[KEY])
            if data.pop("version") not in {1, 2}:
                msg = "of another version"
                raise ValueError(msg)  # noqa: TRY301
            data["images"] = tuple(b64decode(image, validate=True) for image in data["images"])
            data["maps"] = tuple(
                np.frombuffer(zlib.decompress(b64decode(one["values"])), np.float32).reshape(one["shape"])
                for one in data["maps"]
            )
            for name in ("size", "scores", "p_values", "labels"):
                data[name] = None if data[name] is None else tuple(data[name])
            record = cls(**data)
            record.pixels()
        except Exception as error:  # JSON, base64, zlib, numpy and Pillow each raise their own
            msg = f"The verification data of the file is damaged ({error}). Export it anew."
            raise ValueError(msg) from error
        return record

    def pixels(self) -> list[NDArray[np.float32]]:
        """The images (1, 3, H, W) in [0, 1]."""
        return [decode(image, self.size)[None] for image in self.images]

    def compare(self, run: Run, normal: NormalScores | None = None) -> Comparison:
        """What a runtime finds, against what was found when the file was written.

        Args:
            run: The file in its runtime.
            normal: The calibration in the file's metadata.
        """
        return self._compare([run(pixels) for pixels in self.pixels()], normal)

    def _compare(self, found: Sequence[Arrays], normal: NormalScores | None) -> Comparison:
        scores = [abs(float(one["pred_score"][0]) - wanted) for one, wanted in zip(found, self.scores, strict=True)]
        maps = [
            float(np.abs(thinned(one["anomaly_map"][0]) - wanted).max())
            for one, wanted in zip(found, self.maps, strict=True)
        ]
        labels, p_values = _each(found, "pred_label", bool), _each(found, "p_value", float)
        flips = sum(one != wanted for one, wanted in zip(labels or (), self.labels or (), strict=False))
        moves = [abs(one - wanted) for one, wanted in zip(p_values or (), self.p_values or (), strict=False)]
        # version 0.2.0 kept the verdicts of Python, which a compressed file need not share
        own = self.calibration is not None or self.score_tolerance <= SCORE_TOLERANCE
        fault = ""
        if self.calibration not in {None, _digest(normal)}:
            fault = "its calibration scores or its false-alarm rate are not those it was written with"
        elif normal is not None and not all(_follows(one, normal) for one in found):
            fault = "its verdicts do not follow from the calibration scores and the false-alarm rate in its metadata"
        elif own and ((labels is None) != (self.labels is None) or flips):
            fault = f"{flips} of {len(found)} verdicts flip"
        elif own and normal is not None and not self._explains(p_values, normal):
            fault = "its p-values differ by more than the tolerance of its scores explains"
        return Comparison(_largest(scores), _largest(maps), max(moves, default=0.0), flips, fault)

    def _explains(self, p_values: Sequence[float] | None, normal: NormalScores) -> bool:
        """Whether these p-values are those of scores within the tolerance."""
        low, high = (normal.p_values(np.add(self.scores, sign * self.score_tolerance)) for sign in (1, -1))
        return p_values is not None and bool(((low - _SLACK <= p_values) & (p_values <= high + _SLACK)).all())

    def accept(self, run: Run, runtime: str) -> Record:
        """The record of a file that was just written, with its own verdicts.

        Where it is compressed, twice its own differences are allowed.
        """
        found = [run(pixels) for pixels in self.pixels()]
        comparison = self._compare(found, None)
        return replace(
            self,
            p_values=_each(found, "p_value", float),
            labels=_each(found, "pred_label", bool),
            score_tolerance=max(self.score_tolerance, 2 * comparison.score),
            map_tolerance=max(self.map_tolerance, 2 * comparison.map),
            runtime=runtime,
        )


class Comparison(NamedTuple):
    """Differences between a runtime and what was found when the file was written.

    Attributes:
        score: Of image scores.
        map: Of map values.
        p_value: Of p-values.
        flips: Number of images whose verdict is another one.
        fault: What is wrong with the verdicts, in words; empty if nothing is.
    """

    score: float
    map: float
    p_value: float
    flips: int
    fault: str

    def near(self, record: Record) -> bool:
        """Whether scores and maps are within a record's tolerances; NaN is not."""
        return self.score <= record.score_tolerance and self.map <= record.map_tolerance

    def within(self, record: Record) -> bool:
        """Whether verdicts are those of the record, too."""
        return self.near(record) and not self.fault


def record(
    run: Run,
    images: Path | None,
    size: tuple[int, int] | None,
    inputs: dict[str, dict[str, Any]],
    normal: NormalScores | None = None,
) -> Record:
    """Run images and keep the results.

    Args:
        run: In Python.
        images: Folder of images, or a single one; by default generated ones.
        size: The one size of images that the file takes, if it does.
        inputs: How to make further inputs.
        normal: The calibration in the file's metadata.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If one cannot be read.
    """
    files = tuple(pictures(images))
    found = [run(decode(file, size)[None]) for file in files]
    return Record(
        files,
        size,
        inputs,
        tuple(float(one["pred_score"][0]) for one in found),
        _each(found, "p_value", float),
        _each(found, "pred_label", bool),
        tuple(thinned(one["anomaly_map"][0]) for one in found),
        calibration=_digest(normal),
    )


def _each(found: Sequence[Arrays], name: str, kind: type[T]) -> tuple[T, ...] | None:
    """An output of each image, if there is one."""
    return tuple(kind(one[name][0]) for one in found) if name in found[0] else None


def _digest(normal: NormalScores | None) -> str:
    return "" if normal is None else normal.digest()


def _follows(found: Arrays, normal: NormalScores) -> bool:
    """Whether the verdicts on an image are those that these scores give, but for rounding."""
    if "p_value" not in found:
        return False
    score, p_value, values = float(found["pred_score"][0]), float(found["p_value"][0]), found["anomaly_map"][0]
    low, high = normal.p_values([score + _SLACK, score - _SLACK])
    limits = normal.limits()
    label = bool(found["pred_label"][0]) == (not score <= limits.score) or abs(score - limits.score) <= _SLACK
    mask = (found["pred_mask"][0] == ~(values <= limits.region)) | (np.abs(values - limits.region) <= _SLACK)
    follows = bool(low - _SLACK <= p_value <= high + _SLACK and label and mask.all())
    if not normal.three or "verdict" not in found:
        return follows and normal.three == ("verdict" in found)
    least, most = normal.judge([score - _SLACK, score + _SLACK])
    return follows and bool(least <= found["verdict"][0] <= most)


def pictures(source: Path | None) -> list[bytes]:
    """Up to three PNG files of less than 100 kB together: generated parts, or a user's images, made smaller."""
    if source is None:
        generated = [named_sample(category, "verification", 0, defect, 0, 96).image for category, defect in _GENERATED]
        return [_png(Image.fromarray(image)) for image in generated]
    files = (files_in(source) if source.is_dir() else [source])[:_COUNT]
    if not files:
        msg = f"There are no images in '{source}' to verify exports with."
        raise FileNotFoundError(msg)
    return [_small(file) for file in files]


def _small(file: Path) -> bytes:
    try:
        picture = Image.fromarray(read(file).shown)
    except UnreadableError as error:
        msg = f"The image {file}, to verify exports with, cannot be read ({error.__cause__ or error})."
        raise ValueError(msg) from error
    encoded = b""
    for side in _SIDES:
        picture.thumbnail((side, side))
        encoded = _png(picture)
        if len(encoded) < _BYTES:
            break
    return encoded


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def decode(file: bytes, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Pixels (3, H, W) in [0, 1] of a PNG, repeated to fill a size."""
    with Image.open(BytesIO(file)) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    if size is not None:
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, pixels.shape[:2], strict=True))
        pixels = pixels[rows][:, columns]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def inputs_of(descriptions: dict[str, dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    """Further inputs of a file: a number or a list of them, or a sine of the place in the array times a scale."""
    made = {}
    for name, how in descriptions.items():
        if "value" in how:
            made[name] = np.array(how["value"], np.float32)
        else:
            places = np.arange(int(np.prod(how["shape"])), dtype=np.float64)
            made[name] = (np.sin(places) * how["scale"]).astype(np.float32).reshape(how["shape"])
    return made


def thinned(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every fourth pixel of every fourth row."""
    return np.ascontiguousarray(anomaly_map[::_STRIDE, ::_STRIDE], np.float32)


def _packed(content: bytes) -> str:
    return b64encode(content).decode("ascii")


def _largest(differences: Sequence[float]) -> float:
    """The largest, or NaN if there is one: ``max`` would pass over it."""
    return float(np.max(differences))

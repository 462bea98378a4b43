"""What an inspector can run: one interface for exported files and for models in torch."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor.runtimes import Runtime, load
from anomalib_clipad.verdicts.normal_scores import NormalScores

Prepared = NDArray[np.float32]


class Scored(NamedTuple):
    """Scores of images, with 0.5 between good and defective.

    Attributes:
        score: Of each image (B,).
        anomaly_map: Of each image (B, h, w).
    """

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]


class Model(ABC):
    """Something that scores images.

    Attributes:
        class_name: What it looks for defects of, if it knows.
        normal: Scores of normal images, if it is calibrated.
    """

    class_name: str | None
    normal: NormalScores | None

    @abstractmethod
    def prepare(self, picture: Picture) -> Prepared:
        """What the model takes of an image; called from several threads."""

    @abstractmethod
    def score(self, images: Sequence[Prepared]) -> Scored:
        """Score prepared images."""


class ExportedModel(Model):
    """An exported file in its runtime, which needs nothing else of this package's machinery.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt``.
        product: File of ``anomalib-clipad product``, for a file that takes a product's memory as an input.
        precision: OpenVINO's ``INFERENCE_PRECISION_HINT``.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: See ``runtimes.load``; also if the file and the product do
            not belong together.
    """

    def __init__(self, path: Path, product: Path | None = None, precision: str | None = None) -> None:
        self._runtime: Runtime = load(path, precision)
        metadata = self._runtime.metadata
        self._inputs = _inputs(path, self._runtime, product)
        name = metadata.get("class_name", "")
        self.class_name = None if not name or name == "None" or name.startswith("any:") else name
        self.normal = self._runtime.normal

    def prepare(self, picture: Picture) -> Prepared:
        """The image itself: the file resizes and normalises it."""
        return picture.levels

    def score(self, images: Sequence[Prepared]) -> Scored:
        """Images of one size go together."""
        scores: list[Any] = [None] * len(images)
        maps: list[Any] = [None] * len(images)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(index)
        for places in sizes.values():
            found = self._runtime.run(np.stack([images[place] for place in places]), inputs=self._inputs)
            for place, score, anomaly_map in zip(places, found["pred_score"], found["anomaly_map"], strict=True):
                scores[place], maps[place] = score, np.squeeze(anomaly_map)
        return Scored(np.array(scores, np.float32), np.stack(maps))


def _inputs(path: Path, runtime: Runtime, product: Path | None) -> dict[str, NDArray[Any]]:
    """What a file takes beside the images, from a product file."""
    if product is None:
        if runtime.inputs:
            msg = f"{path} serves any product: it takes {', '.join(sorted(runtime.inputs))}. Pass a product file."
            raise ValueError(msg)
        return {}
    tensors, about = _read_product(product)
    if not runtime.inputs <= tensors.keys():
        missing = ", ".join(sorted(runtime.inputs - tensors.keys()))
        msg = f"{path} takes {missing}, which {product} lacks. Write the product file with a class name."
        raise ValueError(msg)
    for name in ("backbone", "image_size", "tap"):
        ours, theirs = runtime.metadata.get(name), str(about.get(name))
        if ours != theirs:
            msg = f"{product} is of a model with {name} {theirs}, {path} is one with {ours}. Write it anew."
            raise ValueError(msg)
    return {name: tensors[name] for name in runtime.inputs}


def _read_product(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from safetensors import safe_open

    try:
        with safe_open(path, "numpy") as file:
            about = json.loads((file.metadata() or {})["settings"])
            return {name: file.get_tensor(name) for name in file.keys()}, dict(about)  # noqa: SIM118  # it is no dict
    except Exception as error:  # safetensors and JSON readers each raise their own
        msg = f"{path} is no product file, or is damaged. Expected a file written by `anomalib-clipad product`."
        raise ValueError(msg) from error

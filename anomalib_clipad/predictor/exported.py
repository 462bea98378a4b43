"""An exported file in its runtime: scores, and what the file says of itself."""

from __future__ import annotations

import ast
import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.alike import from_plain
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.vision.tile_grid import TileGrid

from .base import Predictor, Prepared, Scored, Shown, numbers
from .frame import WHOLE
from .products import Product, read_product
from .runtimes import AS_EXPORTED, REFERENCES, TAUGHT, Runtime, load
from .taught import Taught


class ExportedPredictor(Predictor):
    """An exported file, which needs nothing else of this package's machinery; it can be pickled, with its content.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt``.
        product: File of ``anomalib-clipad product``, for a file that takes a product's memory as an input.
        precision: OpenVINO's ``INFERENCE_PRECISION_HINT``; by default that of the model that was exported, whose scores
            it then has.
        class_name: What images show; it has to be what the file looks at.

    Raises:
        FileNotFoundError, ModuleNotFoundError: See ``runtimes.load``.
        ValueError: If the file is damaged, or does not go with the product, the precision or the class name.
    """

    def __init__(
        self,
        path: Path,
        product: Path | None = None,
        precision: str | None = None,
        class_name: str | None = None,
    ) -> None:
        self._files, self._asked = (path, product), precision
        self._runtime: Runtime = load(path, precision or AS_EXPORTED)
        self._facts = facts = self._runtime.metadata
        self.precision = self._runtime.precision
        self.frame = facts.get("frame", WHOLE)
        taken = _product(path, self._runtime, product)
        self._inputs = {} if taken is None else {name: taken.tensors[name] for name in self._runtime.inputs}
        name = facts.get("class_name", "None")
        self.class_name = None if name == "None" or name.startswith("any:") else name
        if taken is not None:
            self.class_name, self.references, self.taught = taken.class_name, taken.references, taken.taught
        elif REFERENCES in facts:
            self.references = tuple(from_plain(json.loads(facts[REFERENCES])))
            self.taught = Taught.from_plain(json.loads(facts.get(TAUGHT, "null")))
        self._check_class(path, class_name)
        self._aspect = float(facts.get("aspect", 0) if taken is None else taken.tensors["aspect"])
        self._normal = self._runtime.normal
        self._check_precision(path)
        self._unsaid = "version" not in facts  # by version 0.2, which did not write down how it decides
        self.fitted = not math.isnan(float(facts.get("image_min", "nan")))
        self._limits, self._grid = _limits(facts, self._unsaid), _grid(facts)

    def _check_class(self, path: Path, asked: str | None) -> None:
        if asked is None or asked == self.class_name:
            return
        if self.class_name is None:
            msg = f"{path} compares images with each other alone, without any words. Leave out class_name '{asked}'."
        else:
            msg = f"{path} looks at '{self.class_name}', not at '{asked}'. Leave out the class name, or export it."
        raise ValueError(msg)

    def _check_precision(self, path: Path) -> None:
        if self._normal is not None and self._normal.computed_in != self.precision:
            msg = (
                f"{path} is calibrated on scores computed in {self._normal.computed_in}, and {self._runtime.name} "
                f"would compute in {self.precision} here: scores would be others, and the false-alarm rate would not "
                "hold. Leave out precision, or export a model of that precision."
            )
            raise ValueError(msg)

    @property
    def own_limits(self) -> Limits | None:
        """What the file says; half of the scale for one of version 0.2, whose labels are compared with that."""
        return self._limits

    @property
    def normalized(self) -> bool:
        """Whether scores lie in [0, 1]."""
        return self._facts.get("normalized", "True") == "True"

    @property
    def normal(self) -> NormalScores | None:
        """Of the file, or of ``keep_normal``."""
        return self._normal

    def keep_normal(self, normal: NormalScores | None) -> None:
        """Take over scores of normal images."""
        self._normal = normal

    @property
    def grid(self) -> TileGrid | None:
        """The tiles that it cuts images into."""
        return self._grid

    @property
    def aspect(self) -> float:
        """Of the references in its memory."""
        return self._aspect

    def fit(self, shown: Iterable[Shown], memory_size: int | None = None) -> None:
        """An exported file keeps its references.

        Raises:
            ValueError: Always.
        """
        del shown, memory_size
        msg = "An exported file cannot take references: build the model from a backbone, or write a product file."
        raise ValueError(msg)

    def _prepare(self, picture: Picture) -> Prepared:
        """The image itself: the file resizes and normalises it."""
        return picture.levels

    def score(self, images: Sequence[Prepared]) -> Scored:
        """Images of one size go together."""
        return numbers(self._raw(images))

    def _raw(self, images: Sequence[Prepared]) -> Scored:
        scores: list[Any] = [None] * len(images)
        maps: list[Any] = [None] * len(images)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(index)
        for places in sizes.values():
            found = self._run(np.stack([images[place] for place in places]))
            if self._unsaid and self._normal is None:
                _check_labels(found, self._files[0])
            for place, score, anomaly_map in zip(places, found["pred_score"], found["anomaly_map"], strict=True):
                scores[place], maps[place] = score, np.squeeze(anomaly_map)
        return Scored(np.array(scores, np.float32), np.stack(maps))

    def _run(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """What the file makes of images of one size.

        Raises:
            ValueError: If it is for images of another size.
        """
        try:
            return self._runtime.run(images, inputs=self._inputs)
        except Exception as error:  # each runtime raises its own
            height, width = images.shape[2:]
            if (size := self._runtime.size) in {None, (height, width)}:
                raise
            msg = (
                f"{self._files[0]} takes images of {size[1]} x {size[0]} pixels, and this one has {width} x {height}. "
                "Resize it, or export a file for any size (without input_size)."
            )
            raise ValueError(msg) from error

    def __reduce__(self) -> tuple[Any, ...]:
        path, product = self._files
        files = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else []), *filter(None, [product])]
        contents = {file.name: file.read_bytes() for file in files}
        names = (path.name, None if product is None else product.name)
        return _unpacked, (contents, *names, self._asked, self._normal)


def _limits(facts: dict[str, str], unsaid: bool) -> Limits | None:
    if "decision" in facts:
        decision = json.loads(facts["decision"])
        return Limits(decision["score_threshold"], decision["map_threshold"])
    return Limits(0.5, 0.5) if unsaid else None


def _grid(facts: dict[str, str]) -> TileGrid | None:
    tiles = ast.literal_eval(facts.get("tiles", "None"))
    if tiles is None or "patch_size" not in facts:
        return None
    rows, columns = tiles
    return TileGrid(rows, columns, int(facts["image_size"]), int(facts["patch_size"]), facts["aligned"] == "True")


def _unpacked(
    contents: dict[str, bytes], name: str, product: str | None, precision: str | None, normal: NormalScores | None
) -> ExportedPredictor:
    """The file elsewhere, with its calibration."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        predictor = ExportedPredictor(folder / name, None if product is None else folder / product, precision)
    predictor.keep_normal(normal)
    return predictor


def _product(path: Path, runtime: Runtime, product: Path | None) -> Product | None:
    """The product file, if the file takes one, and takes this one."""
    if product is None:
        if runtime.inputs:
            msg = f"{path} serves any product: it takes {', '.join(sorted(runtime.inputs))}. Pass a product file."
            raise ValueError(msg)
        return None
    if "memory" not in runtime.inputs:
        msg = f"{path} takes no product file: it was exported without memory_input. Leave out the product."
        raise ValueError(msg)
    found = read_product(product)
    found.check(runtime.metadata, str(path), brings_text="text_features" not in runtime.inputs)
    return found


def _check_labels(found: dict[str, NDArray[Any]], path: Path) -> None:
    """Check that a file of version 0.2, which does not say how, decides at half of its scale."""
    if "pred_label" in found and not np.array_equal(found["pred_label"].ravel(), ~(found["pred_score"] <= 0.5).ravel()):
        msg = (
            f"{path} was exported by version 0.2 with thresholds of its own, which it does not say. Export it anew "
            "with this version."
        )
        raise ValueError(msg)

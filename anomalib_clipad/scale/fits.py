"""What is fitted to images, by Ray tasks: a memory of references, a calibration, and mutual scores.

Each task takes some of the images; none needs what another one finds. The result is that of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_clipad.images.picture import read
from anomalib_clipad.inspection.inspector import Inspector, check_apart, digest
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.detector import Evidence
from anomalib_clipad.vision.pool import Pool, joined, key_of
from anomalib_clipad.vision.references import mutual_rows

from .cluster import ship
from .luggage import Luggage

if TYPE_CHECKING:
    from anomalib_clipad.predictor.live import TorchModel

_IMAGES = 32
"""How many images a task takes."""
_unpacked: dict[Any, Inspector] = {}


def remember(inspector: Inspector, images: Sequence[Path]) -> list[str]:
    """Fill the memory of an inspector's model with normal images.

    Args:
        inspector: With a model in torch.
        images: Files.

    Returns:
        Digests of the images.

    Raises:
        ValueError: If there are none, or the model is an exported file.
    """
    if not images:
        msg = "There are no images in normal."
        raise ValueError(msg)
    model = inspector.torch_model("normal images")
    parts = _spread(_describe, ship(Luggage.of(inspector)), images)
    tokens = torch.cat([torch.from_numpy(np.array(part.tokens)) for part in parts], dim=1)
    model.keep(tokens, model.prepare(read(images[-1], max_pixels=inspector.max_pixels)))
    return list(chain.from_iterable(part.digests for part in parts))


def calibrate(
    inspector: Inspector,
    luggage: Luggage,
    images: Sequence[Path],
    rate: float | None = None,
    known: Sequence[str] = (),
) -> None:
    """Calibrate an inspector on normal images.

    Args:
        inspector: As packed, with its memory.
        luggage: What is packed of it.
        images: Files.
        rate: Its false-alarm rate.
        known: Digests of the images in its memory.

    Raises:
        ValueError: If there are none, or one is in its memory too.
    """
    if not images:
        msg = "There are no images in calibration."
        raise ValueError(msg)
    parts = _spread(_measure, ship(luggage), images)
    check_apart(known, chain.from_iterable(digests for _, digests in parts))
    scores = np.concatenate([normal.image_scores for normal, _ in parts])
    peaks = np.concatenate([normal.region_scores for normal, _ in parts])
    inspector.model.normal = NormalScores(scores, peaks, rate)


def mutual_pool(inspector: Inspector, images: Sequence[Path]) -> Pool:
    """Compare unlabelled images with each other (MuSc); every image with every other one.

    Args:
        inspector: With a model in torch, of whole images.
        images: Files, two or more.

    Returns:
        As ``Pool`` itself would be; ``pool.judge`` or ``model.pool = pool`` use it.

    Raises:
        ValueError: If there is one image only.
    """
    import ray

    if len(images) < 2:
        msg = f"Mutual scoring compares images with each other; got {len(images)} image. It takes at least 2."
        raise ValueError(msg)
    model: ClipADModel = inspector.torch_model("mutual scoring").model
    parts = _spread(_examine, ship(Luggage.of(inspector)), images)
    evidence = joined([_evidence(part[0]) for part in parts])
    keys = list(chain.from_iterable(part[1] for part in parts))
    tokens = ray.put(evidence.tokens.numpy())
    starts = range(0, len(images), _IMAGES)
    task = ray.remote(_rows)
    pending = [task.remote([tokens], start, min(start + _IMAGES, len(images))) for start in starts]
    scores = torch.cat([torch.tensor(rows) for rows in ray.get(pending)])
    return Pool(model.detector, evidence, keys, scores)


class _Described(NamedTuple):
    tokens: NDArray[np.float32]
    digests: list[str]


def _spread(function: Any, luggage: list[Any], images: Sequence[Path]) -> list[Any]:
    """Results of a function of a worker's inspector and some files, for all files, in order."""
    import ray

    files = [path.absolute() for path in images]
    task = ray.remote(function)
    return ray.get([task.remote(luggage, files[start : start + _IMAGES]) for start in range(0, len(files), _IMAGES)])


def _inspector(luggage: list[Any]) -> Inspector:
    """The inspector of this worker, unpacked once."""
    import ray

    if luggage[0] not in _unpacked:
        torch.set_num_threads(1)
        _unpacked.clear()
        _unpacked[luggage[0]] = ray.get(luggage[0]).unpack()
    return _unpacked[luggage[0]]


def _prepared(inspector: Inspector, files: Sequence[Path]) -> list[NDArray[np.float32]]:
    return [inspector.model.prepare(read(file, max_pixels=inspector.max_pixels)) for file in files]


def _describe(luggage: list[Any], files: Sequence[Path]) -> _Described:
    inspector = _inspector(luggage)
    images = _prepared(inspector, files)
    model: TorchModel = inspector.torch_model("normal images")
    return _Described(model.describe(images).numpy(), list(map(digest, images)))


def _measure(luggage: list[Any], files: Sequence[Path]) -> tuple[NormalScores, list[str]]:
    return _inspector(luggage).measure(files)


def _examine(luggage: list[Any], files: Sequence[Path]) -> tuple[tuple[Any, ...], list[str]]:
    inspector = _inspector(luggage)
    images = [torch.from_numpy(image) for image in _prepared(inspector, files)]
    evidence = inspector.torch_model("mutual scoring").model.examine(torch.stack(images))
    return tuple(None if one is None else one.numpy() for one in evidence), list(map(key_of, images))


def _evidence(arrays: Sequence[Any]) -> Evidence:
    return Evidence(*(None if one is None else torch.tensor(one) for one in arrays))  # type: ignore[arg-type]


def _rows(tokens: list[Any], start: int, stop: int) -> NDArray[np.float32]:
    import ray

    torch.set_num_threads(1)
    return mutual_rows(torch.tensor(ray.get(tokens[0])), range(start, stop)).numpy()

"""What is fitted to images, by Ray tasks: references, a calibration, and images that judge each other.

Each task takes some of the images; none needs what another one finds. The result is that of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_clipad.inspection.fitting import Fitting, check_several
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.predictor.base import Measured, Shown
from anomalib_clipad.vision.detector import Described, Evidence, together
from anomalib_clipad.vision.pool import Pool, drawn, first_of_each, joined, key_of, picked
from anomalib_clipad.vision.references import mutual_rows

_IMAGES = 32
"""How many images a task takes."""
_received: dict[Any, Inspector] = {}


class OnCluster(Fitting):
    """Fits an inspector by tasks of the Ray cluster that this process is connected to; images are files."""

    def references(self, inspector: Inspector, images: Sequence[Path], memory_size: int | None) -> Sequence[Shown]:
        """See ``Fitting.references``."""
        live = inspector.live("references")
        parts = _spread(_describe, inspector, images)
        described = together([Described(*map(_tensor, arrays)) for arrays, _ in parts])
        shown = list(chain.from_iterable(shown for _, shown in parts))
        live.keep(described, shown, inspector.show(images[0], reference=True).prepared, memory_size)
        return ()

    def calibration(self, inspector: Inspector, images: Sequence[Path], rate: float | None) -> None:
        """See ``Fitting.calibration``."""
        inspector.model.certify(_measured(inspector, images), rate)

    def defects(self, inspector: Inspector, images: Sequence[Path], rate: float | None) -> None:
        """See ``Fitting.defects``."""
        inspector.model.certify_defects(_measured(inspector, images), rate)

    def pool(self, inspector: Inspector, images: Sequence[Path], limit: int) -> None:
        """See ``Fitting.pool``: every image with every other one (MuSc)."""
        import ray

        live = inspector.live("mutual")
        parts: list[tuple[Any, list[str]]] = []
        places: list[int] = []
        for tried in drawn(len(images), limit, lambda: len(places)):
            found = _spread(_examine, inspector, [images[place] for place in tried])
            for start, (arrays, keys, read) in zip(range(0, len(tried), _IMAGES), found, strict=True):
                if read:
                    parts.append((arrays, keys))
                    places.extend(tried[start + row] for row in read)
        check_several(len(places), len(images))
        order = sorted(range(len(places)), key=places.__getitem__)
        every = list(chain.from_iterable(keys for _, keys in parts))
        keys = [every[row] for row in order]
        rows = first_of_each(keys)
        if len(rows) < 2:
            msg = f"Mutual scoring compares images with each other; got {len(rows)} image. It takes at least 2."
            raise ValueError(msg)
        evidence = picked(joined([_evidence(arrays) for arrays, _ in parts]), [order[row] for row in rows])
        tokens, radii = ray.put(evidence.tokens.numpy()), live.model.detector.reader.radii
        task = ray.remote(_rows)
        starts = range(0, len(rows), _IMAGES)
        pending = [task.remote([tokens], start, min(start + _IMAGES, len(rows)), radii) for start in starts]
        scores = torch.cat([torch.tensor(found) for found in ray.get(pending)])
        live.judge_by(Pool(live.model.detector, evidence, [keys[row] for row in rows], scores))


def _measured(inspector: Inspector, images: Sequence[Path]) -> Measured:
    """What calibration needs of all files, in order."""
    scores, peaks, identities = zip(*_spread(_measure, inspector, images), strict=True)
    return Measured(np.concatenate(scores), np.concatenate(peaks), tuple(chain.from_iterable(identities)))


def _spread(function: Any, inspector: Inspector, images: Sequence[Path]) -> list[Any]:
    """Results of a function of a worker's inspector and some files, for all files, in order."""
    import ray

    shipped = [ray.put(inspector)]
    files = [path.absolute() for path in images]
    task = ray.remote(function)
    return ray.get([task.remote(shipped, files[start : start + _IMAGES]) for start in range(0, len(files), _IMAGES)])


def _inspector(shipped: list[Any]) -> Inspector:
    """The inspector of this worker, received once."""
    import ray

    if shipped[0] not in _received:
        torch.set_num_threads(1)
        _received.clear()
        _received[shipped[0]] = ray.get(shipped[0])
    return _received[shipped[0]]


def _describe(shipped: list[Any], files: Sequence[Path]) -> tuple[list[Any], list[Shown]]:
    inspector = _inspector(shipped)
    shown = inspector.shown(files, reference=True)
    described = inspector.live("references").describe([one.prepared for one in shown])
    return list(map(_array, described)), [one._replace(prepared=np.empty(0, np.float32)) for one in shown]


def _measure(shipped: list[Any], files: Sequence[Path]) -> Measured:
    inspector = _inspector(shipped)
    return inspector.model.measure(inspector.shown(files), inspector.look)


def _examine(shipped: list[Any], files: Sequence[Path]) -> tuple[tuple[Any, ...], list[str], list[int]]:
    """Evidence of those files that can be read, their keys, and which they are."""
    inspector = _inspector(shipped)
    ahead = list(chain.from_iterable(inspector.read_ahead(files, inspector.model.prepare, lambda *_: None)))
    if not ahead:
        return (), [], []
    images = [torch.from_numpy(one.taken) for one in ahead]
    evidence = inspector.live("mutual").model.examine(torch.stack(images))
    return tuple(map(_array, evidence)), list(map(key_of, images)), [one.number for one in ahead]


def _evidence(arrays: Sequence[Any]) -> Evidence:
    return Evidence(*map(_tensor, arrays))


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.numpy()


def _tensor(array: Any) -> Any:
    return None if array is None else torch.tensor(array)


def _rows(tokens: list[Any], start: int, stop: int, radii: Sequence[int]) -> NDArray[np.float32]:
    import ray

    torch.set_num_threads(1)
    return mutual_rows(torch.tensor(ray.get(tokens[0])), range(start, stop), radii).numpy()

"""`python -m anomalib_clipad.lab teach`: what references that were ticked as good change, on generated parts.

Distances between all images are worked out once, patch by patch; a model of some references takes the smallest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.nn.functional import normalize

from anomalib_clipad.checks import check_counts
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.images.picture import read
from anomalib_clipad.predictor.building import by_name
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.tools.tables import Row, markdown_table
from anomalib_clipad.verdicts.recall import RECALL, auroc, false_alarms_at
from anomalib_clipad.vision.references import nearest_distance

WAYS = ("4 normals", "good ones join", "and two wrong ticks")
"""Models that are compared, by what they are called in the table."""
_REFERENCES, _LISTED, _CALIBRATION, _WRONG, _RATE = 4, 20, 19, 2, 0.05


class Category(NamedTuple):
    """Images of a category, and how far each is from each.

    Attributes:
        defective: Whether an image shows a defect (n,).
        distances: Of each patch to the nearest of another image (n, n, 4, N), stage by stage.
        predictor: By which.
    """

    defective: NDArray[np.bool_]
    distances: Tensor
    predictor: LivePredictor

    def scores(self, references: Iterable[int]) -> NDArray[np.float64]:
        """Raw image scores (n,) of all images, compared with these."""
        detector = self.predictor.model.detector
        distance = detector.reader.distance_unit * self.distances[:, list(references)].amin(dim=1).sum(dim=1)
        size = (detector.image_size, detector.image_size)
        return np.asarray(detector.peaks(distance, size).double())


def main(
    categories: Sequence[str] = ("gear", "wood"), ticks: int = 20, repetitions: int = 100, threads: int = 1
) -> None:
    """Print image AUROC and false alarms before and after teaching, means of repetitions.

    Each draws, of all normal images, four to compare with, twenty for the list of a day and nineteen to calibrate on;
    half of the defects are in the list. Its most suspicious images are ticked. All other images are measured.

    Args:
        categories: Generated categories.
        ticks: How many images are ticked.
        repetitions: How often is drawn.
        threads: CPU threads.
    """
    check_counts(ticks=ticks, repetitions=repetitions, threads=threads)
    torch.set_num_threads(threads)
    rows: list[Row] = []
    with Console(stderr=True).status("Teaching"):
        for name in categories:
            category = measured(name)
            found = np.mean([repetition(category, ticks, seed) for seed in range(repetitions)], axis=0)
            rows += [[name, way, *values] for way, values in zip(WAYS, found, strict=True)]
    columns = [("image_AUROC", ".3f"), (f"false alarms at a recall of {RECALL}", ".2f")]
    columns += [(f"false alarms for a promised {_RATE}", ".3f"), ("images that joined", ".1f")]
    print(markdown_table([("", ""), ("", ""), *columns], rows))


@torch.no_grad()
def measured(name: str, train: int = 13, good: int = 48, defective: int = 28) -> Category:
    """The images of a category, and how far clipad-mini finds each from each."""
    data = GeneratedParts(category=name, train_images=train, good_images=good, defective_images=defective)
    data.prepare_data()
    data.setup()
    predictor = by_name(None, backbone="clipad-mini", text_weight=0.0)
    files, defects = list[str](), list[bool]()
    for samples in (data.train_data.samples, data.test_data.samples):
        files += samples["image_path"].astype(str).tolist()
        defects += (samples["label_index"] == 1).tolist()
    shown = (predictor.show(read(file), file, reference=True) for file in files)
    tokens = torch.cat([predictor.describe([one.prepared]).tokens[0] for one in shown])
    tokens = normalize(tokens, dim=-1)
    found = [nearest_distance(tokens, one) for one in tokens]
    return Category(np.array(defects), torch.stack(found, dim=1), predictor)


def repetition(category: Category, ticks: int, seed: int) -> NDArray[np.float64]:
    """AUROC, false alarms in two ways, and how many images joined, of each of ``WAYS`` (3, 4)."""
    rng = np.random.default_rng(seed)
    normal, defects = (rng.permutation(np.flatnonzero(category.defective == kind)) for kind in (False, True))
    references, some, calibration, good_held_out = np.split(normal, np.cumsum([_REFERENCES, _LISTED, _CALIBRATION]))
    listed = np.concatenate([some, defects[: len(defects) // 2]])
    held_out = good_held_out, defects[len(defects) // 2 :]
    before = category.scores(references)
    ticked = listed[np.argsort(-before[listed], kind="stable")][:ticks]
    good_ones, bad_ones = (ticked[category.defective[ticked] == kind] for kind in (False, True))
    wrong = rng.permutation(bad_ones)[:_WRONG]
    rows = []
    for joining in (good_ones[:0], good_ones, np.concatenate([good_ones, wrong])):
        scores = category.scores(np.concatenate([references, joining]))
        good, bad = (scores[half] for half in held_out)
        largest = np.sort(scores[calibration])[-round(_RATE * (len(calibration) + 1))]
        rows.append([auroc(good, bad), false_alarms_at(good, bad), float(np.mean(good > largest)), len(joining)])
    return np.array(rows)

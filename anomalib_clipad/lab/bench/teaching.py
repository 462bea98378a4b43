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
from anomalib_clipad.verdicts.conformal import images_needed
from anomalib_clipad.verdicts.recall import RECALL, auroc, false_alarms_at
from anomalib_clipad.vision.references import nearest_distance

WAYS = ("4 normals", "good ones join", "and two wrong ticks")
"""Models that are compared, by what they are called in the table."""
_REFERENCES, _WRONG, _RATE = 4, 2, 0.1


class Category(NamedTuple):
    """Images of a category, and how far each is from each.

    Attributes:
        kind: Of each image (n,): 0 a normal one of the training split, 1 a normal one of the test split, 2 a defect.
        distances: Of each patch to the nearest of another image (n, n, 4, N), stage by stage.
        predictor: By which.
    """

    kind: NDArray[np.int64]
    distances: Tensor
    predictor: LivePredictor

    def scores(self, references: Iterable[int]) -> NDArray[np.float64]:
        """Raw image scores (n,) of all images, compared with these."""
        detector = self.predictor.model.detector
        distance = detector.reader.distance_unit * self.distances[:, list(references)].amin(dim=1).sum(dim=1)
        size = (detector.image_size, detector.image_size)
        return np.asarray(detector.peaks(distance, size).double())


def main(
    categories: Sequence[str] = ("gear", "wood"), ticks: int = 20, repetitions: int = 50, threads: int = 1
) -> None:
    """Print image AUROC and false alarms before and after teaching, means of repetitions.

    Each draws four normal images to compare with, and half of the test images as the list of a day, of which the most
    suspicious are ticked; the other half is measured. Calibration images are those of the training split that are left.

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
    files, kinds = list[str](), list[int]()
    for samples, kind in ((data.train_data.samples, 0), (data.test_data.samples, 1)):
        files += samples["image_path"].astype(str).tolist()
        kinds += (kind + samples["label_index"].astype(int)).tolist()
    shown = (predictor.show(read(file), file, reference=True) for file in files)
    tokens = torch.cat([predictor.describe([one.prepared]).tokens[0] for one in shown])
    tokens = normalize(tokens, dim=-1)
    found = [nearest_distance(tokens, one) for one in tokens]
    return Category(np.array(kinds), torch.stack(found, dim=1), predictor)


def repetition(category: Category, ticks: int, seed: int) -> NDArray[np.float64]:
    """AUROC, false alarms in two ways, and how many images joined, of each of ``WAYS`` (3, 4)."""
    rng = np.random.default_rng(seed)
    train, normal, defects = (rng.permutation(np.flatnonzero(category.kind == kind)) for kind in range(3))
    listed = np.concatenate([half[: len(half) // 2] for half in (normal, defects)])
    held_out = [half[len(half) // 2 :] for half in (normal, defects)]
    references, calibration = train[:_REFERENCES], train[_REFERENCES:]
    before = category.scores(references)
    ticked = listed[np.argsort(-before[listed], kind="stable")][:ticks]
    good_ones = ticked[category.kind[ticked] == 1]
    wrong = rng.permutation(ticked[category.kind[ticked] == 2])[:_WRONG]
    rows = []
    for joining in (good_ones[:0], good_ones, np.concatenate([good_ones, wrong])):
        scores = category.scores(np.concatenate([references, joining]))
        good, bad = (scores[half] for half in held_out)
        assert len(calibration) >= images_needed(_RATE)
        largest = np.sort(scores[calibration])[-int(_RATE * (len(calibration) + 1))]
        rows.append([auroc(good, bad), false_alarms_at(good, bad), float(np.mean(good > largest)), len(joining)])
    return np.array(rows)

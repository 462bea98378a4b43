"""`python -m anomalib_clipad.lab solar-cells`: text, normal and unlabelled images on real photographs.

The photographs are electroluminescence images of solar cells, whole and broken ones (`pip install elpv-dataset`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from anomalib_clipad import Inspector
from anomalib_clipad.tools.tables import Row, markdown_table

from .shots import ways_of

_KINDS = ("mono", "poly")
"""Of one crystal, or of many: these have grain, which is normal."""


class Draw(NamedTuple):
    """Files of one experiment.

    Attributes:
        normal: Whole cells to compare with.
        images: The cells scored: whole ones, then as many broken ones.
        labels: Which of those are broken.
    """

    normal: list[Path]
    images: list[Path]
    labels: list[bool]


def draw(folder: Path, kind: str, seed: int, normal: int = 8, each: int = 30) -> Draw:
    """Cells that all experts call whole, and cells that all call broken.

    Args:
        folder: Has ``labels.csv``: file, probability of a defect, kind.
        kind: Of the cells, ``mono`` or ``poly``.
        seed: Of the choice.
        normal: How many whole cells to compare with.
        each: How many whole and how many broken cells to score.
    """
    rng = np.random.default_rng(seed)
    rows = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines()]
    found = [[folder / row[0] for row in rows if row[2] == kind and float(row[1]) == wanted] for wanted in (0, 1)]
    whole, broken = ([files[index] for index in rng.permutation(len(files))] for files in found)
    scored = whole[normal : normal + each]
    return Draw(whole[:normal], [*scored, *broken[:each]], [False] * len(scored) + [True] * len(broken[:each]))


def auroc(
    drawn: Draw,
    backbone: str,
    k_shot: int = 0,
    mutual: bool = False,
    class_name: str = "solar cell",
    **options: Any,
) -> float:
    """Image AUROC with some of the normal images, with the scored ones among themselves, or with the text alone."""
    others = drawn.images if mutual else None
    inspector = Inspector(
        class_name,
        backbone=backbone,
        references=drawn.normal[:k_shot] or None,
        mutual=others,
        **options,
    )
    return float(roc_auc_score(drawn.labels, [finding.score for finding in inspector.inspect(drawn.images)]))


def main(backbone: str = "clipad-mini", shots: Sequence[int] = (1, 4, 8), draws: int = 3) -> None:
    """Print image AUROC on solar cells, the mean of several draws.

    Args:
        backbone: CLIP model.
        shots: Numbers of normal images.
        draws: How often cells are drawn.

    Raises:
        ModuleNotFoundError: If the photographs are not installed.
    """
    found = find_spec("elpv_dataset")
    if found is None or found.origin is None:
        msg = "The photographs are not installed: pip install elpv-dataset"
        raise ModuleNotFoundError(msg, name="elpv_dataset")
    folder = Path(found.origin).parent / "data"
    drawn = {kind: [draw(folder, kind, seed, max(shots)) for seed in range(draws)] for kind in _KINDS}

    rows: list[Row] = [
        [way, *(mean(auroc(one, backbone, **options) for one in drawn[kind]) for kind in _KINDS)]
        for way, options in ways_of(shots).items()
    ]
    print(markdown_table([("image_AUROC", ""), *((kind, ".3f") for kind in _KINDS)], rows))

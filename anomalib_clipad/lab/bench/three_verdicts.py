"""`python -m anomalib_clipad.lab three-verdicts`: do both rates hold, what is left to look at, and what voids them?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from anomalib_clipad import Inspector
from anomalib_clipad.checks import check_counts
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.tools.tables import Row, markdown_table
from anomalib_clipad.verdicts.defect_scores import VERDICTS, DefectScores
from anomalib_clipad.verdicts.normal_scores import NormalScores

RATES = (0.05, 0.1)
"""False alarms, and defects called good."""
_NORMAL, _KNOWN = 99, 20
"""How many normal images and known defects calibrate."""
_SIZE = 160
_COLUMNS = (
    *("normal called defective", "defect called good", "look, of normal", "look, of defects"),
    *("called good, from a sorted list", "called good, of another kind", "the worst such kind"),
)

Scores = NDArray[np.float32]


class Measured(NamedTuple):
    """Image scores of a category.

    Attributes:
        normal: Of normal pictures (n,).
        defects: Of defective ones (m,).
        kinds: Which kind each shows (m,).
    """

    normal: Scores
    defects: Scores
    kinds: NDArray[np.int64]


def main(
    categories: Sequence[str] = tuple(HELD_OUT_CATEGORIES),
    normal: int = 200,
    defects: int = 80,
    splits: int = 500,
    threads: int = 1,
) -> None:
    """Print how often verdicts of clipad-mini are wrong, by the text alone, over many splits of the same pictures.

    Args:
        categories: Generated categories.
        normal: Normal pictures of each; 99 of them calibrate, each time.
        defects: Defective ones; 20 of them are the known ones, each time.
        splits: How often they are split into those that calibrate and fresh ones.
        threads: CPU threads.

    Raises:
        ValueError: If a number is too small, or a category is unknown.
    """
    check_counts(splits=splits, threads=threads)
    check_counts(_NORMAL + 1, normal=normal)
    check_counts(2 * _KNOWN, defects=defects)
    torch.set_num_threads(threads)
    with Console(stderr=True).status("Scoring"):
        found = {name: measured(name, normal, defects) for name in categories}
    numbers = {name: shares(scores, splits) for name, scores in found.items()}
    numbers["mean"] = np.mean([*numbers.values()], axis=0).tolist()
    rows: list[Row] = [[name, *row] for name, row in numbers.items()]
    print(markdown_table([("category", ""), *((title, ".3f") for title in _COLUMNS)], rows))


def measured(category: str, normal: int, defects: int) -> Measured:
    """The image scores of a category's pictures; all kinds of defects in turns.

    Raises:
        ValueError: If there is no such category.
    """
    if category not in HELD_OUT_CATEGORIES:
        msg = f"Expected a category of {', '.join(HELD_OUT_CATEGORIES)}; got {category}."
        raise ValueError(msg)
    kinds = list(DEFECTS)
    inspector = Inspector(category, backbone="clipad-mini")

    def scores(pictures: Iterator[NDArray[np.uint8]]) -> Scores:
        return np.array([finding.score for finding in inspector.stream(pictures)], np.float32)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        good = scores(named_sample(category, "verdicts", n, None, 0, _SIZE).image for n in range(normal))
        shown = ((kinds[n % len(kinds)], n) for n in range(defects))
        bad = scores(named_sample(category, "verdicts", n, kind, 0, _SIZE).image for kind, n in shown)
    return Measured(good, bad, np.arange(defects) % len(kinds))


def shares(found: Measured, splits: int) -> list[float]:
    """The columns of a category: means over splits."""
    rng, rows, unseen = np.random.default_rng(0), [], []
    for _ in range(splits):
        order, bad = rng.permutation(found.normal), rng.permutation(found.defects)
        own = calibrated(order[:_NORMAL], bad[:_KNOWN])
        normal, defects = of(own, order[_NORMAL:]), of(own, bad[_KNOWN:])
        half = len(bad) // 2
        top = calibrated(order[:_NORMAL], np.sort(bad[:half])[-_KNOWN:])
        rows.append(
            [normal["defective"], defects["good"], normal["look"], defects["look"], of(top, bad[half:])["good"]]
        )
        unseen.append([_of_another(found, order[:_NORMAL], kind, rng) for kind in np.unique(found.kinds)])
    apart = np.mean(unseen, axis=0)
    return [*np.mean(rows, axis=0).tolist(), float(apart.mean()), float(apart.max())]


def _of_another(found: Measured, normal: Scores, kind: np.int64, rng: np.random.Generator) -> float:
    """How many defects of a kind are called good where the known ones are of the other kinds."""
    others, own = found.defects[found.kinds != kind], found.defects[found.kinds == kind]
    return of(calibrated(normal, rng.permutation(others)[:_KNOWN]), own)["good"]


def calibrated(normal: Scores, defects: Scores) -> NormalScores:
    """On these scores, at both rates; regions have no part in it."""
    return NormalScores(normal, normal, RATES[0], defects=DefectScores(defects, defects, RATES[1]))


def of(own: NormalScores, scores: Scores) -> dict[str, float]:
    """The share of each verdict among fresh scores."""
    found = own.judge(scores)
    return {name: float((found == value).mean()) for value, name in enumerate(VERDICTS)}

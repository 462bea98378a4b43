"""`python -m anomalib_clipad.lab textiles`: text and normal images on photographs of textiles with simulated defects.

The photographs are those of the package `conformal-clip-data` (`pip install conformal-clip-data`).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from anomalib_clipad.checks import check_counts
from anomalib_clipad.tools.tables import Row, markdown_table

from .shots import JOININGS, Ways
from .solar_cells import Draw, auroc

_KINDS = ("local", "global")
"""Of one place, or of the whole picture."""
_SHOTS = 4


def draw(folder: Path, kind: str, normal: int = 4, each: int = 60) -> Draw:
    """The first flawless textiles, and the first with a kind of defect.

    Args:
        folder: Has the folders ``nominal``, ``local`` and ``global``.
        kind: Of the defects.
        normal: How many flawless textiles to compare with.
        each: How many flawless and how many defective textiles to score.
    """
    flawless, defective = (sorted((folder / name).iterdir()) for name in ("nominal", kind))
    scored = flawless[normal : normal + each]
    return Draw(flawless[:normal], [*scored, *defective[:each]], [False] * len(scored) + [True] * len(defective[:each]))


def main(backbone: str = "clipad-mini", each: int = 60) -> None:
    """Print image AUROC on textiles.

    Args:
        backbone: CLIP model.
        each: How many flawless and how many defective textiles to score.

    Raises:
        ModuleNotFoundError: If the photographs are not installed.
    """
    check_counts(each=each)
    found = find_spec("conformal_clip_data")
    if found is None or found.origin is None:
        msg = "The photographs are not installed: pip install conformal-clip-data"
        raise ModuleNotFoundError(msg, name="conformal_clip_data")
    folder = Path(found.origin).parent / "data/textile_images/simulated"
    drawn = [draw(folder, kind, each=each) for kind in _KINDS]
    ways: Ways = {
        "text alone": {},
        **{f"k_shot {_SHOTS}, {how}": {"k_shot": _SHOTS, **options} for how, options in JOININGS.items()},
    }
    rows: list[Row] = [
        [way, *(auroc(one, backbone, class_name="textile", **options) for one in drawn)]
        for way, options in ways.items()
    ]
    print(markdown_table([("image_AUROC", ""), *((f"{kind} defects", ".3f") for kind in _KINDS)], rows))

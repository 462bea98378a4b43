"""From class names and normal images to a page: an inspector for each class, and one graph for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.verdicts.normal_scores import NormalScores

from .graph import page_graph
from .page import InspectorPage, PageClass

_RATE, _THRESHOLD = 0.05, 0.5


def build(
    class_names: Sequence[str],
    *,
    settings: Mapping[str, Any],
    references: Path | None = None,
    memory_size: int | None = None,
    product: Path | None = None,
    calibration: Path | None = None,
    false_alarm_rate: float | None = None,
    miss_rate: float | None = None,
    defects: Path | None = None,
    threshold: float | None = None,
    examples: Mapping[str, bytes] | None = None,
    title: str | None = None,
    max_pixels: int | None = None,
) -> InspectorPage:
    """Make a page.

    Args:
        class_names: What images may show; none where the text has no share or a product file names it.
        settings: Those of ``ClipAD`` by which a model is built.
        references: Folder of normal images to compare with.
        memory_size: Patches a stage that are kept of them; by default all.
        product: A product file in their place.
        calibration: Folder of other normal images; each class is calibrated on them.
        false_alarm_rate: Where the slider begins, of a calibrated page.
        miss_rate: Largest share of defects that are called good; then there are three verdicts.
        defects: Known defects, as of ``Inspector``; each class is calibrated on them.
        threshold: Where it begins, of another; by default at 0.5.
        examples: Image files by name.
        title: Of the page.
        max_pixels: Larger images are refused.

    Raises:
        ValueError, FileNotFoundError: As of ``Inspector``; also if a class is named twice.
        ModuleNotFoundError: If the extra ``export`` is not installed.
    """
    if len(set(class_names)) < len(class_names):
        msg = f"Each class is named once; got {', '.join(class_names)}."
        raise ValueError(msg)
    if threshold is not None and calibration is not None:
        msg = "A calibrated page decides by a false-alarm rate: pass false_alarm_rate, and no threshold."
        raise ValueError(msg)
    given: dict[str, Any] = {
        "references": references,
        "memory_size": memory_size,
        "product": product,
        "calibration": calibration,
        "false_alarm_rate": false_alarm_rate,
        "miss_rate": miss_rate,
        "defects": defects,
        "threshold": threshold,
    }
    names: list[str | None] = [*class_names] or [None]
    classes = []
    for name in names:
        live = Inspector(name, **given, **settings).live("a page")
        model = live.model
        text = model.text_features.numpy().copy() if model.settings.uses_text else None
        classes.append(PageClass(model.class_name, text, live.normal, _memory_inputs(model)))
    graph = page_graph(live)
    shown = ", ".join(str(one.name) for one in classes if one.name is not None)
    return InspectorPage(
        title or f"Inspect {shown or 'images'}",
        f"CLIP-AD with {live.model.settings.backbone}.{_promised(live.normal)}",
        graph.SerializeToString(),
        live.model.image_size,
        classes,
        _THRESHOLD if threshold is None else threshold,
        false_alarm_rate or _RATE,
        dict(examples or {}),
        **({} if max_pixels is None else {"max_pixels": max_pixels}),
    )


def _memory_inputs(model: ClipADModel) -> dict[str, NDArray[np.float32]]:
    """What the graph is told beside a memory, for a class."""
    detector = model.detector
    if detector.memory is None:
        return {}
    joining = {"joining": np.array(detector.joining, np.float32)} if detector.uses_text else {}
    return {"midpoint": np.asarray(detector.midpoint, np.float32), **joining}


def _promised(normal: NormalScores | None) -> str:
    """The second of two promises, if there are two; the slider says the first."""
    defects = None if normal is None or not normal.three else normal.defects
    return "" if defects is None else f" Verdicts: {defects.promise()}."

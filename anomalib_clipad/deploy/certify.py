"""Verdicts in files: a small graph behind the outputs of a written, perhaps compressed one.

It is compared with the scores that the file itself gives to the calibration images, in float32, whatever the rest of
the file computes in. The false-alarm rate is an optional input of ONNX files and a state of OpenVINO files.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim

from anomalib_clipad.predictor.runtimes import RATE
from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.defect_scores import DefectScores
from anomalib_clipad.verdicts.normal_scores import NormalScores

from .verification import Run

if TYPE_CHECKING:
    import onnx
    import openvino

OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask", "p_value", "verdict")
"""Outputs in their order; ``verdict`` where there are three verdicts."""
_TAIL = ("p_value", "pred_label", "pred_mask", "verdict")
"""Outputs of the graph behind, likewise, as ``Verdict`` has them."""
_KEPT = {"pred_score", "anomaly_map"}
_OPSET = 18


Named = Iterable[tuple[str, NDArray[np.float32]]]
"""Names of images and their pixels (3, H, W) in [0, 1]."""


def measure(run: Run, images: Named, **about: Any) -> NormalScores:
    """The scores that a file gives to the calibration images.

    Args:
        run: The file in its runtime.
        images: The images.
        **about: The other attributes of ``NormalScores``.

    Raises:
        ValueError: If the file cannot take an image, or a score is no number.
    """
    return NormalScores.of(_scored(run, images), **about)


def measure_defects(run: Run, images: Named, live: DefectScores) -> DefectScores:
    """The scores that it gives to the known defects, in place of those of the live model; as ``measure``."""
    found = NormalScores.of(_scored(run, images))
    return replace(live, image_scores=found.image_scores, region_scores=found.region_scores)


def _scored(run: Run, images: Named) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Scores and maps of each image."""
    scored = []
    for name, pixels in images:
        try:
            found = run(pixels[None])
        except Exception as error:  # each runtime raises its own
            raise not_taken(name, pixels.shape[1:]) from error
        scored.append((found["pred_score"], found["anomaly_map"]))
    return scored


def not_taken(name: str, size: tuple[int, ...]) -> ValueError:
    """The error that a file cannot take a calibration image of this height and width."""
    found = "x".join(map(str, size))
    return ValueError(
        f"The exported file does not take the calibration image {name} of {found} pixels. Calibrate on images of the "
        "size it is for, or export it for any size (no input_size)."
    )


class _Tail(Certificate):
    """Without what there is not: graphs have no outputs that are ``None``."""

    def forward(self, score: Tensor, anomaly_map: Tensor, false_alarm_rate: Tensor) -> Any:
        return tuple(one for one in super().forward(score, anomaly_map, false_alarm_rate) if one is not None)


def verdict_model(normal: NormalScores, path: Path) -> onnx.ModelProto:
    """The graph behind: inputs ``pred_score``, ``anomaly_map`` and the rate; outputs ``pred_label``, ``pred_mask``,
    ``p_value`` and, with three verdicts, ``verdict``.
    """  # noqa: D205
    import onnx

    batch = Dim("batch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name: batch")  # both inputs have it
        torch.onnx.export(
            _Tail(normal).eval(),
            (torch.zeros(2), torch.zeros(2, 5, 7), torch.tensor(0.5)),
            path,
            input_names=["pred_score", "anomaly_map", RATE],
            output_names=list(_TAIL if normal.three else _TAIL[:-1]),
            dynamic_shapes=({0: batch}, {0: batch, 1: Dim("rows"), 2: Dim("columns")}, None),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    kept = {"rename_inputs": False, "rename_outputs": False}
    return onnx.compose.add_prefix(model, "verdict_", **kept)


def add_to_onnx(model: onnx.ModelProto, verdicts: onnx.ModelProto, rate: float) -> None:
    """Append the graph to an ONNX model that has scores and maps; the rate becomes an input with a default."""
    import onnx

    graph, tail = model.graph, verdicts.graph
    keep_only(graph, _KEPT)
    graph.node.extend(tail.node)
    graph.initializer.extend(tail.initializer)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(rate, np.float32), RATE))
    graph.input.extend(entry for entry in tail.input if entry.name == RATE)
    outputs = {output.name: output for output in (*graph.output, *tail.output)}
    del graph.output[:]
    graph.output.extend(outputs[name] for name in OUTPUTS if name in outputs)
    onnx.checker.check_model(model)


def keep_only(graph: onnx.GraphProto, outputs: set[str]) -> None:
    """Keep these outputs only, and the nodes and weights that lead to them."""
    results = [output for output in graph.output if output.name in outputs]
    needed, kept = set(outputs), []
    for node in reversed(graph.node):  # they are in the order in which they are computed
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    weights = [weight for weight in graph.initializer if weight.name in needed]
    del graph.node[:], graph.initializer[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
    graph.output.extend(results)


def add_to_openvino(model: openvino.Model, verdicts: Path, rate: float) -> openvino.Model:
    """An OpenVINO model with the graph, in place of its own labels and masks; the rate is a state with a default."""
    import openvino
    from openvino import opset13 as operations

    tail = openvino.convert_model(verdicts)
    sources: dict[str, Any] = {output.any_name: output.node.input_value(0) for output in model.outputs}
    default = operations.read_value(operations.constant(np.array(rate, np.float32)), RATE, np.float32, [])
    sources[RATE] = default.output(0)
    for parameter in tail.get_parameters():
        parameter.output(0).replace(sources[parameter.output(0).any_name])
    sources |= {output.any_name: output.node.input_value(0) for output in tail.outputs}
    results = []
    for name in (one for one in OUTPUTS if one in sources):
        sources[name].get_tensor().set_names({name})
        results.append(operations.result(sources[name]))
    return openvino.Model(results, [operations.assign(default, RATE)], model.get_parameters(), "clip_ad")

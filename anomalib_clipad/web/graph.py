"""The graph of a page: from a resized image to scores and maps, in as few bytes as lose nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.extras import require

if TYPE_CHECKING:
    import onnx

    from anomalib_clipad.predictor.building import Resized
    from anomalib_clipad.predictor.live import LivePredictor

IMAGE = "image"
"""Input: planes (1, 3, S, S) of whole levels, uint8, resized as Pillow does it; ``inspector.js`` does."""
OUTPUTS = ("pred_score", "anomaly_map")
_SMALL = 64
"""Weights with fewer values stay as they are."""
_STEPS = 32767


def page_graph(predictor: LivePredictor) -> onnx.ModelProto:
    """The model as one ONNX graph for onnxruntime-web.

    Inputs are ``image``, ``text_features``, if the text has a share, and with a memory of normal images, which is part
    of the graph, ``midpoint`` and ``joining``, which depend on the text. Outputs are ``pred_score`` (1,) and
    ``anomaly_map`` (1, S, S), with 0.5 between good and defective. What onnxruntime would do to a graph when it loads
    it, and what any runtime understands, is done already: that saves a browser a second.

    Args:
        predictor: Of a backbone by its name and whole images (no tiles), with text features if the text has a share.

    Raises:
        ModuleNotFoundError: If the packages of the extra ``export`` are not installed.
        ValueError: If the model works on tiles, or not in float32.
    """
    model = predictor.model
    if model.settings.tiles is not None:
        msg = "A page looks at whole images: leave out tiles."
        raise ValueError(msg)
    if model.settings.precision != "float32":
        msg = f"A page computes in float32, not in {model.settings.precision}: leave out precision."
        raise ValueError(msg)
    require("This export", "export", "onnx", "onnxscript", "onnxruntime")
    import anomalib.models  # noqa: F401  # first: when it has loaded, it loads ClipAD, which imports the exporter
    import onnx

    from anomalib_clipad.deploy.certify import keep_only
    from anomalib_clipad.deploy.exporter import Exporter
    from anomalib_clipad.host.post_processor import ClipADPostProcessor

    exporter = Exporter(predictor, cast("Resized", predictor.transform).standardize, ClipADPostProcessor())
    size, memory = model.image_size, model.detector.memory
    with tempfile.TemporaryDirectory() as folder:
        path = exporter.to_onnx(
            folder,
            input_size=(size, size),
            text_input=model.settings.uses_text,
            memory_input=memory is not None,
            certified=False,
        )
        exported = onnx.load(path)
        keep_only(exported.graph, set(OUTPUTS))
        _optimize(exported, Path(folder) / "optimized.onnx")
    _compact(exported.graph)
    if memory is not None:
        _fill_in(exported.graph, memory.tokens.cpu().numpy())
    _take_levels(exported.graph, size)
    onnx.checker.check_model(exported)
    return exported


def _optimize(model: onnx.ModelProto, place: Path) -> None:
    """Simplify a graph, with operators of the standard only."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(place)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    simpler = onnx.load(place)
    model.graph.CopyFrom(simpler.graph)


def _take_levels(graph: onnx.GraphProto, size: int) -> None:
    """Take whole levels of 255, as a browser has them, in place of values in [0, 1]."""
    from onnx import TensorProto, helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "white"))
    nodes = [
        helper.make_node("Cast", [IMAGE], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "white"], ["input"]),
    ]
    others = [entry for entry in graph.input if entry.name != "input"]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, 3, size, size]))
    graph.input.extend(others)
    _put_first(graph, nodes)


def _compact(graph: onnx.GraphProto) -> None:
    """Keep weights in float16 where that is exactly the same; they become float32 when the graph is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        half = values.astype(np.float16) if values.dtype == np.float32 and values.size >= _SMALL else None
        if half is not None and np.array_equal(half.astype(np.float32), values):
            graph.initializer.remove(weight)
            graph.initializer.append(numpy_helper.from_array(half, f"{weight.name}_half"))
            casts.append(helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=TensorProto.FLOAT))
    _put_first(graph, casts)


def _fill_in(graph: onnx.GraphProto, memory: NDArray[np.float32]) -> None:
    """Make the input of a memory a part of the graph.

    Unit vectors are kept in 65,535 steps between plus and minus their largest value, which halves their bytes and moves
    a cosine by a hundred-thousandth at most.
    """
    from onnx import TensorProto, helper, numpy_helper

    largest = np.float32(np.abs(memory).max())
    steps = np.round(memory / largest * _STEPS).astype(np.int16)
    constants: dict[str, NDArray[Any]] = {"memory_steps": steps}
    constants["memory_step"] = np.array(largest / _STEPS, np.float32)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [
        helper.make_node("Cast", ["memory_steps"], ["memory_levels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["memory_levels", "memory_step"], ["memory"]),
    ]
    kept = [entry for entry in graph.input if entry.name != "memory"]
    del graph.input[:]
    graph.input.extend(kept)
    _put_first(graph, nodes)


def _put_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])

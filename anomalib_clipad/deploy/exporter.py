"""Atomic export to torch, ONNX and OpenVINO."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from anomalib.deploy import ExportType
from anomalib.models.components.base.export_mixin import ExportMixin
from torch import Tensor, nn
from torch.export import Dim

from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.torch_model import ClipADModel

from .graph import InferenceGraph

logger = logging.getLogger(__name__)
_OPSET = 18
_OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
_STATISTICS = ("image_threshold", "pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")


class Exporter(ExportMixin):
    """Exports a model as it is, with its pre- and post-processing.

    anomalib's own exports keep the text tower and resize without antialiasing; of them only the conversion and
    compression to OpenVINO are used.

    Args:
        model: A model with text features, unless they come as an input.
        transform: Its pre-processing, torchvision's, from images in [0, 1].
        post_processor: Its post-processing, if any.
    """

    model: ClipADModel

    def __init__(self, model: ClipADModel, transform: nn.Module | None, post_processor: nn.Module | None) -> None:
        self.model, self.transform, self.post_processor = model, transform, post_processor

    def graph(self, text_input: bool = False, memory_input: bool = False) -> InferenceGraph:
        """The model as one module on the CPU, from images in [0, 1] to scores, labels, maps and masks.

        Args:
            text_input: Take text features as an input, for any class.
            memory_input: Take a memory and its scale as inputs, for any product. Fitted statistics are those of one
                class, so with either input scores are the calibrated probabilities of a model without validation data.

        Raises:
            RuntimeError: If the layers of the model are not trained, or text is asked for that has no share.
        """
        detector = self.model.detector
        if detector.adapter is not None and not detector.adapter.trained:
            msg = "The layers of SDP+ are not trained; export with `adapter`, or from a checkpoint of a training."
            raise RuntimeError(msg)
        if text_input and memory_input and not self.model.settings.text_weight:
            msg = "With text_weight 0 the text has no share; export with memory_input alone."
            raise RuntimeError(msg)
        any_product = text_input or memory_input
        post_processor = ClipADPostProcessor() if any_product and self.post_processor else self.post_processor
        class_name = "any: text_features is an input" if text_input else self.model.class_name
        facts = {"class_name": class_name, **self.model.settings.as_dict(), **_statistics(post_processor)}
        metadata = {name: str(value) for name, value in facts.items()}
        text_features = self.model.text_features
        inputs = (text_input, memory_input)
        return InferenceGraph(detector, text_features, self.transform, post_processor, inputs, metadata).cpu()

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file for anomalib's ``TorchInferencer``, readable with this package installed."""
        path = _file(export_root, ExportType.TORCH, f"{model_file_name}.pt")
        with atomic_folder(path.parent) as folder:
            torch.save({"model": self.graph()}, folder / path.name)
        return path

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        text_input: bool = False,
        memory_input: bool = False,
        **kwargs: Any,
    ) -> Path:
        """Write an ONNX file that needs nothing but a runtime.

        Args:
            export_root: Folder; the file is ``weights/onnx/<name>.onnx`` in it.
            model_file_name: Its name.
            input_size: Height and width of all images to come; by default any.
            text_input: Take text features (D, 2) as an input, ``text_features``.
            memory_input: Take normal images as inputs: ``memory`` (4, M, width) and ``undecided``, the map value whose
                probability is 0.5, as product files hold them.
            **kwargs: Further arguments of ``torch.onnx.export``.

        Raises:
            ModuleNotFoundError: If the packages of the extra ``export`` are not installed.
            ValueError: If another exporter than dynamo is asked for.
        """
        require("onnx", "onnxscript")
        import onnx

        if kwargs.pop("dynamo", True) is not True:
            msg = "The exporter of torch.onnx has to be dynamo=True; leave that argument out."
            raise ValueError(msg)
        path = _file(export_root, ExportType.ONNX, f"{model_file_name}.onnx")
        graph = self.graph(text_input, memory_input)
        height, width = input_size or (self.model.image_size + 60, self.model.image_size + 36)
        sides = {} if input_size else {2: Dim("height", min=2), 3: Dim("width", min=2)}
        images = torch.zeros(2, 3, height, width)
        shapes: dict[str, dict[int, Any] | None] = {"images": {0: Dim("batch"), **sides}}
        others: dict[str, Tensor] = {}
        if text_input:
            others["text_features"], shapes["text_features"] = graph.text_features, None
        if memory_input:
            others["memory"] = torch.randn(graph.memory_shape)
            shapes["memory"] = {others["memory"].ndim - 2: Dim("patches", min=2)}
            others["undecided"], shapes["undecided"] = torch.tensor(1.0), None
        options = {
            "kwargs": others,
            "input_names": ["input", *others],
            "output_names": [name for name in _OUTPUTS if getattr(graph(images, **others), name) is not None],
            "dynamic_shapes": shapes,
            "opset_version": _OPSET,
            "external_data": False,
            "verbose": False,
            **kwargs,
        }
        with atomic_folder(path.parent) as folder, _without_remarks("onnx_ir", "onnxscript", "torch.onnx"):
            torch.onnx.export(graph, (images,), folder / path.name, dynamo=True, **options)
            proto = onnx.load(folder / path.name)
            onnx.helper.set_model_props(proto, graph.metadata)
            onnx.save(proto, folder / path.name)
        return path

    def to_openvino(self, export_root: Path | str, model_file_name: str = "model", *args: Any, **kwargs: Any) -> Path:
        """Write OpenVINO's ``.xml`` and ``.bin``, compressed by anomalib's own options.

        Raises:
            ModuleNotFoundError: If the packages of the extra ``export`` are not installed.
        """
        require("openvino", "nncf", "onnx", "onnxscript")
        import openvino

        path = _file(export_root, ExportType.OPENVINO, f"{model_file_name}.xml")
        with atomic_folder(path.parent) as folder, tempfile.TemporaryDirectory() as raw, _quantizing_a_transformer():
            written = super().to_openvino(raw, model_file_name, *args, **kwargs)
            graph = openvino.Core().read_model(written)
            for name, value in self.graph().metadata.items():
                graph.set_rt_info(value, ["clip_ad", name])
            openvino.save_model(graph, folder / path.name, compress_to_fp16=False)
        logger.info("OpenVINO computes in bfloat16 where it can: run %s with INFERENCE_PRECISION_HINT f32.", path)
        return path


def _statistics(post_processor: nn.Module | None) -> dict[str, float]:
    return {name: float(getattr(post_processor, name)) for name in _STATISTICS if hasattr(post_processor, name)}


def require(*packages: str) -> None:
    """Check that packages are installed.

    Raises:
        ModuleNotFoundError: If one is not; the message names the extra that brings it.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        msg = f"This export needs {', '.join(missing)}: pip install 'anomalib-clipad[export]'"
        raise ModuleNotFoundError(msg, name=missing[0])


def _file(root: Path | str, kind: ExportType, name: str) -> Path:
    """Where anomalib puts exported files."""
    return Path(root) / "weights" / kind.value / name


@contextmanager
def _without_remarks(*packages: str) -> Iterator[None]:
    """Hold back what packages say below a warning: of this model, thousands of lines about equal constants."""
    loggers = [logging.getLogger(name) for name in packages]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _quantizing_a_transformer() -> Iterator[None]:
    """Tell nncf that the model is a transformer: its default plan for attention does not compile on a CPU.

    The matrix products outside the blocks (resize, projection, comparison with text, smoothing) stay in float32: they
    are cheap, and the result depends on small differences between their values. The exporter names them after the
    operator ``@``.
    """
    import nncf

    names = ("quantize", "quantize_with_accuracy_control")
    outside = nncf.IgnoredScope(patterns=["node_matmul.*"], validate=False)
    with ExitStack() as stack:
        for name in names:
            informed = partial(getattr(nncf, name), model_type=nncf.ModelType.TRANSFORMER, ignored_scope=outside)
            stack.enter_context(patch.object(nncf, name, informed))
        yield

"""anomalib's export of ClipAD: a file of its own for each runtime, whole or not there."""

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
from torch.export import Dim

from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.storage import unfinished
from anomalib_clipad.torch_model import ClipADModel

from .graph import DeployedClipAD, describe

logger = logging.getLogger(__name__)
_OPSET = 18
_OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
_SETTINGS = ("backbone", "pretrained", "image_size", "rvs", "rvs_options", "prompts", "smoothing", "tap", "variant")


class Deployment(ExportMixin):
    """Replaces anomalib's exports, which keep the text tower and resize without antialiasing."""

    model: ClipADModel

    def deployed(self, text_input: bool = False) -> DeployedClipAD:
        """The model as one module, from images in [0, 1] to scores, labels, maps and masks.

        Args:
            text_input: Take text features as a second input, for any class. Fitted statistics are those of one class,
                so scores are then the calibrated probabilities of a model without validation data.

        Raises:
            RuntimeError: If the model has no class name, or untrained layers.
        """
        if self.model.class_name is None and not text_input:
            if self.class_name is None:
                msg = "An exported model is for one class; give class_name, or a checkpoint that has one."
                raise RuntimeError(msg)
            self.model.setup(self.class_name)
        if self.model.adapter is not None and not self.trained:
            msg = "The layers of SDP+ are not trained; export with `adapter`, or from a checkpoint of a training."
            raise RuntimeError(msg)
        post_processor = self.post_processor
        if text_input and post_processor:
            post_processor = ClipADPostProcessor(adapted=self.model.adapter is not None)
        transform = self.pre_processor.transform if self.pre_processor else None
        settings = {name: self.hparams.get(name) for name in _SETTINGS} | self._thresholds(post_processor)
        metadata = describe(self.model, settings)
        if text_input:
            metadata["class_name"] = "any: text_features is the second input"
        return DeployedClipAD(self.model, transform, post_processor or None, text_input, metadata).to(self.device)

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file for anomalib's ``TorchInferencer``, readable with this package installed."""
        path = _file(export_root, ExportType.TORCH, f"{model_file_name}.pt")
        graph = self.deployed().cpu()
        with unfinished(path.parent) as folder:
            torch.save({"model": graph}, folder / path.name)
        return path

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        text_input: bool = False,
        **kwargs: Any,
    ) -> Path:
        """Write an ONNX file that needs nothing but a runtime.

        Args:
            export_root: Folder; the file is ``weights/onnx/<name>.onnx`` in it.
            model_file_name: Its name.
            input_size: Height and width of all images to come; by default any.
            text_input: Take text features (D, 2) as a second input, ``text_features``.
            **kwargs: Further arguments of ``torch.onnx.export``.

        Raises:
            ModuleNotFoundError: If the packages of the extra ``export`` are not installed.
        """
        require("onnx", "onnxscript")
        import onnx

        if kwargs.pop("dynamo", True) is not True:
            msg = "The exporter of torch.onnx has to be dynamo=True; leave that argument out."
            raise ValueError(msg)
        path = _file(export_root, ExportType.ONNX, f"{model_file_name}.onnx")
        graph = self.deployed(text_input).cpu()
        height, width = input_size or (self.model.image_size + 60, self.model.image_size + 36)
        inputs = [torch.zeros(2, 3, height, width)]
        sides = {} if input_size else {2: Dim("height", min=2), 3: Dim("width", min=2)}
        shapes: list[dict[int, Any] | None] = [{0: Dim("batch"), **sides}]
        if text_input:
            inputs.append(graph.text_features)
            shapes.append(None)
        options = {
            "input_names": ["input", "text_features"][: len(inputs)],
            "output_names": [name for name in _OUTPUTS if getattr(graph(*inputs), name) is not None],
            "dynamic_shapes": tuple(shapes),
            "opset_version": _OPSET,
            "external_data": False,
            "verbose": False,
            **kwargs,
        }
        with unfinished(path.parent) as folder:
            torch.onnx.export(graph, tuple(inputs), folder / path.name, dynamo=True, **options)
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
        with unfinished(path.parent) as folder, tempfile.TemporaryDirectory() as raw, _quantizing_a_transformer():
            written = super().to_openvino(raw, model_file_name, *args, **kwargs)
            graph = openvino.Core().read_model(written)
            for name, value in self.deployed().metadata.items():
                graph.set_rt_info(value, ["clip_ad", name])
            openvino.save_model(graph, folder / path.name, compress_to_fp16=False)
        logger.info("OpenVINO computes in bfloat16 where it can: run %s with INFERENCE_PRECISION_HINT f32.", path)
        return path

    @staticmethod
    def _thresholds(post_processor: Any) -> dict[str, float]:
        names = ("image_threshold", "pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")
        return {name: float(getattr(post_processor, name)) for name in names if hasattr(post_processor, name)}


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
def _quantizing_a_transformer() -> Iterator[None]:
    """Tell nncf what it quantises: its default plan for attention does not compile on a CPU.

    The products outside the blocks (resize, projection, comparison with text, smoothing) stay as they are: they are
    cheap, and all depends on small differences of theirs. The exporter names them after the operator ``@``.
    """
    import nncf

    names = ("quantize", "quantize_with_accuracy_control")
    outside = nncf.IgnoredScope(patterns=["node_matmul.*"], validate=False)
    with ExitStack() as stack:
        for name in names:
            informed = partial(getattr(nncf, name), model_type=nncf.ModelType.TRANSFORMER, ignored_scope=outside)
            stack.enter_context(patch.object(nncf, name, informed))
        yield

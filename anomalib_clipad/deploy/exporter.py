"""Atomic export to torch, ONNX and OpenVINO."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, ImageBatch
from anomalib.deploy import CompressionType, ExportType
from anomalib.models.components.base.export_mixin import ExportMixin
from torch import Tensor, nn
from torch.export import Dim
from torchmetrics import Metric

from anomalib_clipad.extras import require
from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.images.alike import to_plain
from anomalib_clipad.images.picture import read
from anomalib_clipad.images.size import read_size
from anomalib_clipad.predictor.decision import Decision
from anomalib_clipad.predictor.frame import frame
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.predictor.products import about
from anomalib_clipad.predictor.runtimes import (
    CALIBRATION,
    REFERENCES,
    TAUGHT,
    OnnxRuntime,
    OpenVinoRuntime,
    Runtime,
    run_torch,
)
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.detector import patch_size
from anomalib_clipad.vision.joining import LEAST
from anomalib_clipad.vision.matrix_resize import MatrixResize

from . import certify, verification
from .graph import InferenceGraph
from .transforms import exportable
from .verification import Record, Run

logger = logging.getLogger(__name__)
_OPSET = 18
_OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
_STATISTICS = ("image_threshold", "pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")


class Exporter(ExportMixin):
    """Exports a model as it is, with its pre- and post-processing.

    anomalib's own exports keep the text tower and resize without antialiasing; of them only the conversion and
    compression to OpenVINO are used.

    Args:
        predictor: With text features, unless they come as an input.
        transform: Its pre-processing, torchvision's, from images in [0, 1].
        post_processor: Its post-processing, if any.
        calibration: Files of the calibration images, where it has a false-alarm rate and they are at hand.
        verify_images: Folder of images for ``anomalib-clipad verify``; by default generated ones.
        defects: Files of the known defects, where it has a miss rate and they are at hand.
    """

    model: ClipADModel

    def __init__(
        self,
        predictor: LivePredictor,
        transform: nn.Module | None,
        post_processor: nn.Module | None,
        calibration: Sequence[str] | None = None,
        verify_images: Path | None = None,
        defects: Sequence[str] | None = None,
    ) -> None:
        self.model, self.references, self.taught = predictor.model, predictor.references, predictor.taught
        self.transform, self.post_processor = transform, post_processor
        self.calibration, self.verify_images, self.defects = calibration, verify_images, defects

    def graph(self, text_input: bool = False, memory_input: bool = False) -> InferenceGraph:
        """The model as one module on the CPU, from images in [0, 1] to scores, labels, maps and masks.

        Args:
            text_input: Take text features as an input, for any class.
            memory_input: Take a memory and its scale as inputs, for any product. Fitted statistics are those of one
                class, so with either input scores are the calibrated probabilities of a model without validation data.

        Raises:
            RuntimeError: If the layers of the model are not trained, or text is asked for that has no share.
            ValueError: If the normalisation is off, for any class or product.
        """
        detector = self.model.detector
        if self.model.untrained:
            msg = (
                f"The layers of {self.model.title} are not trained; export with `adapter`, or from a checkpoint of a "
                "training."
            )
            raise RuntimeError(msg)
        if text_input and memory_input and not self.model.settings.uses_text:
            msg = "With text_weight 0 the text has no share; export with memory_input alone."
            raise RuntimeError(msg)
        by_spread = self.model.settings.joining == "spread" and len(self.references) >= LEAST
        if text_input and not memory_input and by_spread and self.model.settings.uses_text:
            msg = (
                "The memory is joined with the text of one class, by their spreads, so text_features cannot be an "
                "input beside it. Export with memory_input too, or construct the model with joining='sum'."
            )
            raise RuntimeError(msg)
        post_processor = self.post_processor
        if post_processor is not None and (text_input or memory_input):
            post_processor = _without_statistics(post_processor)
        outputs = post_processor.decision if isinstance(post_processor, ClipADPostProcessor) else post_processor
        pre_processor = nn.Identity() if self.transform is None else exportable(self.transform)
        inputs = (text_input, memory_input)
        graph = InferenceGraph(detector, self.model.text_features, pre_processor, outputs, inputs, {}).cpu()
        own = {name: getattr(post_processor, name, None) for name in _STATISTICS}
        facts = self._facts(graph) | {name: float(value) for name, value in own.items() if value is not None}
        if text_input:
            facts["class_name"] = "any: text_features is an input"
        graph.metadata = {name: str(value) for name, value in facts.items()}
        return graph

    def _facts(self, graph: InferenceGraph) -> dict[str, Any]:
        """What another door has to know of a file to give the same verdicts, or to refuse; see docs/deployment.md."""
        detector, decision = graph.detector, graph.post_processor
        facts = {
            **about(self.model),
            "version": version("anomalib-clipad"),
            "patch_size": patch_size(detector.visual),
            "aspect": 0.0 if detector.memory is None else float(detector.memory.aspect),
            "frame": frame(self.transform),
            "normalized": isinstance(decision, Decision) and decision.normalize,
        }
        limits = decision.limits() if isinstance(decision, Decision) else None
        if limits is not None:
            facts["decision"] = json.dumps({"score_threshold": limits.score, "map_threshold": limits.region})
        if self.references and not graph.memory_input:
            facts[REFERENCES] = json.dumps(to_plain(self.references))
            if self.taught is not None:
                facts[TAUGHT] = json.dumps(self.taught.to_plain())
        return facts

    def deployed(self, text_input: bool = False, memory_input: bool = False) -> InferenceGraph:
        """``graph``, with verdicts at a false-alarm rate where there is one."""
        graph = self.graph(text_input, memory_input)
        normal = None if graph.further_inputs() else self._normal(partial(run_torch, graph))
        if normal is not None:
            graph.certificate, graph.false_alarm_rate = Certificate(normal), cast("float", normal.rate)
        return graph

    @property
    def false_alarm_rate(self) -> float | None:
        """The rate of its verdicts, if there are any."""
        own = self.post_processor
        return own.false_alarm_rate if isinstance(own, ClipADPostProcessor) and own.enable_thresholding else None

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write a ``.pt`` file for anomalib's ``TorchInferencer``, readable with this package installed."""
        path = _file(export_root, ExportType.TORCH, f"{model_file_name}.pt")
        with atomic_folder(path.parent) as folder:
            graph = self.deployed()
            normal = None if graph.certificate is None else graph.certificate.normal
            own = self._record(graph, normal, None, {})
            graph.metadata |= _metadata(normal, own)
            torch.save({"model": graph}, folder / path.name)
        return path

    def _normal(self, run: Run, compressed: bool = False, computed_in: str = "float32") -> NormalScores | None:
        """What a file's verdicts are compared with: its own scores of the calibration images.

        Raises:
            ValueError: If it differs from the live model, and these images are not at hand.
        """
        if self.false_alarm_rate is None:
            return None
        live = cast("NormalScores", cast("ClipADPostProcessor", self.post_processor).normal_scores())
        if self.calibration is not None and (live.defects is None or self.defects is not None):
            about = {"rate": self.false_alarm_rate, "computed_in": computed_in, "identities": live.identities}
            if live.defects is not None:
                about["defects"] = certify.measure_defects(run, _read(self.defects), live.defects)
            return certify.measure(run, _read(self.calibration), **about)
        if compressed or self.model.settings.precision != "float32":
            msg = (
                "A compressed file, or one of a model in another precision than float32, gives other scores, so it has "
                "to be calibrated itself, and the calibration images are not at hand (references that were left out in "
                "turn cannot be, a checkpoint's may have been moved); nor can known defects that are not. Pass "
                "calibration_source, a folder of normal images, and defect_source if there are known defects; or "
                "export in float32 without compression."
            )
            raise ValueError(msg)
        if not live.left_out:
            logger.warning("The calibration images are not at hand: the file follows the scores of the model instead.")
        return live

    def _record(
        self,
        graph: InferenceGraph,
        normal: NormalScores | None,
        size: tuple[int, int] | None,
        inputs: dict[str, dict[str, Any]],
    ) -> Record:
        """What Python finds in the verification images: the graph in float32."""
        run = partial(run_torch, graph, inputs=verification.inputs_of(inputs))
        return verification.record(run, self.verify_images, size, inputs, normal)

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        text_input: bool = False,
        memory_input: bool = False,
        certified: bool = True,
        **kwargs: Any,
    ) -> Path:
        """Write an ONNX file that needs nothing but a runtime.

        Args:
            export_root: Folder; the file is ``weights/onnx/<name>.onnx`` in it.
            model_file_name: Its name.
            input_size: Height and width of all images to come; by default any.
            text_input: Take text features (D, 2) as an input, ``text_features``.
            memory_input: Take normal images as inputs: ``memory`` (4, M, width), ``midpoint``, the map value whose
                probability is 0.5, and ``joining`` (4,) where the text has a share, as product files hold them. With
                either input there are no verdicts at a false-alarm rate: calibration scores are those of one product.
            certified: Whether to add these verdicts, where there is a rate, and what ``verify`` needs.
            **kwargs: Further arguments of ``torch.onnx.export``.

        Raises:
            ModuleNotFoundError: If the packages of the extra ``export`` are not installed.
            ValueError: If another exporter than dynamo is asked for, or a file for one size could not take the
                calibration images.
        """
        require("This export", "export", "onnx", "onnxscript")
        import onnx

        if kwargs.pop("dynamo", True) is not True:
            msg = "The exporter of torch.onnx has to be dynamo=True; leave that argument out."
            raise ValueError(msg)
        path = _file(export_root, ExportType.ONNX, f"{model_file_name}.onnx")
        if input_size and not (text_input or memory_input):  # before anything is converted, which takes its time
            for file in (*(self.calibration or ()), *(self.defects or ())):
                if (size := read_size(file)) != tuple(input_size):
                    raise certify.not_taken(file, size)
        graph = self.graph(text_input, memory_input)
        height, width = input_size or (self.model.image_size + 60, self.model.image_size + 36)
        sides = {} if input_size else {2: Dim("height", min=2), 3: Dim("width", min=2)}
        images = torch.zeros(2, 3, height, width)
        shapes: dict[str, dict[int, Any] | None] = {"images": {0: Dim("batch"), **sides}}
        others = graph.further_inputs()
        shapes |= dict.fromkeys(others)
        if memory_input:
            shapes["memory"] = {others["memory"].ndim - 2: Dim("patches", min=2)}
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
            if certified:
                self._complete_onnx(proto, folder / path.name, graph, input_size, _described(others))
            onnx.save(proto, folder / path.name)
        return path

    def _complete_onnx(
        self,
        proto: Any,
        written: Path,
        graph: InferenceGraph,
        size: tuple[int, int] | None,
        inputs: dict[str, dict[str, Any]],
    ) -> None:
        """Add verdicts, and what ``verify`` needs, to a model that is written already."""
        import onnx

        normal = None if inputs else self._normal(OnnxRuntime(written).run)
        own = self._record(graph, normal, size, inputs)
        if normal is not None:
            with tempfile.TemporaryDirectory() as raw:
                verdicts = certify.verdict_model(normal, Path(raw) / "verdicts.onnx")
            certify.add_to_onnx(proto, verdicts, cast("float", normal.rate))
            onnx.save(proto, written)
        own = _accepted(own, OnnxRuntime(written))
        onnx.helper.set_model_props(proto, {**graph.metadata, **_metadata(normal, own)})

    def to_openvino(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        compression_type: CompressionType | None = None,
        datamodule: AnomalibDataModule | None = None,
        metric: Metric | None = None,
        task: TaskType | None = None,
        max_drop: float = 0.01,
        ov_kwargs: dict[str, Any] | None = None,
        onnx_kwargs: dict[str, Any] | None = None,
    ) -> Path:
        """Write OpenVINO's ``.xml`` and ``.bin``, compressed by anomalib's own options.

        Verdicts at a false-alarm rate are calibrated on the scores of the compressed file, computed in float32, or in
        bfloat16 where that is the model's precision. Where the file is for one size, images of the datamodule are
        resized to it.

        Raises:
            ModuleNotFoundError: If the packages of the extra ``export`` are not installed.
            ValueError: If the compressed file has to be calibrated and the calibration images are not at hand, or of
                another size than the file's.
        """
        require("This export", "export", "openvino", "nncf", "onnx", "onnxscript")
        import openvino

        path = _file(export_root, ExportType.OPENVINO, f"{model_file_name}.xml")
        options = {**(onnx_kwargs or {}), "certified": False}
        given = (model_file_name, input_size, compression_type, datamodule, metric, task, max_drop, ov_kwargs)
        precision = "bf16" if self.model.settings.precision == "bfloat16" else "f32"
        with atomic_folder(path.parent) as folder, tempfile.TemporaryDirectory() as raw:
            with _quantizing_a_transformer(), _delivering(datamodule, input_size):
                written = super().to_openvino(raw, *given, options)
            model = openvino.Core().read_model(written)
            graph = self.graph(options.get("text_input", False), options.get("memory_input", False))
            inputs = _described(graph.further_inputs())
            normal = None
            if not inputs:
                runtime = OpenVinoRuntime(written, precision)
                normal = self._normal(runtime.run, compression_type is not None, runtime.precision)
            own = self._record(graph, normal, input_size, inputs)
            if normal is not None:
                with _without_remarks("onnx_ir", "onnxscript", "torch.onnx"):
                    certify.verdict_model(normal, Path(raw) / "verdicts.onnx")
                model = certify.add_to_openvino(model, Path(raw) / "verdicts.onnx", cast("float", normal.rate))
                openvino.save_model(model, Path(raw) / "certified.xml", compress_to_fp16=False)
                written = Path(raw) / "certified.xml"
            int8 = compression_type not in {None, CompressionType.FP16}
            own = _accepted(own, OpenVinoRuntime(written, precision), int8)
            for name, value in {**graph.metadata, **_metadata(normal, own)}.items():
                model.set_rt_info(value, ["clip_ad", name])
            openvino.save_model(model, folder / path.name, compress_to_fp16=False)
        if precision == "f32":
            logger.info("OpenVINO computes in bfloat16 where it can: run %s with INFERENCE_PRECISION_HINT f32.", path)
        return path


def _read(files: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    """Names of images and their pixels (3, H, W) in [0, 1]."""
    return ((file, read(file).levels) for file in files or ())


def _metadata(normal: NormalScores | None, own: Record) -> dict[str, str]:
    found = {verification.KEY: own.to_text()}
    return found if normal is None else {**found, CALIBRATION: normal.to_json()}


def _accepted(own: Record, runtime: Runtime, int8: bool = False) -> Record:
    """The record of a file that was just written, with what it may differ by."""
    run = partial(runtime.run, inputs=verification.inputs_of(own.inputs))
    return own.accept(run, f"{runtime.name} in {runtime.precision}{', int8' if int8 else ''}")


def _described(inputs: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """How verification makes further inputs of a file; see ``inputs_of``."""
    scales = {"text_features": 0.05, "memory": 1.0}
    return {
        name: {"shape": list(value.shape), "scale": scales[name]} if name in scales else {"value": value.tolist()}
        for name, value in inputs.items()
    }


def _without_statistics(post_processor: nn.Module) -> ClipADPostProcessor:
    """A post-processor for any class or product: probabilities, with the labels and sensitivities of the given one."""
    if not isinstance(post_processor, ClipADPostProcessor):
        return ClipADPostProcessor()
    if not post_processor.enable_normalization:
        msg = (
            "A file for any class or product gives probabilities, and this model's normalisation is off. Export it "
            "without text_input and memory_input, or with enable_normalization."
        )
        raise ValueError(msg)
    names = ("enable_thresholding", "image_sensitivity", "pixel_sensitivity")
    return ClipADPostProcessor(**{name: getattr(post_processor, name) for name in names})


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
def _delivering(datamodule: AnomalibDataModule | None, size: tuple[int, int] | None) -> Iterator[None]:
    """Let a data module, if there is one, deliver images of the one size (height, width) that a file takes, if any."""
    if datamodule is None or size is None:
        yield
        return
    given = datamodule.external_collate_fn
    datamodule.external_collate_fn = partial(_of_one_size, given or ImageBatch.collate, size)
    try:
        yield
    finally:
        datamodule.external_collate_fn = given


def _of_one_size(collate: Callable[..., Any], size: tuple[int, int], items: list[Any]) -> Any:
    """A batch of a data module, collated, its images resized."""
    batch = collate(items)
    batch.image = MatrixResize(size)(batch.image)
    return batch


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

"""Exported files in their runtimes: images in, named arrays out. Imports neither anomalib nor Lightning."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.checks import in_a_line
from anomalib_clipad.verdicts.normal_scores import NormalScores

Arrays = dict[str, NDArray[Any]]
Inputs = Mapping[str, NDArray[Any]]
CALIBRATION = "calibration"
"""Name of the calibration scores in a file's metadata."""
REFERENCES = "references"
"""Name of what the references of a file's memory are known by."""
TAUGHT = "taught"
"""Name of what the model of a file was taught."""
AS_EXPORTED = "as exported"
"""The number format of the model that was exported, in place of a runtime's own choice."""
RATE = "false_alarm_rate"
"""Name of the input of a file with verdicts: an optional one of ONNX, a state of OpenVINO."""


class Runtime(ABC):
    """An exported file, ready to run.

    Attributes:
        metadata: What the file says of itself.
        name: Runtime and version.
        precision: Number format in which it computes matrix products outside of int8.
        inputs: Names of the inputs it needs beside the images.
        size: Height and width of the images it takes, where it takes no others.
    """

    metadata: dict[str, str]
    name: str
    precision: str = "float32"
    inputs: frozenset[str]
    size: tuple[int, int] | None = None

    @abstractmethod
    def __init__(self, path: Path, precision: str | None = None) -> None: ...

    @property
    def normal(self) -> NormalScores | None:
        """The calibration in its metadata, if it has any.

        Raises:
            ValueError: If it is damaged.
        """
        return NormalScores.from_json(self.metadata[CALIBRATION]) if CALIBRATION in self.metadata else None

    @abstractmethod
    def run(self, images: NDArray[np.float32], rate: float | None = None, inputs: Inputs | None = None) -> Arrays:
        """Outputs by name.

        Args:
            images: RGB images (B, 3, H, W) in [0, 1].
            rate: False-alarm rate in place of the file's.
            inputs: Further inputs that the file has, by name.

        Raises:
            ValueError: If a rate is given to a file without verdicts, or its calibration images are too few for it.
        """

    def check_rate(self, rate: float, has_rate: bool) -> None:
        """Check that a file, which has verdicts or not, can give any at a rate; see ``run``."""
        _check(has_rate)
        normal = self.normal
        if normal is not None:
            normal.limits(rate)


def load(path: Path, precision: str | None = None) -> Runtime:
    """Load an exported file.

    Args:
        path: ``.onnx`` for onnxruntime, ``.xml`` for OpenVINO, ``.pt`` for torch.
        precision: OpenVINO's ``INFERENCE_PRECISION_HINT``, such as ``float32``, or ``AS_EXPORTED``; by default its own
            choice.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If its runtime is not installed.
        ValueError: If it is no such file, is damaged, or takes no precision; or a ``.pt`` file and
            ``TRUST_REMOTE_CODE`` is not 1.
    """
    kinds: dict[str, type[Runtime]] = {".onnx": OnnxRuntime, ".xml": OpenVinoRuntime, ".pt": TorchRuntime}
    kind = kinds.get(path.suffix)
    if kind is None:
        msg = f"{path} is no exported model: expected a file that ends with {', '.join(kinds)}."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    if kind is not OpenVinoRuntime and _HINTS.get(precision or "", precision) not in {None, AS_EXPORTED, "float32"}:
        msg = f"{path} computes in float32; a precision, here {precision}, is chosen for OpenVINO's files alone."
        raise ValueError(msg)
    if kind is TorchRuntime and os.environ.get("TRUST_REMOTE_CODE") not in {"1", "true"}:
        msg = f"{path} is a pickle, which can run any code. If you trust it, set the environment variable "
        raise ValueError(msg + "TRUST_REMOTE_CODE=1.")
    try:
        return kind(path, precision)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("anomalib_clipad"):
            raise
        msg = f"{path} was exported by an older version, whose classes have moved ({error.name}). Export it anew."
        raise ValueError(msg) from error
    except Exception as error:  # each runtime raises its own
        msg = f"{path} is damaged, or no exported model ({in_a_line(error)}). Export it anew."
        raise ValueError(msg) from error


class OnnxRuntime(Runtime):
    """onnxruntime on the CPU."""

    def __init__(self, path: Path, precision: str | None = None) -> None:
        import onnxruntime

        del precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of an input that has a default
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._has_rate = RATE in {entry.name for entry in self._session.get_overridable_initializers()}
        shapes = {entry.name: entry.shape for entry in self._session.get_inputs()}
        self.inputs = frozenset(shapes) - {"input"}
        height, width = shapes["input"][2:]
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def run(self, images: NDArray[np.float32], rate: float | None = None, inputs: Inputs | None = None) -> Arrays:
        """See ``Runtime.run``."""
        given = {"input": images, **(inputs or {})}
        if rate is not None:
            self.check_rate(rate, self._has_rate)
            given[RATE] = np.array(rate, np.float32)
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


_HINTS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_PRECISIONS = {name: hint for hint, name in _HINTS.items()}
"""Number formats as OpenVINO calls them and as ``Settings.precision`` does, and the other way round."""


class OpenVinoRuntime(Runtime):
    """OpenVINO on the CPU."""

    def __init__(self, path: Path, precision: str | None = None) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        self.metadata = _rt_info(model)
        self._outputs = [output.any_name for output in model.outputs]  # compiled for one size, they take other names on
        options = {"PERFORMANCE_HINT": "LATENCY"}
        if precision == AS_EXPORTED:
            precision = self.metadata.get("precision")
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = _PRECISIONS.get(precision, precision)
        compiled = core.compile_model(model, "CPU", options)
        computes_in = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = _HINTS.get(computes_in, computes_in)
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self._request = compiled.create_infer_request()
        shapes = {entry.any_name: entry.partial_shape for entry in model.inputs}
        self.inputs = frozenset(shapes) - {"input"}
        height, width = list(shapes["input"])[2:]
        self.size = (height.get_length(), width.get_length()) if height.is_static and width.is_static else None
        self._states = {state.name: state for state in self._request.query_state()}

    def run(self, images: NDArray[np.float32], rate: float | None = None, inputs: Inputs | None = None) -> Arrays:
        """See ``Runtime.run``."""
        import openvino

        if rate is not None:
            self.check_rate(rate, RATE in self._states)
            self._states[RATE].state = openvino.Tensor(np.array(rate, np.float32))
        elif RATE in self._states:
            self._states[RATE].reset()
        found = self._request.infer({"input": images, **(inputs or {})})
        return {name: np.array(value) for name, value in zip(self._outputs, found.to_tuple(), strict=True)}


class TorchRuntime(Runtime):
    """torch, with this package, on the CPU."""

    def __init__(self, path: Path, precision: str | None = None) -> None:
        import torch

        del precision
        self._graph = torch.load(path, map_location="cpu", weights_only=False)["model"]
        self.metadata = self._graph.metadata
        self.inputs = frozenset(self._graph.further_inputs())
        self.name = f"torch {torch.__version__.split('+')[0]}"

    def run(self, images: NDArray[np.float32], rate: float | None = None, inputs: Inputs | None = None) -> Arrays:
        """See ``Runtime.run``."""
        return run_torch(self._graph, images, rate, inputs)


def run_torch(
    graph: Any, images: NDArray[np.float32], rate: float | None = None, inputs: Inputs | None = None
) -> Arrays:
    """Outputs by name of a graph of ``Exporter.graph``."""
    import torch

    if rate is not None:
        _check(graph.certificate is not None)
    others = {name: torch.from_numpy(np.asarray(value)) for name, value in (inputs or {}).items()}
    with torch.inference_mode():
        found = graph(torch.from_numpy(images), **others, false_alarm_rate=rate)
    values = found._asdict() | {name: getattr(found, name, None) for name in ("p_value", "verdict")}
    return {name: value.cpu().numpy() for name, value in values.items() if value is not None}


def _check(has_rate: bool) -> None:
    if not has_rate:
        msg = "The file has no verdicts at a false-alarm rate. Export a model with false_alarm_rate."
        raise ValueError(msg)


def _rt_info(model: Any) -> dict[str, str]:
    info = model.get_rt_info()
    entries = info["clip_ad"] if "clip_ad" in info.keys() else {}  # noqa: SIM118  # it is no dict
    return {str(name): str(getattr(value, "value", value)) for name, value in dict(entries).items()}

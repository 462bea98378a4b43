"""`anomalib-clipad verify FILE`: does an exported file do here what it did when it was written?"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from time import perf_counter

from anomalib_clipad.deploy.verification import Record, inputs_of
from anomalib_clipad.predictor.runtimes import Runtime, load

_SECONDS = 1.0
"""How long the speed is measured."""


def verify(file: Path, precision: str | None = None) -> None:
    """Run a file on the images it carries, and compare with what Python found in them.

    Ends with status 0 where all is well, 1 where scores or maps are out of tolerance or verdicts are others, 2 where
    that cannot be told.

    Args:
        file: Exported model: .onnx, .xml or .pt.
        precision: OpenVINO's INFERENCE_PRECISION_HINT, such as f32; by default its own choice, as in your program.
    """
    try:
        runtime = load(file, precision)
        record = Record.from_metadata(runtime.metadata)
        normal = runtime.normal
        comparison = record.compare(lambda images: runtime.run(images, inputs=inputs_of(record.inputs)), normal)
    except (OSError, ValueError, LookupError, ModuleNotFoundError) as error:
        print(f"anomalib-clipad verify: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    count = len(record.images)
    print(f"{file}: {runtime.name} in {runtime.precision}, {processor()}")
    print(f"largest difference of scores   {comparison.score:.1e}, {record.score_tolerance:.1e} allowed")
    print(f"largest difference of maps     {comparison.map:.1e}, {record.map_tolerance:.1e} allowed")
    if record.p_values is not None:
        print(f"largest difference of p-values {comparison.p_value:.1e}")
    if record.labels is not None:
        print(f"verdicts that flip             {comparison.flips} of {count}")
    print(f"images per second              {_speed(runtime, record):.1f}, one at a time")
    if normal is not None:
        print(f"calibration                    {normal.promise()}")
    if comparison.fault:
        print(f"OTHER VERDICTS: {comparison.fault}. Do not trust them; export the model anew.")
    if not comparison.near(record):
        print(f"OUT OF TOLERANCE: {_reason(runtime, record)}")
    if not comparison.within(record):
        sys.exit(1)
    print("within tolerance")


def processor() -> str:
    """The name of the processor and the number of its cores."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def _speed(runtime: Runtime, record: Record) -> float:
    images, inputs, done = record.pixels(), inputs_of(record.inputs), 0
    start = perf_counter()
    while (passed := perf_counter() - start) < _SECONDS or not done:
        runtime.run(images[done % len(images)], inputs=inputs)
        done += 1
    return done / passed


def _reason(runtime: Runtime, record: Record) -> str:
    """The likeliest one."""
    then = record.runtime or "an unknown runtime"
    if runtime.precision != "float32" and runtime.precision not in then:
        return (
            f"{runtime.name} computes in {runtime.precision} here unless told otherwise; the file was calibrated with "
            f"{then}. Set INFERENCE_PRECISION_HINT to f32 (here: --precision f32), or export a model with "
            f"precision='bfloat16', which is calibrated in it."
        )
    if then.endswith("int8"):
        return (
            f"int8 arithmetic differs between processors; this file was calibrated with {then} on another one. Export "
            "it on a processor of this kind."
        )
    return (
        f"the file was written with {then} and is run with {runtime.name} in {runtime.precision}; or it was changed. "
        "Export it anew with this version."
    )

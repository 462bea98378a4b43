"""Check an exported file where it runs: needs numpy, pillow and onnxruntime, nothing else.

python onnx_verify.py model.onnx

Ends with status 0 where scores, maps and verdicts are those of its writing, 1 where they are not, 2 where the file does
not tell.
"""

import json
import sys
import zlib
from base64 import b64decode
from io import BytesIO
from time import perf_counter

import numpy as np
import onnxruntime
from PIL import Image


def decode(file: str, size: "list[int] | None") -> np.ndarray:
    """RGB in [0, 1], (1, 3, H, W), of a PNG in base64; pixels are repeated where the file takes images of one size."""
    pixels = np.asarray(Image.open(BytesIO(b64decode(file))).convert("RGB"), np.float32) / 255
    if size is not None:
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, pixels.shape[:2], strict=True))
        pixels = pixels[rows][:, columns]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def make_input(how: dict) -> np.ndarray:
    """Text features or a memory, for a file that takes them as inputs: a sine."""
    if "value" in how:
        return np.array(how["value"], np.float32)
    places = np.arange(np.prod(how["shape"]), dtype=np.float64)
    return (np.sin(places) * how["scale"]).astype(np.float32).reshape(how["shape"])


try:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of false_alarm_rate, an input that has a default
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    data = json.loads(session.get_modelmeta().custom_metadata_map["verification"])
    images = [decode(image, data["size"]) for image in data["images"]]
except KeyError:
    print(f"{sys.argv[1]} carries no verification data.", file=sys.stderr)
    sys.exit(2)
except Exception as error:  # every package raises its own
    print(f"{sys.argv[1]} is damaged, or no exported model: {error}", file=sys.stderr)
    sys.exit(2)

inputs = {name: make_input(how) for name, how in data["inputs"].items()}
names = [output.name for output in session.get_outputs()]
start = perf_counter()
found = [dict(zip(names, session.run(names, {"input": image, **inputs}), strict=True)) for image in images]
speed = len(images) / (perf_counter() - start)

score = np.max([abs(one["pred_score"][0] - wanted) for one, wanted in zip(found, data["scores"], strict=True)])
maps = [np.frombuffer(zlib.decompress(b64decode(m["values"])), np.float32).reshape(m["shape"]) for m in data["maps"]]
pixel = np.max([np.abs(one["anomaly_map"][0, ::4, ::4] - m).max() for one, m in zip(found, maps, strict=True)])
labels = data["labels"] or [None] * len(found)
flips = sum(
    wanted is not None and bool(one["pred_label"][0]) != wanted for one, wanted in zip(found, labels, strict=True)
)
print(f"scores differ by {score:.1e} ({data['score_tolerance']:.1e} allowed)")
print(f"maps differ by {pixel:.1e} ({data['map_tolerance']:.1e} allowed)")
print(f"{flips} of {len(images)} verdicts flip, {speed:.1f} images per second")
sys.exit(0 if score <= data["score_tolerance"] and pixel <= data["map_tolerance"] and not flips else 1)

"""One exported model for many products: needs numpy, pillow and onnxruntime, and onnx_predict.py beside it.

python onnx_products.py model.onnx hazelnut.safetensors image.png

The model is exported with `to_onnx(folder, text_input=True, memory_input=True)`, product files are written by
`anomalib-clipad product`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from onnx_predict import read


def read_product(path: str) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file: a length, a header in JSON, numbers."""
    with Path(path).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        content = file.read()
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(content[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
    }


session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
product = read_product(sys.argv[2])
inputs = {entry.name: product[entry.name] for entry in session.get_inputs() if entry.name != "input"}
score, label, anomaly_map, mask = session.run(None, {"input": read(sys.argv[3])[None], **inputs})
verdict = "defective" if label[0] else "good"
print(f"score {score[0]:.4f}, {verdict}, {int(mask.sum())} defective pixels of {mask.size}")

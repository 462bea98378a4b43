"""Find defects with an exported model: needs numpy, pillow and onnxruntime, nothing else.

python onnx_predict.py model.onnx image.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB"), np.float32) / 255
score, label, anomaly_map, mask = session.run(None, {"input": pixels.transpose(2, 0, 1)[None]})
print(f"score {score[0]:.4f}, {'defective' if label[0] else 'good'}, {int(mask.sum())} defective pixels of {mask.size}")

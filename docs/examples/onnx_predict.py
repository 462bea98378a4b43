"""Find defects with an exported model: needs numpy, pillow and onnxruntime, nothing else.

python onnx_predict.py model.onnx image.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

image = Image.open(sys.argv[2])
tags = getattr(image, "tag_v2", {})  # of TIFF; 258 are the bits, 262 is 0 where white is 0
deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"})
if deep and tags.get(262) != 0:  # grey, 16 bits: convert("RGB") would clip at 255
    grey = np.asarray(image, np.float32) / (2 ** max(tags.get(258, (16,))) - 1)
    pixels = np.repeat(grey[..., None], 3, axis=2)
elif image.mode[0] in "IF":
    sys.exit(f"{sys.argv[2]} does not tell which value is white; save it in 8 or unsigned 16 bits, such as a PNG")
else:
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
score, label, anomaly_map, mask = session.run(None, {"input": pixels.transpose(2, 0, 1)[None]})
print(f"score {score[0]:.4f}, {'defective' if label[0] else 'good'}, {int(mask.sum())} defective pixels of {mask.size}")

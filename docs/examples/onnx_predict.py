"""Find defects with an exported model: needs numpy, pillow and onnxruntime, nothing else.

python onnx_predict.py model.onnx image.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def read(path: str) -> np.ndarray:
    """RGB in [0, 1], (3, H, W). Pillow's conversion to RGB would clip grey images of 16 bits at 255."""
    image = Image.open(path)
    if image.mode not in {"I", "I;16", "I;16B", "I;16L", "F"}:
        return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    tags = getattr(image, "tag_v2", {})  # of TIFF: 258 is the number of bits, 262 is 0 where 0 means white
    grey = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        known = image.mode != "I" or image.format in {"PNG", "PPM"}
        grey /= 2 ** tags.get(258, (16,))[0] - 1 if known else np.nan
    if not 0 <= grey.min() <= grey.max() <= 1:
        sys.exit(f"{path} does not tell which value is white. Save it in 8 bits or unsigned 16 bits.")
    return np.stack([1 - grey if tags.get(262) == 0 else grey] * 3)


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    score, label, anomaly_map, mask = session.run(None, {"input": read(sys.argv[2])[None]})
    verdict = "defective" if label[0] else "good"
    print(f"score {score[0]:.4f}, {verdict}, {int(mask.sum())} defective pixels of {mask.size}")

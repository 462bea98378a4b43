"""Find defects with an exported model: needs numpy, pillow and onnxruntime, nothing else.

python onnx_predict.py model.onnx image.png [false-alarm rate, if the model has verdicts at one]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(path: str) -> np.ndarray:
    """RGB in [0, 1], (3, H, W), as a viewer shows it: turned as EXIF says, on white where it is transparent.

    Pillow's conversion to RGB would clip grey images of 16 bits at 255.
    """
    image = Image.open(path)
    if image.mode not in {"I", "I;16", "I;16B", "I;16L", "F"}:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"), np.float32)
        opaque = pixels[..., 3:] / 255
        return (np.round(pixels[..., :3] * opaque) + 255 - pixels[..., 3:]).transpose(2, 0, 1) / 255
    tags = getattr(image, "tag_v2", {})  # of TIFF: 258 is the number of bits, 262 is 0 where 0 means white
    grey = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        known = image.mode != "I" or image.format in {"PNG", "PPM"}
        grey /= 2 ** tags.get(258, (16,))[0] - 1 if known else np.nan
    if not 0 <= grey.min() <= grey.max() <= 1:
        sys.exit(f"{path} does not tell which value is white. Save it in 8 bits or unsigned 16 bits.")
    return np.stack([1 - grey if tags.get(262) == 0 else grey] * 3)


def check_rate(rate: float, calibration: "str | None") -> None:
    """End where a file has no verdicts, or so few calibration images allow none at a rate: all would be called good."""
    if calibration is None:
        sys.exit("The file has no verdicts at a false-alarm rate. Export a model with false_alarm_rate.")
    count = len(json.loads(calibration)["image_scores"])
    if not 0.999 / (count + 1) <= rate < 1:
        sys.exit(
            f"A false-alarm rate of {rate:g} is none that {count} calibration images allow: with so many it is "
            f"{1 / (count + 1):.4f} or more, and below 1. Calibrate the model on more images, or allow a higher rate."
        )


if __name__ == "__main__":
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of false_alarm_rate, an input that has a default
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    inputs = {"input": read(sys.argv[2])[None]}
    if len(sys.argv) > 3:
        check_rate(float(sys.argv[3]), session.get_modelmeta().custom_metadata_map.get("calibration"))
        inputs["false_alarm_rate"] = np.array(sys.argv[3], np.float32)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, inputs), strict=True))
    verdict = "defective" if found["pred_label"][0] else "good"
    if "verdict" in found:  # of a model with known defects and a miss rate
        verdict = ("good", "look", "defective")[found["verdict"][0]]
    rarity = f" (p-value {found['p_value'][0]:.3f})" if "p_value" in found else ""
    mask = found["pred_mask"]
    print(f"score {found['pred_score'][0]:.4f}{rarity}, {verdict}, {int(mask.sum())} defective pixels of {mask.size}")

"""What it costs to compare images with others: few-shot and mutual, beside the text alone and WinClip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from anomalib.models.image.winclip import torch_model as winclip_module
from torch import Tensor

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.vision.pool import Pool, joined, key_of

from .comparison import Comparison, random_model
from .timing import interleaved, peak_memory

_SHOTS = 4
_POOL = 100
_PROGRAM = """
import logging, torch, warnings
logging.disable(); warnings.simplefilter("ignore")
from anomalib_clipad import ClipADModel, load_backbone
from anomalib_clipad.tools.bench.references import judged
model = ClipADModel(load_backbone({backbone!r}, None), text_weight=0.0)
images = torch.randn({count}, 3, model.image_size, model.image_size)
"""


def references(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """Four normal images beside none, WinClip with as many, and a hundred images that judge each other."""
    loaded = load_backbone(backbone, None)
    plain, few_shot = random_model(loaded), random_model(loaded)
    size = plain.image_size
    normal, images = torch.randn(_SHOTS, 3, size, size), torch.randn(batch_size, 3, size, size)
    few_shot.detector.remember([normal])
    seconds = interleaved({"few-shot": partial(few_shot, images), "text": partial(plain, images)}, repeats)
    yield Comparison(f"forward, k_shot {_SHOTS}, s", seconds["few-shot"], "forward, text alone", seconds["text"])

    with patch.object(winclip_module, "PRETRAINED", None):
        peer = winclip_module.WinClipModel("metal_nut", torch.randn(_SHOTS, 3, 240, 240)).eval()
    theirs = torch.randn(batch_size, 3, 240, 240)
    rounded = random_model(loaded, precision="bfloat16")
    rounded.detector.remember([normal])
    runs: dict[str, Callable[[], object]] = {
        "float32": partial(few_shot, images),
        "bfloat16": partial(rounded, images),
        "WinClip": partial(peer, theirs),
    }
    with torch.inference_mode():
        seconds = interleaved(runs, min(repeats, 3))
    rate = {name: batch_size / value for name, value in seconds.items()}
    for name in ("float32", "bfloat16"):
        what = f"k_shot {_SHOTS}, {name}, images/s"
        yield Comparison(what, rate[name], f"WinClip, k_shot {_SHOTS}", rate["WinClip"])

    many = torch.randn(_POOL, 3, size, size)
    runs = {"mutual": partial(judged, random_model(loaded), many), "text": partial(plain, images)}
    seconds = interleaved(runs, 1)  # a hundred images, twice
    alone = seconds["text"] / batch_size
    yield Comparison(f"mutual, pool {_POOL}, s an image", seconds["mutual"] / _POOL, "forward, text alone", alone)
    prepare = _PROGRAM.format(backbone=backbone, count=_POOL)
    runs_of_100 = (f"judged(model, images, {batch_size})", f"[model.examine(i) for i in images.split({batch_size})]")
    megabytes = [peak_memory(prepare, statement) / 2**20 for statement in runs_of_100]
    yield Comparison(f"mutual, pool {_POOL}, peak MB above the model", megabytes[0], "its tokens alone", megabytes[1])


@torch.no_grad()
def judged(model: ClipADModel, images: Tensor, batch_size: int = 8) -> list[Tensor]:
    """Scores of images that judge each other, in two passes, as a run does it."""
    batches = images.split(batch_size)
    evidence = joined([model.examine(batch) for batch in batches])
    model.pool = Pool(model.detector, evidence, [key_of(image) for image in images])
    scores = [model(batch).pred_score for batch in batches]
    model.pool = None
    return scores

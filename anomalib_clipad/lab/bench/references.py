"""What it costs to compare images with others: few-shot and mutual, beside the text alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.vision.pool import Pool, joined, key_of

from .comparison import SHOTS, Comparison, random_model, remembering
from .timing import interleaved, peak_memory

_POOL = 100
_PROGRAM = """
import logging, torch, warnings
logging.disable(); warnings.simplefilter("ignore")
from anomalib_clipad import ClipADModel, load_backbone
from anomalib_clipad.lab.bench.references import judged
model = ClipADModel(load_backbone({backbone!r}, None), text_weight=0.0)
images = torch.randn({count}, 3, model.image_size, model.image_size)
"""


def few_shot(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """Four normal images beside the text or alone, beside the text alone."""
    loaded = load_backbone(backbone, None)
    text = f"forward, k_shot {SHOTS}, s"
    alone = f"forward, k_shot {SHOTS}, text_weight 0, s"
    models = {text: remembering(loaded), alone: remembering(loaded, text_weight=0.0), "text": random_model(loaded)}
    size = models["text"].image_size
    images = torch.randn(batch_size, 3, size, size)
    seconds = interleaved({what: partial(model, images) for what, model in models.items()}, repeats)
    for what in (text, alone):
        yield Comparison(what, seconds[what], "forward, text alone", seconds["text"])


def mutual(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """A hundred images that judge each other, beside the text alone: time an image, and memory."""
    del repeats  # a hundred images, twice
    loaded = load_backbone(backbone, None)
    size = loaded.image_size
    many = torch.randn(_POOL, 3, size, size)
    images, plain = many[:batch_size], random_model(loaded)
    seconds = interleaved({"mutual": partial(judged, random_model(loaded), many), "text": partial(plain, images)}, 1)
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

"""The training loop: windows first, whole pictures at the end, a checkpoint at any moment."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from anomalib_clipad.backbones import Backbone, load_backbone

from .batches import Batch, make_batch
from .captions import ABNORMAL_STATES, KIND_STATES, NORMAL_STATES, Captions
from .objective import WEIGHTS, batch_losses, embed_captions, text_losses
from .pool import KINDS, SHARD, SIZE, render_shard
from .validation import mean_figures, measure, validation_set

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """All there is to choose.

    Attributes:
        seed: Seed of pictures, captions, weights and their order.
        shards: Number of shards of 500 pairs to train on.
        window_steps: Steps on windows of the pictures.
        window: Height and width of a window in pixels.
        window_pairs: Pairs per step on windows.
        full_steps: Steps on whole pictures.
        full_pairs: Pairs per step on whole pictures.
        lr: Highest learning rate.
        warmup: Steps until it is reached.
        prompts: Captions of each state per step.
        ema: Decay of the averaged weights, which are the result.
        validate_every: Steps between validations.
    """

    seed: int = 0
    shards: int = 20
    window_steps: int = 3000
    window: int = 128
    window_pairs: int = 32
    full_steps: int = 800
    full_pairs: int = 10
    lr: float = 1e-3
    warmup: int = 200
    prompts: int = 24
    ema: float = 0.998
    validate_every: int = 500

    @property
    def steps(self) -> int:
        """Number of all steps."""
        return self.window_steps + self.full_steps

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


class Trainer:
    """Trains clipad-mini; resumes where a run in the same folder stopped.

    Args:
        folder: Where pictures, checkpoints and the log go.
        recipe: What to do.
        pool: Where the pictures go, if not into the folder.
    """

    def __init__(self, folder: Path, recipe: Recipe, pool: Path | None = None) -> None:
        self.folder, self.recipe = folder, recipe
        self.pool = pool or folder / "pool"
        folder.mkdir(parents=True, exist_ok=True)
        self.backbone = load_backbone("clipad-mini", None)
        self.clip = self.backbone.clip
        torch.manual_seed(recipe.seed)
        _reset(self.clip)
        self.average = deepcopy(self.clip).eval().requires_grad_(False)
        self.captions = Captions.from_vocabulary()
        decayed = [p for p in self.clip.parameters() if p.ndim > 1]
        others = [p for p in self.clip.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
        self.step, self.seconds = 0, 0.0
        self._resume()

    def run(self) -> None:
        """Train to the end."""
        recipe = self.recipe
        validation = validation_set(SIZE)
        totals: dict[str, float] = defaultdict(float)
        begin, before = time.monotonic(), self.seconds
        shard, shard_number = None, -1
        while self.step < recipe.steps:
            rng = np.random.default_rng([recipe.seed, 1, self.step])
            whole = self.step >= recipe.window_steps
            pairs = recipe.full_pairs if whole else recipe.window_pairs
            number = (self.step // 16) % recipe.shards  # a shard serves 16 steps
            if number != shard_number:
                shard, shard_number = render_shard(self.pool, recipe.seed, number), number
            chosen = rng.choice(SHARD, size=pairs, replace=False)
            batch = make_batch(rng, shard, chosen, SIZE if whole else recipe.window)
            for name, value in self._update(batch, rng).items():
                totals[name] += value
            self.step += 1
            self.seconds = before + time.monotonic() - begin
            if self.step % 50 == 0:
                self._log({name: round(value / 50, 4) for name, value in totals.items()})
                totals.clear()
            if self.step % recipe.validate_every == 0 or self.step == recipe.steps:
                figures = mean_figures(measure(self._result(), validation))
                self._log({f"val_{name}": round(value, 4) for name, value in figures._asdict().items()})
                self._save()

    def _update(self, batch: Batch, rng: np.random.Generator) -> dict[str, float]:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate(self.step)
        word = self.captions.class_word(rng)
        captions = [
            *self.captions.fill(rng, NORMAL_STATES, word, recipe.prompts),
            *self.captions.fill(rng, ABNORMAL_STATES, word, recipe.prompts),
            *(self.captions.fill(rng, KIND_STATES[kind], word, 1)[0] for kind in KINDS),
        ]
        embeddings = embed_captions(self.clip, self.backbone.tokenizer, captions)
        normal, abnormal, kinds = embeddings.split([recipe.prompts, recipe.prompts, len(KINDS)])
        text_features, text_loss = text_losses(normal, abnormal)
        losses = {**batch_losses(self.clip, batch, text_features, kinds.T), "text": text_loss}
        total = sum(WEIGHTS[name] * loss for name, loss in losses.items())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.clip.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.clip.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return {"loss": float(total), "norm": float(norm), **{k: float(v) for k, v in losses.items()}}

    def _result(self) -> Backbone:
        return Backbone(deepcopy(self.average), self.backbone.tokenizer, self.backbone.image_size)

    def _log(self, entry: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), **entry}
        logger.info(json.dumps(line))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "seconds": self.seconds,
            "clip": self.clip.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")
        export(self.average, self.folder / "clipad-mini.safetensors")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.clip.load_state_dict(state["clip"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("Resuming at step %d.", self.step)


def _reset(clip: nn.Module) -> None:
    """Initial weights: open_clip's, with the image tower drawn as its text tower is."""
    visual = clip.visual
    for block in visual.transformer.resblocks:
        nn.init.xavier_uniform_(block.attn.in_proj_weight)
        nn.init.xavier_uniform_(block.attn.out_proj.weight)
        nn.init.trunc_normal_(block.mlp.c_fc.weight, std=0.02 * (768 / 192) ** 0.5)
        nn.init.trunc_normal_(block.mlp.c_proj.weight, std=0.02 * (768 / 192) ** 0.5)
        nn.init.zeros_(block.mlp.c_fc.bias)
        nn.init.zeros_(block.mlp.c_proj.bias)
    clip.train().requires_grad_(True)


def export(clip: nn.Module, path: Path) -> None:
    """Write a model's weights as a float16 safetensors file."""
    partial = path.with_suffix(".partial")
    save_file({name: value.half().contiguous() for name, value in clip.state_dict().items()}, partial)
    partial.replace(path)



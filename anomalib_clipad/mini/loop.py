"""The training loop, which saves a checkpoint at any moment and goes on from there."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anomalib_clipad.backbones import Backbone, load_backbone
from anomalib_clipad.parts.noise import Rng
from anomalib_clipad.storage import atomic_folder

from .batches import make_batch
from .captions import ABNORMAL_STATES, KIND_STATES, NORMAL_STATES, Captions
from .damage import KINDS
from .objective import WEIGHTS, batch_losses, embed_captions, representatives, text_loss
from .pool import SHARD, Pool
from .recipe import Recipe
from .rendering import RENDERED
from .validation import mean_metrics, measure, validation_set
from .weights import export, reset

logger = logging.getLogger(__name__)
TEXT_LR = 2e-3


class Trainer:
    """Trains clipad-mini; goes on where a run in the same folder stopped.

    Args:
        folder: Where pictures, checkpoint and log go.
        recipe: What to do.
        device: Where to train.
        pairs: Pairs per shard.
    """

    def __init__(self, folder: Path, recipe: Recipe, device: torch.device, pairs: int = SHARD) -> None:
        self.folder, self.recipe, self.device = folder, recipe, device
        folder.mkdir(parents=True, exist_ok=True)
        workers = max((os.cpu_count() or 1) - 1, 1)
        self.pool = Pool(folder / "pool", recipe.seed, recipe.shards[1], device, workers, pairs)
        torch.manual_seed(recipe.seed)
        self.backbone = load_backbone("clipad-mini", None, recipe.side)
        self.clip = self.backbone.clip.train().requires_grad_(True)
        self.step, self.seconds = 0, 0.0
        saved = self._saved()
        if saved is None:
            reset(self.clip, self.pool.shard(0))
        self.clip.to(device)
        self.average = deepcopy(self.clip).eval().requires_grad_(False)
        self.parameters = list(self.clip.visual.parameters())
        self.averages = list(self.average.visual.parameters())
        self.captions = Captions.from_vocabulary()
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), foreach=True)
        if saved is not None:
            self._resume(saved)

    def run(self) -> None:
        """Train to the end, and write the averaged weights."""
        recipe = self.recipe
        if self.step == 0:
            self._teach_text()
            self.average.load_state_dict(self.clip.state_dict())
        validation = validation_set(RENDERED)
        totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        begin, before, counted = time.monotonic(), self.seconds, 0
        while self.step < recipe.steps:
            for name, value in self._update().items():
                totals[name] += value
            self.step += 1
            counted += 1
            self.seconds = before + time.monotonic() - begin
            if self.step % recipe.save_every == 0:
                self._log({name: round(float(value) / counted, 4) for name, value in totals.items()})
                totals.clear()
                counted = 0
                self._save()
            if self.step % recipe.validate_every == 0 or self.step == recipe.steps:
                result = replace(self.backbone, clip=deepcopy(self.average))
                metrics = mean_metrics(measure(result, validation))
                self._log({f"val_{name}": round(value, 4) for name, value in metrics._asdict().items()})
        self._save()
        export(self.average, self.folder / "clipad-mini.safetensors")
        self.pool.close()

    def _teach_text(self) -> None:
        """Train the text tower: captions to the directions of their state and kind of defect, whatever the class word.

        The image tower is then trained against it as it is. Trained together, the quickest way to lessen the loss would
        be to make both states look the same, and nothing more could be learnt.
        """
        named = self.clip.named_parameters()
        text = [value for name, value in named if not name.startswith("visual") and name != "logit_scale"]
        optimizer = torch.optim.AdamW(text, lr=TEXT_LR)
        for step in range(self.recipe.text_steps):
            rng = np.random.default_rng([self.recipe.seed, 2, step])
            for group in optimizer.param_groups:
                group["lr"] = TEXT_LR * (1 - step / self.recipe.text_steps)
            loss = text_loss(*self._embed(rng))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if (step + 1) % 200 == 0:
                self._log({"text_step": step + 1, "text_loss": round(float(loss.detach()), 4)})
        with torch.no_grad():  # images start out undecided between the states
            normal, abnormal, _ = self._embed(np.random.default_rng([self.recipe.seed, 3]))
            states, projection = representatives(normal, abnormal), self.clip.visual.proj
            axis = states[:, 1:] - states[:, :1]
            axis = axis / axis.norm()
            projection.sub_(projection @ axis @ axis.T)

    def _embed(self, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of captions of one class word: normal (n, D), abnormal (n, D), one per kind of defect."""
        count, word = self.recipe.prompts, self.captions.class_word(rng)
        captions = [
            *self.captions.fill(rng, NORMAL_STATES, word, count),
            *self.captions.fill(rng, ABNORMAL_STATES, word, count),
            *(self.captions.fill(rng, KIND_STATES[kind], word, 1)[0] for kind in KINDS),
        ]
        embeddings = embed_captions(self.clip, self.backbone.tokenizer, captions)
        return tuple(embeddings.split([count, count, len(KINDS)]))

    def _update(self) -> Mapping[str, Tensor]:
        """One step; the losses by name."""
        recipe, step = self.recipe, self.step
        rng = np.random.default_rng([recipe.seed, 1, step])
        size, pairs, _ = recipe.phase(step)
        shard = self.pool.shard(int(rng.integers(recipe.shards_in_use(step))))
        chosen = rng.choice(shard.plainest(recipe.plainest_share(step)), size=pairs, replace=False)
        batch = make_batch(int(rng.integers(2**32)), shard, chosen, size, recipe.side)
        with torch.no_grad():
            normal, abnormal, kinds = self._embed(rng)
        losses = batch_losses(self.clip, batch, representatives(normal, abnormal), kinds.T)
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        return {name: value.detach() for name, value in {"norm": norm, "loss": total, **losses}.items()}

    def _log(self, entry: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), **entry}
        logger.info(json.dumps(line))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "clip": self.clip.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_folder(self.folder) as folder:
            torch.save(state, folder / "checkpoint.pt")

    def _saved(self) -> dict[str, Any] | None:
        path = self.folder / "checkpoint.pt"
        return torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None

    def _resume(self, state: dict[str, Any]) -> None:
        self.clip.load_state_dict(state["clip"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("Resuming at step %d.", self.step)

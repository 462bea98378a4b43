"""The training loop of one round, which saves a checkpoint at any moment and goes on from there."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomalib_clipad.backbones import Backbone, load_backbone
from anomalib_clipad.parts.noise import Rng
from anomalib_clipad.storage import atomic_folder

from .batches import make_batch
from .captions import ABNORMAL_STATES, KIND_STATES, NORMAL_STATES, Captions
from .objective import WEIGHTS, batch_losses, embed_captions, representatives, text_loss
from .pool import KINDS, RENDERED, Shard, render_shard
from .recipe import Recipe
from .validation import mean_metrics, measure, validation_set
from .weights import export, reset

logger = logging.getLogger(__name__)
PARTS = 2
TEXT_LR = 2e-3


class Trainer:
    """Trains one round of clipad-mini; resumes where a run in the same folder stopped.

    The result is ``round-<number>.safetensors`` in the folder.

    Args:
        folder: Where pictures, checkpoints, log and results go.
        recipe: What to do.
        number: Number of the round, from 1; from 2 on it starts from the result of the one before.
        pool: Where the pictures go, if not into the folder.
    """

    def __init__(self, folder: Path, recipe: Recipe, number: int, pool: Path | None = None) -> None:
        self.folder, self.recipe, self.round = folder, recipe, recipe.rounds[number - 1]
        self.number, self.first_step = number, sum(earlier.steps for earlier in recipe.rounds[: number - 1])
        self.pool = pool or folder / "pool"
        folder.mkdir(parents=True, exist_ok=True)
        start = str(folder / f"round-{number - 1}.safetensors") if number > 1 else None
        self.backbone = load_backbone("clipad-mini", start, self.round.side)
        self.clip = self.backbone.clip.train().requires_grad_(True)
        torch.manual_seed(recipe.seed)
        if number == 1:
            reset(self.clip, self._shard(0))
        self.average = deepcopy(self.clip).eval().requires_grad_(False)
        names = [name for name, _ in self.clip.named_parameters()]
        text = {name for name in names if not name.startswith("visual") and name != "logit_scale"}
        self.text_parameters = [value for name, value in self.clip.named_parameters() if name in text]
        self.parameters = list(self.clip.visual.parameters())
        self.averages = list(self.average.visual.parameters())
        self.workers = ThreadPoolExecutor(PARTS)
        self.captions = Captions.from_vocabulary()
        decayed = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.round.lr, betas=(0.9, 0.98), foreach=True)
        self.step, self.seconds = 0, 0.0
        self._resume()

    def run(self) -> None:
        """Train to the end of the round."""
        recipe = self.recipe
        if self.number == 1 and self.step == 0:
            self._teach_text()
            self.average.load_state_dict(self.clip.state_dict())
        validation = validation_set(RENDERED)
        totals: dict[str, float] = defaultdict(float)
        begin, before = time.monotonic(), self.seconds
        shards: dict[int, Shard] = {}
        while self.step < self.round.steps:
            size, pairs, _ = self.round.phase(self.step)
            rngs = [np.random.default_rng([recipe.seed, 1, self.first_step + self.step, part]) for part in range(PARTS)]
            number = self.round.first_shard + (self.step // 16) % self.round.shards  # a shard serves 16 steps
            if number not in shards:
                shards[number] = self._shard(number)
            candidates = shards[number].plainest(self.round.plainest_share(self.step))
            chosen = rngs[0].choice(candidates, size=(PARTS, pairs // PARTS), replace=False)
            for name, value in self._update(shards[number], chosen, size, rngs).items():
                totals[name] += value
            self.step += 1
            self.seconds = before + time.monotonic() - begin
            if self.step % 50 == 0:
                self._log({name: round(value / 50, 4) for name, value in totals.items()})
                totals.clear()
                self._save()
            if self.step % recipe.validate_every == 0 or self.step == self.round.steps:
                metrics = mean_metrics(measure(self._result(), validation))
                self._log({f"val_{name}": round(value, 4) for name, value in metrics._asdict().items()})
                self._save()
        export(self.average, self.folder / f"round-{self.number}.safetensors")

    def _shard(self, number: int) -> Shard:
        return render_shard(self.pool, self.round.rendering, self.recipe.seed, number)

    def _teach_text(self) -> None:
        """Train the text tower: captions to the directions of their state and kind of defect, whatever the class word.

        The image tower is then trained against it as it is. Trained together, the quickest way to lessen the loss would
        be to make both states look the same, and nothing more could be learnt.
        """
        optimizer = torch.optim.AdamW(self.text_parameters, lr=TEXT_LR)
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

    def _update(self, shard: Shard, pairs: NDArray[np.int64], size: int, rngs: list[Rng]) -> dict[str, float]:
        """One step on several parts of a batch, each with captions of its own, worked on side by side."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.round.learning_rate(self.step)
        parts = list(self.workers.map(partial(self._gradients, shard, size), pairs, rngs))
        for parameter, *gradients in zip(self.parameters, *(gradients for gradients, _ in parts), strict=True):
            parameter.grad = sum(gradients) / len(parts)
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        return {"norm": float(norm), **{k: sum(losses[k] for _, losses in parts) / len(parts) for k in parts[0][1]}}

    def _gradients(
        self, shard: Shard, size: int, pairs: NDArray[np.int64], rng: Rng
    ) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """Gradients of the total loss for every parameter, and the losses by name."""
        batch = make_batch(rng, shard, pairs, size, self.round.side)
        with torch.no_grad():
            normal, abnormal, kinds = self._embed(rng)
        losses = batch_losses(self.clip, batch, representatives(normal, abnormal), kinds.T)
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        gradients = torch.autograd.grad(total, self.parameters, allow_unused=True, materialize_grads=True)
        return gradients, {name: float(loss.detach()) for name, loss in {"loss": total, **losses}.items()}

    def _result(self) -> Backbone:
        return replace(self.backbone, clip=deepcopy(self.average))

    def _log(self, entry: dict[str, float]) -> None:
        line = {"round": self.number, "step": self.step, "minutes": round(self.seconds / 60, 2), **entry}
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
            torch.save(state, folder / self._checkpoint.name)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / f"round-{self.number}.pt"

    def _resume(self) -> None:
        path = self._checkpoint
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.clip.load_state_dict(state["clip"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("Resuming round %d at step %d.", self.number, self.step)

"""The training loop, which saves a checkpoint at any moment and goes on from there."""

from __future__ import annotations

import json
import logging
import os
import time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.storage import atomic_folder

from .bank import Bank, embed_states, text_bank
from .batches import Augmentation
from .captions import Captions
from .graph import Graph
from .objective import WEIGHTS, Objective, representatives, text_loss
from .pool import SHARD, Pool
from .recipe import Phase, Recipe
from .rendering import RENDERED
from .validation import mean_metrics, measure, validation_set
from .weights import FILTERED, export, reset

logger = logging.getLogger(__name__)
TEXT_LR = 2e-3
LOGGED = ("norm", "loss", *WEIGHTS)
"""What is logged: the gradient's norm, the total loss and its parts."""


class Knobs(NamedTuple):
    """What the schedule changes from step to step: numbers on the device, read by the step's graph.

    Attributes:
        lr: Learning rate.
        decay: Decay of the averaged weights.
        shards: Number of shards in use.
        share: Share of their pairs in use.
    """

    lr: Tensor
    decay: Tensor
    shards: Tensor
    share: Tensor


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
        workers = max((os.cpu_count() or 1) - 2, 1)
        self.pool = Pool(folder / "pool", recipe.seed, recipe.shards[1], device, workers, pairs)
        torch.manual_seed(recipe.seed)
        self.backbone = load_backbone("clipad-mini", None, recipe.side)
        self.clip = self.backbone.clip.train().requires_grad_(True)
        self.captions = Captions.from_vocabulary()
        self.step, self.seconds = 0, 0.0
        saved = self._saved()
        if saved is None:
            reset(self.clip, self.pool.first_images(FILTERED))
        self.clip.to(device)
        visual = self.clip.visual
        blocks = visual.transformer.resblocks
        for module in (visual.conv1, *(part for block in blocks for part in (block.ls_1, block.ls_2))):
            module.register_forward_hook(_in_float32)  # the residual stream stays in float32
        self.average = deepcopy(self.clip).eval().requires_grad_(False)
        self.parameters = list(self.clip.visual.parameters())
        self.averages = list(self.average.visual.parameters())
        self.knobs = Knobs(*(torch.zeros((), device=device) for _ in Knobs._fields))
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, self.knobs.lr, (0.9, 0.98), fused=True, capturable=on_gpu)
        self.totals = torch.zeros(len(LOGGED), device=device)
        self._updates: dict[Phase, Graph] = {}
        if saved is not None:
            self._resume(saved)

    def run(self) -> None:
        """Train to the end, and write the averaged weights."""
        recipe = self.recipe
        if self.step == 0:
            self._teach_text()
            self.average.load_state_dict(self.clip.state_dict())
            torch.manual_seed(recipe.seed)
        self.clip.requires_grad_(False)
        self.clip.visual.requires_grad_(True)
        self.bank = self._text_bank()
        validation = validation_set(RENDERED)
        begin, before, counted = time.monotonic(), self.seconds, 0
        while self.step < recipe.steps:
            self._update()
            self.step += 1
            counted += 1
            self.seconds = before + time.monotonic() - begin
            if self.step % recipe.save_every == 0:
                self._log(self._losses(counted))
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
        embed = partial(embed_states, self.clip, self.backbone.tokenizer, self.captions, count=self.recipe.prompts)
        for step in range(self.recipe.text_steps):
            for group in optimizer.param_groups:
                group["lr"] = TEXT_LR * (1 - step / self.recipe.text_steps)
            loss = text_loss(*embed(np.random.default_rng([self.recipe.seed, 2, step])))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if (step + 1) % 200 == 0:
                self._log({"text_step": step + 1, "text_loss": round(float(loss.detach()), 4)})
        with torch.no_grad():  # images start out undecided between the states
            normal, abnormal, _ = embed(np.random.default_rng([self.recipe.seed, 3]))
            states, projection = representatives(normal, abnormal), self.clip.visual.proj
            axis = states[:, 1:] - states[:, :1]
            axis = axis / axis.norm()
            projection.sub_(projection @ axis @ axis.T)

    def _text_bank(self) -> Bank:
        recipe = self.recipe
        return text_bank(self.clip, self.backbone.tokenizer, self.captions, recipe.seed, recipe.words, recipe.prompts)

    def _update(self) -> None:
        """One step."""
        recipe, step = self.recipe, self.step
        shards = recipe.shards_in_use(step)
        self.pool.fill(shards)
        decay = min(recipe.ema, (1 + step) / (10 + step))
        values = (recipe.learning_rate(step), decay, shards, recipe.plainest_share(step))
        for knob, value in zip(self.knobs, values, strict=True):
            knob.fill_(value)
        phase = recipe.phase(step)
        if phase not in self._updates:
            augmentation = Augmentation(phase.size, recipe.side).to(self.device)
            objective = Objective(self.clip.visual, phase.size).to(self.device)
            self._updates[phase] = Graph(partial(self._learn, phase.pairs, augmentation, objective), self.device)
        self._updates[phase]()

    def _learn(self, pairs: int, augmentation: Augmentation, objective: Objective) -> None:
        """What a step does, all of it on the device."""
        batch = augmentation(self.pool.draw(pairs, self.knobs.shards, self.knobs.share))
        losses = objective(batch, *self.bank.draw())
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(self.averages, self.knobs.decay)
            torch._foreach_add_(self.averages, torch._foreach_mul(self.parameters, 1 - self.knobs.decay))
            self.totals.add_(torch.stack([norm, total, *losses.values()]))

    def _losses(self, steps: int) -> dict[str, float]:
        """Means of what is logged over so many steps, and counting anew."""
        means = (self.totals / steps).tolist()
        self.totals.zero_()
        return {name: round(value, 4) for name, value in zip(LOGGED, means, strict=True)}

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
            "random": self._random_state(),
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
        for group in self.optimizer.param_groups:
            group["lr"] = self.knobs.lr
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("Resuming at step %d.", self.step)
        state_of = torch.cuda.set_rng_state if self.device.type == "cuda" else torch.set_rng_state
        state_of(state["random"].cpu())

    def _random_state(self) -> Tensor:
        return torch.cuda.get_rng_state() if self.device.type == "cuda" else torch.get_rng_state()


def _in_float32(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return output.float()

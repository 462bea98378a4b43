"""A few patches for many: anomalib's greedy choice, with a seed of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_SEED = 0


def coreset(memory: Tensor, size: int) -> Tensor:
    """At most ``size`` patches a stage, spread over all: (4, M, width) to (4, min(M, size), width)."""
    from anomalib.models.components import KCenterGreedy  # takes seconds

    if size >= memory.shape[1]:
        return memory
    state = np.random.get_state()  # the global state is what anomalib draws from
    np.random.seed(_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        ratio = (size + 0.5) / memory.shape[1]  # it rounds down
        kept = [stage[KCenterGreedy(stage, ratio).select_coreset_idxs()] for stage in memory]
    np.random.set_state(state)
    return torch.stack(kept)

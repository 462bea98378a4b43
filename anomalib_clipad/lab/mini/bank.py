"""What the finished text tower says of many class words, made once: the image tower is trained against it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from open_clip import CLIP
from torch import Tensor

from anomalib_clipad.parts.noise import Rng
from anomalib_clipad.text.encoder import Tokenizer

from .captions import ABNORMAL_STATES, KIND_STATES, NORMAL_STATES, Captions
from .damage import KINDS
from .objective import embed_captions, representatives


class Bank(NamedTuple):
    """Text features of M class words.

    Attributes:
        states: Representative vectors, normal and abnormal (M, D, 2).
        kinds: Embedding of each kind of defect (M, kinds, D).
    """

    states: Tensor
    kinds: Tensor

    def draw(self) -> tuple[Tensor, Tensor]:
        """Both of a random class word."""
        word = torch.randint(len(self.states), (1,), device=self.states.device)
        return self.states[word].squeeze(0), self.kinds[word].squeeze(0)


@torch.no_grad()
def text_bank(clip: CLIP, tokenizer: Tokenizer, captions: Captions, seed: int, words: int, prompts: int) -> Bank:
    """Embed captions of random class words.

    Args:
        clip: open_clip model.
        tokenizer: Its tokenizer.
        captions: Where captions come from.
        seed: Seed of the words and captions.
        words: Number of class words.
        prompts: Captions of each state.
    """
    states, kinds = [], []
    for number in range(words):
        rng = np.random.default_rng([seed, 4, number])
        normal, abnormal, kind = embed_states(clip, tokenizer, captions, rng, prompts)
        states.append(representatives(normal, abnormal))
        kinds.append(kind)
    return Bank(torch.stack(states), torch.stack(kinds))


def embed_states(
    clip: CLIP, tokenizer: Tokenizer, captions: Captions, rng: Rng, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of captions of one class word: normal (count, D), abnormal (count, D), one per kind of defect."""
    word = captions.class_word(rng)
    texts = [
        *captions.fill(rng, NORMAL_STATES, word, count),
        *captions.fill(rng, ABNORMAL_STATES, word, count),
        *(captions.fill(rng, KIND_STATES[kind], word, 1)[0] for kind in KINDS),
    ]
    return tuple(embed_captions(clip, tokenizer, texts).split([count, count, len(KINDS)]))

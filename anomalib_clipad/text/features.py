"""Text features of a class: prompts, their embeddings, their representative vectors."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from open_clip import CLIP
from torch import Tensor

from .cache import EmbeddingCache
from .encoder import Tokenizer, encode_prompts
from .prompts import PromptSet
from .rvs import representative_vector

logger = logging.getLogger(__name__)
STATES = ("normal", "abnormal")


def class_embeddings(
    clip: CLIP,
    tokenizer: Tokenizer,
    prompts: PromptSet,
    class_name: str,
    cache: EmbeddingCache | None = None,
) -> tuple[Tensor, Tensor]:
    """L2-normalised embeddings of a class's prompts: normal (n, D) and abnormal (m, D)."""
    texts = prompts.texts(class_name)
    counts = [len(state) for state in texts]
    flat = [text for state in texts for text in state]

    def encode() -> Tensor:
        logger.info("Encoding %d normal and %d abnormal prompts of class '%s'.", *counts, class_name)
        return encode_prompts(clip, tokenizer, flat, progress=f"Prompts of '{class_name}'")

    embeddings = cache.get(clip, tokenizer(flat), encode) if cache else encode()
    normal, abnormal = embeddings.split(counts)
    return normal, abnormal


def representative_vectors(
    embeddings: tuple[Tensor, Tensor],
    rvs: str,
    options: Mapping[str, float] | None,
    class_name: str,
) -> Tensor:
    """Representative vectors, normal and abnormal, of one class: (D, 2), columns L2-normalised."""
    return torch.stack(
        [
            representative_vector(embedding, rvs, options, of=f"the {state} prompts of class '{class_name}'")
            for embedding, state in zip(embeddings, STATES, strict=True)
        ],
        dim=1,
    )

"""From a class name to its two representative vectors: prompts, their embeddings, RVS."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .cache import EmbeddingCache
from .encoder import Tokenizer, encode_prompts
from .prompts import PromptSet
from .rvs import representative_vector

if TYPE_CHECKING:
    from open_clip import CLIP

logger = logging.getLogger(__name__)
STATES = ("normal", "abnormal")


class ClassEncoder(nn.Module):
    """Class name to representative vectors.

    Args:
        clip: open_clip model; its image tower is not needed.
        tokenizer: The model's tokenizer.
        prompts: States and templates.
        rvs: Method of representative vector selection.
        rvs_options: The method's parameters.
        cache: Where prompt embeddings are kept between runs, if anywhere.
    """

    def __init__(
        self,
        clip: CLIP,
        tokenizer: Tokenizer,
        prompts: PromptSet,
        rvs: str = "dbscan",
        rvs_options: Mapping[str, float] | None = None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__()
        self.clip, self.tokenizer, self.prompts = clip, tokenizer, prompts
        self.rvs, self.rvs_options = rvs, rvs_options or {}
        self.cache = cache

    def encode(self, class_name: str, rvs_options: Mapping[str, float] | None = None) -> Tensor:
        """Representative vectors of a class, normal and abnormal: (D, 2), columns L2-normalised.

        Args:
            class_name: What the images show.
            rvs_options: Parameters of RVS for this class; by default the encoder's.

        Raises:
            ValueError: If the name is not a text, is empty, or is too long for the text encoder.
        """
        options = self.rvs_options if rvs_options is None else rvs_options
        vectors = [
            representative_vector(
                embeddings, self.rvs, options, of=f"the {state} prompts of class '{class_name}'", cache=self.cache
            )
            for embeddings, state in zip(self.embed(class_name), STATES, strict=True)
        ]
        return torch.stack(vectors, dim=1)

    def embed(self, class_name: str) -> tuple[Tensor, Tensor]:
        """L2-normalised embeddings of a class's prompts: normal (n, D) and abnormal (m, D); raises as ``encode``."""
        check_class_name(class_name)
        normal, abnormal = self.prompts.texts(class_name)
        texts = [*normal, *abnormal]

        def compute() -> Tensor:
            counts = len(normal), len(abnormal)
            logger.info("Encoding %d normal and %d abnormal prompts of class '%s'.", *counts, class_name)
            return encode_prompts(self.clip, self.tokenizer, texts, progress=f"Prompts of '{class_name}'")

        embeddings = self.cache.get(self.clip, self.tokenizer(texts), compute) if self.cache else compute()
        return embeddings[: len(normal)], embeddings[len(normal) :]


def check_class_name(name: object) -> None:
    """Check that a class name is a text that says something.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(name, str) or not name.strip():
        problem = f"is no text: {name!r}" if not isinstance(name, str) else "is empty"
        msg = f"The class name {problem}; name the object in the images, such as 'hazelnut'."
        raise ValueError(msg)

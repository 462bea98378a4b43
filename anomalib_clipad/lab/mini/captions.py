"""The caption grammar: template x state x class word.

Class words are drawn from the whole vocabulary, a new one at every step, so that they carry no meaning and the state
words carry all of it: a name that was never seen does no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.parts.noise import Rng
from anomalib_clipad.text.prompts import INDUSTRIAL

NORMAL_STATES = (
    *INDUSTRIAL.normal,
    "intact {}",
    "undamaged {}",
    "pristine {}",
    "good {}",
    "clean {}",
    "{} without hole",
    "{} without stain",
    "{} without any damage",
)
ABNORMAL_STATES = (
    *INDUSTRIAL.abnormal,
    "defective {}",
    "faulty {}",
    "flawed {}",
    "bad {}",
    "dirty {}",
    "{} with hole",
    "{} with stain",
    "{} with some damage",
)
KIND_STATES = {
    "scratch": ("{} with scratch", "scratched {}", "{} with scratches"),
    "crack": ("{} with crack", "cracked {}", "{} with cracks"),
    "hole": ("{} with hole", "punctured {}", "{} with a hole in it"),
    "contamination": ("{} with contamination", "contaminated {}", "{} with stain"),
    "missing_piece": ("{} with a missing piece", "incomplete {}", "{} with a piece broken off"),
    "bend": ("bent {}", "deformed {}", "{} with a bend"),
    "colour": ("discoloured {}", "{} with colour change", "{} with wrong colour"),
}
TEMPLATES = (
    *INDUSTRIAL.templates,
    "{}",
    "a picture of a {}.",
    "an image of the {}.",
    "a photo of one {}.",
    "a photo of my {}.",
)
RESERVED = {*HELD_OUT_CATEGORIES, "hazelnut"}
"""Names kept out of all captions: what the finished model is measured on."""


@dataclass(frozen=True)
class Captions:
    """Sampler of captions.

    Attributes:
        words: Class words.
    """

    words: tuple[str, ...]

    @classmethod
    def from_vocabulary(cls) -> Captions:
        """Every word of three to ten letters in CLIP's vocabulary that names nothing the model is measured on."""
        entries = SimpleTokenizer().encoder
        words = [entry[:-4] for entry in entries if re.fullmatch(r"[a-z]{3,10}</w>", entry)]
        reserved = tuple(RESERVED)
        return cls(tuple(word for word in words if not word.startswith(reserved)))

    def class_word(self, rng: Rng) -> str:
        """A name of one or two words."""
        count = 1 + int(rng.random() < 0.3)
        joint = " " if rng.random() < 0.5 else "_"
        return joint.join(self.words[i] for i in rng.integers(len(self.words), size=count))

    def fill(self, rng: Rng, states: tuple[str, ...], word: str, count: int) -> list[str]:
        """``count`` captions of a class word, each of a random state and template; no pair twice."""
        pairs = rng.choice(len(states) * len(TEMPLATES), size=count, replace=False)
        return [
            TEMPLATES[template].replace("{}", states[state].replace("{}", word))
            for state, template in zip(*np.divmod(pairs, len(TEMPLATES)), strict=True)
        ]

"""The prompts: sentences that describe a flawless and a damaged object (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from anomalib_clipad.checks import suggestion

_FLAWS = ("flaw", "defect", "damage", "scratch", "crack", "contamination")

# Two wordings of one template stand side by side, in the order of the reference embeddings.
_INDUSTRIAL_TEMPLATES = (
    "a cropped photo of the {}.",
    "a cropped photo of a {}.",
    "a close-up photo of a {}.",
    "a close-up photo of the {}.",
    "a bright photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of the {}.",
    "a dark photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a blurry photo of the {}.",
    "a blurry photo of a {}.",
    "a photo of the {}.",
    "a photo of a {}.",
    "a photo of a large {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a photo of a small {}.",
    "a photo of the {} for visual inspection.",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a photo of a {} for anomaly detection.",
)


@dataclass(frozen=True)
class PromptSet:
    """States and templates, each with one ``{}``: the class name fills a state, a state fills a template.

    Args:
        normal: States of a flawless object, such as ``"flawless {}"``.
        abnormal: States of a damaged object, such as ``"{} with scratch"``.
        templates: Sentences around a state, such as ``"a photo of a {}."``.

    Raises:
        ValueError: If a list is empty or an entry does not hold exactly one ``{}``.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, entries in asdict(self).items():
            if not entries:
                msg = f"The prompt list '{name}' is empty; give at least one text with a '{{}}' in it."
                raise ValueError(msg)
            for entry in entries:
                if not isinstance(entry, str) or entry.count("{}") != 1:
                    msg = f"Every text in the prompt list '{name}' needs exactly one '{{}}'; got {entry!r}."
                    raise ValueError(msg)

    def texts(self, class_name: str) -> tuple[list[str], list[str]]:
        """All normal and all abnormal prompts of a class, state by state.

        Example:
            >>> normal, abnormal = INDUSTRIAL.texts("metal_nut")
            >>> len(normal), len(abnormal), normal[0]
            (198, 220, 'a cropped photo of the flawless metal_nut.')
        """
        return self._fill(self.normal, class_name), self._fill(self.abnormal, class_name)

    def _fill(self, states: Sequence[str], class_name: str) -> list[str]:
        return [
            template.replace("{}", state.replace("{}", class_name)) for state in states for template in self.templates
        ]

    def as_dict(self) -> dict[str, list[str]]:
        """The lists as plain data, as a checkpoint keeps them."""
        return {name: list(entries) for name, entries in asdict(self).items()}


INDUSTRIAL = PromptSet(
    normal=("flawless {}", "perfect {}", "unblemished {}", *(f"{{}} without {flaw}" for flaw in _FLAWS)),
    abnormal=("damaged {}", "imperfect {}", "blemished {}", "broken {}", *(f"{{}} with {flaw}" for flaw in _FLAWS)),
    templates=_INDUSTRIAL_TEMPLATES,
)

_FINDINGS = ("lesion", "tumour", "hemorrhage", "polyp", "abnormality", "disease")

# Wording of our own for medical images; that of the paper's medical experiments is not published.
MEDICAL = PromptSet(
    normal=("healthy {}", "normal {}", "unremarkable {}", *(f"{{}} without {finding}" for finding in _FINDINGS)),
    abnormal=("diseased {}", "abnormal {}", "pathological {}", *(f"{{}} with {finding}" for finding in _FINDINGS)),
    templates=(
        *(f"a {kind} of {article} {{}}." for kind in ("medical image", "scan", "photo") for article in ("a", "the")),
        *(f"a {look} medical image of the {{}}." for look in ("close-up", "bright", "dark", "blurry", "grey-scale")),
        "an image of the {} for diagnosis.",
        "an image of the {} for screening.",
    ),
)

BUILT_IN = {"industrial": INDUSTRIAL, "medical": MEDICAL}
"""Prompt sets by name: ``industrial`` is the paper's, ``medical`` is ours."""


def load_prompts(source: str | Path | Mapping[str, Sequence[str]]) -> PromptSet:
    """The prompt set of a built-in name, a YAML file, or its content.

    Args:
        source: A name in ``BUILT_IN``, the path of a YAML file, or a mapping; file and mapping hold the lists
            ``normal``, ``abnormal`` and ``templates``.

    Raises:
        ValueError: If the file is missing, is not YAML, or lacks a list.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, "the prompts given")
    if not isinstance(source, (str, Path)):
        msg = f"prompts has to be one of {sorted(BUILT_IN)}, a YAML file or its content; got {source!r}."
        raise ValueError(msg)
    if str(source) in BUILT_IN:
        return BUILT_IN[str(source)]
    path = Path(source).expanduser()
    if not path.is_file():
        msg = (
            f"No prompt set '{source}'{suggestion(source, BUILT_IN)}: expected one of {sorted(BUILT_IN)} or the path "
            "of a YAML file with the lists normal, abnormal and templates."
        )
        raise ValueError(msg)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"The prompt file {path} is not YAML: {error}"
        raise ValueError(msg) from error
    return _from_mapping(content, f"the prompt file {path}")


def _from_mapping(content: object, origin: str) -> PromptSet:
    names = ("normal", "abnormal", "templates")
    if not isinstance(content, Mapping) or set(content) != set(names):
        given = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        msg = f"In {origin}: expected exactly the lists {', '.join(names)}; got {given}."
        raise ValueError(msg)
    for name in names:
        if isinstance(content[name], str) or not isinstance(content[name], Sequence):
            msg = f"In {origin}: '{name}' has to be a list of texts; got {content[name]!r}."
            raise ValueError(msg)
    try:
        return PromptSet(**{name: tuple(content[name]) for name in names})
    except ValueError as error:
        msg = f"In {origin}: {error}"
        raise ValueError(msg) from None

"""Settings: everything that decides what CLIP-AD computes, declared once, checked once and passed whole."""

# ruff: noqa: RUF009  # `_option` is `dataclasses.field`

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from .checks import check_choice, check_count, check_share, is_number
from .text.methods import Method, check_options
from .text.prompts import BUILT_IN, INDUSTRIAL, PromptSet, load_prompts
from .vision.choices import JOININGS, PRECISIONS, TAPS, JoiningName, Precision, Tap
from .vision.joining import SHARES

Variant = Literal["sdp", "sdp_plus", "af_clip", "aa_clip"]
VARIANTS: tuple[str, ...] = get_args(Variant)
_LARGEST = 8192
"""The largest image size in pixels: a quarter of a million patches of 16 pixels, far above what any backbone sees."""
_WIDEST = 1000
"""The largest smoothing in pixels, several times the size at which a backbone sees images."""


class Option(NamedTuple):
    """An option as users meet it: on a command line, in a table.

    Attributes:
        name: With underscores.
        type: What a user gives.
        default: What counts where nothing is given.
        text: What it does, in Markdown.
    """

    name: str
    type: Any
    default: Any
    text: str


def _option(default: Any, text: str, **given: Any) -> Any:
    """A field of ``Settings``: its default, what it does, and the ``type`` a user gives if it is not the field's."""
    start: Any = {"default_factory": dict} if default is dict else {"default": default}
    return field(**start, metadata={"text": text, **given})


@dataclass(frozen=True)
class Settings:
    """The settings of a model, of its checkpoints, of the files of its layers and of its exports.

    Arguments of commands, the tables of the documentation and the check of ``ClipAD``'s docstring come from here.

    Raises:
        ValueError: If a value is not valid; the message says what is.
    """

    backbone: str = _option(
        "ViT-B-16-plus-240",
        "CLIP model: an open_clip name, `hf-hub:owner/model`, `local-dir:/folder`, the path of an open_clip model "
        "configuration (`.json`), or `clipad-mini`, which is part of the package.",
    )
    pretrained: str | None = _option(
        "laion400m_e31",
        "Weights of the backbone: an open_clip tag, the path of a weights file, or `tag:path` for the file of a tag "
        "that was downloaded by hand. `null` means random weights.",
    )
    image_size: int | None = _option(
        None,
        "Height and width in pixels at which the model sees images, a multiple of the backbone's patch size. By "
        "default the backbone's own.",
    )
    rvs: Method = _option(
        "dbscan",
        "Method of representative vector selection: `mean`, `pca`, `kde`, `dbscan` or `mean_shift`.",
    )
    rvs_options: Mapping[str, float] = _option(
        dict,
        "Parameters of that method: `bandwidth` (kde 0.3, mean_shift 2), `eps` and `min_samples` (dbscan 0.5 and 15; "
        "the paper uses 1.5 and 25 on VisA).",
        type=dict[str, int | float],
    )
    prompts: PromptSet = _option(
        INDUSTRIAL,
        "`industrial`, the paper's prompts; `medical`, a set of our own; or the path of a YAML file with the lists "
        "`normal`, `abnormal` (states such as `flawless {}`) and `templates` (such as `a photo of a {}.`).",
        type=str,
    )
    smoothing: float | None = _option(
        None,
        "Standard deviation of the anomaly map's Gaussian in pixels at the model's image size. By default that of the "
        "variant: 8 (the paper: 2 for SDP+ on VisA), of AF-CLIP 4, of AA-CLIP 0.",
    )
    tap: Tap = _option(
        "reference",
        "Where the ordinary path is read at the end of a stage: `reference`, as in all published results, or `block`, "
        "the output of the stage's last block.",
    )
    variant: Variant = _option(
        "sdp",
        "`sdp`, or one with layers, which `anomalib train` trains on the data module `Auxiliary`, or which `adapter` "
        "brings along: `sdp_plus`, four linear layers, `af_clip` or `aa_clip`.",
    )
    precision: Precision = _option(
        "float32",
        "Number format of the image tower: `float32`, `bfloat16` (fast on processors with bf16 matrix units) or "
        "`float16` (GPU only). Text features, scores and maps are float32 in any case.",
    )
    text_weight: float | None = _option(
        None,
        "Share of the text in [0, 1] where images are compared with others too. By default 0.25, or 0.5 of a plain "
        "sum; with 0 no class name is needed.",
    )
    joining: JoiningName = _option(
        "spread",
        "How text and other images are joined: `spread`, each in units of the spread of its own peaks among the normal "
        "images (three or more; of unlabelled ones eight or more; else `sum`), or `sum`, the published plain sum.",
    )
    tiles: tuple[int, int] | None = _option(
        None,
        "Rows and columns of overlapping tiles, for small defects in large images: each tile is seen at the model's "
        "image size, beside the whole image.",
        type=list[int] | None,
    )
    aligned: bool = _option(
        False,
        "Where there are tiles and normal images: compare a tile with the tiles of the same place only, for parts "
        "that lie in a fixture.",
    )

    def __post_init__(self) -> None:
        choices = {"tap": TAPS, "variant": VARIANTS, "precision": PRECISIONS, "joining": JOININGS}
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), allowed)
        check_options(self.rvs, self.rvs_options)
        if self.smoothing is not None and not is_number(self.smoothing, 0, _WIDEST):
            msg = (
                f"The smoothing has to be a standard deviation in pixels, from 0 to {_WIDEST}; got {self.smoothing!r}."
            )
            raise ValueError(msg)
        if self.text_weight is None and self.joining == "sum":
            object.__setattr__(self, "text_weight", SHARES["sum"])
        if self.text_weight is not None:
            check_share("text_weight", self.text_weight)
        if self.image_size is not None and check_count("image_size", self.image_size) > _LARGEST:
            msg = f"image_size has to be {_LARGEST} at most, or no memory is large enough; got {self.image_size!r}."
            raise ValueError(msg)
        for name, kind, expected in _KINDS:
            if not isinstance(getattr(self, name), kind):
                msg = f"{name} has to be {expected}; got {getattr(self, name)!r}."
                raise ValueError(msg)
        object.__setattr__(self, "tiles", _grid(self.tiles))
        if self.aligned and self.tiles is None:
            msg = "aligned compares tiles with those of the same place, and there are none; pass tiles=[rows, columns]."
            raise ValueError(msg)
        for name in ("backbone", "pretrained"):
            object.__setattr__(self, name, _absolute(getattr(self, name)))
        for name in ("image_size", "smoothing", "text_weight"):
            object.__setattr__(self, name, _plain(getattr(self, name)))

    @property
    def uses_text(self) -> bool:
        """Whether the text has a share, and so a class name is needed."""
        return self.text_weight != 0

    @classmethod
    def of(
        cls,
        rvs_options: Mapping[str, float] | None = None,
        prompts: str | Path | Mapping[str, Sequence[str]] = "industrial",
        **others: Any,
    ) -> Settings:
        """Settings from plain data, as users and files give them.

        Args:
            rvs_options: ``None`` for the method's defaults.
            prompts: Built-in prompt set, YAML file or its content.
            **others: The other settings.
        """
        return cls(rvs_options={} if rvs_options is None else rvs_options, prompts=load_prompts(prompts), **others)

    @classmethod
    @cache
    def options(cls) -> tuple[Option, ...]:
        """All of them, as users meet them."""
        types, defaults = get_type_hints(cls), cls().as_dict()
        return tuple(
            Option(one.name, one.metadata.get("type", types[one.name]), defaults[one.name], one.metadata["text"])
            for one in fields(cls)
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints and files; ``Settings.of(**data)`` restores them."""
        data = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        built_in = next((name for name, prompts in BUILT_IN.items() if prompts == self.prompts), None)
        return {
            **data,
            "rvs_options": dict(self.rvs_options),
            "prompts": built_in or self.prompts.as_dict(),
            "tiles": None if self.tiles is None else list(self.tiles),
        }


_KINDS: tuple[tuple[str, Any, str], ...] = (
    ("backbone", str, "the name of a backbone, such as 'clipad-mini'"),
    ("pretrained", (str, NoneType), "a tag, the path of a weights file, or None for random weights"),
    ("prompts", PromptSet, "a PromptSet; Settings.of takes its name, its file and its content too"),
    ("aligned", bool, "true or false"),
)
"""Of settings whose type is all there is to check: the type, and how it is called in a message."""


def _plain(number: Any) -> Any:
    """A number of numpy as one of Python, which JSON knows."""
    return number.item() if hasattr(number, "item") else number


def _grid(tiles: Any) -> tuple[int, int] | None:
    """Rows and columns of tiles, if there are any; one tile is the image itself."""
    if tiles is None:
        return None
    numbers = tuple(tiles) if isinstance(tiles, Sequence) else ()
    if len(numbers) != 2 or any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in numbers):
        msg = f"tiles has to be two integers, 1 or more, [rows, columns], such as [2, 3]; got {tiles!r}."
        raise ValueError(msg)
    return None if numbers == (1, 1) else numbers


def _absolute(name: Any) -> Any:
    """A path that exists as an absolute one, so that a checkpoint finds it from any folder; any other name as it is.

    What stands before a path stays: ``local-dir:/folder``, ``tag:/file``. Links are not followed: the name of a file
    tells how its weights were trained.
    """
    found = path_in(name) if isinstance(name, str) else None
    return name if found is None else f"{found[0]}{found[1].absolute()}"


def path_in(name: str) -> tuple[str, Path] | None:
    """What stands before a path in a name, such as ``tag:``, and the path, if there is such a file.

    After ``local-dir:`` it is a folder.
    """
    prefix, _, rest = name.partition(":")
    for before, place in (("", name), (f"{prefix}:", rest)):
        path = Path(place).expanduser()
        if place and (path.is_dir() if before == "local-dir:" else path.is_file()):
            return before, path
    return None

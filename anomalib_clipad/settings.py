"""Settings: everything that decides what CLIP-AD computes, validated once and passed whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from .text.prompts import BUILT_IN, INDUSTRIAL, PromptSet, load_prompts
from .text.rvs import Method, check_options
from .vision.detector import PRECISIONS, Precision
from .vision.dual_path import TAPS, Tap

Variant = Literal["sdp", "sdp_plus"]
VARIANTS: tuple[str, ...] = get_args(Variant)


@dataclass(frozen=True)
class Settings:
    """The settings of a model, of its checkpoints, of the files of its layers and of its exports.

    Args:
        backbone: CLIP model, as ``load_backbone`` takes it. Paths become absolute.
        pretrained: Weights of the backbone: a tag, a path or ``tag:path``; ``None`` for random weights.
        image_size: Height and width of the model's input in pixels; ``None`` for the backbone's own.
        rvs: Method of representative vector selection.
        rvs_options: The method's parameters.
        prompts: States and templates.
        smoothing: Standard deviation of the anomaly map's Gaussian, in pixels of the model's input.
        tap: Where the ordinary path is read at the end of a stage.
        variant: ``sdp``, or ``sdp_plus``: with four linear layers.
        precision: Number format of the image tower.
        text_weight: Share of the text where images are compared with others too.
        tiles: Rows and columns of tiles that images are cut into; ``None``, or 1 and 1, for none.
        aligned: Compare a tile with the tiles of the same place in normal images only.

    Raises:
        ValueError: If a value is not valid; the message says what is.
    """

    backbone: str = "ViT-B-16-plus-240"
    pretrained: str | None = "laion400m_e31"
    image_size: int | None = None
    rvs: Method = "dbscan"
    rvs_options: Mapping[str, float] = field(default_factory=dict)
    prompts: PromptSet = INDUSTRIAL
    smoothing: float = 8.0
    tap: Tap = "reference"
    variant: Variant = "sdp"
    precision: Precision = "float32"
    text_weight: float = 0.5
    tiles: tuple[int, int] | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        choices = {"tap": TAPS, "variant": VARIANTS, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                msg = f"Unknown {name} '{getattr(self, name)}'; expected one of {', '.join(allowed)}."
                raise ValueError(msg)
        check_options(self.rvs, self.rvs_options)
        if isinstance(self.smoothing, bool) or not 0 <= self.smoothing < float("inf"):
            msg = f"The smoothing has to be a standard deviation in pixels, 0 or more; got {self.smoothing}."
            raise ValueError(msg)
        if isinstance(self.text_weight, bool) or not 0 <= self.text_weight <= 1:
            msg = f"text_weight has to be a share in [0, 1]; got {self.text_weight}."
            raise ValueError(msg)
        object.__setattr__(self, "tiles", _grid(self.tiles))
        if self.aligned and self.tiles is None:
            msg = "aligned compares tiles with those of the same place, and there are none; pass tiles=[rows, columns]."
            raise ValueError(msg)
        for name in ("backbone", "pretrained"):
            object.__setattr__(self, name, _absolute(getattr(self, name)))

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
        return cls(rvs_options=dict(rvs_options or {}), prompts=load_prompts(prompts), **others)

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
    if not isinstance(name, str):
        return name
    if Path(name).expanduser().is_file():
        return str(Path(name).expanduser().absolute())
    prefix, colon, rest = name.partition(":")
    path = Path(rest).expanduser()
    is_path = colon and (path.is_dir() if prefix == "local-dir" else path.is_file())
    return f"{prefix}:{path.absolute()}" if is_path else name

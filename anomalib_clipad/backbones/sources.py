"""Where a backbone comes from: an open_clip name, a hub or local folder, a configuration file, or this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from anomalib_clipad.checks import suggestion

from .backbone import BUNDLED, WeightsUnavailableError
from .configuration import channels, read_config
from .conventions import HUB_CONFIG, recognise, trained_as
from .downloads import HUB_WEIGHTS, download_folder, download_tag

__all__ = ["BUNDLED", "DEFAULT_TAG", "SHIPPED", "Source", "WeightsUnavailableError", "built_in_config", "find_source"]

DEFAULT_TAG = "laion400m_e31"
SHIPPED = Path(__file__).with_name(f"{BUNDLED}.safetensors")
"""The weights that are part of this package; their configuration lies beside them."""


@dataclass(frozen=True)
class Source:
    """A backbone before it is built.

    Attributes:
        name: What the user called it.
        config: open_clip model configuration, with the activation that its weights were trained with.
        weights: File of weights; ``None`` for random ones.
        mean: Mean of the input's normalisation per channel, for values in [0, 1].
        std: Standard deviation of the input's normalisation per channel.
    """

    name: str
    config: dict[str, Any]
    weights: Path | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find_source(backbone: str, pretrained: str | None) -> Source:
    """Resolve the names a user gives; downloads weights where the names ask for it.

    Args:
        backbone: open_clip model name, ``hf-hub:``/``local-dir:`` name, ``clipad-mini`` or path of a JSON file.
        pretrained: open_clip tag, path of a weights file, or ``tag:path`` for the file of a tag that was downloaded by
            hand. The default tag means "its own" to folders and clipad-mini; ``None`` means random weights.

    Raises:
        ValueError: If a name, a tag or a file does not exist or does not fit the other argument.
        WeightsUnavailableError: If a download fails.
    """
    if backbone == BUNDLED:
        return _folder(backbone, pretrained, SHIPPED.with_suffix(".json"), SHIPPED)
    if backbone.startswith("hf-hub:"):
        return _folder(backbone, pretrained, *download_folder(backbone.removeprefix("hf-hub:")))
    if backbone.startswith("local-dir:"):
        return _folder(backbone, pretrained, *_local_folder(Path(backbone.removeprefix("local-dir:")).expanduser()))
    if backbone.endswith(".json"):
        return _config_file(Path(backbone).expanduser(), pretrained)
    return _open_clip_name(backbone, pretrained)


def built_in_config(backbone: str) -> dict[str, Any] | None:
    """The configuration of an open_clip model name; ``None`` for every other way to name a backbone."""
    return None if ":" in backbone else open_clip.get_model_config(backbone.replace("/", "-"))


def _open_clip_name(name: str, pretrained: str | None) -> Source:
    config, name = built_in_config(name), name.replace("/", "-")
    if config is None:
        known = [*open_clip.list_models(), BUNDLED]
        msg = (
            f"Unknown backbone '{name}'{suggestion(name, known)}. Expected an open_clip model name, "
            f"'hf-hub:owner/model', 'local-dir:/folder', the path of a model configuration (.json) or '{BUNDLED}'."
        )
        raise ValueError(msg)
    training, weights = _training_and_weights(name, config, pretrained)
    return _source(name, config, weights, training)


def _training_and_weights(
    name: str, config: dict[str, Any], pretrained: str | None
) -> tuple[Mapping[str, Any], Path | None]:
    """How the weights of an open_clip name were trained (``mean``, ``std``, ``quick_gelu``), and their file."""
    if pretrained is None:
        return {}, None
    if training := trained_as(name, pretrained):
        return training, download_tag(name, pretrained, training)
    tag, _, file = pretrained.partition(":")
    if file and (training := trained_as(name, tag)):
        return training, _file(file)
    tags = open_clip.list_pretrained_tags_by_model(name)
    path = _file(pretrained, f"a tag of {name} ({', '.join(tags) or 'none'}) or 'tag:path'", suggestion(tag, tags))
    return recognise(path, name, config), path


def _config_file(path: Path, pretrained: str | None) -> Source:
    if not path.is_file():
        msg = f"The model configuration {path} does not exist; expected the path of an open_clip JSON file."
        raise ValueError(msg)
    if pretrained == DEFAULT_TAG:
        msg = (
            f"The backbone {path} is a configuration file, which has no weights '{pretrained}'. Pass the path of its "
            "weights as `pretrained`, or null for random weights."
        )
        raise ValueError(msg)
    config, preprocess = read_config(path)
    return _source(path.stem, config, _weights_file(pretrained), preprocess)


def _folder(name: str, pretrained: str | None, config_file: Path, weights: Path) -> Source:
    config, preprocess = read_config(config_file)
    own = pretrained == DEFAULT_TAG
    return _source(name, config, weights if own else _weights_file(pretrained, DEFAULT_TAG), preprocess)


def _local_folder(folder: Path) -> tuple[Path, Path]:
    config = folder / HUB_CONFIG
    weights = next((folder / name for name in HUB_WEIGHTS if (folder / name).is_file()), None)
    if not config.is_file() or weights is None:
        msg = f"The folder {folder} is no open_clip model: expected {HUB_CONFIG} and {' or '.join(HUB_WEIGHTS)} in it."
        raise ValueError(msg)
    return config, weights


def _source(name: str, config: dict[str, Any], weights: Path | None, training: Mapping[str, Any]) -> Source:
    if training.get("quick_gelu"):
        config = {**config, "quick_gelu": True}
    mean = channels(training, "mean", open_clip.OPENAI_DATASET_MEAN, name)
    return Source(name, config, weights, mean, channels(training, "std", open_clip.OPENAI_DATASET_STD, name))


def _weights_file(pretrained: str | None, *tags: str) -> Path | None:
    return None if pretrained is None else _file(pretrained, hint=suggestion(pretrained, tags))


def _file(path: str, alternative: str = "", hint: str = "") -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        expected = " or ".join(["the path of a weights file", *filter(None, [alternative])])
        msg = f"No weights '{path}'{hint}: expected {expected}."
        raise ValueError(msg)
    return file

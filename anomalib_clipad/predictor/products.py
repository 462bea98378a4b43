"""Product files: what one product needs of an exported graph that serves many, in a small safetensors file.

A file says all that its scores depend on. Whoever takes it, a model or an exported file, has to agree; the rule for
that is here alone. Without torch: an exported file takes a product with numpy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from anomalib_clipad.images.alike import Identity, from_plain, to_plain
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.vision.joining import published

from .taught import Taught

if TYPE_CHECKING:
    from torch import Tensor

    from anomalib_clipad.torch_model import ClipADModel
    from anomalib_clipad.vision.memory import Memory

    from .live import LivePredictor

_FORMAT = "anomalib_clipad product, version 1"
_TEXT = {"class_name", "prompts", "rvs", "rvs_options"}
"""What text features depend on."""
_NAMES = {"backbone", "pretrained"}
"""What the digest of the image tower stands for: the same weights may be called otherwise elsewhere."""


class Product(NamedTuple):
    """A product file.

    Attributes:
        path: Where it is.
        tensors: ``memory`` (4, M, width), its numbers, ``midpoint``, ``joining`` (4,) and, if the text has a share,
            ``text_features`` (D, 2).
        about: Settings, class name, digests of tower and layers.
        references: The normal images of its memory, where the file knows which they are.
        taught: What it was taught, if anything.
    """

    path: Path
    tensors: dict[str, NDArray[Any]]
    about: dict[str, Any]
    references: tuple[Identity, ...]
    taught: Taught | None = None

    @property
    def class_name(self) -> str | None:
        """What it is of, if the text has a share."""
        name = self.about["class_name"]
        return None if name is None else str(name)

    def check(self, other: Mapping[str, Any], what: str, brings_text: bool) -> None:
        """Check that something computes what the file was written for.

        Args:
            other: Settings, ``image_tower`` and ``layers`` of it, and ``class_name`` if it has text features; values of
                text count as those they are of.
            what: What it is.
            brings_text: Whether it has text features of its own, which then have to be those of the file.

        Raises:
            ValueError: If it does not; the message names the first difference.
        """
        ignored = _NAMES if brings_text and self.about["text_weight"] != 0 else _NAMES | _TEXT
        for name in (name for name in self.about if name not in ignored):  # all that the file says
            if name not in other:
                msg = f"{what} does not say its {name}: it was written by version 0.2 or earlier. Export it anew."
                raise ValueError(msg)
            if not _same(other[name], self.about[name]):
                theirs, own = (_shown(values, name) for values in (self.about, other))
                msg = (
                    f"The product file {self.path} is of a model with {theirs}, and {what} has {own}: scores would be "
                    "others. Write the product file anew with the same settings."
                )
                raise ValueError(msg)


def read_product(path: Path) -> Product:
    """Read a product file, with numpy.

    Raises:
        ValueError: If it is damaged, or no product file.
    """
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads((file.metadata() or {})["settings"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
        if "undecided" in tensors:  # by version 0.2
            tensors["midpoint"] = tensors.pop("undecided")
        if about.get("variant") == "sdp":
            about.setdefault("layers", "None")
        if "joining" not in tensors:  # by version 0.2, which had the plain sum alone
            about.setdefault("joining", "sum")
            tensors["joining"] = np.array(published(float(about["text_weight"]), by_patches=False), np.float32)
        references = from_plain(about.pop("references", ()))
        taught = Taught.from_plain(about.pop("taught", None))
        for name in ("memory", "farthest", "aspect", "midpoint"):
            tensors[name]
        missing = [name for name in ("image_tower", "layers", "text_weight", "class_name") if name not in about]
        if missing:
            raise KeyError(*missing)  # noqa: TRY301
    except Exception as error:  # safetensors and JSON readers each raise their own
        msg = (
            f"{path} is no product file, or is damaged ({repr(error).splitlines()[0][:200]}). Expected a file written "
            "by `anomalib-clipad product`."
        )
        raise ValueError(msg) from error
    return Product(path, tensors, about, tuple(references), taught)


class Loaded(NamedTuple):
    """What a model takes of a product file."""

    memory: Memory
    text_features: Tensor | None
    class_name: str | None
    references: tuple[Identity, ...]
    taught: Taught | None = None


def load_product(product: Product, model: ClipADModel) -> Loaded:
    """What a model takes of a product file.

    Args:
        product: The file.
        model: Which computes what the file was written for; its class, if it has one, has to be that of the file.

    Raises:
        ValueError: If the file is of other settings, or its memory is damaged.
    """
    import torch

    from anomalib_clipad.vision.memory import NUMBERS, Memory

    ours = about(model)
    if model.class_name is None:
        ours["class_name"] = product.class_name
    product.check(ours, "this model", brings_text=True)
    values = {name: torch.from_numpy(np.array(value)) for name, value in product.tensors.items()}
    memory = Memory(values["memory"], *(values.get(name, 0.0) for name in NUMBERS))
    text_features = values["text_features"] if model.settings.uses_text else None
    return Loaded(memory, text_features, product.class_name, product.references, product.taught)


def save_product(path: Path, predictor: LivePredictor) -> None:
    """Write a product file.

    Its tensors are inputs of a graph exported with ``memory_input``: ``memory`` (4, M, width), ``midpoint``, the map
    value whose probability is 0.5, and, if the text has a share, ``text_features`` (D, 2) and ``joining`` (4,), see
    ``Joining``. The others are the numbers of ``Memory``. Metadata: class name, settings, digests of the image tower
    and of trained layers, which images the references are, and what the model was taught.

    Args:
        path: File to write; replaced as a whole or not at all.
        predictor: With references and, if the text has a share, text features.

    Raises:
        ValueError: If it lacks one.
    """
    import torch
    from safetensors.torch import save_file

    from anomalib_clipad.vision.memory import NUMBERS

    model = predictor.model
    detector = model.detector
    if detector.memory is None or (model.settings.uses_text and model.class_name is None):
        msg = "A product file holds normal images and, unless text_weight is 0, a class name; pass both."
        raise ValueError(msg)
    tensors = {
        "memory": detector.memory.tokens,
        **{name: getattr(detector.memory, name) for name in NUMBERS},
        "midpoint": detector.midpoint,
        "joining": torch.tensor(detector.joining),
    }
    if model.settings.uses_text:
        tensors["text_features"] = model.text_features
    facts = {**about(model), "references": to_plain(predictor.references)}
    if predictor.taught is not None:
        facts["taught"] = predictor.taught.to_plain()
    with atomic_folder(path.parent) as folder:
        contents = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(contents, folder / path.name, metadata={"format": _FORMAT, "settings": json.dumps(facts)})


def about(model: ClipADModel) -> dict[str, Any]:
    """All that the scores of a model depend on besides its references, as plain data."""
    name = model.class_name if model.settings.uses_text else None
    return {
        **model.settings.as_dict(),
        "class_name": name,
        "image_tower": model.fingerprint,
        "layers": model.layers,
    }


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, of which one may be text: 0 is 0.0."""
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return str(one) == str(other)


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name != "image_tower":
        return f"{name} {values[name]!r}"
    return f"backbone {values['backbone']}, {values['pretrained']} (image tower {str(values['image_tower'])[:12]})"

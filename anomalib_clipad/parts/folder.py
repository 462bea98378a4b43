"""A category on disk in MVTec AD's layout: written atomically, and reused."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from .categories import CATEGORIES
from .defects import DEFECTS
from .samples import Sample, named_sample

VERSION = 1
"""Raised whenever the same settings give other pictures."""
MANIFEST = "manifest.json"
SMALLEST = 64
"""Least image size: below it, defects are smaller than a pixel and a patch of 16 px covers half the part."""


@dataclass(frozen=True)
class Settings:
    """All that decides the content of a generated category.

    Attributes:
        category: A name in ``CATEGORIES``.
        seed: Seed of the pictures.
        train: Number of flawless training pictures.
        good: Number of flawless test pictures.
        defective: Number of defective test pictures, spread evenly over the kinds of defect.
        image_size: Height and width in pixels.

    Raises:
        ValueError: If the category is unknown, or a number is not one that makes a data set.
    """

    category: str
    seed: int = 0
    train: int = 20
    good: int = 40
    defective: int = 56
    image_size: int = 240

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            msg = f"Unknown generated category '{self.category}'; expected one of {', '.join(sorted(CATEGORIES))}."
            raise ValueError(msg)
        for name, least in {"seed": 0, "train": 1, "good": 1, "defective": len(DEFECTS)}.items():
            self._check(name, least)
        self._check("image_size", SMALLEST, " (a smaller picture has no room for parts and their defects)")

    def _check(self, name: str, least: int, reason: str = "") -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            msg = f"'{name}' of a generated category has to be an integer of at least {least}{reason}; got {value!r}."
            raise ValueError(msg)

    @property
    def folder(self) -> str:
        """Name of the folder: the category and a key of the settings, so other settings go elsewhere."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return f"{self.category}-{sha256(text.encode()).hexdigest()[:10]}"

    def as_dict(self) -> dict[str, int | str]:
        """What the manifest says."""
        return {"version": VERSION, **asdict(self)}

    def pictures(self) -> Iterator[tuple[str, str | None, int]]:
        """Split, kind of defect and number of every picture."""
        yield from (("train", None, i) for i in range(self.train))
        yield from (("test", None, i) for i in range(self.good))
        kinds = tuple(DEFECTS)
        yield from (("test", kinds[i % len(kinds)], i // len(kinds)) for i in range(self.defective))


def ensure_category(root: Path, settings: Settings) -> Path:
    """The folder of a category; its pictures are generated if they are not there yet.

    Everything is written to a temporary folder beside it, which gets its name when it is complete: whatever interrupts
    the writing, a folder of that name is a whole data set.

    Args:
        root: Where generated categories are kept.
        settings: What to generate.

    Returns:
        Folder with ``train``, ``test`` and ``ground_truth``.

    Raises:
        FileExistsError: If the folder exists and holds anything else; nothing in it is touched.
        OSError: If nothing can be written there.
    """
    target = root / settings.folder
    if target.exists():
        _check_complete(target, settings)
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{settings.folder}-", dir=root)) / settings.folder
        partial.mkdir()
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        _write_all(partial, settings)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
            _check_complete(target, settings)  # another process was faster
    except OSError as error:
        if isinstance(error, FileExistsError):
            raise
        raise _unwritable(root, error) from error
    finally:
        shutil.rmtree(partial.parent, ignore_errors=True)
    return target


def _check_complete(target: Path, settings: Settings) -> None:
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = None
    missing = [str(path) for path in _files(settings) if not (target / path).is_file()]
    if manifest == settings.as_dict() and not missing:
        return
    problem = f"lacks {missing[0]}" if manifest == settings.as_dict() else f"has no {MANIFEST} of these settings"
    msg = (
        f"{target} exists but is not the generated category '{settings.category}': it {problem}. Nothing was "
        "overwritten. Move that folder away or choose another root."
    )
    raise FileExistsError(msg)


def _unwritable(root: Path, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    msg = f"The generated pictures could not be written to {root}: {reason}. Free some space or choose another root."
    return type(error)(error.errno, msg)


def _files(settings: Settings) -> Iterator[Path]:
    for split, kind, index in settings.pictures():
        yield Path(split, kind or "good", f"{index:03d}.png")
        if kind:
            yield Path("ground_truth", kind, f"{index:03d}_mask.png")


def _write_all(folder: Path, settings: Settings) -> None:
    pictures = list(settings.pictures())
    for split, kind, index in tqdm(pictures, desc=f"Generating {settings.category}", unit="image", leave=False):
        sample = named_sample(settings.category, split, index, kind, settings.seed, settings.image_size)
        _write(folder, sample, split, kind, index)
    (folder / MANIFEST).write_text(json.dumps(settings.as_dict(), indent=2) + "\n", encoding="utf-8")


def _write(folder: Path, sample: Sample, split: str, kind: str | None, index: int) -> None:
    _write_png(folder / split / (kind or "good") / f"{index:03d}.png", sample.image[..., ::-1])
    if kind:
        _write_png(folder / "ground_truth" / kind / f"{index:03d}_mask.png", sample.mask.astype(np.uint8) * 255)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Through Python's own writing, which reports a full disk where OpenCV's does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
    path.write_bytes(encoded.tobytes())

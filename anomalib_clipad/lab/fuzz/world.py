"""Files and options, and what may happen to them between runs."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 12, 16
_NAMES = [f"{letter}.png" for letter in "abcdefgh"]
_FOLDERS = ("parts", "more", "parts/sub")
_CALIBRATION, _REFERENCES = 5, 3
_OPTIONS: dict[str, tuple[Any, ...]] = {
    "threshold": (None, 0.45, 0.5, 0.55),
    "calibration": (None, 0, 1),
    "references": (None, 0, 1),
    "ignore": (None, 0, 1),
    "masks": (False, True),
    "coco": (False, True),
    "overlays": ("defective", "all", "none"),
    "page": (False, True),
}
"""What a run depends on. Numbers of calibration, references and mask stand for what the files hold."""


@cache
def pixels(number: int) -> NDArray[np.uint8]:
    """The image of a number: grey (H, W), unlike that of any other."""
    rng = np.random.default_rng(number)
    level = rng.integers(70, 186)
    return (level + rng.integers(-60, 61, size=(HEIGHT, WIDTH))).astype(np.uint8)


def mask(number: int) -> NDArray[np.bool_]:
    """What is ignored."""
    ignored = np.zeros((HEIGHT, WIDTH), np.bool_)
    ignored[: 3 + 2 * number] = True
    return ignored


def calibration(number: int) -> list[int]:
    """The images that a run is calibrated on: of two such folders, one image differs."""
    return [*range(1000, 1000 + _CALIBRATION - 1), 1100 + number]


def references(number: int) -> list[int]:
    """The images that a run compares with, likewise."""
    return [*range(2000, 2000 + _REFERENCES - 1), 2100 + number]


class World:
    """A folder with images, which change.

    Args:
        root: Empty folder.
        rng: Draws what changes.

    Attributes:
        known: The numbers of images by the digests of their files; ``None`` is no image.
        options: Of the next run.
        cwd: Where it is called.
        output: Its folder.
    """

    def __init__(self, root: Path, rng: Random) -> None:
        self.root, self._rng = root, rng
        self.known: dict[str, int | None] = {}
        self._kept: dict[Path, bytes] = {}
        self._new = 0
        self.cwd, self.output = root, root / rng.choice(["out", "parts/out"])
        (root / "away").mkdir()
        self.options = {name: rng.choice(values[: 1 + rng.randrange(len(values))]) for name, values in _OPTIONS.items()}
        self.options["drift"] = rng.random() < 0.5
        self._before = dict(self.options)
        for _ in range(rng.randint(2, 6)):
            self.add()

    def files(self) -> list[Path]:
        """The image files, no links."""
        return [
            path
            for folder in sorted(self._folders())
            for path in sorted(folder.iterdir())
            if path.suffix == ".png" and path.is_file() and not path.is_symlink()
        ]

    def write(self, path: Path, whole: bool = True) -> None:
        """Write a new image; or a file that is none."""
        self._new += 1
        buffer = io.BytesIO()
        Image.fromarray(pixels(self._new)).save(buffer, "PNG")
        content = buffer.getvalue()
        if not whole:
            content = [content[: len(content) // 2], f"no image {self._new}".encode()][self._new % 2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.known[blake2b(content, digest_size=16).hexdigest()] = self._new if whole else None

    def add(self) -> str:
        """A new image."""
        path = self._free()
        self.write(path)
        return f"add {self.shown(path)}"

    def replace(self) -> str:
        """Another image in the place of one, or of a file that is none."""
        path = self._rng.choice(self.files())
        self._kept[path] = path.read_bytes()
        self.write(path)
        return f"replace {self.shown(path)}"

    def spoil(self) -> str:
        """No image in the place of one."""
        path = self._rng.choice(self.files())
        self._kept[path] = path.read_bytes()
        self.write(path, whole=False)
        return f"break {self.shown(path)}"

    def mend(self) -> str:
        """What was there before it was broken or replaced."""
        files = [path for path in self.files() if path in self._kept]
        if not files:
            return self.spoil()
        path = self._rng.choice(files)
        path.write_bytes(self._kept.pop(path))
        return f"mend {self.shown(path)}"

    def delete(self) -> str:
        """One file less."""
        path = self._rng.choice(self.files())
        path.unlink()
        return f"delete {self.shown(path)}"

    def touch(self) -> str:
        """The same content at another time."""
        path = self._rng.choice(self.files())
        path.touch()
        return f"touch {self.shown(path)}"

    def rename(self) -> str:
        """Another name."""
        path, to = self._rng.choice(self.files()), self._free()
        path.rename(to)
        return f"rename {self.shown(path)} to {self.shown(to)}"

    def copy(self) -> str:
        """The same content once more."""
        path, to = self._rng.choice(self.files()), self._free()
        shutil.copy(path, to)
        return f"copy {self.shown(path)} to {self.shown(to)}"

    def link_file(self) -> str:
        """A second way to a file."""
        path, to = self._rng.choice(self.files()), self._free()
        to.symlink_to(path)
        return f"link {self.shown(to)} to {self.shown(path)}"

    def link_folder(self) -> str:
        """A second way to a folder."""
        path = self._rng.choice(self._folders())
        to = self.root / self._rng.choice(["parts/0link", "parts/zlink", "more"])
        if os.path.lexists(to) or not to.parent.is_dir():
            return self.touch()
        to.symlink_to(path)
        return f"link {self.shown(to)} to {self.shown(path)}"

    def move_input(self) -> str:
        """The folder of images elsewhere, or back."""
        path = self._rng.choice(self._folders())
        to = path.with_name(f"{path.name}-moved" if not path.name.endswith("-moved") else path.name[:-6])
        if os.path.lexists(to):
            return self.touch()
        path.rename(to)
        if self.output.is_relative_to(path):
            self.output = to / self.output.relative_to(path)
        return f"move {self.shown(path)} to {self.shown(to)}"

    def move_output(self) -> str:
        """The folder of results elsewhere."""
        to = self.root / self._rng.choice(["out", "parts/out", "more/results", "away/out"])
        if not self.output.exists() or os.path.lexists(to) or not to.parent.is_dir() or to.parent.is_symlink():
            return self.touch()
        self.output.rename(to)
        self.output, before = to, self.output
        return f"move {self.shown(before)} to {self.shown(to)}"

    def move_self(self) -> str:
        """Another working folder."""
        self.cwd = self.root / self._rng.choice([".", "away", "away"])
        return f"go to {self.shown(self.cwd)}"

    def change(self) -> str:
        """Another option."""
        self._before = dict(self.options)
        name = self._rng.choice([*_OPTIONS, "drift"])
        values = _OPTIONS.get(name, (False, True))
        self.options[name] = self._rng.choice([value for value in values if value != self.options[name]])
        return f"{name} {self.options[name]}"

    def change_back(self) -> str:
        """The options before that."""
        self.options = dict(self._before)
        return f"options as before: {self.options}"

    def arguments(self) -> dict[str, Any]:
        """The options as ``inspect`` takes them, and their files."""
        given = self.options
        decision: dict[str, Any] = {}
        if given["threshold"] is not None:
            decision["threshold"] = given["threshold"]
        elif given["calibration"] is not None:
            decision["false_alarm_rate"] = 0.2
        for name, images in (("calibration", calibration), ("references", references)):
            if given[name] is not None:
                decision[name] = self._folder_of(name, images(given[name]))
        if given["ignore"] is not None:
            decision["ignore"] = self.root / "ignore.png"
            Image.fromarray(mask(given["ignore"]).astype(np.uint8) * np.uint8(255)).save(decision["ignore"])
        drift = self.root / "state" if given["drift"] and given["calibration"] is not None else None
        written = {name: given[name] for name in ("masks", "coco", "overlays", "page")}
        return {"class_name": "nut", "decision": decision, "written": {**written, "drift": drift}}

    def shown(self, path: Path) -> str:
        """A path below the folder."""
        return path.relative_to(self.root).as_posix()

    def spelled(self, path: Path) -> str:
        """A path, relative or absolute."""
        return self._from(self.cwd, path)

    def _from(self, folder: Path, path: Path) -> str:
        ways: list[Callable[[Path], str]] = [str, lambda path: os.path.relpath(path, folder)]
        return self._rng.choice(ways)(path)

    def _folders(self) -> list[Path]:
        """The folders of images, no links."""
        names = [*_FOLDERS, *(f"{name}-moved" for name in _FOLDERS)]
        names += ["parts-moved/sub", "parts-moved/sub-moved"]
        return [path for name in names if (path := self.root / name).is_dir() and path.resolve() == path]

    def _free(self) -> Path:
        folders = [self.root / name for name in _FOLDERS if not (self.root / name).is_symlink()]
        places = [folder / name for folder in folders for name in _NAMES if not os.path.lexists(folder / name)]
        free = [place for place in places if place.parent.parent.resolve() == place.parent.parent]
        path = self._rng.choice(free)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _folder_of(self, name: str, numbers: list[int]) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        for place, number in enumerate(numbers):
            Image.fromarray(pixels(number)).save(folder / f"{place}.png")
        return folder

    def inputs(self) -> list[str]:
        """What the next run looks at, said in one way or another; most of it is there."""
        ways: list[Callable[[], str]] = [self._folder, self._folder, self._file]
        ways += [self._pattern, self._list, self._missing]
        chosen = [self._rng.choice(ways)() for _ in range(self._rng.randint(1, 3))]
        return [*chosen, self._rng.choice(chosen)] if self._rng.random() < 0.2 else chosen

    def _folder(self) -> str:
        return self.spelled(self._rng.choice(self._folders()))

    def _file(self) -> str:
        return self.spelled(self._rng.choice(self.files() or [self.root / "parts/none.png"]))

    def _pattern(self) -> str:
        return self.spelled(self.root / self._rng.choice(["parts/*.png", "parts*/**/*.png", "*/[a-d].png"]))

    def _list(self) -> str:
        folder = self.root / self._rng.choice(["lists", "away"])
        folder.mkdir(exist_ok=True)
        path = folder / f"{self._rng.randrange(3)}.txt"
        files = self.files()
        named = self._rng.sample(files, self._rng.randint(1, len(files))) if files else [self.root / "parts/none.png"]
        path.write_text("".join(f"{self._from(folder, one)}\n" for one in named), encoding="utf-8")
        return self.spelled(path)

    def _missing(self) -> str:
        return self.spelled(self.root / "parts/missing.png")

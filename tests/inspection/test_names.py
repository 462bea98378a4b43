"""Written files stay below the output folder, apart, and within what file systems take, whatever images are called."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from anomalib_clipad.inspection import names as module
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.names import Names, safe_name
from anomalib_clipad.inspection.results import Results

POSIX = [
    "../../../etc/passwd", "/etc/cron.d/x.png", "..", ".", "a/../../b.png", "C:\\Windows\\x.png", "nul\0byte.png",
    "x" * 5000 + ".png", "雪" * 400 + "/" + "é" * 400 + ".png", "/".join(["d"] * 2000), "CON.png", "com1/aux.txt.png",
    "trailing. /dots...png", "...", ".unfinished-x/.lock", ".png", "new\nline.png", "a.png/x.jpg", "a.jpg", "A.PNG",
    "café.png", unicodedata.normalize("NFD", "café.png"), os.fsdecode(b"\xff\xfe.png"), "\ud800.png", "run.json",
    "masks/a.png", "STRASSE.png", "straße.png", " .png", "<img onerror=alert(1)>.png",
]  # fmt: skip
WINDOWS = ["C:\\Windows\\x.png", "C:x.png", "\\\\server\\share\\x.png", "..\\..\\x.png"]
ODD: list[PurePath] = [*map(PurePosixPath, POSIX), *map(PureWindowsPath, WINDOWS)]


def test_odd_names_stay_inside_and_apart(tmp_path: Path) -> None:
    output = tmp_path / "deep/out"
    defective = Finding(np.zeros((6, 8, 3), np.uint8), 0.9, True, 0.5, np.ones((6, 8), np.float32))
    with Results(output, overlays="all", masks=True, maps="npy") as results:
        for name in ODD * 2:
            results.add(defective, name)
        assert results.finish().images == 2 * len(ODD)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    names = pd.read_parquet(output / "results.parquet").name
    for folder, suffix in (("masks", "png"), ("overlays", "jpg"), ("maps", "npy")):
        files = {path.relative_to(output).as_posix() for path in (output / folder).rglob("*") if path.is_file()}
        assert files == {f"{folder}/{name}.{suffix}" for name in names}
        assert len(files) == 2 * len(ODD)
        assert len({unicodedata.normalize("NFC", file).casefold() for file in files}) == len(files)


def test_random_names_are_safe_on_every_system() -> None:
    random = np.random.default_rng(0)
    alphabet = [*'aA./\\:*?"<>| \0\n\t\x7f-=~é雪', "..", "con", ".png", "\udcff"]
    names = Names()
    seen: set[str] = set()
    for _ in range(5000):
        name = names.claim(PurePosixPath("".join(random.choice(alphabet, random.integers(1, 12)))))
        assert name.casefold() not in seen
        seen.add(name.casefold())
        for part in name.split("/"):
            assert part
            assert not part.startswith(".")
            assert not re.search(r'[\x00-\x1f<>:"\\|?*\ud800-\udfff]|[. ]$', part)
            assert len(part.encode()) < 220
            assert not re.fullmatch(r"(?i)(con|nul|com\d)(\..*)?", part)


def test_plain_names_stay_as_they_are() -> None:
    for name in ("crack/000.png", "Part 7 (left).JPG", "2024-05-01T12.30.tif", "雪/ä.bmp"):
        assert safe_name(PurePosixPath(name)) == name.rsplit(".", 1)[0]


def test_names_taken_before_are_not_handed_out() -> None:
    names = Names(["a", "b-2"])
    assert [names.claim(PurePath(f"{name}.png")) for name in "aAbb"] == ["a-2", "A-3", "b", "b-3"]


def test_many_images_of_one_name_take_no_quadratic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Mock(wraps=module._key)
    monkeypatch.setattr(module, "_key", looked)
    names = Names()
    assert len({names.claim(PurePath("frame.png")) for _ in range(2_000)}) == 2_000
    assert looked.call_count < 10 * 2_000

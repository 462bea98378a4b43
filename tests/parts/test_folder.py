"""A generated category on disk: layout, sameness, and what may stand in its way."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalib_clipad.parts import folder as folder_module
from anomalib_clipad.parts.categories import CATEGORIES
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.folder import MANIFEST, Settings, ensure_category

SMALL = Settings("gear", train=2, good=2, defective=7, image_size=64)


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def gear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_category(tmp_path_factory.mktemp("generated"), SMALL)


def test_layout_is_mvtec_ads(gear: Path) -> None:
    assert sorted(path.name for path in gear.iterdir()) == ["ground_truth", MANIFEST, "test", "train"]
    assert sorted(path.name for path in (gear / "train" / "good").iterdir()) == ["000.png", "001.png"]
    assert sorted(path.name for path in (gear / "test").iterdir()) == sorted([*DEFECTS, "good"])
    for kind in DEFECTS:
        image = cv2.imread(str(gear / "test" / kind / "000.png"))
        mask = cv2.imread(str(gear / "ground_truth" / kind / "000_mask.png"), cv2.IMREAD_UNCHANGED)
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}


@pytest.mark.slow
def test_the_same_settings_give_the_same_bytes_in_another_process(gear: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from anomalib_clipad.parts.folder import Settings, ensure_category;"
        f"ensure_category(Path({str(tmp_path)!r}), {SMALL!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "5"})
    assert _digest(tmp_path / SMALL.folder) == _digest(gear)


def test_another_seed_gives_other_pictures_elsewhere(gear: Path) -> None:
    other = ensure_category(gear.parent, Settings("gear", 1, 2, 2, 7, 64))
    assert other != gear
    assert _digest(other) != _digest(gear)


def test_a_finished_category_is_reused(gear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_write_all", lambda *_: pytest.fail("was generated again"))
    assert ensure_category(gear.parent, SMALL) == gear


def test_an_interrupted_generation_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = folder_module._write, []

    def interrupted(*args: object) -> None:
        written.append(args)
        if len(written) > 3:
            raise KeyboardInterrupt
        write(*args)

    monkeypatch.setattr(folder_module, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_category(tmp_path, SMALL)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert (ensure_category(tmp_path, SMALL) / MANIFEST).is_file()


def test_foreign_files_at_the_target_are_not_touched(tmp_path: Path) -> None:
    target = tmp_path / SMALL.folder
    target.mkdir()
    (target / "holiday.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="Nothing was overwritten"):
        ensure_category(tmp_path, SMALL)
    assert [path.name for path in target.iterdir()] == ["holiday.txt"]
    assert (target / "holiday.txt").read_text() == "mine"


def test_a_picture_missing_from_a_finished_category_is_noticed(tmp_path: Path) -> None:
    target = ensure_category(tmp_path, SMALL)
    (target / "test" / "good" / "001.png").unlink()
    with pytest.raises(FileExistsError, match=r"lacks test/good/001\.png"):
        ensure_category(tmp_path, SMALL)


def test_the_target_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(OSError, match="could not be written"):
        ensure_category(tmp_path / "root", SMALL)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="could not be written") as caught:
        ensure_category(tmp_path, SMALL)
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_category_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="Unknown generated category 'spoon'") as caught:
        Settings("spoon")
    assert all(name in str(caught.value) for name in CATEGORIES)


@pytest.mark.parametrize("name", ["train", "good", "defective", "image_size"])
@pytest.mark.parametrize("value", [0, -3, True, 2.5])
def test_numbers_that_make_no_data_set_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"'{name}'.*at least.*got"):
        Settings("gear", **{name: value})


def test_an_image_smaller_than_a_few_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'image_size'.*at least 64.*got 48"):
        Settings("gear", image_size=48)

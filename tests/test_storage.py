"""Files appear whole, together, and with the permissions of the user's umask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anomalib_clipad.storage import atomic_folder


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027], indirect=True)
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    with atomic_folder(tmp_path / "target") as folder:
        save_file({"a": torch.zeros(1)}, folder / "private.safetensors")  # safetensors writes 0600
        (folder / "open.txt").touch(0o666)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "target").iterdir()}
    assert modes == {0o666 & ~umask}


def names(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def write(target: Path, *files: str, interrupt: bool = False) -> None:
    with atomic_folder(target) as folder:
        for name in files:
            (folder / name).write_text("new")
        if interrupt:
            raise KeyboardInterrupt


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "model.xml", interrupt=True)
    assert list(tmp_path.iterdir()) == []


OLD = {"model.bin": "old weights", "model.xml": "old graph"}


@pytest.mark.parametrize("old", [OLD, {}, {"model.bin": "old weights"}, {"model.xml": "old graph"}])
@pytest.mark.parametrize("fails_at", ["model.bin", "model.xml", "notes.txt"])
@pytest.mark.parametrize("links", [True, False])
def test_files_are_replaced_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: dict[str, str], fails_at: str, links: bool
) -> None:
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    replace = Path.replace

    def failing(path: Path, target: Path) -> Path:
        if path.name == fails_at and path.parent.name == "new":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    def no_links(path: Path, target: Path) -> None:
        if not target.exists():
            raise FileNotFoundError
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "replace", failing)
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, "model.bin", "model.xml", "notes.txt")
    assert names(tmp_path) == old
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path, "model.bin", "model.xml")
    assert names(tmp_path) == {"model.bin": "new", "model.xml": "new"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_in_the_place_of_a_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.xml").mkdir()
    (tmp_path / "model.bin").write_text("old weights")
    with pytest.raises(OSError, match=r"model\.xml"):
        write(tmp_path, "model.bin", "model.xml")
    assert names(tmp_path) == {"model.bin": "old weights"}

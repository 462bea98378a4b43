"""Where images come from, and what they are called."""

import io
from pathlib import Path, PurePath

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from anomalib_clipad.inspection.sources import find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "sub/a.png", "sub/deep/b.JPG", "notes.md"):
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path, "PNG")
    return tmp_path / "parts"


def test_a_folder_gives_its_images_and_their_places(folder: Path) -> None:
    found = list(find([str(folder)]))
    assert [source.name for source in found] == [PurePath("a.png"), PurePath("sub/a.png"), PurePath("sub/deep/b.JPG")]
    assert [source.image for source in found] == [folder / source.name for source in found]


def test_files_patterns_and_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [source.path for source in find([str(folder / "a.png")])] == [folder / "a.png"]
    assert len(list(find([f"{folder}/**/*.png"]))) == 2
    (folder / "list.txt").write_text("a.png\n\nsub/a.png\n")
    assert [source.path for source in find([str(folder / "list.txt")])] == [folder / "a.png", folder / "sub/a.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/a.png\n"))
    assert [source.path for source in find(["-"])] == [folder / "a.png"]


@pytest.mark.parametrize("entry", ["nowhere.png", "no/*.png", "empty"])
def test_nothing_there_is_said(tmp_path: Path, entry: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=entry.replace("*", r"\*")):
        list(find([str(tmp_path / entry)]))


def test_a_video_gives_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for level in (40, 120, 200):
        film.write(np.full((48, 64, 3), (level, 0, 0), np.uint8))
    film.release()
    found = list(find([str(path)]))
    assert [source.path.name for source in found] == [f"film.avi#{number:06d}" for number in (1, 2, 3)]
    assert found[1].name == PurePath("film/000002")
    blue = [source.image.pixels[..., 2].mean() for source in found]
    assert blue == pytest.approx([40, 120, 200], abs=6)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="no video"):
        list(find([str(tmp_path / "broken.mp4")]))


def test_a_parquet_file_lists_paths_beside_it(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"line": [1, 2, 3], "path": ["a.png", None, "/b/c.png"]}), tmp_path / "list.parquet")
    found = list(find([str(tmp_path / "list.parquet")]))
    assert [(one.path, one.name) for one in found] == [
        (tmp_path / "a.png", PurePath("a.png")),
        (Path("/b/c.png"), PurePath("/b/c.png")),
    ]


@pytest.mark.parametrize("columns", [{"file": ["a.png"]}, {"path": [1]}])
def test_a_parquet_file_without_paths_is_refused(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "list.parquet")
    with pytest.raises(ValueError, match=f"no column of text 'path'; it has {', '.join(columns)}"):
        list(find([str(tmp_path / "list.parquet")]))
    (tmp_path / "list.parquet").write_text("no table")
    with pytest.raises(ValueError, match="is no Parquet file"):
        list(find([str(tmp_path / "list.parquet")]))

"""The images of a folder: each once, none that an inspection has written, and none passed over in silence."""

import json
import os
import warnings
from pathlib import Path

import pytest
from PIL import Image

from anomalib_clipad.images.listing import files_in, folders_in, is_output, walk
from anomalib_clipad.images.picture import UnreadableError, read
from anomalib_clipad.inspection.results import Results


def image(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 40, 40)).save(path, kind)
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_in(folder)]


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1.png", "a.png", "a/2.png", "a/1.JPG", "b.png", "a-b/1.png"):
        image(tmp_path / name)
    assert files_in(tmp_path) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_what_an_inspection_has_written_is_never_entered(tmp_path: Path) -> None:
    image(tmp_path / "line/a.png")
    with Results(tmp_path / "line/deep/results", page="A run"):
        image(tmp_path / "line/deep/results/thumbnails/a.jpg", "JPEG")
    image(tmp_path / "line/.unfinished-x1/new/a.png")
    assert names(tmp_path) == ["line/a.png"]
    assert list(folders_in(tmp_path)) == [tmp_path, tmp_path / "line", tmp_path / "line/deep"]
    with pytest.raises(ValueError, match=r"results is the output folder of an inspection \(run\.json says so\)"):
        files_in(tmp_path / "line/deep/results")
    moved = tmp_path / "line/deep/results/run.json"
    about = json.loads(moved.read_text())
    moved.write_text(json.dumps({**about, "format": "anomalib_clipad inspection, version 7"}))
    assert is_output(moved.parent)


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"format": null}', '{"format": "of another program"}'])
def test_a_run_json_of_another_program_makes_no_output_folder(tmp_path: Path, content: str) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "run.json").write_text(content)
    assert names(tmp_path) == ["a.png"]


def test_links_are_followed_loops_end_and_a_file_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    image(folder / "b/1.png")
    image(tmp_path / "elsewhere/2.png")
    (folder / "a").symlink_to(folder / "b")
    (folder / "again.png").symlink_to(folder / "b/1.png")
    (folder / "b/loop").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    os.link(folder / "b/1.png", folder / "hard.png")
    assert names(folder) == ["a/1.png", "c/2.png", "hard.png", "itself"]
    assert dict(walk(folder))[folder / "a/1.png"] == os.path.realpath(folder / "b/1.png")
    assert list(folders_in(folder)) == [folder, folder / "a", folder / "c"]


def test_a_link_that_leads_nowhere_is_listed_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    (tmp_path / "line-3").symlink_to("/nowhere/at/all")
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    assert dict(walk(tmp_path)) == {tmp_path / "a.png": None, tmp_path / "line-3": None}
    with pytest.raises(UnreadableError, match=r"a\.png cannot be read \(it is a link to gone\.png, which is not there"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("name", ["scan", "scan.0001", "scan.dat"])
def test_what_looks_like_an_image_is_one(tmp_path: Path, kind: str, name: str) -> None:
    image(tmp_path / name, kind)
    assert files_in(tmp_path) == [tmp_path / name]
    assert read(tmp_path / name).pixels.shape == (6, 8, 3)


def test_what_is_something_else_is_passed_over(tmp_path: Path) -> None:
    for name in ("._a.png", ".hidden", ".a.png.Ab12Cd", "notes.md", "half.part", "half.png.tmp"):
        image(tmp_path / name)
    for name, content in {"a.dat": b"BMW and other cars", "b": b"\xff\xd8", "c.dat": b"", "d": b"RIFF1234WAVE"}.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.png")
    image(tmp_path / ".shown.png")
    assert names(tmp_path) == [".shown.png"]


def test_films_are_passed_over_with_one_warning(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/b.MKV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    image(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"passed over: 2 films, such as .*a\.mp4\. Name a film itself") as said:
        assert names(tmp_path) == ["a.png"]
    assert len(said) == 1
    (tmp_path / "sub/b.MKV").unlink()
    (tmp_path / "a.mp4").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files_in(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_folder_that_cannot_be_opened_is_listed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert files_in(tmp_path) == [closed]
    with pytest.raises(UnreadableError, match="Permission denied"):
        read(closed)


@pytest.mark.parametrize("name", ["nowhere", 5000 * "x"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"There is no folder .*{name[:50]}"):
        files_in(tmp_path / name)

"""Where images come from, and what they are called."""

import io
import os
import re
from contextlib import nullcontext
from pathlib import Path, PurePath

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from anomalib_clipad.images.picture import UnreadableError
from anomalib_clipad.inspection import films
from anomalib_clipad.inspection.results import Results
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
    assert {source.file for source in found} == {path.resolve()}
    assert [source.place for source in found] == [f"{path.resolve()}#{number:06d}" for number in (1, 2, 3)]


def test_a_parquet_file_lists_paths_beside_it(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"line": [1, 2, 3], "path": ["a.png", None, "/b/c.png"]}), tmp_path / "list.parquet")
    found = list(find([str(tmp_path / "list.parquet")]))
    assert [(one.path, one.name) for one in found] == [
        (tmp_path / "a.png", PurePath("a.png")),
        (Path("/b/c.png"), PurePath("/b/c.png")),
    ]


@pytest.mark.parametrize(
    ("columns", "had"), [({"file": ["a.png"]}, r"file \(string"), ({"path": [1]}, r"path \(int64")]
)
def test_a_parquet_file_without_paths_says_what_it_has(
    tmp_path: Path, columns: dict[str, list[object]], had: str
) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "list.parquet")
    assert re.search(rf"list\.parquet has no column of text 'path'; it has {had}", reason(tmp_path / "list.parquet"))
    (tmp_path / "list.parquet").write_text("no table")
    assert "is no Parquet file, or is damaged" in reason(tmp_path / "list.parquet")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_a_parquet_column_may_be_of_any_kind_of_text(folder: Path, kind: pa.DataType) -> None:
    column = pa.array(["sub/a.png", None, "a.png", "a.png"]).cast(kind)
    parquet.write_table(pa.table({"path": column}), folder / "list.parquet")
    assert names(folder / "list.parquet") == ["sub/a.png", "a.png"]


def names(*inputs: object) -> list[str]:
    """Names of what is found, all of which can be had."""
    found = list(find(list(map(str, inputs))))
    assert not [source for source in found if isinstance(source.image, UnreadableError)]
    return [source.name.as_posix() for source in found]


def reason(*inputs: object) -> str:
    """What is said of the last thing that is found, which cannot be had."""
    *_, last = find(list(map(str, inputs)))
    assert isinstance(last.image, UnreadableError)
    assert last.image.path == last.path
    return str(last.image)


# An image counts once.


@pytest.mark.parametrize(
    "inputs",
    [
        ["parts/**"],
        ["parts/**", "parts/**/*.[pJ]*"],
        ["parts/a.png", "parts", "./parts/a.png", "parts/../parts/sub/deep/b.JPG"],
        ["parts/a.png", "all/**/*.[pJ]*"],
        ["list.txt", "parts"],
    ],
)
def test_an_image_counts_once_by_the_first_name_of_its_file(folder: Path, inputs: list[str]) -> None:
    Path("all").symlink_to(folder)
    (folder / "sub/loop").symlink_to(folder)
    Path("list.txt").write_text(f"parts/a.png\n{folder}/a.png\nall/a.png\nparts/sub/a.png\n")
    files = [source.file for source in find(inputs)]
    assert sorted(files) == sorted(folder.resolve() / name for name in ("a.png", "sub/a.png", "sub/deep/b.JPG"))
    first = next(find(inputs))
    assert first.place == str(folder.resolve() / "a.png")


def test_copies_and_hard_links_are_images_of_their_own(folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    os.link(folder / "a.png", folder / "hard.png")
    assert names(folder) == ["a.png", "copy.png", "hard.png", "sub/a.png", "sub/deep/b.JPG"]


def test_a_pattern_gives_what_it_matches_in_the_order_of_names(folder: Path) -> None:
    numbered = [f"{number:02}.png" for number in range(40)]
    for name in (*reversed(numbered), "[x]/c.png", ".hidden/d.png", "sub/.hidden/e.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    assert names("parts/*.png") == [*numbered, "a.png"]
    assert names("parts/**/[a-e].png") == ["c.png", "a.png", "a.png"]
    assert names("parts/**/.hidden/*") == ["d.png", "e.png"]


def test_a_tilde_is_the_users_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(folder))
    Path("list.txt").write_text("~/sub/a.png\n")
    assert [source.path for source in find(["~/a.png", "list.txt"])] == [folder / "a.png", folder / "sub/a.png"]


def test_a_film_that_is_named_twice_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "film.avi", 3)
    (tmp_path / "link.avi").symlink_to(path)
    opened: list[str] = []
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: opened.append(name) or capture(name))
    assert names(path, tmp_path / "link.avi", path) == ["film/000001", "film/000002", "film/000003"]
    assert opened == [str(path)]


# Output folders.


@pytest.fixture
def output(folder: Path) -> Path:
    """Results among the images."""
    with Results(folder / "sub/results", page="A run"):
        for name in ("thumbnails/a.jpg", "overlays/a.jpg"):
            path = folder / "sub/results" / name
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
    return folder / "sub/results"


@pytest.mark.parametrize("entry", ["parts", ".", "parts/**", "**", "**/*.*g", "parts/sub/*", "parts/*/*", "*"])
def test_results_are_never_found(folder: Path, output: Path, entry: str) -> None:
    found = {source.path.name for source in find([entry])}
    assert found <= {"a.png", "b.JPG", "notes.md"}
    assert "a.png" in found


def test_results_that_are_named_are_refused_and_files_in_them_are_taken(folder: Path, output: Path) -> None:
    for entry in (output, output / "*.jpg", output / "**"):
        with pytest.raises(FileNotFoundError, match=r"output folder of an inspection|Nothing matches"):
            list(find([str(entry)]))
    assert "results is the output folder of an inspection" in reason(folder / "a.png", output)
    assert names(output / "overlays/a.jpg") == ["a.jpg"]
    (folder / "list.txt").write_text("sub/results/overlays/a.jpg\n")
    assert names(folder / "list.txt") == ["sub/results/overlays/a.jpg"]


# Lists.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_list_may_be_in_any_unicode(
    folder: Path, encoding: str, end: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "Lötstelle 部品.png")
    content = end.join(["Lötstelle 部品.png", "", "sub/a.png"]).encode(encoding)
    (folder / "list.txt").write_bytes(content)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), "ascii"))
    assert names("-" if way == "stdin" else "list.txt") == ["Lötstelle 部品.png", "sub/a.png"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_of_either_order_is_read(folder: Path, encoding: str) -> None:
    (folder / "list.lst").write_bytes("\ufeffa.png\nsub/a.png".encode(encoding))
    assert names(folder / "list.lst") == ["a.png", "sub/a.png"]


@pytest.mark.parametrize("way", ["file", "stdin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png\nStück.png\nsub/a.png\n".encode("cp1252"), "line 2, byte 3, is 0xfc. Save it as UTF-8"),
        ("a.png\nLöt".encode() + b"st\xfcck.png\n", "line 2, byte 7, is 0xfc"),
        (b"a.png\n" + "sub/a.png\n".encode("utf-16-le"), "line 2, byte 2, is 0x00. Save it as UTF-8"),
    ],
)
def test_a_list_of_another_encoding_is_named_with_the_line(
    folder: Path, content: bytes, message: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "list.txt").write_bytes(content)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))
    entry, called = ("-", "The list on standard input") if way == "stdin" else ("list.txt", "list.txt")
    before, failed, after = find([entry, "sub/deep/b.JPG"])
    assert (before.image, after.image) == (Path("a.png"), Path("sub/deep/b.JPG"))
    assert str(failed.image).startswith(called)
    assert message in str(failed.image)
    assert failed.path == Path(entry)


def test_a_list_that_cannot_be_opened_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (folder / "list.txt").write_text("a.png")
    monkeypatch.setattr(Path, "open", refuse)
    assert reason("parts/a.png", "parts/list.txt") == "The list parts/list.txt cannot be read (Permission denied)."


def test_a_list_in_utf_16_that_is_cut_is_named(folder: Path) -> None:
    (folder / "list.txt").write_bytes("a.png\nsub/a.png\n".encode("utf-16")[:-1])
    assert "list.txt is cut or damaged after line 1 (truncated data)" in reason(folder / "list.txt")


@pytest.mark.skipif(os.sep != "/", reason="these are the paths of this system")
def test_paths_of_windows_are_found_where_only_slashes_differ(folder: Path) -> None:
    image = (folder / "a.png").read_bytes()
    (folder / r"sub\deep").mkdir()
    (folder / r"sub\a.png").write_bytes(image)
    (folder / "list.txt").write_text("sub\\deep\\b.JPG\nsub\\a.png\n" + r".\a.png")
    found = list(find([str(folder / "list.txt")]))
    assert [source.path for source in found] == [
        folder / "sub/deep/b.JPG",
        folder / r"sub\a.png",  # there is one
        folder / "a.png",
    ]
    assert found[0].name == PurePath("sub/deep/b.JPG")


# What is wrong with one input.


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nowhere.png", "There is no file or folder nowhere.png"),
        (5000 * "x" + ".png", "There is no file or folder xxx"),
        ("no/*.png", "Nothing matches the pattern no/*.png"),
        ("empty", "There are no images in empty"),
        ("empty.txt", "The list empty.txt names no images"),
        ("broken.mp4", "broken.mp4 is no video that OpenCV can read"),
        ("link.png", "link.png is a link to gone.png, which is not there"),
        ("~no such user~/a.png", "There is no file or folder ~no such user~/a.png"),
        ("", "There is no file or folder"),
    ],
)
def test_one_input_that_cannot_be_had_is_a_row(folder: Path, entry: str, message: str) -> None:
    Path("empty").mkdir()
    Path("empty.txt").write_text("\n")
    Path("broken.mp4").write_bytes(b"no film")
    Path("link.png").symlink_to("gone.png")
    for inputs in (["parts/a.png", entry, "parts"], [entry, entry, "parts"]):
        found = list(find(inputs))
        assert [source.name.name for source in found if isinstance(source.image, Path)] == ["a.png", "a.png", "b.JPG"]
        (failed,) = [source for source in found if isinstance(source.image, UnreadableError)]
        assert message in str(failed.image)
        assert failed.path == Path(entry)
        assert len(str(failed.image)) < 400


def test_where_all_inputs_are_missing_it_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder a\.png\. There are no images in .*empty\. Nothing matches"):
        next(find(["a.png", str(tmp_path / "empty"), "no/*.png"]))
    with pytest.raises(FileNotFoundError, match="And 15 more"):
        next(find([f"{number}.png" for number in range(20)]))


def film(path: Path, count: int) -> Path:
    """A film of noise, all frames of which have about one size."""
    kind = cv2.VideoWriter.fourcc(*("VP80" if path.suffix == ".webm" else "MJPG"))
    writer = cv2.VideoWriter(str(path), kind, 5, (64, 48))
    for number in range(count):
        writer.write(np.random.default_rng(number).integers(256, size=(48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_a_film_that_ends_early_gives_its_frames_and_says_so(folder: Path, suffix: str) -> None:
    path = film(folder / f"film{suffix}", 12)
    assert len(names(path)) == 12
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    *frames, cut, after = find([str(path), str(folder / "a.png")])
    assert 6 <= len(frames) <= 9
    assert [frame.path.name for frame in frames] == [f"film{suffix}#{n:06d}" for n in range(1, len(frames) + 1)]
    assert f"{len(frames)} of 12 frames can be read" in str(cut.image)
    assert (cut.path, cut.place) == (path, str(path.resolve()))
    assert after.name == PurePath("a.png")


@pytest.mark.parametrize(
    ("name", "found", "said", "whole"),
    [
        ("a.mp4", 12, 12, True),
        ("a.mp4", 11, 12, False),
        ("a.mp4", 13, 12, True),
        ("a.MKV", 10, 12, True),
        ("a.mkv", 9, 12, False),
        ("a.webm", 95, 100, True),
        ("a.webm", 94, 100, False),
        ("a.webm", 5, -192153584101141, True),  # what OpenCV says of a film without a length
        ("a.webm", 0, -1, False),
        ("a.mp4", 0, 0, False),
    ],
)
def test_estimated_numbers_of_frames_have_a_tolerance(name: str, found: int, said: int, whole: bool) -> None:
    with nullcontext() if whole else pytest.raises(UnreadableError, match=f"{found} .*frames can be read"):
        films._check_count(Path(name), found, said)

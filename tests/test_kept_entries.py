"""The cache: bounded, the user's own, and never an answer that was not put there."""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Run

from anomalib_clipad.adaptors.files import adapter_file
from anomalib_clipad.cache import DEFAULT_LIMIT, Cache, Entry, files, limit
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.storage import UntrustedError, cache_folder

posix = pytest.mark.skipif(os.name != "posix", reason="only POSIX says who can write")


def key(number: int) -> str:
    return f"{number:064x}"


def entry(number: float = 1.0, size: int = 1000) -> Entry:
    return Entry({"value": torch.full((size,), float(number))}, f"number {number}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - 86400 * days,) * 2)


def test_what_was_put_comes_back_with_its_note(folder: Path) -> None:
    Cache("start").put(key(1), entry(3))
    found = Cache("start").get(key(1))
    assert found is not None
    assert (found.note, found.tensors["value"].unique().tolist()) == ("number 3", [3.0])
    assert Cache("start").get(key(2)) is None
    assert Cache("text").get(key(1)) is None


@pytest.mark.parametrize("kind", ["text", "start"])
def test_a_changed_note_or_value_is_no_answer(folder: Path, kind: str) -> None:
    cache = Cache(kind)
    for old in (b"number 1", entry().tensors["value"].numpy().tobytes()[:4]):
        cache.put(key(1), entry())
        content = cache.path(key(1)).read_bytes()
        assert old in content
        cache.path(key(1)).write_bytes(content.replace(old, old[:-1] + b"2"))
        assert cache.get(key(1)) is None


@pytest.mark.parametrize("kind", ["text", "start"])
def test_what_is_no_number_is_not_kept(folder: Path, kind: str) -> None:
    Cache(kind).put(key(1), entry(float("nan")))
    assert not list(files(kind))


@pytest.mark.parametrize(
    ("given", "size"),
    [("500MB", 500_000_000), ("2 GiB", 2 * 1024**3), ("0", 0), ("1.5kb", 1500), ("123", 123), ("", DEFAULT_LIMIT)],
)
def test_a_limit_is_a_size(monkeypatch: pytest.MonkeyPatch, given: str, size: int) -> None:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE_SIZE", given)
    assert limit() == size


@pytest.mark.parametrize("given", ["much", "-1", "1 elephant"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE_SIZE", given)
    with pytest.raises(ValueError, match=f"has to be a size such as 500MB.*got '{given}'"):
        limit()


def test_what_was_not_used_for_longest_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE_SIZE", "18kB")  # four entries of 4.2 kB, of both kinds together
    caches = [Cache("text"), Cache("start"), Cache("text"), Cache("start")]
    for number, cache in enumerate(caches):
        cache.put(key(number), entry(number))
        age(cache.path(key(number)), 10 - number)
    assert caches[0].get(key(0)) is not None  # the oldest, which is used now
    Cache("text").put(key(4), entry(4))
    kept = {int(one.path.stem, 16) for kind in ("text", "start") for one in files(kind)}
    assert kept == {0, 2, 3, 4}


def test_files_of_others_are_neither_counted_nor_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE_SIZE", "5kB")
    cache_folder("text")
    (folder / "text" / "mine.safetensors").write_bytes(bytes(9000))
    Cache("text").put(key(1), entry())
    assert {path.name for path in (folder / "text").iterdir()} == {"mine.safetensors", f"{key(1)}.safetensors"}


def test_without_a_limit_above_nothing_nothing_is_read_or_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache("text").put(key(1), entry())
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE_SIZE", "0")
    Cache("text").put(key(2), entry())
    assert Cache("text").get(key(1)) is None
    assert [one.path.stem for one in files("text")] == [key(1)]


def test_what_a_killed_writer_left_goes_after_a_day(folder: Path) -> None:
    for name, days in (("old", 2), ("new", 0)):
        left = cache_folder("start") / f".unfinished-{name}"
        (left / "new").mkdir(parents=True)
        (left / "new" / "half.safetensors").write_bytes(b"half")
        age(left, days)
    Cache("text").put(key(1), entry())
    assert [path.name for path in (folder / "start").iterdir()] == [".unfinished-new"]


def test_an_entry_that_vanishes_while_it_is_counted_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes that clear up at once: each finds files that the other has just removed."""
    cache = Cache("text")
    cache.put(key(1), entry())
    unlink = Path.unlink

    def twice(path: Path, missing_ok: bool = False) -> None:
        unlink(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", twice)
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE_SIZE", "5kB")
    cache.put(key(2), entry())
    assert [one.path.stem for one in files("text")] == [key(2)]
    assert cache.get(key(1)) is None
    assert not caplog.records


@pytest.mark.slow
def test_processes_that_fill_and_clear_a_small_cache_disturb_none(folder: Path) -> None:
    program = (
        "import sys, torch; from anomalib_clipad.cache import Cache, Entry\n"
        "for step in range(150):\n"
        "    number = (step * int(sys.argv[1])) % 20\n"
        "    found = Cache('text').get(f'{number:064x}')\n"
        "    assert found is None or found.tensors['value'].eq(number).all()\n"
        "    Cache('text').put(f'{number:064x}', Entry({'value': torch.full((1000,), float(number))}))\n"
    )
    command = [sys.executable, "-c", program]
    given = {**os.environ, "ANOMALIB_CLIPAD_CACHE_SIZE": "20kB"}
    running = [subprocess.Popen([*command, step], env=given, stderr=subprocess.PIPE, text=True) for step in "137"]
    assert [process.communicate(timeout=300)[1] for process in running] == [""] * 3
    assert {process.returncode for process in running} == {0}
    assert sum(one.size for one in files("text")) <= 20_000


# Whose it is


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022])
def test_a_folder_that_is_made_is_the_users_alone(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Cache("text").put(key(1), entry())
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (folder, folder / "text", Cache("text").path(key(1)))]
    assert modes == [0o700, 0o700, 0o600]
    assert Cache("text").get(key(1)) is not None


@posix
@pytest.mark.parametrize("place", ["", "text"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_neither_read_nor_written(folder: Path, place: str, mode: int) -> None:
    Cache("text").put(key(1), entry())
    (folder / place).chmod(mode)
    said = rf"The cache {folder / place} is not used.*mode is 0{mode:o}.*chmod go-w"
    with pytest.warns(UserWarning, match=said):
        assert Cache("text").get(key(1)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        Cache("text").put(key(2), entry())
    assert [one.path.stem for one in files("text")] == [key(1)]
    with pytest.raises(UntrustedError, match="chmod go-w"):
        cache_folder("text")
    (folder / place).chmod(0o755)
    assert Cache("text").get(key(1)) is not None


@posix
def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache("text").put(key(1), entry())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:
        with pytest.warns(UserWarning, match=f"belongs to another user .number {owner}.*ANOMALIB_CLIPAD_CACHE"):
            assert Cache("text").get(key(1)) is None
    else:  # root may write anywhere anyway
        assert Cache("text").get(key(1)) is not None


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a folder away")
def test_root_does_not_use_a_folder_that_is_someone_elses(folder: Path) -> None:
    Cache("text").put(key(1), entry())
    os.chown(folder, 12345, 12345)
    with pytest.warns(UserWarning, match="belongs to another user .number 12345"):
        assert Cache("text").get(key(1)) is None


@posix
def test_everybodys_folder_will_do_where_nobody_can_replace_what_is_anothers(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o1777)
    Cache("text").put(key(1), entry())
    assert Cache("text").get(key(1)) is not None


@posix
@pytest.mark.parametrize("mode", [0o666, 0o660, 0o1666])
def test_an_entry_that_others_can_write_to_is_no_answer_and_is_written_anew(folder: Path, mode: int) -> None:
    cache = Cache("text")
    cache.put(key(1), entry())
    cache.path(key(1)).chmod(mode)
    assert cache.get(key(1)) is None
    cache.put(key(1), entry())
    assert cache.get(key(1)) is not None


@posix
def test_layers_and_generated_pictures_are_not_taken_from_there_either(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    for use in (lambda: adapter_file("visa"), GeneratedParts):
        with pytest.raises(UntrustedError, match="is not used, since others can write to it"):
            use()


# The command


@pytest.mark.parametrize("flag", [["--clear"], ["--clear", "true"]])
def test_the_command_shows_and_clears(
    folder: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str], flag: list[str]
) -> None:
    Cache("text").put(key(1), entry())
    Cache("text").put(key(2), entry())
    Cache("start").put(key(3), entry())
    (folder / "text" / "mine.txt").touch()
    (folder / "start" / ".unfinished-x").mkdir()
    run("cache")
    said = capsys.readouterr().out
    assert str(folder) in said
    assert [line.split("|")[1:3] for line in said.splitlines() if line.startswith(("| text", "| start"))] == [
        [" text  ", "       2 "],
        [" start ", "       1 "],
    ]
    assert "At most 1 GB" in said
    run("cache", *flag)
    assert "Removed: 12." in capsys.readouterr().out
    assert [path.name for path in folder.rglob("*") if not path.is_dir() or path.name.startswith(".")] == ["mine.txt"]


def test_the_command_makes_no_folder(folder: Path, run: Callable[..., None]) -> None:
    run("cache")
    assert not folder.exists()


@posix
def test_a_folder_that_others_can_write_to_is_not_cleared(
    folder: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    Cache("text").put(key(1), entry())
    (folder / "text").chmod(0o777)
    run("cache")
    assert "is not used" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^anomalib-clipad cache: The cache .* is not used"):
        run("cache", "--clear")
    assert list(files("text"))


def test_the_command_takes_no_torch(run_python: Run, folder: Path) -> None:
    run_python("import sys, anomalib_clipad.tools.cache as tool\ntool.cache()\nassert 'torch' not in sys.modules")

"""By what a file is known again: a digest is that of one moment, and a stamp cannot be set back."""

from __future__ import annotations

import os
from pathlib import Path

from anomalib_clipad.images.content import content_of, digest_of, digest_of_all, stamp_of


def test_a_stamp_tells_content_of_the_same_size_and_time_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("one")
    before, times = stamp_of(file), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_text("two")
    os.utime(file, ns=times)
    assert before is not None
    assert stamp_of(file)[:2] == before[:2]
    assert stamp_of(file) != before


def test_a_file_that_has_changed_has_no_digest_of_before(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("one")
    stamp = stamp_of(file)
    file.write_text("three")
    assert digest_of(file, stamp) == ""
    assert digest_of(file) != ""


def test_a_link_holds_what_its_file_holds(tmp_path: Path) -> None:
    file, link = tmp_path / "a.png", tmp_path / "link.png"
    file.write_text("one")
    link.symlink_to(file)
    assert content_of(link) == content_of(file)
    assert content_of(tmp_path / "none.png")[1:] == ("", None)


def test_where_one_text_ends_counts() -> None:
    assert digest_of_all(["ab", "c"]) != digest_of_all(["a", "bc"])
    assert digest_of_all(["ab", "c"]) == digest_of_all([b"ab", b"c"])

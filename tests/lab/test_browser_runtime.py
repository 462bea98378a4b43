"""The runtime of the browser is fetched as it is expected, or not at all."""

import shutil
from pathlib import Path

import pytest

from anomalib_clipad.lab import browser_runtime as module
from anomalib_clipad.web.runtime import FOLDER


def test_another_package_than_the_expected_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(command: list[str], cwd: str, **_: object) -> None:
        assert command[-1].startswith("onnxruntime-web@1.")
        (Path(cwd) / "onnxruntime-web.tgz").write_bytes(b"something else")

    monkeypatch.setattr(module.subprocess, "run", pack)
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(ValueError, match=r"expected sha512-.*Nothing was changed"):
        module.fetch(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before

"""`anomalib-clipad text-features`: the file is whole or not there."""

import os
from pathlib import Path

import pytest
import torch
from conftest import TINY, layers, shallow
from safetensors.torch import load_file

from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.predictor.building import by_name
from anomalib_clipad.tools import text_features as module
from anomalib_clipad.tools.text_features import text_features


def write(path: Path, *classes: str) -> None:
    text_features(list(classes), path, TINY)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_the_file_has_the_permissions_of_any_other(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "new/vectors.safetensors", "bolt")
    finally:
        os.umask(before)
    assert (tmp_path / "new/vectors.safetensors").stat().st_mode & 0o777 == mode
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["vectors.safetensors"]


@pytest.mark.slow
def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vectors.safetensors"
    write(path, "bolt")

    def fail_halfway(vectors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        write(path, "bolt", "nut")
    assert list(load_file(path)) == ["bolt"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("variant", ADAPTORS)
def test_the_vectors_are_those_of_the_trained_layers(tmp_path: Path, variant: str) -> None:
    path, given = tmp_path / "vectors.safetensors", {**shallow(), "adapter": layers(variant)}
    text_features(["bolt"], path, given)
    assert torch.equal(load_file(path)["bolt"], by_name("bolt", **given).model.text_features)


def test_without_layers_there_are_no_vectors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="AF-CLIP needs trained layers"):
        text_features(["bolt"], tmp_path / "vectors.safetensors", {**shallow(), "variant": "af_clip"})

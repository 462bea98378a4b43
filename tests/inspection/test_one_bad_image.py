"""What is wrong with one image is said of that image, and the others are looked at; what concerns all ends the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import save, shallow
from PIL import Image

from anomalib_clipad import ClipAD, Inspector
from anomalib_clipad.images.picture import Picture, UnreadableError
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.predictor.base import Scored, numbers
from anomalib_clipad.vision.pool import choose

MODEL = shallow()
FINE = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector("nut", **MODEL, batch_size=4)


def inspected(inspector: Inspector, images: Any) -> tuple[list[Finding], list[tuple[Any, str]]]:
    failed: list[tuple[Any, str]] = []
    findings = list(inspector.stream(images, lambda source, error: failed.append((source, str(error)))))
    return findings, failed


BAD = {
    "quantised": (torch.quantize_per_tensor(torch.rand(3, 9, 9), 0.01, 0, torch.quint8), "quint8"),
    "meta": (torch.rand(3, 9, 9, device="meta"), "on meta"),
    "sparse": (torch.rand(9, 9).to_sparse(), "sparse_coo"),
    "whole numbers": (torch.zeros(3, 9, 9, dtype=torch.int64), "int64"),
    "empty": (Image.new("RGB", (0, 0)), "empty"),
    "mode I": (Image.new("I", (9, 9), 70_000), "white"),
    "mode F": (Image.new("F", (9, 9), 7), "floats"),
    "empty mode F": (Image.new("F", (9, 0)), "empty"),
    "long": (5000 * "x" + ".png", "cannot be read"),
    "missing": (Path("gone.png"), "gone.png cannot be read"),
    "said before": (UnreadableError("film.mp4 ends early."), "film.mp4 ends early"),
    "something else": (object(), "got object"),
    "bytes": (b"a.png", "got bytes"),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", BAD)
def test_an_image_that_cannot_be_read_is_said(inspector: Inspector, kind: str) -> None:
    image, message = BAD[kind]
    findings, failed = inspected(inspector, [FINE, image, FINE])
    assert len(findings) == 2
    ((source, reason),) = failed
    assert source is image
    assert message in reason


def test_a_tensor_of_bfloat16_is_looked_at(inspector: Inspector) -> None:
    tensor = (torch.from_numpy(FINE).permute(2, 0, 1) / 255).to(torch.bfloat16)
    (finding,), failed = inspected(inspector, [tensor])
    assert (finding.image.shape, failed) == ((40, 50, 3), [])


def test_an_image_of_another_aspect_than_the_mask_is_said() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[:, :20] = 255
    own = Inspector("nut", **MODEL, ignore=mask, batch_size=4)
    findings, failed = inspected(own, [FINE, FINE[:20], FINE, Picture(FINE[:, :30], Path("film.avi#000001"))])
    assert len(findings) == 2
    assert ["different aspects" in reason for _, reason in failed] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_image_of_another_size_than_an_export_takes_is_said(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    path = getattr(ClipAD("nut", **MODEL), f"to_{kind}")(tmp_path, input_size=(40, 50))
    own = Inspector(model=path)
    findings, failed = inspected(own, [FINE, FINE, FINE[:39], FINE])
    assert len(findings) == 3
    ((_, reason),) = failed
    assert "takes images of 50 x 40 pixels, and this one has 50 x 39" in reason


class _Damaged:
    """A model whose scores are no numbers for black images, and that fails at white ones."""

    def __init__(self, model: Any) -> None:
        self._model, self._score = model, model.score
        self.calls: list[int] = []

    def __call__(self, images: Sequence[Any]) -> Scored:
        self.calls.append(len(images))
        scored = self._score(images)
        plain = [np.ptp(image.reshape(3, -1), axis=1).max() == 0 for image in images]
        if any(one and image.max() > 0 for one, image in zip(plain, images, strict=True)):
            msg = "CUDA out of memory."
            raise RuntimeError(msg)
        return numbers(scored._replace(score=np.where(plain, np.float32(np.nan), scored.score)))


@pytest.fixture
def damaged(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> _Damaged:
    model = _Damaged(inspector.model)
    monkeypatch.setattr(inspector.model, "score", model)
    return model


BLACK, WHITE = np.zeros((40, 50, 3), np.uint8), np.full((40, 50, 3), 255, np.uint8)


def test_of_a_batch_with_a_bad_score_the_others_are_found(inspector: Inspector, damaged: _Damaged) -> None:
    findings, failed = inspected(inspector, [FINE, BLACK, FINE, FINE, FINE])
    assert len(findings) == 4
    ((source, reason),) = failed
    assert source is BLACK
    assert "no numbers" in reason
    assert damaged.calls == [4, 1, 1, 1, 1, 1]
    stream = inspector.stream([FINE, BLACK, FINE])
    assert next(stream).score == findings[0].score
    with pytest.raises(ValueError, match="no numbers"):
        next(stream)


def test_what_concerns_all_ends_it(inspector: Inspector, damaged: _Damaged) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        inspected(inspector, [FINE, WHITE, FINE])


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("prepare", MemoryError()),
        ("prepare", RuntimeError("[enforce fail] can't allocate memory: 9 bytes")),
        ("conclude", MemoryError()),
    ],
)
def test_an_image_too_large_for_the_memory_is_that_image(
    inspector: Inspector, where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = (inspector.model, "prepare") if where == "prepare" else (inspector, "_conclude")
    function = getattr(owner, name)

    def limited(image: Any, *others: Any) -> Any:
        if getattr(image, "picture", image).pixels.shape[0] > 40:
            raise error
        return function(image, *others)

    monkeypatch.setattr(owner, name, limited)
    large = np.zeros((41, 50, 3), np.uint8)
    findings, failed = inspected(inspector, [FINE, large, FINE])
    assert len(findings) == 2
    ((source, reason),) = failed
    assert source is large
    assert "memory" in reason


@pytest.mark.parametrize("listening", [True, False])
@pytest.mark.parametrize("count", [0, 1, 10])
def test_what_came_before_a_generator_fails_comes_out_first(inspector: Inspector, count: int, listening: bool) -> None:
    def frames() -> Iterator[np.ndarray]:
        for _ in range(count):
            yield FINE
        msg = "the camera is gone"
        raise OSError(msg)

    stream = inspector.stream(frames(), (lambda *_: None) if listening else None)
    assert len([next(stream) for _ in range(count)]) == count
    with pytest.raises(OSError, match="the camera is gone"):
        next(stream)


def test_what_came_before_a_bad_image_comes_out_first(inspector: Inspector) -> None:
    stream = inspector.stream([FINE, FINE, Path("gone.png"), FINE])
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(UnreadableError, match=r"gone\.png"):
        next(stream)


def test_a_run_over_sources_passes_by_all_that_cannot_be_had(inspector: Inspector, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"parts/{number}.png", FINE)
    (tmp_path / "parts/broken.png").write_bytes(b"no image")
    (tmp_path / "film.avi").write_bytes(b"no film")
    sources = find(["gone", "parts/0.png", "film.avi", "parts", 5000 * "x"])
    findings, failed = inspected(inspector, (source.image for source in sources))
    assert [finding.path for finding in findings] == [Path(f"parts/{number}.png") for number in range(3)]
    assert [str(getattr(source, "path", source))[:10] for source, _ in failed] == [
        "gone",
        "film.avi",
        "parts/broken.png"[:10],
        10 * "x",
    ]


def test_a_remark_of_the_reader_is_one_of_the_finding(inspector: Inspector, tmp_path: Path) -> None:
    dark = tmp_path / "dark.png"
    Image.fromarray((FINE[..., 0].astype(np.uint16)) * 16).save(dark)
    (finding,), _ = inspected(inspector, [dark])
    assert finding.remark is not None
    assert "hold no value above 4080" in finding.remark
    with pytest.warns(UserWarning, match="nothing can be said about it"):
        known = Inspector("nut", **MODEL, references=[dark]).inspect(dark)
    assert known.remark is not None
    assert "nothing can be said about it; its 16 bits" in known.remark


@pytest.mark.parametrize("readable", [4, 34])
@pytest.mark.filterwarnings("ignore:mutual compares only")
def test_images_judge_each_other_among_those_that_can_be_read(tmp_path: Path, readable: int) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number:02}.png" for number in range(34)]
    whole = {files[number] for number in [*(set(range(34)) - set(choose(34, 5))), *choose(34, 5)][:readable]}
    for file in files:
        file.write_bytes(b"no image")
        if file in whole:
            save(file, rng.integers(256, size=(40, 50, 3), dtype=np.uint8))
    pool = 5
    chosen = sorted(whole) if readable < pool else [files[place] for place in choose(34, pool)]
    own, expected = (
        Inspector("nut", **MODEL, mutual=images, pool=size).live("").model.pool
        for images, size in ((files, pool), (chosen, 100))
    )
    assert list(own.rows) == list(expected.rows)
    assert len(own.rows) == min(readable, pool)
    torch.testing.assert_close(own.score, expected.score)

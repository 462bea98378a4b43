"""Image files of all depths, and files that cannot be read, in every kind of run."""

import logging
import pickle
import runpy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import anomalib.data.utils.image as anomalib_reading
import numpy as np
import pytest
import tifffile
import torch
from anomalib.data import Folder, ImageBatch, ImageItem, PredictDataset
from anomalib.data.utils import read_image as anomalib_read_image
from anomalib.engine import Engine
from anomalib.visualization.image import visualizer
from conftest import TINY, make_engine, save
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch.strategies import Strategy
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from torchvision.transforms.v2 import CenterCrop, Compose, RandomHorizontalFlip

from anomalib_clipad import ClipAD
from anomalib_clipad.data import Auxiliary
from anomalib_clipad.data.reading import UnreadableImageError, host_read_image, host_read_mask, read_image
from anomalib_clipad.data.replacement import with_replacing_workers
from anomalib_clipad.host.image_files import FullDepthReading
from anomalib_clipad.host.pictures import host_visualize

EXAMPLE = Path(__file__).parents[2] / "docs/examples/onnx_predict.py"
RNG = np.random.default_rng(2)
GREY = RNG.integers(0, 256, (70, 60), np.uint8)
COLOUR = RNG.integers(0, 256, (70, 60, 3), np.uint8)
GREY[0, :2] = 0, 255
CROP_AND_FLIP = Compose([CenterCrop((40, 24)), RandomHorizontalFlip(p=1.0)])


def deep(pixels: np.ndarray) -> np.ndarray:
    """The same image in 16 bits."""
    return pixels.astype(np.uint16) * 257


def pgm(kind: str, maximum: int, pixels: np.ndarray) -> bytes:
    header = f"{kind} {pixels.shape[1]} {pixels.shape[0]} {maximum}\n".encode()
    return header + pixels.astype(">u2").tobytes()


def tiff(pixels: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def opencv(pixels: np.ndarray) -> Callable[[Path], object]:
    import cv2

    return lambda path: cv2.imwrite(str(path), pixels)


ALPHA = np.full((70, 60, 1), 65535, np.uint16)
GREY_FILES: dict[str, Callable[[Path], object]] = {
    "8bit.png": opencv(GREY),
    "16bit.png": opencv(deep(GREY)),
    "16bit_upper.PNG": opencv(deep(GREY)),
    "16bit_in_disguise.jpg": lambda path: Image.fromarray(deep(GREY)).save(path, format="PNG"),
    "16bit.tif": tiff(deep(GREY)),
    "16bit_big_endian.tif": tiff(deep(GREY), byteorder=">"),
    "16bit_compressed.tif": tiff(deep(GREY), compression="zlib", predictor=True),
    "16bit_white_is_zero.tif": tiff(65535 - deep(GREY), photometric="miniswhite"),
    "16bit_pages.tiff": tiff(np.stack([deep(GREY), deep(255 - GREY)]), photometric="minisblack"),
    "16bit.pgm": written(pgm("P5", 65535, deep(GREY))),
    "maximum_1020.pgm": written(pgm("P5", 1020, GREY.astype(np.uint16) * 4)),
    "float_to_1.tif": tiff((GREY / 255).astype(np.float32)),
}
COLOUR_FILES: dict[str, Callable[[Path], object]] = {
    "8bit.png": opencv(COLOUR[..., ::-1]),
    "16bit.png": opencv(deep(COLOUR[..., ::-1])),
    "16bit_alpha.png": opencv(np.concatenate([deep(COLOUR[..., ::-1]), ALPHA], axis=2)),
    "16bit.tif": tiff(deep(COLOUR), photometric="rgb"),
    "16bit_compressed.tif": tiff(deep(COLOUR), photometric="rgb", compression="zlib"),
    "16bit.ppm": written(pgm("P6", 65535, deep(COLOUR))),
}
UNKNOWN: dict[str, tuple[Callable[[Path], object], str]] = {
    "int32.tif": (tiff(GREY.astype(np.int32)), "signed 32-bit integers, here from 0 to 255"),
    "uint32.tif": (tiff(GREY.astype(np.uint32)), "it holds 32-bit integers, here from 0 to 255"),
    "int16.tif": (tiff(GREY.astype(np.int16)), "signed 16-bit integers"),
    "float_to_255.tif": (tiff(GREY.astype(np.float32)), "floats from 0 to 255; only floats from 0 to 1"),
    "not_a_number.tif": (tiff(np.where(GREY > 9, np.nan, 0.5).astype(np.float32)), "floats from nan to nan"),
    "planes.tif": (
        tiff(deep(COLOUR).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        "separate planes",
    ),
}


class Halves(Dataset):
    """Halves of one image, as a detector cuts them."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> ImageItem:
        half = anomalib_read_image(self.path, as_tensor=True)[..., 30 * index : 30 * index + 30]
        return ImageItem(image=half, image_path=self.name)


@pytest.fixture(scope="module")
def model() -> ClipAD:
    return ClipAD(**TINY, class_name="cup")


@pytest.fixture(scope="module")
def quiet() -> ClipAD:
    return ClipAD(**TINY, class_name="cup", visualizer=False)


@pytest.fixture
def plus() -> ClipAD:
    return ClipAD(**TINY, variant="sdp_plus", epochs=1, visualizer=False)


@pytest.fixture(scope="module")
def grey_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grey")
    for name, write in GREY_FILES.items():
        write(folder / name)
    return folder


def predicted(engine: Engine, model: ClipAD, data: Dataset) -> dict[str, float]:
    batches = engine.predict(model, dataset=data)
    return {Path(batch.image_path[0]).name: float(batch.pred_score) for batch in batches}


@pytest.mark.slow
def test_grey_files_of_any_depth_score_as_their_8_bit_twin(model: ClipAD, engine: Engine, grey_files: Path) -> None:
    scores = predicted(engine, model, PredictDataset(grey_files))
    assert scores == {name: pytest.approx(scores["8bit.png"], abs=1e-5) for name in GREY_FILES}
    pictures = {path.name: np.asarray(Image.open(path), int) for path in model.visualizer.output_dir.rglob("*.*")}
    for name in (
        "16bit.png",
        "float_to_1.tif",
        "16bit_white_is_zero.tif",
    ):  # heat maps lie on the image, not on its clipped self
        assert np.abs(pictures[name] - pictures["8bit.png"]).max() <= 4, name


def test_what_a_data_set_does_to_its_images_stays(quiet: ClipAD, engine: Engine, grey_files: Path) -> None:
    whole = predicted(engine, quiet, PredictDataset(grey_files / "8bit.png"))["8bit.png"]
    cropped = predicted(engine, quiet, PredictDataset(grey_files, transform=CROP_AND_FLIP))
    assert cropped == {name: pytest.approx(cropped["8bit.png"], abs=1e-5) for name in GREY_FILES}
    assert abs(cropped["16bit.png"] - whole) > 1e-4


@pytest.mark.slow
def test_parts_of_an_image_keep_their_own_scores(model: ClipAD, engine: Engine, grey_files: Path) -> None:
    """Whether ``image_path`` is the whole image's, or only a name."""
    halves = [Halves(grey_files / "8bit.png", "camera 1"), Halves(grey_files / "16bit.tif", "camera 2"),
              Halves(grey_files / "16bit.tif", str(grey_files / "16bit.tif"))]  # fmt: skip
    loader = DataLoader(ConcatDataset(halves), collate_fn=ImageBatch.collate)
    left, right = torch.cat([batch.pred_score for batch in engine.predict(model, dataloaders=loader)]).view(3, 2).T
    torch.testing.assert_close(left, left[:1].expand(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(right, right[:1].expand(3), atol=1e-5, rtol=0)
    assert (left - right).abs().min() > 1e-4


def test_workers_read_the_same(quiet: ClipAD, engine: Engine, grey_files: Path) -> None:
    started = []
    loader = DataLoader(PredictDataset(grey_files), collate_fn=ImageBatch.collate, num_workers=1)
    loader.worker_init_fn = started.append
    scores = torch.cat([batch.pred_score for batch in engine.predict(quiet, dataloaders=loader)])
    torch.testing.assert_close(scores, scores[:1].expand(len(GREY_FILES)), atol=1e-5, rtol=0)
    assert loader.worker_init_fn == started.append  # the caller's loader is as it was


def test_workers_that_share_no_memory_replace_the_readers_when_they_start(
    grey_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a spawned worker gets is pickled."""
    loader = DataLoader(PredictDataset(grey_files), num_workers=1, worker_init_fn=(tmp_path / "started").write_text)
    start = pickle.dumps(with_replacing_workers(loader, None).worker_init_fn)
    clipped = anomalib_read_image(grey_files / "16bit.png")
    with monkeypatch.context() as restored:
        for function in (anomalib_read_image, anomalib_reading.read_mask):
            restored.setattr(function, "__code__", function.__code__)
        pickle.loads(start)("worker 0")
        assert (tmp_path / "started").read_text() == "worker 0"
        np.testing.assert_allclose(anomalib_read_image(grey_files / "16bit.png")[..., 0], GREY / 255, atol=1e-6)
    assert np.array_equal(anomalib_read_image(grey_files / "16bit.png"), clipped)


def test_seeds_of_workers_are_still_lightnings(monkeypatch: pytest.MonkeyPatch, engine: Engine, quiet: ClipAD) -> None:
    monkeypatch.setenv("PL_SEED_WORKERS", "1")
    engine._setup_trainer(quiet)
    reading = FullDepthReading()
    reading.setup(engine.trainer, quiet, "predict")
    loader = engine.trainer.strategy.process_dataloader(DataLoader([0], num_workers=1))
    reading.teardown(engine.trainer, quiet)
    assert loader.worker_init_fn.keywords["then"].func is pl_worker_init_function


def test_anomalib_reads_and_shows_as_before_after_a_run(quiet: ClipAD, engine: Engine, grey_files: Path) -> None:
    before = host_read_image.__code__, host_read_mask.__code__, host_visualize
    (grey_files.parent / "bad").mkdir()
    (grey_files.parent / "bad/bad.png").write_bytes(b"nonsense")
    for folder in (grey_files / "16bit.png", grey_files.parent / "bad"):
        with nullcontext() if folder.is_file() else pytest.raises(UnreadableImageError):
            predicted(engine, quiet, PredictDataset(folder))
        now = anomalib_read_image.__code__, anomalib_reading.read_mask.__code__, visualizer.visualize_image_item
        assert now == before
        process = engine.trainer.strategy.process_dataloader
        assert process.__func__ is Strategy.process_dataloader


@pytest.mark.parametrize("name", COLOUR_FILES)
def test_colour_files_of_16_bits_are_read_as_their_8_bit_twin(name: str, tmp_path: Path) -> None:
    COLOUR_FILES[name](tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name), COLOUR / 255, atol=1e-6)
    np.testing.assert_allclose(read_image(tmp_path / name, as_tensor=True).permute(1, 2, 0), COLOUR / 255, atol=1e-6)


def test_files_of_8_bits_are_read_as_anomalib_reads_them(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(COLOUR).save(tmp_path / "photograph.jpg")
    Image.fromarray(GREY > 128).save(tmp_path / "two_levels.tif")
    for path in tmp_path.iterdir():
        for as_tensor in (True, False):
            ours, theirs = read_image(path, as_tensor), anomalib_read_image(path, as_tensor)
            assert type(ours) is type(theirs)
            assert ours.dtype == theirs.dtype
            assert (ours == theirs).all()


def test_grey_files_keep_more_than_8_bits(tmp_path: Path) -> None:
    values = RNG.integers(0, 2**16, (9, 8), np.uint16)
    opencv(values)(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[..., 1], values / 65535, atol=1e-6)


@pytest.mark.parametrize("name", UNKNOWN)
def test_values_without_a_known_scale_are_refused(name: str, tmp_path: Path) -> None:
    write, found = UNKNOWN[name]
    write(tmp_path / name)
    with pytest.raises(UnreadableImageError, match=rf"{name} cannot be read .*{found}.*Save it anew in 8 bits"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(("bits", "warned"), [(10, True), (12, True), (14, True), (16, False)])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_fewer_bits_in_a_16_bit_file_bring_one_warning(
    bits: int, warned: bool, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b.png"):
        opencv(pixels.astype(np.uint16) << (bits - 8))(tmp_path / name)
        read_image(tmp_path / name)
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == warned
    assert all("a.png has no value above" in text and "white is 65535" in text for text in messages)


def example_input(path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What the example program gives to onnxruntime."""
    given = []

    class Session:
        def __init__(self, *args: object, **options: object) -> None: ...

        def get_outputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name=name) for name in ("pred_score", "pred_label", "pred_mask")]

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            given.append(inputs["input"])
            return [np.zeros(1)] * len(names)

    runtime = SimpleNamespace(InferenceSession=Session, SessionOptions=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(sys, "argv", ["onnx_predict.py", "model.onnx", str(path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    return given[0]


def test_the_onnx_example_reads_files_of_any_depth(
    grey_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GREY_FILES:
        pixels = example_input(grey_files / name, monkeypatch)
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, np.broadcast_to(GREY / 255, (1, 3, 70, 60)), atol=1e-6, err_msg=name)
    for name in ("int32.tif", "uint32.tif", "int16.tif", "float_to_255.tif", "not_a_number.tif"):
        UNKNOWN[name][0](tmp_path / name)
        with pytest.raises(SystemExit, match=f"{name} does not tell which value is white"):
            example_input(tmp_path / name, monkeypatch)


# ---- files that cannot be read


@pytest.fixture
def parts_folder(tmp_path: Path) -> Path:
    """Good parts, scratched ones and their masks."""
    root = tmp_path / "data"
    for index in range(3):
        save(root / f"good/{index}.png", RNG.integers(0, 256, (64, 64), np.uint8))
        save(root / f"scratch/{index}.png", RNG.integers(0, 256, (64, 64), np.uint8))
        save(root / f"mask/{index}.png", (RNG.random((64, 64)) > 0.9).astype(np.uint8) * 255)
    return root


def folder_data(root: Path) -> Folder:
    return Folder("widgets", root=root, normal_dir="good", normal_test_dir="good", abnormal_dir="scratch",
                  mask_dir="mask", num_workers=0, train_batch_size=2, val_split_mode="same_as_test")  # fmt: skip


def spoil(path: Path, how: str) -> None:
    if how == "nonsense":
        path.write_bytes(b"nonsense")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:  # above Pillow's limit of pixels
        Image.new("1", (20_000, 10_000)).save(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "advice"),
    [("nonsense", "Replace it, or take it out"), ("truncated", "Replace it"), ("huge", "MAX_IMAGE_PIXELS")],
)
def test_an_image_that_cannot_be_read_is_named(
    quiet: ClipAD, engine: Engine, parts_folder: Path, how: str, advice: str
) -> None:
    spoil(parts_folder / "good/1.png", how)
    with pytest.raises(UnreadableImageError, match=rf"The image .*good/1\.png cannot be read.*{advice}"):
        engine.predict(quiet, data_path=parts_folder / "good")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["scratch", "mask"])
def test_a_test_sets_images_and_masks_are_named(quiet: ClipAD, engine: Engine, parts_folder: Path, part: str) -> None:
    spoil(parts_folder / f"{part}/2.png", "truncated")
    with pytest.raises(UnreadableImageError, match=rf"{part}/2\.png cannot be read.*Replace it"):
        engine.test(quiet, datamodule=folder_data(parts_folder))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nonsense", "truncated", "huge"])
@pytest.mark.parametrize("part", ["good", "scratch", "mask"])
def test_a_training_sets_images_and_masks_are_named(
    plus: ClipAD, engine: Engine, parts_folder: Path, part: str, how: str
) -> None:
    spoil(parts_folder / f"{part}/2.png", how)
    with pytest.raises(UnreadableImageError, match=rf"{part}/2\.png cannot be read"):
        engine.fit(plus, datamodule=auxiliary(parts_folder))


@pytest.mark.slow
def test_training_on_16_bits_is_training_on_8(parts_folder: Path, tmp_path: Path) -> None:
    learnt = []
    for depth in ("8 bits", "16 bits"):
        torch.manual_seed(0)
        model = ClipAD(**TINY, variant="sdp_plus", epochs=1, learning_rate=1e-2, visualizer=False)
        make_engine(tmp_path / depth).fit(model, datamodule=auxiliary(parts_folder, train_augmentations=CROP_AND_FLIP))
        learnt.append(model.model.detector.adapter.state_dict())
        for path in (*parts_folder.glob("good/*"), *parts_folder.glob("scratch/*")):
            save(path, deep(np.asarray(Image.open(path))))
    for name, value in learnt[0].items():
        torch.testing.assert_close(learnt[1][name], value, atol=1e-5, rtol=0)


def auxiliary(root: Path, **options: object) -> Auxiliary:
    source, target = folder_data(root), folder_data(root)
    return Auxiliary(source, target, ["widget"], train_batch_size=2, allow_overlap=True, **options)

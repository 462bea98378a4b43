"""Pictures of predictions: one for each image, whatever the images are called."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.visualization import ImageVisualizer
from conftest import save
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.host.visualizer import ClipADVisualizer


def grey(path: Path, level: int) -> Path:
    return save(path, np.full((32, 32, 3), level, np.uint8))


def pictures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(
    paths: list[Path | str | None], output: Path, visualizer: ClipADVisualizer | None = None, **datamodule: str
) -> list[str]:
    """The pictures of a test run over images of these paths, each a batch of its own."""
    visualizer = visualizer or ClipADVisualizer(output_dir=output)
    trainer = SimpleNamespace(default_root_dir=output, datamodule=SimpleNamespace(**datamodule))
    visualizer.on_test_start(trainer, None)
    for path in paths:
        given = {} if path is None else {"image_path": [str(path)]}
        batch = ImageBatch(image=torch.zeros(1, 3, 32, 32), anomaly_map=torch.zeros(1, 32, 32), **given)
        visualizer.on_test_batch_end(trainer, None, batch, batch, 0)
    return pictures(output)


@pytest.mark.slow
def test_predict_mirrors_the_folders_below_the_images_common_one(tmp_path: Path, tiny: dict[str, str]) -> None:
    names = ["lot1/good/a.png", "lot1/good/b.png", "lot2/good/a.png", "c.png"]
    for level, name in enumerate(names):
        grey(tmp_path / "lots" / name, 60 * level)
    Engine(default_root_dir=tmp_path / "run", logger=False).predict(ClipAD(**tiny), data_path=tmp_path / "lots")
    (images,) = (tmp_path / "run").rglob("images")
    assert pictures(images) == sorted(f"lots/{name}" for name in names)
    assert len({(images / "lots" / name).read_bytes() for name in names}) == len(names)


def test_images_of_one_folder_keep_anomalibs_names(tmp_path: Path) -> None:
    paths = [grey(tmp_path / "data/bottle/test/bad" / name, 9) for name in ("a.png", "b.png")]
    assert write(paths, tmp_path / "out", name="data", category="bottle") == ["test/bad/a.png", "test/bad/b.png"]


def test_equal_names_of_other_folders_take_more_of_their_path(tmp_path: Path) -> None:
    paths = [grey(tmp_path / f"{lot}/good/a.png", 9) for lot in ("x/lot1", "x/lot2", "y/lot2", "z/lot2")]
    assert write(paths, tmp_path / "out")[:3] == ["good/a.png", "lot2/good/a.png", "y/lot2/good/a.png"]
    assert len(write(paths, tmp_path / "out")) == 4


def test_several_pictures_of_one_file_are_numbered(tmp_path: Path) -> None:
    paths = [grey(tmp_path / "parts/a.png", 9)] * 3
    assert write(paths, tmp_path / "out") == ["parts/a-2.png", "parts/a-3.png", "parts/a.png"]


@pytest.mark.parametrize("again", [1, 2])
def test_another_run_replaces_the_pictures(tmp_path: Path, again: int) -> None:
    path, visualizer = grey(tmp_path / "parts/a.png", 9), ClipADVisualizer(output_dir=tmp_path / "out")
    for _ in range(again):
        assert write([path], tmp_path / "out", visualizer) == ["parts/a.png"]


def test_images_in_memory_have_pictures_too(tmp_path: Path) -> None:
    written = write([None, None], tmp_path / "out")
    assert [Path(name).name for name in written] == ["image-2.png", "image.png"]


@pytest.mark.parametrize(("name", "picture"), [("a.JPG", "a.JPG"), ("camera 1.0", "camera 1.0.png"), ("a", "a.png")])
def test_names_that_are_no_image_files_become_pngs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, picture: str
) -> None:
    monkeypatch.setattr(ImageVisualizer, "visualize", lambda self, item: Image.new("RGB", (8, 8)))
    assert write([tmp_path / "parts" / name], tmp_path / "out") == [f"parts/{picture}"]


def test_without_a_folder_of_its_own_it_writes_to_the_runs_images(tmp_path: Path) -> None:
    path = grey(tmp_path / "parts/a.png", 9)
    assert write([path], tmp_path / "run", ClipADVisualizer()) == ["images/parts/a.png"]


def test_what_has_no_picture_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [grey(tmp_path / f"parts/{name}.png", 9) for name in "ab"]
    drawn = iter([None, Image.new("RGB", (8, 8))])
    monkeypatch.setattr(ImageVisualizer, "visualize", lambda self, item: next(drawn))
    assert write(paths, tmp_path / "out") == ["parts/b.png"]


@pytest.mark.parametrize("several", [False, True])
def test_the_common_folder_is_that_of_all_data_sets(tmp_path: Path, several: bool) -> None:
    visualizer = ClipADVisualizer(output_dir=tmp_path / "out")
    sets = [SimpleNamespace(image_filenames=[f"{tmp_path}/lots/{lot}/good/a.png"]) for lot in (1, 2)]
    loaders = [SimpleNamespace(dataset=data) for data in sets]
    trainer = SimpleNamespace(predict_dataloaders=[*loaders, object()] if several else loaders[1])
    visualizer.on_predict_start(trainer, None)
    assert visualizer._root == tmp_path / ("lots" if several else "lots/2/good")


def test_images_without_files_have_no_common_folder(tmp_path: Path) -> None:
    visualizer = ClipADVisualizer(output_dir=tmp_path / "out")
    visualizer.on_predict_start(SimpleNamespace(predict_dataloaders=SimpleNamespace(dataset=[1, 2])), None)
    assert visualizer._root is None

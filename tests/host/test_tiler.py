"""Tiles through anomalib's engine: options, pre-processor, checkpoints, the callback, exports."""

import logging
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from anomalib.callbacks import TilerConfigurationCallback
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from conftest import make_engine, save
from pictures import noise, write
from torch import Tensor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_clipad import ClipAD
from anomalib_clipad.predictor.products import save_product


def tiler(tile_size: int = 64, stride: int = 48, **options: object) -> TilerConfigurationCallback:
    return TilerConfigurationCallback(enable=True, tile_size=tile_size, stride=stride, **options)


def larger(height: int = 112, width: int = 112) -> PreProcessor:
    return PreProcessor(Compose([Resize((height, width), antialias=True), Normalize([0.5] * 3, [0.25] * 3)]))


def prediction(engine: Engine, model: ClipAD, image: Path, **options: object) -> tuple[Tensor, Tensor]:
    (batch,) = engine.predict(model, data_path=image, **options)
    return batch.pred_score, batch.anomaly_map


def test_the_map_has_the_tiles_resolution(tiny: dict, image: Path, engine: Engine) -> None:
    model = ClipAD(**tiny, class_name="bolt", tiles=[2, 3])
    score, anomaly_map = prediction(engine, model, image)
    assert anomaly_map.shape[-2:] == (112, 160)
    assert 0 < float(score) < 1


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [False, True])
def test_tiles_work_by_the_papers_protocol_with_normal_images(
    tiny: dict, datamodule: MVTecAD, engine: Engine, aligned: bool
) -> None:
    model = ClipAD(**tiny, k_shot=2, text_weight=0.0, smoothing=4.0, tiles=[2, 2], aligned=aligned, memory_size=20)
    (metrics,) = engine.test(model, datamodule=datamodule, verbose=False)
    assert model.model.detector.memory.tokens.shape == (5, 4, 20, 64)
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.8


# Checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"tiles": [3, 3]}, {"tiles": [2, 3]}])
def test_a_checkpoint_restores_tiles_with_the_pre_processor(
    tiny: dict, datamodule: MVTecAD, engine: Engine, parts: Path, own: dict
) -> None:
    image = parts / "bolt/test/good/000.png"
    model = ClipAD(**tiny, k_shot=2, tiles=[2, 3], aligned=True)
    engine.fit(model, datamodule=datamodule)
    before = prediction(engine, model, image)
    again = ClipAD(**tiny, **own)
    after = prediction(engine, again, image, ckpt_path=engine.best_model_path)
    assert (again.model.settings.tiles, again.model.settings.aligned) == ((2, 3), True)
    loaded = ClipAD.load_from_checkpoint(engine.best_model_path)
    assert loaded.model.settings == again.model.settings
    assert loaded.hparams["tiles"] == [2, 3]
    for found in (after, prediction(engine, loaded, image)):
        assert all(torch.equal(*pair) for pair in zip(before, found, strict=True))


@pytest.mark.slow
def test_a_checkpoint_without_tiles_ends_them(tiny: dict, datamodule: MVTecAD, engine: Engine, image: Path) -> None:
    model = ClipAD(**tiny)
    engine.fit(model, datamodule=datamodule)
    before = prediction(engine, model, image)
    after = prediction(engine, ClipAD(**tiny, tiles=[2, 2]), image, ckpt_path=engine.best_model_path)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": [2]}, r"two integers, 1 or more, \[rows, columns\].*got \[2\]"),
        ({"tiles": [2, 2, 2]}, r"got \[2, 2, 2\]"),
        ({"tiles": [0, 2]}, r"got \[0, 2\]"),
        ({"tiles": [1.5, 2]}, r"got \[1.5, 2\]"),
        ({"tiles": [True, 2]}, r"got \[True, 2\]"),
        ({"tiles": "22"}, "got '22'"),
        ({"tiles": 2}, "got 2"),
        ({"tiles": [2, 2], "mutual": True}, r"mutual .* tiles=\[2, 2\]"),
        ({"aligned": True, "k_shot": 1}, r"pass tiles=\[rows, columns\]"),
        ({"aligned": True, "k_shot": 1, "tiles": [1, 1]}, r"pass tiles=\[rows, columns\]"),
        ({"aligned": True, "tiles": [2, 2]}, "pass k_shot or few_shot_source"),
    ],
)
def test_options_that_make_no_sense_are_refused(tiny: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipAD(**tiny, **options)


@pytest.mark.slow
def test_an_image_too_small_for_its_tiles_is_refused(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    small = save(tmp_path / "small/one.png", np.zeros((40, 90, 3), np.uint8))
    model = ClipAD(**tiny, class_name="bolt", tiles=[3, 3])
    with pytest.raises(ValueError, match=r"image of 40 x 90 pixels is too small.*tiles=\[2, 3\] works"):
        engine.predict(model, data_path=small)
    with pytest.raises(ValueError, match=r"tiles=\[2, 3\] works"):
        model(torch.zeros(1, 3, 40, 90))
    works = ClipAD(**tiny, class_name="bolt", tiles=[2, 3])
    assert prediction(engine, works, small)[1].isfinite().all()


@pytest.mark.slow
def test_aligned_images_have_to_be_of_one_shape_at_any_size(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    normal = write(tmp_path / "normal", noise(0, 120, 180), noise(1, 60, 90))
    half, wide = write(tmp_path / "half", noise(0, 61, 90)), write(tmp_path / "wide", noise(0, 120, 260))
    options = {**tiny, "text_weight": 0.0, "tiles": [2, 2]}
    model = ClipAD(**options, few_shot_source=normal, aligned=True)
    assert prediction(engine, model, half)[1].isfinite().all()
    with pytest.raises(ValueError, match=r"120 x 260 pixels \(width / height 2.17\) .* the normal images \(1.50\)"):
        engine.predict(model, data_path=wide)
    with pytest.raises(ValueError, match="of another shape than the normal images"):
        model(torch.zeros(1, 3, 120, 260))
    anywhere = ClipAD(**options, few_shot_source=normal)
    assert prediction(engine, anywhere, wide)[1].isfinite().all()


def test_images_of_a_data_module_are_checked_by_their_files(
    tiny: dict, parts: Path, tmp_path: Path, engine: Engine
) -> None:
    copytree(parts, root := tmp_path / "mvtec")
    save(root / "bolt/test/good/000.png", np.zeros((80, 160, 3), np.uint8))
    data = MVTecAD(root=root, category="bolt", num_workers=0, val_split_mode="same_as_test")
    model = ClipAD(**tiny, k_shot=2, text_weight=0.0, tiles=[2, 2], aligned=True)
    with pytest.raises(ValueError, match=r"80 x 160 pixels .* of another shape than the normal images \(1.00\)"):
        engine.test(model, datamodule=data, verbose=False)


@pytest.mark.slow
def test_aligned_normal_images_have_to_be_of_one_shape(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    normal = write(tmp_path / "normal", noise(0, 120, 180), noise(1, 120, 120))
    model = ClipAD(**tiny, few_shot_source=normal, text_weight=0.0, tiles=[2, 2], aligned=True)
    with pytest.raises(ValueError, match=r"120 x 120 pixels .* of another shape than the normal images \(1.50\)"):
        engine.predict(model, data_path=normal)


@pytest.mark.slow
def test_a_saved_model_knows_the_shape_of_its_normal_images(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    normal, wide = write(tmp_path / "normal", noise(0, 120, 180)), write(tmp_path / "wide", noise(0, 120, 260))
    options = {**tiny, "text_weight": 0.0, "tiles": [2, 2], "aligned": True}
    model = ClipAD(**options, few_shot_source=normal)
    engine.predict(model, data_path=normal)
    save_product(product := tmp_path / "one.safetensors", model.preparation.predictor)
    engine.trainer.save_checkpoint(checkpoint := tmp_path / "one.ckpt")
    for again in (ClipAD(**options, few_shot_source=product), ClipAD.load_from_checkpoint(checkpoint)):
        with pytest.raises(ValueError, match=r"of another shape than the normal images \(1.50\)"):
            engine.predict(again, data_path=wide)


def test_a_normal_image_too_small_for_its_tiles_is_refused(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    normal = write(tmp_path / "normal", noise(0, 40, 40))
    model = ClipAD(**tiny, few_shot_source=normal, text_weight=0.0, tiles=[3, 3])
    with pytest.raises(ValueError, match=r"image of 40 x 40 pixels is too small.*tiles=\[2, 2\] works"):
        engine.predict(model, data_path=write(tmp_path / "large", noise(0, 120, 120)))


# anomalib's callback


@pytest.mark.slow
def test_the_callback_of_anomalib_sets_tiles(tiny: dict, image: Path, engine: Engine, tmp_path: Path) -> None:
    options = {**tiny, "class_name": "bolt", "pre_processor": larger(120, 150)}
    followed = ClipAD(**options)
    found = prediction(make_engine(tmp_path, tiler()), followed, image)
    expected = prediction(engine, ClipAD(**options, tiles=[3, 3]), image)
    assert followed.model.settings.tiles == (3, 3)
    assert found[1].shape[-2:] == (120, 150)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.slow
def test_the_callback_fills_the_memory_anew(tiny: dict, datamodule: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    model = ClipAD(**tiny, k_shot=2, text_weight=0.0, pre_processor=ClipAD.configure_pre_processor((64, 64)))
    engine.test(model, datamodule=datamodule, verbose=False)
    assert model.model.detector.memory.tokens.ndim == 3
    model.pre_processor = ClipAD.configure_pre_processor((112, 112))
    make_engine(tmp_path, tiler()).test(model, datamodule=datamodule, verbose=False)
    assert model.model.detector.memory.tokens.shape == (5, 4, 2 * 16, 64)


@pytest.mark.slow
def test_the_callback_drops_statistics_of_other_tiles(
    tiny: dict, datamodule: MVTecAD, image: Path, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ClipAD(**tiny)
    engine.fit(model, datamodule=datamodule)
    model.pre_processor = larger()
    with caplog.at_level(logging.WARNING):
        prediction(make_engine(tmp_path, tiler()), model, image)
    assert "Dropped, since it does not hold for tiles=[2, 2]: thresholds and ranges" in caplog.text
    assert model.post_processor.image_min.isnan()


@pytest.mark.slow
def test_a_checkpoint_and_the_callback_have_to_agree(
    tiny: dict, datamodule: MVTecAD, image: Path, tmp_path: Path
) -> None:
    options = {**tiny, "k_shot": 2}
    tiled, plain = make_engine(tmp_path / "a", tiler()), make_engine(tmp_path / "b")
    model = ClipAD(**options, pre_processor=larger())
    tiled.fit(model, datamodule=datamodule)
    before = prediction(tiled, model, image)
    again = prediction(tiled, ClipAD(**tiny, pre_processor=larger()), image, ckpt_path=tiled.best_model_path)
    alone = prediction(plain, ClipAD(**tiny), image, ckpt_path=tiled.best_model_path)
    for found in (again, alone):
        assert all(torch.equal(*pair) for pair in zip(before, found, strict=True))
    plain.fit(ClipAD(**options), datamodule=datamodule)
    other = ClipAD(**tiny, pre_processor=larger())
    with pytest.raises(ValueError, match=r"written with tiles=None, TilerConfigurationCallback asks for \(2, 2\)"):
        tiled.predict(other, data_path=image, ckpt_path=plain.best_model_path)
    loaded = ClipAD.load_from_checkpoint(plain.best_model_path)
    loaded.pre_processor = larger()
    with pytest.raises(ValueError, match="memory of the checkpoint was filled with other tiles"):
        tiled.predict(loaded, data_path=image)


@pytest.mark.parametrize(
    ("callback", "size", "message"),
    [
        (tiler(48, 48), 112, "tile_size is 48 x 48 and the model's image size is 64 x 64"),
        (tiler(remove_border_count=2), 112, "remove_border_count has to be 0.*got 2"),
        (tiler(), 64, "images of 64 x 64 pixels, a single tile"),
        (tiler(stride=8), 112, "7 rows of tiles .* 2 to 4 would"),
    ],
)
def test_a_tiler_that_does_not_fit_is_refused(
    tiny: dict, image: Path, tmp_path: Path, callback: TilerConfigurationCallback, size: int, message: str
) -> None:
    model = ClipAD(**tiny, class_name="bolt", pre_processor=larger(size, size))
    with pytest.raises(ValueError, match=message):
        make_engine(tmp_path, callback).predict(model, data_path=image)


@pytest.mark.slow
def test_the_callback_and_mutual_are_refused(tiny: dict, image: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mutual compares whole images"):
        make_engine(tmp_path, tiler()).predict(ClipAD(**tiny, mutual=True, pre_processor=larger()), data_path=image)

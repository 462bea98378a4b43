"""Normal and unlabelled images through anomalib's engine."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from pictures import surfaces
from torch import Tensor

from anomalib_clipad import ClipAD
from anomalib_clipad.host.references import References
from anomalib_clipad.predictor.coreset import coreset


def results(engine: Engine, model: ClipAD, data: MVTecAD) -> dict[str, float]:
    return engine.test(model, datamodule=data, verbose=False)[0]


def test_the_first_normal_training_images_are_remembered(
    tiny: dict, datamodule: MVTecAD, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    model = ClipAD(**tiny, k_shot=2, text_weight=0.0)
    with caplog.at_level(logging.INFO):
        metrics = results(engine, model, datamodule)
    assert model.model.detector.memory.tokens.shape == (4, 2 * 16, 64)
    assert "2 normal images" in caplog.text
    assert "train/good/000.png" in caplog.text
    assert "002.png" not in caplog.text
    folder = Path(datamodule.root) / "bolt/train/good"
    same = ClipAD(**tiny, k_shot=2, few_shot_source=folder, text_weight=0.0)
    assert results(engine, same, datamodule) == metrics
    assert torch.equal(same.model.detector.memory.tokens, model.model.detector.memory.tokens)


def test_a_folder_without_k_shot_means_all_of_it(tiny: dict, tmp_path: Path, image: Path, engine: Engine) -> None:
    model = ClipAD(**tiny, class_name="bolt", few_shot_source=surfaces(tmp_path / "normal", 5))
    (prediction,) = engine.predict(model, data_path=image)
    assert model.model.detector.memory.tokens.shape == (4, 5 * 16, 64)
    assert 0 < float(prediction.pred_score) < 1


def test_without_text_no_class_name_is_needed(
    tiny: dict, tmp_path: Path, image: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    model = ClipAD(**tiny, few_shot_source=surfaces(tmp_path / "normal", 3), text_weight=0.0)
    (prediction,) = engine.predict(model, data_path=image)
    assert "class name" not in caplog.text
    assert model.model.class_name is None
    assert float(prediction.pred_score) == pytest.approx(float(prediction.anomaly_map.max()), abs=1e-6)


@pytest.mark.slow
def test_half_is_the_largest_distance_among_the_normal_images(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    normal = surfaces(tmp_path / "normal", 4)
    model = ClipAD(**tiny, few_shot_source=normal, text_weight=0.0)
    scores = []
    for path in sorted(normal.iterdir()):
        others = tmp_path / "others"
        shutil.copytree(normal, others)
        (others / path.name).unlink()
        alone = ClipAD(**tiny, few_shot_source=others, text_weight=0.0)
        scores.append(float(raw(alone, engine, path).max()))
        shutil.rmtree(others)
    engine.predict(model, data_path=normal)
    assert float(model.model.detector.scale.midpoint) == pytest.approx(max(scores), abs=1e-4)


def raw(model: ClipAD, engine: Engine, path: Path) -> Tensor:
    model.post_processor.enable_normalization = False
    (prediction,) = engine.predict(model, data_path=path)
    return prediction.anomaly_map


@pytest.mark.slow
@pytest.mark.parametrize("variant", [{}, {"precision": "bfloat16"}, {"smoothing": 0.0, "tap": "block"}])
def test_a_checkpoint_holds_the_memory(
    tiny: dict, datamodule: MVTecAD, engine: Engine, image: Path, variant: dict
) -> None:
    model = ClipAD(**tiny, k_shot=3, text_weight=0.25, **variant)
    engine.fit(model, datamodule=datamodule)
    (before,) = engine.predict(model, data_path=image)
    again = ClipAD(**tiny, **variant)
    (after,) = engine.predict(again, data_path=image, ckpt_path=engine.best_model_path)
    assert torch.equal(again.model.detector.memory.tokens, model.model.detector.memory.tokens)
    assert again.model.settings.text_weight == 0.25
    assert torch.equal(before.pred_score, after.pred_score)
    assert torch.equal(before.anomaly_map, after.anomaly_map)
    loaded = ClipAD.load_from_checkpoint(engine.best_model_path)
    assert loaded.references == References()
    assert torch.equal(loaded.model.detector.memory.farthest, model.model.detector.memory.farthest)


@pytest.mark.slow
def test_another_category_has_references_of_its_own(tiny: dict, parts: Path, tmp_path: Path, engine: Engine) -> None:
    shutil.copytree(parts / "bolt", tmp_path / "two/nut")
    shutil.copytree(parts / "bolt", tmp_path / "two/bolt")
    surfaces(tmp_path / "two/nut/train/good", 2, seed=9)
    model, memories = ClipAD(**tiny, k_shot=2), []
    for category in ("bolt", "nut", "bolt"):
        data = MVTecAD(tmp_path / "two", category, num_workers=0, val_split_mode="same_as_test")
        results(engine, model, data)
        memories.append(model.model.detector.memory.tokens)
    assert not torch.equal(memories[0], memories[1])
    assert torch.equal(memories[0], memories[2])


@pytest.mark.slow
def test_normal_images_that_are_scored_too_are_said(
    tiny: dict, tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    normal = surfaces(tmp_path / "normal", 3)
    engine.predict(ClipAD(**tiny, few_shot_source=normal, text_weight=0.0), data_path=normal)
    assert "3 of the scored images are references or calibration images too" in caplog.text
    caplog.clear()
    engine.predict(
        ClipAD(**tiny, few_shot_source=normal, text_weight=0.0), data_path=surfaces(tmp_path / "new", 2, seed=5)
    )
    assert "of the scored images" not in caplog.text


@pytest.mark.slow
def test_augmentations_of_training_do_not_reach_references(tiny: dict, parts: Path, engine: Engine) -> None:
    from torchvision.transforms.v2 import RandomHorizontalFlip

    memories = []
    for augmentations in (None, RandomHorizontalFlip(p=1.0)):
        data = MVTecAD(parts, "bolt", num_workers=0, val_split_mode="same_as_test", train_augmentations=augmentations)
        model = ClipAD(**tiny, k_shot=2, text_weight=0.0)
        results(engine, model, data)
        memories.append(model.model.detector.memory.tokens)
    assert torch.equal(*memories)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_shot": -1}, "k_shot has to be an integer, 0 or more; got -1"),
        ({"k_shot": 1.5}, "k_shot has to be an integer"),
        ({"memory_size": 0, "k_shot": 1}, "memory_size has to be an integer, 1 or more"),
        ({"memory_size": 9}, "pass k_shot or few_shot_source"),
        ({"mutual": True, "pool": 1}, "pool has to be an integer, 2 or more"),
        ({"mutual": True, "k_shot": 1}, "cannot be used together"),
        ({"text_weight": 1.5}, "share in \\[0, 1\\]"),
    ],
)
def test_options_that_make_no_sense_are_refused(tiny: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipAD(**tiny, **options)


@pytest.mark.slow
def test_more_than_there_are_is_refused(tiny: dict, datamodule: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 normal images; k_shot is 5"):
        engine.test(ClipAD(**tiny, k_shot=5), datamodule=datamodule)
    normal = surfaces(tmp_path / "normal", 3)
    with pytest.raises(ValueError, match="3 normal images; k_shot is 4"):
        engine.test(ClipAD(**tiny, k_shot=4, few_shot_source=normal), datamodule=datamodule)


def test_without_a_source_it_says_what_to_pass(tiny: dict, image: Path, engine: Engine) -> None:
    with pytest.raises(ValueError, match="Pass few_shot_source"):
        engine.predict(ClipAD(**tiny, class_name="bolt", k_shot=2), data_path=image)


def test_a_folder_that_is_missing_or_empty_is_named(tiny: dict, image: Path, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ClipAD(**tiny, class_name="bolt", few_shot_source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, RuntimeError, ValueError), match="empty"):
        engine.predict(ClipAD(**tiny, class_name="bolt", few_shot_source=tmp_path / "empty"), data_path=image)


def test_an_unreadable_reference_is_named(tiny: dict, image: Path, engine: Engine, tmp_path: Path) -> None:
    normal = surfaces(tmp_path / "normal", 2)
    (normal / "broken.png").write_bytes(b"nothing")
    with pytest.raises(Exception, match=r"broken\.png"):
        engine.predict(ClipAD(**tiny, class_name="bolt", few_shot_source=normal), data_path=image)


def test_text_weight_0_needs_something_to_compare_with(tiny: dict, image: Path, engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="pass k_shot or mutual"):
        engine.predict(ClipAD(**tiny, text_weight=0.0), data_path=image)


def test_a_coreset_is_a_part_of_all_and_always_the_same() -> None:
    memory = torch.randn(4, 60, 8)
    first, second = coreset(memory, 20), coreset(memory, 20)
    assert first.shape == (4, 20, 8)
    assert torch.equal(first, second)
    for stage, kept in zip(memory, first, strict=True):
        assert all(any(torch.equal(row, patch) for patch in stage) for row in kept)
        assert len(kept.unique(dim=0)) == 20
    assert torch.equal(coreset(memory, 60), memory)


def test_a_coreset_leaves_the_users_random_numbers_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    coreset(torch.randn(4, 30, 8, generator=torch.Generator().manual_seed(0)), 10)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.slow
def test_memory_size_bounds_the_memory(tiny: dict, datamodule: MVTecAD, engine: Engine) -> None:
    model = ClipAD(**tiny, k_shot=4, memory_size=10)
    results(engine, model, datamodule)
    assert model.model.detector.memory.tokens.shape == (4, 10, 64)


# Mutual scoring


@pytest.mark.slow
def test_the_images_of_a_run_judge_each_other(tiny: dict, datamodule: MVTecAD, engine: Engine) -> None:
    model = ClipAD(**tiny, mutual=True, text_weight=0.0, smoothing=4.0)
    metrics = results(engine, model, datamodule)
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.8
    assert model.model.pool is None


@pytest.mark.slow
def test_two_images_are_a_pair_and_one_is_too_few(
    tiny: dict, tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    pair = surfaces(tmp_path / "pair", 2)
    predictions = engine.predict(ClipAD(**tiny, mutual=True, text_weight=0.0), data_path=pair)
    assert sum(len(batch.pred_score) for batch in predictions) == 2
    assert "only 2 images" in caplog.text
    with pytest.raises(ValueError, match="at least 2"):
        engine.predict(ClipAD(**tiny, mutual=True), data_path=pair / "0.png")


@pytest.mark.slow
def test_a_pool_bounds_what_is_compared(tiny: dict, tmp_path: Path, engine: Engine) -> None:
    images = surfaces(tmp_path / "many", 9)
    sizes = []
    model = ClipAD(**tiny, mutual=True, text_weight=0.0, pool=4)
    forward = model.model.forward

    def watched(batch: Tensor) -> object:
        sizes.append(len(model.model.pool.rows))
        return forward(batch)

    model.model.forward = watched
    predictions = engine.predict(model, data_path=images)
    assert set(sizes) == {4}
    assert sum(len(batch.pred_score) for batch in predictions) == 9
    assert torch.cat([batch.pred_score for batch in predictions]).isfinite().all()


@pytest.mark.slow
def test_images_of_different_sizes_are_found_in_the_pool(tiny: dict, datamodule: MVTecAD, engine: Engine) -> None:
    from anomalib_clipad.vision import pool

    def none_outside(*_: object) -> None:
        pytest.fail("an image of the pool was taken for one from outside")

    original, pool.scores_against = pool.scores_against, none_outside
    try:
        results(engine, ClipAD(**tiny, mutual=True), datamodule)
    finally:
        pool.scores_against = original


def test_mutual_is_refused_where_there_is_no_run(tiny: dict, tmp_path: Path) -> None:
    model = ClipAD(**tiny, class_name="bolt", mutual=True)
    with pytest.raises(RuntimeError, match="a whole run"):
        model(torch.rand(2, 3, 64, 64))
    with pytest.raises(RuntimeError, match="a file cannot"):
        model.to_torch(tmp_path)


@pytest.mark.slow
def test_a_checkpoint_stays_mutual(tiny: dict, datamodule: MVTecAD, engine: Engine) -> None:
    model = ClipAD(**tiny, mutual=True, pool=7)
    engine.fit(model, datamodule=datamodule)
    again = ClipAD.load_from_checkpoint(engine.best_model_path)
    assert (again.references.mutual, again.references.pool) == (True, 7)
    fresh = ClipAD(**tiny)
    engine.test(fresh, datamodule=datamodule, ckpt_path=engine.best_model_path, verbose=False)
    assert fresh.references.mutual


@pytest.mark.slow
def test_other_normal_images_have_statistics_of_their_own(
    tiny: dict, parts: Path, tmp_path: Path, engine: Engine
) -> None:
    for name in ("bolt", "nut"):
        shutil.copytree(parts / "bolt", tmp_path / "two" / name)
    surfaces(tmp_path / "two/nut/train/good", 2, seed=9)
    options = {"root": tmp_path / "two", "num_workers": 0, "val_split_mode": "same_as_test"}
    bolt, nut = (MVTecAD(category=name, **options) for name in ("bolt", "nut"))
    model, fresh = (ClipAD(**tiny, k_shot=2, text_weight=0.0) for _ in range(2))
    results(engine, model, bolt)
    before = float(model.post_processor.pixel_threshold)
    results(engine, model, nut)
    results(engine, fresh, nut)
    assert float(model.post_processor.pixel_threshold) == float(fresh.post_processor.pixel_threshold) != before

"""The stock `anomalib` command line."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import HAZELNUT, Run, shallow
from PIL import Image


@pytest.fixture
def model(tiny: dict[str, str]) -> list[str]:
    return [f"--model.backbone={tiny['backbone']}", f"--model.pretrained={tiny['pretrained']}"]


@pytest.fixture
def folder(parts: Path) -> list[str]:
    settings = {
        "name": "bolt",
        "root": parts / "bolt",
        "normal_dir": "train/good",
        "abnormal_dir": "test/scratch",
        "normal_test_dir": "test/good",
        "mask_dir": "ground_truth/scratch",
        "val_split_mode": "same_as_test",
        "num_workers": 0,
    }
    return ["--data", "Folder", *(f"--data.{name}={value}" for name, value in settings.items())]


@pytest.mark.slow
def test_without_a_network_the_message_stands_alone(
    run_anomalib_process: Run, folder: list[str], tmp_path: Path
) -> None:
    offline = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    caches = {"HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    result = run_anomalib_process("predict", "--model", "ClipAD", *folder, expect=1, **offline, **caches)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if "arn" not in line and not line.startswith("  from")]
    assert lines[-1].startswith("Error: The weights 'laion400m_e31' of ViT-B-16-plus-240 could not be downloaded from")
    assert "backbone='clipad-mini'" in lines[-1]
    assert len(lines) < 5


@pytest.mark.slow
def test_test_prints_the_seven_metrics_and_writes_heat_maps(
    run_anomalib_process: Run, model: list[str], folder: list[str], tmp_path: Path
) -> None:
    result = run_anomalib_process("test", "--model", "ClipAD", "--model.class_name", "bolt", *model, *folder)
    for metric in ("image_AUROC", "image_F1Max", "image_AP", "pixel_AUROC", "pixel_F1Max", "pixel_AP", "pixel_PRO"):
        assert metric in result.stdout
    assert "Class name: 'bolt' (given)." in result.stdout + result.stderr
    assert len(list(tmp_path.rglob("images/test/scratch/*.png"))) == 6


def test_validate_runs(run_anomalib: Run, model: list[str], folder: list[str]) -> None:
    run_anomalib("validate", "--model", "ClipAD", *model, *folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ClipAD", "anomalib_clipad.ClipAD"])
def test_predict_needs_no_validation_data(
    run_anomalib: Run, model: list[str], parts: Path, tmp_path: Path, name: str
) -> None:
    data = parts / "bolt/test/scratch" if name == "ClipAD" else parts / "bolt/test/scratch/000.png"
    run_anomalib("predict", "--model", name, *model, "--data", data)
    assert len(list(tmp_path.rglob("images/**/*.png"))) == (6 if name == "ClipAD" else 1)


@pytest.mark.slow
def test_train_then_predict_and_export_from_its_checkpoint(
    run_anomalib: Run, folder: list[str], parts: Path, tmp_path: Path
) -> None:
    model = [f"--model.{name}={value}" for name, value in shallow().items()]
    run_anomalib("train", "--model", "ClipAD", "--model.class_name", "bolt", *model, *folder)
    checkpoints = [path for path in tmp_path.rglob("*.ckpt") if not path.is_symlink()]
    assert checkpoints
    assert all(path.stat().st_size < 200_000 for path in checkpoints)
    data = parts / "bolt/test/good"
    run_anomalib("predict", "--model", "ClipAD", *model, "--data", data, "--ckpt_path", checkpoints[0])
    result = run_anomalib("export", "--model", "ClipAD", *model, "--export_type", "onnx", "--ckpt_path", checkpoints[0])
    assert len((result.stdout + result.stderr).splitlines()) < 40
    assert len(list(tmp_path.rglob("weights/onnx/*.onnx"))) == 1


@pytest.mark.slow
def test_sdp_plus_is_trained_on_one_data_set_and_used_on_another(
    run_anomalib: Run, model: list[str], folder: list[str], parts: Path, tmp_path: Path
) -> None:
    def dataset(root: Path, category: str) -> dict:
        return {"class_path": "MVTecAD", "init_args": {"root": str(root), "category": category}}

    for part in ("train", "test", "ground_truth"):
        shutil.copytree(parts / "bolt" / part, tmp_path / "data/nut" / part)
    for path in (tmp_path / "data").rglob("*.png"):  # the same pictures would be refused
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.ROTATE_180).save(path)
    data = {"source": dataset(tmp_path / "data", "nut"), "target": dataset(parts, "bolt"), "categories": ["nut"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"class_path": "Auxiliary", "init_args": data}))
    variant = ["--model.variant", "sdp_plus", "--model.epochs", "1"]
    result = run_anomalib("train", "--model", "ClipAD", *variant, *model, "--data", "data.yaml")
    assert "pixel_PRO" in result.stdout
    (layers,) = (path for path in tmp_path.rglob("weights/adapter.safetensors") if "latest" not in path.parts)
    run_anomalib("test", "--model", "ClipAD", "--model.adapter", layers, *model, *folder, "--default_root_dir", "other")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"rvs": {"grid": ["dbscan", "mean"]}}, {"k_shot": {"grid": [1, 2]}}])
def test_benchmark_runs_a_grid(
    run_anomalib: Run, tiny: dict[str, str], parts: Path, tmp_path: Path, options: dict
) -> None:
    config = {
        "accelerator": "cpu",
        "benchmark": {
            "seed": 0,
            "model": {"class_path": "ClipAD", "init_args": {**tiny, **options}},
            "data": {"class_path": "MVTecAD", "init_args": {"root": str(parts), "category": "bolt", "num_workers": 0}},
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(config))
    run_anomalib("benchmark", "--config", "benchmark.yaml")
    (results,) = tmp_path.glob("runs/benchmark/*/results.csv")
    lines = results.read_text().splitlines()
    assert len(lines) == 3
    assert "pixel_PRO" in lines[0]


@pytest.mark.slow
def test_normal_images_come_from_the_training_split(
    run_anomalib: Run, model: list[str], folder: list[str], tmp_path: Path
) -> None:
    few_shot = ["--model", "ClipAD", "--model.k_shot", "2", "--model.class_name", "bolt", *model]
    result = run_anomalib("train", *few_shot, *folder)
    assert "pixel_PRO" in result.stdout
    (checkpoint,) = (path for path in tmp_path.rglob("*.ckpt") if "latest" not in path.parts)
    memory = torch.load(checkpoint, weights_only=True)["state_dict"]["model.detector.memory.tokens"]
    assert memory.shape == (4, 2 * 16, 64)


@pytest.mark.slow
def test_normal_images_come_from_a_folder(run_anomalib: Run, model: list[str], parts: Path, tmp_path: Path) -> None:
    references = ["--model.few_shot_source", parts / "bolt/train/good"]
    data = ["--data", parts / "bolt/test/scratch"]
    run_anomalib("predict", "--model", "ClipAD", "--model.class_name", "bolt", *references, *model, *data)
    assert len(list(tmp_path.rglob("images/**/*.png"))) == 6


@pytest.mark.slow
def test_images_of_a_folder_judge_each_other(run_anomalib: Run, model: list[str], parts: Path, tmp_path: Path) -> None:
    alone = ["--model.mutual", "true", "--model.text_weight", "0"]
    run_anomalib("predict", "--model", "ClipAD", *alone, *model, "--data", parts / "bolt/test/scratch")
    assert len(list(tmp_path.rglob("images/**/*.png"))) == 6


@pytest.mark.slow
def test_help_lists_every_parameter(run_anomalib: Run) -> None:
    result = run_anomalib("test", "--model.help", "ClipAD")
    for parameter, words in {
        "class_name": "What the images show",
        "backbone": "CLIP model: an open_clip name",
        "pretrained": "an open_clip tag",
        "image_size": "Height and width in pixels",
        "rvs": "{mean,pca,kde,dbscan,mean_shift}",
        "rvs_options": "eps",
        "prompts": "the path of a YAML file",
        "smoothing": "Standard deviation",
        "tap": "{reference,block}",
        "text_cache": "Keep prompt embeddings on disk",
        "precision": "{float32,bfloat16,float16}",
        "k_shot": "Number of normal images",
        "few_shot_source": "Folder of normal images",
        "memory_size": "greedy coreset",
        "mutual": "with each other",
        "pool": "at most",
        "text_weight": "Share of the text",
        "pre_processor": "bicubic resize",
        "post_processor": "ClipADPostProcessor",
        "evaluator": "pixel AUROC",
        "visualizer": "anomalib visualizer",
    }.items():
        assert f"--model.{parameter} " in result.stdout
        assert words in " ".join(result.stdout.split())


def test_a_wrong_choice_is_refused_with_the_choices(run_anomalib: Run, model: list[str], parts: Path) -> None:
    arguments = ("--model", "ClipAD", "--model.rvs", "median", *model, "--data", parts)
    result = run_anomalib("predict", *arguments, expect=2)
    assert "median" in result.stderr
    assert "dbscan" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not HAZELNUT.exists(), reason="the photographs are not part of the repository")
def test_the_real_hazelnuts_go_through(run_anomalib: Run, model: list[str], tmp_path: Path) -> None:
    """Real photographs where they are at hand; the generated parts above hold the same promises."""
    settings = {
        "name": "hazelnut",
        "root": HAZELNUT,
        "normal_dir": "train/good",
        "abnormal_dir": "test/colour",
        "normal_test_dir": "test/good",
        "mask_dir": "ground_truth/colour",
        "val_split_mode": "same_as_test",
        "num_workers": 0,
    }
    data = ["--data", "Folder", *(f"--data.{name}={value}" for name, value in settings.items())]
    result = run_anomalib("test", "--model", "ClipAD", "--model.class_name", "hazelnut", *model, *data)
    assert "pixel_PRO" in result.stdout
    assert len(list(tmp_path.rglob("images/test/colour/*.jpg"))) == len(list((HAZELNUT / "test/colour").iterdir()))

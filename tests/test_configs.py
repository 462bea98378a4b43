"""Every shipped configuration, parsed and instantiated as anomalib does it, on tiny trees of the right layout."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.data import get_datamodule
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC_AD
from anomalib.data.datasets.image.visa import CATEGORIES as VISA
from anomalib.models.image.winclip import lightning_model as winclip
from anomalib.models.image.winclip import torch_model as winclip_torch
from anomalib.pipelines.benchmark.generator import BenchmarkJobGenerator
from conftest import TINY, save

from anomalib_clipad import ClipAD, lightning_model, load_backbone

CONFIGS = Path(__file__).parents[1] / "configs"
BENCHMARKS = sorted(path.stem for path in (CONFIGS / "benchmark").glob("*.yaml"))
DATA = sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml"))
LAYOUTS = {
    "MVTecAD": ("train/good/0.png", "test/good/0.png", "test/scratch/0.png", "ground_truth/scratch/0_mask.png"),
    "Visa": ("train/good/0.JPG", "test/good/0.JPG", "test/bad/0.JPG", "ground_truth/bad/0.png"),
    "Folder": ("train/good/0.png", "test/good/0.png", "test/colour/0.png", "ground_truth/colour/0.png"),
    "HeadCT": ("head_ct/head_ct/000.png", "head_ct/head_ct/001.png"),
    "BrainMRI": ("brain_tumor_dataset/yes/Y1.jpg", "brain_tumor_dataset/no/N1.jpg"),
    "ISIC2016": (
        "ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg",
        "ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png",
    ),
    "CVCClinicDB": ("Original/1.tif", "Ground Truth/1.tif"),
}


def make_tree(name: str, arguments: dict[str, Any]) -> None:
    """A data set of a few small images below the current folder, where the configuration looks for it."""
    if name == "GeneratedParts":
        return
    if name == "Auxiliary":
        for part in ("source", "target"):
            module = arguments[part]["class_path"]
            for category in [*(MVTEC_AD if module == "MVTecAD" else VISA)]:
                make_tree(module, {**arguments[part].get("init_args", {}), "category": category})
        return
    root = Path(arguments.get("root", f"datasets/{name}"))
    if name == "Visa":
        root = root / "visa_pytorch"
    for file in LAYOUTS[name]:
        pixels = np.zeros((16, 16), np.uint8)
        pixels[4:9, 4:9] = 255
        save(root / (arguments["category"] if name in {"MVTecAD", "Visa"} else ".") / file, pixels)
    if name == "HeadCT":
        (root / "labels.csv").write_text("id, hemorrhage\n0,1\n1,0\n")


def read(kind: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / kind / f"{name}.yaml").read_text())


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny CLIP for every backbone; one WinCLIP with random weights for all of them."""
    shared = cache(winclip_torch.WinClipModel)
    monkeypatch.setattr(lightning_model, "load_backbone", cache(lambda *_: load_backbone(**TINY)))
    monkeypatch.setattr(lightning_model, "load_adapter", lambda *_: None)
    monkeypatch.setattr(winclip_torch, "PRETRAINED", None)
    monkeypatch.setattr(winclip, "WinClipModel", shared)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_has_a_model_and_a_test_set_for_every_job(name: str) -> None:
    jobs = 0
    for job in BenchmarkJobGenerator("cpu").generate_jobs(read("benchmark", name)["benchmark"], None):
        data = job.datamodule
        make_tree(type(data).__name__, {"root": getattr(data, "root", None), "category": data.category})
        if type(data).__name__ != "GeneratedParts":
            data.setup()
            assert len(data.test_data) >= 1
        assert {metric.name for metric in job.model.evaluator.test_metrics} >= {"image_AUROC", "pixel_PRO"}
        jobs += 1
    assert jobs == {
        "comparison": 30,
        "generated_parts": 6,
        "medical_images": 2,
        "medical_pixels": 2,
        "mvtec_ad": 15,
        "sdp_plus_block": 12,
        "sdp_plus_reference": 12,
        "visa": 12,
    }.get(name, jobs)


@pytest.mark.parametrize("name", DATA)
def test_a_data_configuration_is_a_test_set(name: str) -> None:
    config = read("data", name)
    make_tree(config["class_path"], config.get("init_args", {}))
    data = get_datamodule(config)
    if "GeneratedParts" not in str(config):
        data.setup()
        assert len(data.test_data) >= 1


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_a_model_configuration_makes_the_model_on_the_command_line(name: str) -> None:
    make_tree("MVTecAD", {"root": "datasets/MVTecAD", "category": "bottle"})
    arguments = ["--config", str(CONFIGS / f"model/{name}.yaml"), "--data", str(CONFIGS / "data/mvtec_ad.yaml")]
    cli = AnomalibCLI(["test", *arguments], run=False)
    assert isinstance(cli.model, ClipAD)
    assert cli.datamodule.category == "bottle"

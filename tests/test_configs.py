"""Every shipped configuration against facts that are written here, or come from anomalib and open_clip.

No model is built: what a configuration names is looked up, its parameters are compared with signatures, its grids with
the categories of the data sets, and the commands in its comments are parsed by anomalib's command line.
"""

import inspect
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import anomalib.data
import open_clip
import pytest
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.data import get_datamodule
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC_AD
from anomalib.data.datasets.image.visa import CATEGORIES as VISA
from anomalib.pipelines.benchmark.generator import get_iterator_from_grid_dict

import anomalib_clipad.data
from anomalib_clipad import ClipAD
from anomalib_clipad.host.baselines import WinClipBaseline
from anomalib_clipad.text import rvs

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml"))

# The paper's settings; the last two depend on the data set whose prompts are encoded.
SDP = {"rvs": "dbscan", "smoothing": None, "tap": "reference", "prompts": "industrial", "adapter": None}
MVTEC_AD_RVS = {"eps": 0.5, "min_samples": 15}
VISA_RVS = {"eps": 1.5, "min_samples": 25}

DEFAULT = {"backbone": "ViT-B-16-plus-240", "pretrained": "laion400m_e31"}
OPENAI = {"backbone": "ViT-L-14-336", "pretrained": "openai", "image_size": 518, "smoothing": None}
MINI = {"backbone": "clipad-mini"}
HELD_OUT = ("gear", "bracket", "connector", "weave", "wood", "granite")
TRAINING = {
    *("washer", "nut", "bolt", "plate", "flange", "pill", "leather", "mesh", "carpet", "brushed_metal", "corduroy"),
    *("wall_tile", "terrazzo"),
}


class Benchmark(NamedTuple):
    """What a benchmark compares: the effective parameters of ClipAD in each run, and the categories of the data."""

    runs: list[dict[str, Any]]
    data: str
    categories: tuple[str, ...]
    winclip: bool = False


MEDICAL = [{**DEFAULT, **SDP, "prompts": "medical"}]
BENCHMARKS = {
    "comparison": Benchmark([{**DEFAULT, **SDP, "rvs_options": MVTEC_AD_RVS}], "MVTecAD", MVTEC_AD, winclip=True),
    "few_shot": Benchmark(
        [{**MINI, **SDP, "k_shot": k, "joining": "sum", "text_weight": w} for k in (1, 2, 4, 8) for w in (0.0, 0.5)],
        "GeneratedParts",
        HELD_OUT,
    ),
    "few_shot_sdp_plus": Benchmark(
        [{**MINI, "tap": "reference", "adapter": "sdp_plus.safetensors", "k_shot": k} for k in (0, 4)],
        "GeneratedParts",
        HELD_OUT,
    ),
    "generated_parts": Benchmark([{**SDP, **MINI}], "GeneratedParts", HELD_OUT),
    "medical_images": Benchmark(MEDICAL, "HeadCT BrainMRI", ("head ct", "brain ct")),
    "medical_pixels": Benchmark(MEDICAL, "ISIC2016 CVCClinicDB", ("skin", "colon")),
    "memory_size": Benchmark(
        [{**MINI, **SDP, "k_shot": 4, "text_weight": 0.0, "memory_size": size} for size in (900, 225, 90, 30)],
        "GeneratedParts",
        ("gear", "wood"),
    ),
    "mutual": Benchmark(
        [{**MINI, **SDP, "mutual": True, "joining": "sum", "text_weight": w} for w in (0.0, 0.5)],
        "GeneratedParts",
        HELD_OUT,
    ),
    "mvtec_ad": Benchmark([{**DEFAULT, **SDP, "rvs_options": MVTEC_AD_RVS}], "MVTecAD", MVTEC_AD),
    "mvtec_ad_sdp_plus": Benchmark(
        [{**DEFAULT, **SDP, "rvs_options": MVTEC_AD_RVS, "adapter": "visa"}], "MVTecAD", MVTEC_AD
    ),
    "mvtec_ad_aa_clip": Benchmark([{**OPENAI, "adapter": "aa_clip_visa"}], "MVTecAD", MVTEC_AD),
    "mvtec_ad_af_clip": Benchmark([{**SDP, "adapter": "af_clip_visa"}], "MVTecAD", MVTEC_AD),
    "precision": Benchmark([{**MINI, "precision": p} for p in ("float32", "bfloat16")], "GeneratedParts", HELD_OUT),
    "visa": Benchmark([{**DEFAULT, **SDP, "rvs_options": VISA_RVS}], "Visa", VISA),
    "visa_aa_clip": Benchmark([{**OPENAI, "adapter": "aa_clip_mvtec"}], "Visa", VISA),
    "visa_af_clip": Benchmark([{**SDP, "adapter": "af_clip_mvtec"}], "Visa", VISA),
    "visa_sdp_plus": Benchmark(
        [{**DEFAULT, **SDP, "rvs_options": VISA_RVS, "adapter": "mvtec", "smoothing": 2.0}], "Visa", VISA
    ),
}

DATA = {
    "brain_mri": ("BrainMRI", {"root": "datasets/BrainMRI"}),
    "cvc_clinic_db": ("CVCClinicDB", {"root": "datasets/CVCClinicDB"}),
    "folder": (
        "Folder",
        {
            "name": "hazelnut",
            "root": "datasets/hazelnut",
            "normal_dir": "train/good",
            "normal_test_dir": "test/good",
            "abnormal_dir": "test/colour",
            "mask_dir": "ground_truth/colour",
        },
    ),
    "generated_parts": ("GeneratedParts", {"category": "gear"}),
    "head_ct": ("HeadCT", {"root": "datasets/HeadCT"}),
    "isic_2016": ("ISIC2016", {"root": "datasets/ISIC2016"}),
    "mvtec_ad": ("MVTecAD", {"category": "bottle"}),
    "visa": ("Visa", {"category": "candle"}),
}
AUXILIARY = {
    "generated_parts_auxiliary": ("GeneratedParts", "GeneratedParts", "gear", None),
    "mvtec_ad_to_visa": ("MVTecAD", "Visa", "candle", MVTEC_AD_RVS),
    "visa_to_mvtec_ad": ("Visa", "MVTecAD", "bottle", VISA_RVS),
}


def read(file: Path | str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / file).read_text())


def defaults(function: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def data_class(name: str) -> type:
    return getattr(anomalib_clipad.data, name) if name in anomalib_clipad.data.__all__ else getattr(anomalib.data, name)


def effective(init_args: dict[str, Any]) -> dict[str, Any]:
    """The parameters that ClipAD works with, its defaults and those of the RVS method filled in."""
    assert set(init_args) <= set(defaults(ClipAD))
    parameters = {**defaults(ClipAD), **init_args}
    options = defaults(getattr(rvs, parameters["rvs"]))
    options.pop("embeddings")
    return {**parameters, "rvs_options": {**options, **(parameters["rvs_options"] or {})}}


def check_data(config: dict[str, Any], name: str) -> None:
    """The data module is the named one, reads where it does by default, and takes its test set for validation."""
    arguments = config.get("init_args", {})
    assert config["class_path"] == name
    values = {**defaults(data_class(name)), **arguments}
    assert values["val_split_mode"] == "same_as_test"
    default_root = {"MVTecAD": "datasets/MVTecAD", "Visa": "datasets/visa"}.get(name)
    if default_root is not None:
        assert Path(defaults(data_class(name))["root"]) == Path(default_root)
        assert Path(values["root"]) == Path(default_root)
    get_datamodule(config)


def test_every_file_has_its_facts_here() -> None:
    assert {path.stem for path in FILES if path.parent.name == "benchmark"} == set(BENCHMARKS)
    assert {path.stem for path in FILES if path.parent.name == "data"} == {*DATA, *AUXILIARY}
    assert {path.stem for path in FILES if path.parent.name == "model"} == {"clip_ad", "clip_ad_plus"}


def test_the_data_sets_have_the_papers_number_of_categories() -> None:
    assert (len(MVTEC_AD), len(VISA)) == (15, 12)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_each_model_once_on_each_category(name: str) -> None:
    expected = BENCHMARKS[name]
    jobs = list(get_iterator_from_grid_dict(read(f"benchmark/{name}.yaml")["benchmark"]))
    assert len(jobs) == (len(expected.runs) + expected.winclip) * len(expected.categories)
    checked, done = set(), []
    for job in jobs:
        model, data = job["model"], job["data"]
        module = data["class_path"]
        if module not in checked:
            check_data(data, module)
            checked.add(module)
        category = data.get("init_args", {}).get("category") or data_class(module).class_name
        if model["class_path"] == "WinClipBaseline":
            assert set(model["init_args"]) <= set(defaults(WinClipBaseline))
            done.append(("WinCLIP", category))
            continue
        assert model["class_path"] == "ClipAD"
        parameters = effective(model["init_args"])
        assert parameters["visualizer"] is False
        (run,) = (index for index, run in enumerate(expected.runs) if run.items() <= parameters.items())
        done.append((run, category))
    runs = [*range(len(expected.runs)), *(["WinCLIP"] if expected.winclip else [])]
    assert sorted(done, key=str) == sorted(
        ((run, category) for run in runs for category in expected.categories), key=str
    )
    assert checked == set(expected.data.split())


@pytest.mark.parametrize("file", [path for path in FILES if path.parent.name != "data"], ids=str)
def test_a_backbone_is_one_that_open_clip_has_weights_for(file: Path) -> None:
    config = read(file)
    model = config["benchmark"]["model"] if "benchmark" in config else config["model"]
    parameters = {**defaults(ClipAD), **model["init_args"]}
    known = parameters["backbone"] == "clipad-mini"
    assert known or (parameters["backbone"], parameters["pretrained"]) in open_clip.list_pretrained()


@pytest.mark.parametrize("name", DATA)
def test_a_data_configuration_is_the_data_set_it_is_named_after(name: str) -> None:
    module, arguments = DATA[name]
    config = read(f"data/{name}.yaml")
    check_data(config, module)
    given = {**config["init_args"]}
    given.pop("val_split_mode", None)
    if module in {"MVTecAD", "Visa"}:
        given.pop("root")
    assert given == arguments


@pytest.mark.parametrize("name", AUXILIARY)
def test_sdp_plus_is_trained_on_one_data_set_and_tested_on_another(name: str) -> None:
    source, target, category, rvs_options = AUXILIARY[name]
    config = read(f"data/{name}.yaml")
    arguments = config["init_args"]
    check_data(arguments["source"], source)
    check_data(arguments["target"], target)
    data = get_datamodule(config)
    assert data.category == category
    assert data.rvs_options == rvs_options
    assert (data.train_batch_size, data.batch_size_at(0)) == (None, 8)
    if name == "generated_parts_auxiliary":
        assert set(data.categories) == TRAINING
        assert data.shuffle
    else:
        assert sorted(data.categories) == sorted(MVTEC_AD if source == "MVTecAD" else VISA)
        assert not data.shuffle


COMPONENTS = {"pre_processor", "post_processor", "evaluator", "visualizer"}
TRAINED = {"variant", "adapter", "epochs", "learning_rate", "feature_cache", "as_coded"}


def test_the_model_configuration_lists_every_parameter_at_its_default() -> None:
    given = read("model/clip_ad.yaml")["model"]["init_args"]
    assert set(given) == set(defaults(ClipAD)) - COMPONENTS - TRAINED
    assert effective(given) == effective({})
    assert (SDP | DEFAULT | {"rvs_options": MVTEC_AD_RVS}).items() <= effective(given).items()


def test_the_sdp_plus_configuration_lists_every_parameter_of_its_own_at_its_default() -> None:
    given = read("model/clip_ad_plus.yaml")["model"]["init_args"]
    assert set(given) >= TRAINED
    assert effective(given) == effective({"variant": "sdp_plus"})
    assert {"epochs": None, "learning_rate": None, "smoothing": None}.items() <= given.items()


def commands(file: Path) -> list[list[str]]:
    """The command lines in the comments of a configuration."""
    lines = (ROOT / "configs" / file).read_text().splitlines()
    return [shlex.split(line.removeprefix("#")) for line in lines if line.startswith("#   anomalib ")]


@pytest.fixture(scope="module")
def parse() -> Any:
    """anomalib's command line, without what comes after its parser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for step in ("before_instantiate_classes", "instantiate_classes"):
            patch.setattr(AnomalibCLI, step, lambda _: None)
        arguments = ["--config", "configs/model/clip_ad.yaml", "--data", "configs/data/mvtec_ad.yaml"]
        yield AnomalibCLI(["test", *arguments], run=False).parser.parse_args


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in FILES if commands(file)], ids=str)
def test_the_command_in_a_comment_is_one_of_anomalib_that_uses_the_file(
    file: Path, parse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for program, *arguments in commands(file):
        assert program == "anomalib"
        assert f"configs/{file}" in arguments
        parse(arguments)


@pytest.mark.slow
def test_on_visa_the_command_gives_the_papers_settings(parse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ((_, *arguments),) = commands(Path("data/mvtec_ad_to_visa.yaml"))
    config = parse(arguments)["train"]
    model = config["model"]["init_args"]
    assert model["smoothing"] == 2
    assert model["rvs_options"] == VISA_RVS
    assert config["data"]["init_args"]["rvs_options"] == MVTEC_AD_RVS

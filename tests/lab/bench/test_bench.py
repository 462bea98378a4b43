"""`bench` of the laboratory, and `growth`: each value on its own side, by a clock that the tests wind."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.backbones import Backbone, load_backbone
from anomalib_clipad.lab.bench import growth as growth_module
from anomalib_clipad.lab.bench import measurements, references, start, timing, winclip
from anomalib_clipad.lab.bench.bench import bench
from anomalib_clipad.lab.bench.comparison import Comparison
from anomalib_clipad.lab.bench.growth import Cost, Setting, cost_plot, growth
from anomalib_clipad.lab.bench.measurements import MEASUREMENTS

BACKBONE = TINY["backbone"]
SETTING = Setting(BACKBONE, 96, 2)


class Clock:
    """Time that passes only where a function says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def takes(self, seconds: float, result: Any = None) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            self.now += seconds
            return result

        return function


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    return clock


class FakeModel:
    """A model that takes ``seconds``."""

    image_size = 8

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.run = clock.takes(seconds)

    def __call__(self, images: torch.Tensor) -> None:
        self.run()


@pytest.fixture
def fakes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward takes 2 s, of SDP+ 5 s, in bfloat16 0.5 s, ``encode_image`` 1 s."""

    def fake(backbone: object, variant: str = "sdp", precision: str = "float32") -> Any:
        return FakeModel(clock, 5.0 if variant == "sdp_plus" else 0.5 if precision == "bfloat16" else 2.0)

    backbone = SimpleNamespace(clip=SimpleNamespace(encode_image=clock.takes(1.0)))
    for module in (measurements, references, winclip):
        monkeypatch.setattr(module, "random_model", fake)
    for module in (references, winclip):
        monkeypatch.setattr(module, "remembering", fake)
    for module in (measurements, growth_module, references, winclip):
        monkeypatch.setattr(module, "load_backbone", lambda *args: backbone)


def measure(name: str, batch_size: int = 4) -> list[Comparison]:
    return list(MEASUREMENTS[name](BACKBONE, batch_size, 2))


def test_forward_is_ours_beside_encode_image(fakes: None) -> None:
    assert measure("forward") == [
        Comparison("forward, batch 1, s", 2.0, "encode_image", 1.0),
        Comparison("forward, batch 4, s", 2.0, "encode_image", 1.0),
        Comparison("forward of SDP+, batch 4, s", 5.0, "encode_image", 1.0),
    ]


def test_precision_is_bfloat16_beside_float32(fakes: None) -> None:
    assert measure("precision") == [Comparison("forward in bfloat16, s", 0.5, "forward in float32", 2.0)]


def test_compiled_is_beside_eager(fakes: None, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: clock.takes(3.0))
    assert measure("compiled") == [Comparison("forward, torch.compile, s", 3.0, "forward", 2.0)]


def test_winclip_is_the_peer_in_images_per_second(fakes: None, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = SimpleNamespace(eval=lambda: clock.takes(40.0))
    monkeypatch.setattr(winclip.winclip_module, "WinClipModel", lambda name, normal: peer)
    assert measure("winclip") == [
        Comparison("float32, images/s", 2.0, "WinClip", 0.1),
        Comparison("bfloat16, images/s", 8.0, "WinClip", 0.1),
    ]


def test_winclip_has_as_many_normal_images(fakes: None, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    peers: list[int] = []
    peer = SimpleNamespace(eval=lambda: clock.takes(80.0))
    monkeypatch.setattr(winclip.winclip_module, "WinClipModel", lambda name, normal: peers.append(len(normal)) or peer)
    assert measure("few_shot_winclip") == [
        Comparison("k_shot 4, float32, images/s", 2.0, "WinClip, k_shot 4", 0.05),
        Comparison("k_shot 4, bfloat16, images/s", 8.0, "WinClip, k_shot 4", 0.05),
    ]
    assert peers == [4]


def test_normal_images_are_beside_the_text_alone(fakes: None, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {0.0: 1.0, 0.5: 3.0}
    monkeypatch.setattr(references, "remembering", lambda _, text_weight=0.5: FakeModel(clock, seconds[text_weight]))
    assert measure("few_shot") == [
        Comparison("forward, k_shot 4, s", 3.0, "forward, text alone", 2.0),
        Comparison("forward, k_shot 4, text_weight 0, s", 1.0, "forward, text alone", 2.0),
    ]


def test_text_is_cold_and_warm_beside_the_full_context(
    backbone: Backbone, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "load_backbone", lambda *args: backbone)
    monkeypatch.setattr(measurements, "encode_prompts", clock.takes(3.0, torch.ones(418, 16)))
    monkeypatch.setattr(backbone.clip, "encode_text", clock.takes(1.0))
    parts = -(-418 // 64)
    assert measure("text") == [
        Comparison("text features, cold, s", 3.0, "encode_text at 77 tokens", parts),
        Comparison("text features, warm, s", 0.0, "encode_text at 77 tokens", parts),
    ]


@pytest.mark.slow
def test_training_with_kept_features_is_beside_features_computed_anew(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainable = measurements.random_model(load_backbone(**TINY), variant="sdp_plus")
    features = trainable.tokens(torch.randn(2, 3, trainable.image_size, trainable.image_size))
    monkeypatch.setattr(trainable, "tokens", clock.takes(1.5, features))
    monkeypatch.setattr(measurements, "random_model", lambda *args, **kwargs: trainable)
    assert measure("training", 2) == [Comparison("training step, features kept, s", 0.0, "features anew", 1.5)]


def test_memory_is_ours_beside_encode_image(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = {"model(images)": 300 * 2**20, "encode()": 100 * 2**20}
    monkeypatch.setattr(measurements, "peak_memory", lambda prepare, run: grown[run])
    assert measure("memory") == [Comparison("peak memory above the model, MB", 300, "encode_image", 100)]


def test_metrics_cost_of_a_hundred_images_is_beside_two_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(prepare: str) -> int:
        return 5 if "torch.rand(200," in prepare else 2

    monkeypatch.setattr(measurements, "peak_memory", lambda prepare, run: cost(prepare) * 2**20)
    monkeypatch.setattr(measurements, "statement_seconds", lambda statement, repeats, prepare: cost(prepare))
    assert [(value, peers) for _, value, _, peers in measure("metrics")] == [(2, 5), (2, 5)]


def test_imports_are_ours_beside_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {
        "import torch": 2.0,
        "import anomalib_clipad": 0.003,
        "from anomalib_clipad.plugin import install; install()": 0.001,
    }
    monkeypatch.setattr(measurements, "statement_seconds", lambda statement, repeats, prepare="": seconds[statement])
    assert measure("imports") == [
        Comparison("import anomalib_clipad, ms", 3.0, "import torch", 2000.0),
        Comparison("our hook in import torch, ms", 1.0, "import torch", 2000.0),
    ]


def test_the_start_of_three_ways_is_beside_anomalibs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict = {}

    def record(ways: dict, repeats: int) -> dict[str, float]:
        given.update(ways)
        return dict.fromkeys(ways, 2.0) | {"predict": 8.0}

    monkeypatch.setattr(ClipAD, "to_torch", lambda self, folder: folder / "model.pt")
    monkeypatch.setattr(ClipAD, "to_onnx", lambda self, folder: folder / "model.onnx")
    monkeypatch.setattr(start, "interleaved", record)
    assert [(comparison.ratio, comparison.peer) for comparison in measure("start")] == [(0.25, "anomalib predict")] * 3
    programs = [way.args[:2] for way in given.values()]
    assert programs == [("anomalib", "predict"), *[("anomalib-clipad", "inspect")] * 3]


@pytest.mark.slow
def test_the_engine_is_beside_the_model_alone_and_its_steps_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "PHOTOGRAPHS", 4)
    monkeypatch.setattr(measurements, "interleaved", lambda runs, repeats: {"engine": 2.0, "alone": 0.5})
    throughput, *steps = measure("engine", 2)
    assert throughput == Comparison("Engine.predict, images/s", 2.0, "the model alone", 8.0)
    assert [what for what, *_ in steps] == [f"Engine.predict, {step}, s" for step in measurements.STEPS]
    assert sum(seconds for _, seconds, _, _ in steps) == pytest.approx(steps[0].peers_value)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_command_prints_value_peer_and_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
        assert (backbone, batch_size, repeats) == ("any", 3, 5)
        yield Comparison("ours, s", 1.5, "theirs", 6.0)

    monkeypatch.setitem(MEASUREMENTS, "fake", fake)
    bench("any", batch_size=3, repeats=5, only=["fake"])
    head, _, row = capsys.readouterr().out.splitlines()[-3:]
    assert cells(head) == ["measured", "value", "peer", "its value", "ratio"]
    assert cells(row) == ["ours, s", "1.5", "theirs", "6", "0.250"]


def test_what_was_measured_is_printed_where_a_later_measurement_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(fails: bool, *args: object) -> Iterator[Comparison]:
        yield Comparison("fails" if fails else "works", 1.0, "theirs", 2.0)
        if fails:
            raise RuntimeError

    monkeypatch.setitem(MEASUREMENTS, "first", partial(fake, False))
    monkeypatch.setitem(MEASUREMENTS, "second", partial(fake, True))
    with pytest.raises(RuntimeError):
        bench(BACKBONE, only=["first", "second"])
    assert "| works " in capsys.readouterr().out


def test_an_unknown_measurement_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"\['speed'\].*forward.*imports"):
        bench(only=["speed"])


@pytest.fixture
def costs(fakes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_module, "forward_memory", lambda *setting: (300.0, 100.0))


def test_growth_has_ours_before_encode_image(costs: None, tmp_path: Path) -> None:
    table = growth(tmp_path, 1, {"image_size": (SETTING,)})
    assert (tmp_path / "growth.md").read_text() == table + "\n"
    head, _, row = table.splitlines()
    assert cells(head) == [
        *("image size", "s per batch", "`encode_image`, s", "ratio"),
        *("MB", "`encode_image`, MB", "ratio"),
    ]
    assert cells(row) == ["96", "2.00", "1.00", "2.00", "300", "100", "3.00"]
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.format == "PNG"


def test_the_plot_says_whose_line_is_whose() -> None:
    larger = Setting(BACKBONE, 192, 2)
    costs = {SETTING: Cost(2.0, 1.0, 300.0, 100.0), larger: Cost(9.0, 4.0, 900.0, 200.0)}
    seconds, megabytes = cost_plot({"image_size": (SETTING, larger)}, costs).axes
    drawn = [{line.get_label(): list(line.get_ydata()) for line in plot.lines} for plot in (seconds, megabytes)]
    assert drawn[0] == {"CLIP-AD": [2.0, 9.0], "encode_image": [1.0, 4.0]}
    assert drawn[1] == {"CLIP-AD": [300.0, 900.0], "encode_image": [100.0, 200.0]}
    assert (seconds.get_ylabel(), megabytes.get_ylabel()) == ("s per batch", "MB above the model")


def test_the_programs_of_other_processes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logging.disable", lambda: None)
    names: dict[str, Any] = {}
    exec(measurements.MODEL_PROGRAM.format(backbone=BACKBONE, image_size=96, batch_size=2), names)
    assert names["model"](names["images"]).anomaly_map.shape == (2, 96, 96)
    names["encode"]()
    exec(measurements.METRICS_PROGRAM.format(count=4), names)
    assert len(names["compute"]()) == 7


@pytest.mark.slow
def test_the_pipeline_is_beside_the_model_alone(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every runtime inspects the same photographs; time passes by a clock that is wound."""
    from anomalib_clipad.lab.bench import pipeline

    inspected: list[tuple[str, bool]] = []
    monkeypatch.setattr(pipeline, "_COUNT", 4)
    monkeypatch.setattr(pipeline, "_SIDE", 96)
    monkeypatch.setattr(pipeline, "_KINDS", 2)
    ways = {name: {"class_name": "gear", "backbone": "clipad-mini"} for name in ("torch", "onnxruntime")}
    monkeypatch.setattr(pipeline, "_models", lambda *_: ways)
    whole, alone = pipeline._inspect, pipeline._score

    def inspect(inspector: Any, images: Path, output: Path) -> None:
        whole(inspector, images, output)
        inspected.append(((output / "results.csv").read_text(), (output / "index.html").exists()))
        clock.now += 4

    def score(inspector: Any, ready: list[Any], batch_size: int) -> None:
        alone(inspector, ready, batch_size)
        assert len(ready) == 4
        clock.now += 2

    monkeypatch.setattr(pipeline, "_inspect", inspect)
    monkeypatch.setattr(pipeline, "_score", score)
    found = measure("pipeline", batch_size=2)
    assert found == [
        Comparison(f"inspect, {way}, images/s", 1.0, "its model alone", 2.0) for way in ("torch", "onnxruntime")
    ]
    assert [(table.count("\n"), page) for table, page in inspected] == [(5, True)] * 6  # one to warm up, two measured

"""The doors: the same question at each, and what it answers or why it refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from asked import Answer, Answers, Asked, Refusal, Shot
from PIL import Image

from anomalib_clipad import ClipAD, Inspector
from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.images.picture import read
from anomalib_clipad.inspection.records import read_results
from anomalib_clipad.lab.bench.browser import Browser, find_chromium
from anomalib_clipad.lab.bench.web_page import dropped
from anomalib_clipad.playground.session import Question, Session
from anomalib_clipad.predictor.products import save_product
from anomalib_clipad.predictor.runtimes import load
from anomalib_clipad.tools import cli
from anomalib_clipad.verdicts.defect_scores import VERDICTS
from anomalib_clipad.vision.joining import LEAST, SHARES

UNDECIDED = dict.fromkeys(("calibration", "rate", "threshold", "defects", "miss_rate"))
"""A question without what is called defective."""
_REFUSES = (ValueError, OSError, RuntimeError, TypeError, SystemExit)
BROWSER: list[Browser] = []
"""The one that is open, if any."""


class Door(NamedTuple):
    """A way into this package.

    Attributes:
        name: As the table has it.
        ask: From a question and an empty folder to answers.
        slow: Whether that takes seconds.
    """

    name: str
    ask: Callable[[Asked, Path], Answers]
    slow: bool = False


def answers(door: Door, asked: Asked, place: Path) -> Answers:
    """What a door says of each image; a refusal of all is one of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return door.ask(asked, place)
        except _REFUSES as error:
            return {one.name: Refusal(error) for one in asked.images}


# What all doors need


def folder(shots: Sequence[Shot], place: Path) -> Path:
    """A folder of files."""
    place.mkdir(parents=True, exist_ok=True)
    for one in shots:
        (place / one.name).write_bytes(one.content)
    return place


def files(asked: Asked, place: Path) -> list[Path]:
    """The images to inspect."""
    return [folder(asked.images, place / "images") / one.name for one in asked.images]


def compared(asked: Asked, place: Path, names: Sequence[str]) -> dict[str, Any]:
    """References, their memory, calibration, rate, known defects and theirs, by what a door calls them."""
    given: dict[str, Any] = {}
    if asked.references is not None:
        given[names[0]] = folder(asked.references, place / "references")
    if asked.product is not None:
        given[names[1]] = product_file(asked.product, place)
    if asked.calibration is not None:
        given[names[2]] = folder(asked.calibration, place / "calibration")
    if asked.rate is not None:
        given[names[3]] = asked.rate
    if asked.defects is not None:
        given[names[4]] = folder(asked.defects, place / "defects")
    if asked.miss_rate is not None:
        given[names[5]] = asked.miss_rate
    return given


def clip_ad(asked: Asked, place: Path) -> ClipAD:
    """The model of the engine."""
    given = {**asked.model, **compared(asked, place, ENGINE), **asked.options}
    if asked.mutual:
        given["mutual"] = True
    processor = dict(asked.processor)
    if asked.threshold is not None:
        processor |= {"image_sensitivity": 1 - asked.threshold, "pixel_sensitivity": 1 - asked.threshold}
    if processor:
        given["post_processor"] = ClipADPostProcessor(**processor)
    if asked.transform is not None:
        given["pre_processor"] = PreProcessor(asked.transform)
    return ClipAD(asked.class_name, visualizer=False, **given)


def product_file(asked: Asked, place: Path) -> Path:
    """A product file of the references of a question."""
    path = place / "product.safetensors"
    if not path.exists():
        kept = {name: value for name, value in asked.options.items() if name == "memory_size"}
        model = clip_ad(replace(asked, **UNDECIDED, options=kept), place)
        model.prepare()
        save_product(path, model.preparation.predictor)
    return path


def engine() -> Engine:
    """One that prints nothing."""
    return Engine(logger=False, accelerator="cpu", devices=1, enable_progress_bar=False, barebones=False)


# In Python


def of_engine(asked: Asked, place: Path) -> Answers:
    """``Engine.predict``; where it refuses one of several images, one by one."""
    if asked.before is None:
        model = clip_ad(asked, place)
    else:
        changed = changes(asked)
        given = {**compared(changed, place, ENGINE), **changed.options}
        path = checkpoint(asked.before, place / "before")
        model = ClipAD.load_from_checkpoint(path, class_name=asked.class_name, visualizer=False, **given)
    paths = files(asked, place)
    found: Answers = {}
    with suppress(*_REFUSES):
        found = predicted(model, paths[0].parent)
    for path in paths:
        if path.name not in found:
            try:
                found |= predicted(model, path)
            except _REFUSES as error:
                found[path.name] = Refusal(error)
    return found


def predicted(model: ClipAD, data: Path) -> Answers:
    """What ``Engine.predict`` says."""
    found: Answers = {}
    for batch in engine().predict(model, data_path=data) or ():
        for row, item in enumerate(batch):
            p_values, verdicts = getattr(batch, "p_value", None), getattr(batch, "verdict", None)
            found[Path(item.image_path).name] = Answer(
                float(item.pred_score),
                None if item.pred_label is None else bool(item.pred_label),
                None if p_values is None else float(p_values[row]),
                item.anomaly_map.squeeze().numpy(),
                None if item.pred_mask is None else item.pred_mask.squeeze().numpy().astype(bool),
                verdict=None if verdicts is None else VERDICTS[int(verdicts[row])],
            )
    return found


def of_inspector(asked: Asked, place: Path) -> Answers:
    """``Inspector`` in Python; what changes is asked by ``again``."""
    given = {**compared(asked, place, INSPECTOR), **asked.options}
    paths = files(asked, place)
    if asked.processor:
        given["post_processor"] = asked.processor
    if asked.transform is not None:
        given["pre_processor"] = asked.transform
    if asked.before is None:
        mutual = {"mutual": paths} if asked.mutual else {}
        own = Inspector(asked.class_name, threshold=asked.threshold, **mutual, **given, **asked.model)
        return inspected(own, paths)
    before = asked.before
    first = {**compared(before, place / "before", INSPECTOR), **before.options}
    own = Inspector(before.class_name, threshold=before.threshold, **first, **before.model)
    own.inspect(paths[0])
    changed = changes(asked)
    named = {} if asked.class_name == before.class_name else {"class_name": asked.class_name}
    finding = own.again(**named, threshold=changed.threshold, **compared(changed, place, INSPECTOR), **changed.options)
    return {paths[0].name: Answer.of(finding), **inspected(own, paths[1:])}


INSPECTOR = ("references", "product", "calibration", "false_alarm_rate", "defects", "miss_rate")
ENGINE = (*2 * ["few_shot_source"], "calibration_source", "false_alarm_rate", "defect_source", "miss_rate")


def inspected(own: Inspector, paths: Sequence[Path]) -> Answers:
    """What an inspector says of a stream."""
    found: Answers = {}

    def fail(path: Path, error: ValueError) -> None:
        found[path.name] = Refusal(error)

    found |= {finding.path.name: Answer.of(finding) for finding in own.stream(paths, fail)}
    return found


def changes(asked: Asked) -> Asked:
    """What is asked otherwise than before."""
    before = asked.before
    assert before is not None
    names = ("references", "calibration", "rate", "threshold", "defects", "miss_rate")
    kept = {name: None for name in names if getattr(asked, name) == getattr(before, name)}
    return replace(asked, **kept)


def checkpoint(asked: Asked, place: Path) -> Path:
    """The model in a checkpoint, after a run of the engine."""
    path, own = place / "model.ckpt", engine()
    paths = files(replace(asked, images=asked.images or (asked.references or ())[:1]), place)
    own.predict(clip_ad(asked, place), data_path=paths[0].parent if asked.mutual else paths[0])
    own.trainer.save_checkpoint(path)
    return path


def with_model(asked: Asked, place: Path) -> tuple[Asked, dict[str, Any]]:
    """What a model that was made before is asked, and how an inspector is asked that."""
    first = asked.before or replace(asked, threshold=None if asked.rate else asked.threshold)
    first = replace(first, options={name: first.options[name] for name in ("memory_size",) if name in first.options})
    if asked.before is None:
        kept = {name: value for name, value in asked.options.items() if name != "memory_size"}
        return first, kept
    changed = changes(asked)
    given = {**compared(changed, place, INSPECTOR), **changed.options, "threshold": changed.threshold}
    if asked.class_name != asked.before.class_name:
        given["class_name"] = asked.class_name
    return first, given


def of_checkpoint(asked: Asked, place: Path) -> Answers:
    """``Inspector(model=...)`` of a checkpoint."""
    first, given = with_model(asked, place)
    paths = files(asked, place)
    if asked.mutual:
        given["mutual"] = paths
    first = first if first.images else replace(first, images=asked.images[:1])
    return inspected(Inspector(model=checkpoint(first, place / "model"), **given), paths)


def of_file(kind: str) -> Callable[[Asked, Path], Answers]:
    """An exported file: by ``Inspector(model=...)`` and, where nothing else is asked, in its own runtime."""

    def ask(asked: Asked, place: Path) -> Answers:
        first, given = with_model(asked, place)
        path = export(first, kind, lambda: getattr(clip_ad(first, place / "model"), f"to_{kind}")(place))
        own = Inspector(model=path, **given)
        found = inspected(own, files(asked, place))
        if not given:
            runtime = load(path, "as exported")
            for name, answer in found.items():
                if isinstance(answer, Answer):
                    check_raw(runtime.run(read(place / "images" / name).levels[None]), answer, name)
        return found

    return ask


_EXPORTS: dict[tuple[str, str], Path] = {}


def export(asked: Asked, kind: str, write: Callable[[], Path]) -> Path:
    """The file of a model, written once for all questions that are asked of it."""
    of = kind, asked.of_model
    if of not in _EXPORTS:
        _EXPORTS[of] = write()
    return _EXPORTS[of]


def check_raw(raw: dict[str, Any], answer: Answer, name: str) -> None:
    """Check what a runtime says against what the inspector says of the same file."""
    assert abs(float(raw["pred_score"][0]) - answer.score) < 1e-5, name
    assert np.abs(raw["anomaly_map"][0].squeeze() - answer.map).max() < 1e-5, name
    assert bool(raw["pred_label"][0]) == answer.label, name
    if answer.p_value is not None:
        assert abs(float(raw["p_value"][0]) - answer.p_value) < 1e-6, name
    assert ("verdict" in raw) == (answer.verdict is not None), name
    if answer.verdict is not None:
        assert VERDICTS[int(raw["verdict"][0])] == answer.verdict, name


def of_product(graph: bool) -> Callable[[Asked, Path], Answers]:
    """A product file: by name, or with a graph that takes any product's memory."""

    def ask(asked: Asked, place: Path) -> Answers:
        of = asked.product or asked.before or asked
        if (
            graph and asked.product is not None and asked.settings
        ):  # which of the two is of other settings makes no difference
            asked, of = replace(asked, settings=of.settings), replace(of, settings=asked.settings)
        path = product_file(of, place / "product")
        given = compared(replace(asked, references=None, product=None), place, INSPECTOR)
        given |= {**asked.options, "threshold": asked.threshold}
        if asked.before is not None:
            given |= compared(replace(changes(asked), product=None), place, INSPECTOR)
        given.pop("memory_size", None)
        if graph:
            any_product = replace(asked, references=None, product=None, **UNDECIDED, options={}, before=None,
                                  class_name=of.class_name)  # fmt: skip
            given["model"] = export(
                any_product, "graph", lambda: clip_ad(any_product, place).to_onnx(place, memory_input=True)
            )
            if asked.class_name != of.class_name:
                given["class_name"] = asked.class_name
        else:
            known = {name for name in asked.settings if name != "adapter"} if asked.product is None else set()
            given |= {"class_name": asked.class_name}
            given |= {name: value for name, value in asked.settings.items() if name not in known}
            given |= {"post_processor": asked.processor} if asked.processor else {}
            given |= {"pre_processor": asked.transform} if asked.transform is not None else {}
        return inspected(Inspector(product=path, **given), files(asked, place))

    return ask


# Commands


@contextmanager
def command(*words: Any) -> Iterator[io.StringIO]:
    """A command in this process; what it prints of errors."""
    said = io.StringIO()
    argv = patch.object(sys, "argv", ["anomalib-clipad", *map(str, words)])
    told = patch.object(warnings, "formatwarning", warnings.formatwarning)
    with argv, told, redirect_stderr(said), redirect_stdout(io.StringIO()):
        yield said


def run(*words: Any) -> None:
    """Run a command.

    Raises:
        ValueError: If it ends otherwise than by itself, or with other images than those it could read.
    """
    with command(*words) as said:
        try:
            cli.main()
        except SystemExit as end:
            if end.code not in (None, 0, 3):
                usage, _, error = said.getvalue().rpartition("error: ")
                msg = f"{error} {end.code}" if usage else f"{said.getvalue()} {end.code}"
                raise ValueError(msg) from end


def flags(given: dict[str, Any]) -> list[str]:
    """Options of a command."""
    words = []
    for name, value in given.items():
        if value is not None or name == "pretrained":
            words += [f"--{name}", value if isinstance(value, (str, Path)) else json.dumps(value)]
    return [str(word) for word in words]


def of_inspect(asked: Asked, place: Path) -> Answers:
    """``anomalib-clipad inspect``."""
    return by_command(asked, place, ["--maps", "npy", "--page", "false"])


def by_command(asked: Asked, place: Path, more: list[str]) -> Answers:
    """What ``anomalib-clipad inspect`` writes."""
    given: dict[str, Any] = dict(asked.options)
    if asked.before is None:
        given |= {**asked.model, **compared(asked, place, INSPECTOR), "threshold": asked.threshold}
        given |= {"class_name": asked.class_name, **({"mutual": True} if asked.mutual else {})}
        given |= {"post_processor": dict(asked.processor) or None, "pre_processor": asked.transform and "crop"}
    else:
        changed = changes(asked)
        first = asked.before if asked.before.images else replace(asked.before, images=asked.images[:1])
        given |= {"model": checkpoint(first, place / "before"), **compared(changed, place, INSPECTOR)}
        given |= {"threshold": changed.threshold}
        if asked.class_name != asked.before.class_name:
            given["class_name"] = asked.class_name
    out = place / "out"
    paths = files(asked, place)
    run("inspect", paths[0].parent, *flags(given), "--output", out, *more)
    return table_of_cluster(out) if "ray" in more else table_of_process(out)


def table_of_process(out: Path) -> Answers:
    """Results of a run in one process."""
    found: Answers = {}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    with (out / "regions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            box = tuple(int(row[name]) for name in ("left", "top", "width", "height"))
            boxes.setdefault(row["path"], []).append(box)
    for row in read_results(out):
        large = np.load(out / f"maps/{row.name}.npy")
        own = boxes.get(row.path, [])
        defective = row.label == "defective"
        of_image = (row.score, defective, row.p_value)
        found[Path(row.path).name] = Answer(*of_image, large, None, own, len(row.regions), row.verdict)
    with (out / "failed.csv").open(newline="") as file:
        found |= {Path(row["path"]).name: Refusal(row["reason"]) for row in csv.DictReader(file)}
    return found


def of_ray(asked: Asked, place: Path) -> Answers:
    """``anomalib-clipad inspect --engine ray``."""
    return by_command(asked, place, ["--engine", "ray", "--actors", "1"])


def table_of_cluster(out: Path) -> Answers:
    """Results of a run on a cluster, which are tables only."""
    from pyarrow import parquet

    found: Answers = {}
    for row in parquet.read_table(out / "results.parquet").to_pylist():
        name = Path(row["path"]).name
        if row["error"] is not None:
            found[name] = Refusal(row["error"])
            continue
        boxes = [tuple(box[name] for name in ("left", "top", "width", "height")) for box in row["boxes"]]
        label = row["label"] == "defective"
        of_image = (row["score"], label, row["p_value"])
        found[name] = Answer(*of_image, None, None, boxes, row["regions"], row["verdict"])
    return found


# Pages


def of_page(asked: Asked, place: Path) -> Answers:
    """``anomalib-clipad page``, opened in a browser; it has neither maps nor boxes to read off."""
    given = {**asked.model, **asked.options, **compared(asked, place, INSPECTOR), "threshold": asked.threshold}
    given |= {"mutual": True if asked.mutual else None, "post_processor": dict(asked.processor) or None}
    given |= {"pre_processor": asked.transform and "crop"}
    page = place / "page.html"
    name = [] if asked.class_name is None else ["--class_name", asked.class_name]
    run("page", *flags(given), "--output", page, *name)
    tab = BROWSER[-1].tab()
    tab.go(page.as_uri())
    tab.until("document.body.dataset.state !== 'loading'")
    return {path.name: shown(tab, path) for path in files(asked, place)}


def shown(tab: Any, path: Path) -> Answer | Refusal:
    """What a page shows of an image."""
    try:
        score = dropped(tab, path)
    except RuntimeError as error:
        return Refusal(error)

    def value(name: str) -> Any:
        return tab.evaluate(f"document.getElementById('{name}').dataset.value")

    rare = value("p-value")
    p_value = None if rare in ("null", "undefined", "", None) else float(rare)
    verdict = tab.evaluate("document.getElementById('verdict').textContent")
    label = None if verdict == "look" else verdict == "defective"  # of "look" it says no more
    return Answer(score, label, p_value, count=int(value("regions")), verdict=verdict)


class _Started(Exception):  # noqa: N818  # it is no error
    """A playground was started."""


def started(words: Sequence[str]) -> Session:
    """The session of ``anomalib-clipad playground``."""
    sessions: list[Session] = []

    def served(session: Session, *_: Any) -> None:
        sessions.append(session)
        raise _Started

    with (
        patch("anomalib_clipad.tools.playground.served", served),
        patch("anomalib_clipad.tools.playground.require_gradio"),
        suppress(_Started),
    ):
        run("playground", *words)
    return sessions[0]


def of_playground(asked: Asked, place: Path) -> Answers:
    """A session of the playground: references and rate are asked in it, all else when it is started."""
    given = {**asked.model, **asked.options}
    text_weight = given.pop("text_weight", share(asked))
    given |= compared(replace(asked, references=None, rate=None), place, INSPECTOR)
    given |= {"mutual": True if asked.mutual else None, "post_processor": dict(asked.processor) or None}
    given |= {"pre_processor": asked.transform and "crop"}
    session = started(flags(given))
    if asked.before is not None:
        with suppress(ValueError):
            answered(
                session, asked.before, asked.images[0], asked.before.settings.get("text_weight", share(asked.before))
            )
    found: Answers = {}
    for one in asked.images:
        try:
            found[one.name] = answered(session, asked, one, text_weight)
        except ValueError as error:  # noqa: PERF203  # each image has its own
            found[one.name] = Refusal(error)
    return found


def share(asked: Asked) -> float:
    """What a model takes where nothing else is given; the playground has a slider, which is always somewhere."""
    joining = {**asked.model, **asked.settings}.get("joining", "spread")
    return SHARES[joining if len(asked.references or ()) >= LEAST else "sum"]


def answered(session: Session, asked: Asked, image: Shot, text_weight: float) -> Answer:
    """What a session says of a file."""
    threshold = None if asked.rate is not None else 0.5 if asked.threshold is None else asked.threshold
    question = Question(asked.class_name or "object", (), (), text_weight, threshold, asked.rate)
    references = [read(Image.open(io.BytesIO(one.content))) for one in asked.references or ()]
    return Answer.of(session.answer(read(Image.open(io.BytesIO(image.content))), references, question))


DOORS = (
    Door("Engine", of_engine),
    Door("Inspector", of_inspector),
    Door("inspect", of_inspect),
    Door("Ray", of_ray, slow=True),
    Door("checkpoint", of_checkpoint, slow=True),
    Door(".onnx", of_file("onnx"), slow=True),
    Door(".xml", of_file("openvino"), slow=True),
    Door(".pt", of_file("torch"), slow=True),
    Door("product", of_product(graph=False)),
    Door("product of a graph", of_product(graph=True), slow=True),
    Door("page", of_page, slow=True),
    Door("playground", of_playground),
)
__all__ = ["BROWSER", "DOORS", "Browser", "Door", "answers", "find_chromium"]

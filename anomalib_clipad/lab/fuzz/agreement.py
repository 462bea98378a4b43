"""Whether all that a run has written says the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from anomalib_clipad.images.content import digest_of_all

from .model import State, lines

_ALWAYS = {"run.json", "results.csv", "regions.csv", "failed.csv", "results.parquet", "results.jsonl", ".names"}


def disagreements(folder: Path, options: Mapping[str, Any]) -> Iterator[str]:
    """Where tables and pictures of a run that has ended differ from its record.

    Args:
        folder: Of the run.
        options: Of the run.
    """
    record = lines(folder / "results.jsonl")
    names = [row["name"] for row in record]
    if len({*names}) < len(names):
        yield f"names of pictures are there twice: {sorted(names)}"
    pictures = {
        *(f"masks/{name}.png" for name in names if options["masks"]),
        *(f"{kind}/{name}.jpg" for kind in (".thumbnails", ".heat_maps") for name in names if options["page"]),
        *(f"overlays/{row['name']}.jpg" for row in record if _has_overlay(row, options)),
    }
    files = _ALWAYS | {name for name, there in (("coco.json", "coco"), ("index.html", "page")) if options[there]}
    entries = sorted(folder.rglob("*"))
    yield from _differ("files", files | pictures, {_below(one, folder) for one in entries if not one.is_dir()})
    empty = [_below(one, folder) for one in entries if one.is_dir() and not any(one.iterdir())]
    if empty:
        yield f"folders are left: {empty}"
    if not {one.name for one in folder.iterdir()} >= files:
        return  # which was said
    columns = ("path", "score", "p_value", "label", "threshold", "width", "height", "name")
    expected = [[_text(row[name]) for name in columns] + [str(len(row["regions"]))] for row in record]
    table = [[row[name] for name in columns] + [row["regions"]] for row in _table(folder / "results.csv")]
    yield from _differ("rows of results.csv", expected, table)
    boxes = ("area", "peak", "mean", "p_value")
    regions = [
        [row["path"], *map(str, one["box"]), *(_text(one[name]) for name in boxes)]
        for row in record
        for one in row["regions"]
    ]
    yield from _differ("rows of regions.csv", regions, [[*row.values()] for row in _table(folder / "regions.csv")])
    yield from _parquet(folder, record)
    if options["coco"]:
        yield from _coco(folder, record)
    if options["page"]:
        yield from _page(folder, record)


def drift_disagreements(log: Path, state: State, complete: bool) -> Iterator[str]:
    """Where the file of a watch differs from a record.

    Args:
        log: The file.
        state: Of the output folder.
        complete: Whether all of the record has to be in it.
    """
    known: list[str] = []
    for line in lines(log):
        known = [] if "format" in line else [*known, *([line["image"]] if line["run"] == state.key else [])]
    if len({*known}) < len(known):
        yield f"an image is in the watch twice: {known}"
    ever = {digest_of_all(one) for one in state.ever}
    if not ever.issuperset(known):
        yield "an image is in the watch that was never in the record"
    missing = [row.path for row in state.rows if digest_of_all([row.place, row.digest]) not in known]
    if complete and missing:
        yield f"images are not in the watch: {missing}"


def _parquet(folder: Path, record: list[dict[str, Any]]) -> Iterator[str]:
    from pyarrow import parquet

    with parquet.ParquetFile(folder / "results.parquet", pre_buffer=False) as file:
        table = file.read(use_threads=False).to_pylist()
    columns = ("path", "score", "p_value", "threshold", "width", "height", "name")
    expected = [[*(row[name] for name in columns), row["label"] or None, len(row["regions"])] for row in record]
    found = [[*(row[name] for name in columns), row["label"], row["regions"]] for row in table]
    yield from _differ("rows of results.parquet", expected, found)


def _coco(folder: Path, record: list[dict[str, Any]]) -> Iterator[str]:
    coco = json.loads((folder / "coco.json").read_text(encoding="utf-8"))
    expected = [[number, row["path"]] for number, row in enumerate(record, 1)]
    yield from _differ("images of coco.json", expected, [[one["id"], one["file_name"]] for one in coco["images"]])
    boxes = [
        [number, one["box"], one["segmentation"]] for number, row in enumerate(record, 1) for one in row["regions"]
    ]
    found = [[one["image_id"], one["bbox"], one["segmentation"]] for one in coco["annotations"]]
    yield from _differ("boxes of coco.json", boxes, found)


def _page(folder: Path, record: list[dict[str, Any]]) -> Iterator[str]:
    page, place = (folder / "index.html").read_text(encoding="utf-8"), 0
    for row in record:
        place = page.find(json.dumps(row["path"]) + ",", place + 1)
        if place < 0:
            yield f"the page has {row['path']} not at all, or not in its place"
            return


def _has_overlay(row: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    above = row["score"] > row["threshold"]
    return options["overlays"] == "all" or (options["overlays"] == "defective" and above)


def _differ(what: str, expected: Iterable[Any], found: Iterable[Any]) -> Iterator[str]:
    first, second = list(expected), list(found)
    if isinstance(expected, set):
        first, second = sorted(first), sorted(second)
    if first != second:
        lacking, more = [one for one in first if one not in second], [one for one in second if one not in first]
        yield f"{what}: lacking {lacking}, too many {more}" if lacking or more else f"{what}: {second}, not {first}"


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()

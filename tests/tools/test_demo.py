"""`anomalib-clipad demo`: a small run of what the README shows."""

import csv
import json
import logging
import re
from pathlib import Path

import pytest
from PIL import Image

from anomalib_clipad.tools.demo import demo, mistaken
from anomalib_clipad.tools.evaluation import quiet

CALIBRATED = "Calibrated on 20 good pictures of each part, false-alarm rate 5 %."


@pytest.mark.slow
def test_the_demo_writes_verdicts_at_a_false_alarm_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(tmp_path / "demo", ["gear", "wood"], tmp_path / "data", good_images=12, defective_images=7, pictures=1)
    with (tmp_path / "demo" / "results.csv").open() as file:
        rows = {
            row.pop("category"): {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
        }
    assert list(rows) == ["gear", "wood", "mean"]
    assert tuple(rows["mean"]) == ("image_AUROC", "image_F1Max", "image_AP")
    for name, value in rows["mean"].items():
        assert value == pytest.approx((rows["gear"][name] + rows["wood"][name]) / 2, abs=1e-3)
    printed = capsys.readouterr()
    assert "image_AUROC" in printed.out
    assert str(tmp_path / "demo" / "index.html") in printed.out
    assert "38/38" in printed.err  # the bar counts the images
    assert "Generating" not in printed.err + printed.out  # bars of several processes would write over each other

    page = (tmp_path / "demo" / "index.html").read_text()
    settings, *blocks = (
        json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)
    )
    images = [image for block in blocks for image in block]
    assert (settings["threshold"], settings["decided"], settings["decision"]) == (None, True, CALIBRATED)
    assert CALIBRATED in printed.out
    assert len({path for path, *_ in images}) == 38
    wrong = set()
    for path, score, p_value, label, *_, truth, _part, _verdict, _digest in images:
        assert label == (p_value <= 0.05), path
        assert 1 / 21 <= p_value <= 1
        assert score is not None
        assert truth == ("/good/" not in path)
        wrong |= {path} if truth != bool(label) else set()
    assert wrong
    said = "\n".join(settings["notes"])
    assert set(re.findall(r"\w+/\w+/\d+", said)) == wrong
    assert said in printed.out
    for row in images:
        assert (row[6] is not None) == row[3]
        assert all((tmp_path / "demo" / link).is_file() for link in row[5:7] if link)
    with Image.open(tmp_path / "demo" / "contact_sheet.png") as sheet:
        assert sheet.width > sheet.height > 400  # a good part beside a defective one, twice


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        demo(tmp_path / name, ["weave"], tmp_path / name / "data", good_images=2, defective_images=7, pictures=1)
    for file in ("results.csv", "contact_sheet.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_no_wrong_verdicts_are_said_to_be_none() -> None:
    assert mistaken([]) == ["False alarms: 0 of 0 good pictures", "Missed: 0 of 0 defective pictures"]


def test_quiet_is_over_afterwards() -> None:
    ours, levels = logging.getLogger("anomalib_clipad.host.evaluator"), (logging.NOTSET, logging.INFO)
    for level in levels:
        ours.setLevel(level)
        with quiet():
            assert not ours.isEnabledFor(logging.WARNING)
        assert ours.level == level
    ours.setLevel(logging.NOTSET)

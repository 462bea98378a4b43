"""`anomalib-clipad demo`: a small run of what the README shows."""

import csv
import logging
from pathlib import Path

import pytest
from PIL import Image

from anomalib_clipad.tools.demo import demo
from anomalib_clipad.tools.evaluation import quiet


@pytest.mark.slow
def test_the_demo_writes_a_table_and_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(tmp_path / "demo", ["gear", "wood"], tmp_path / "data", good_images=3, defective_images=7, pictures=1)
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
    assert "20/20" in printed.err  # the bar counts the images
    page = (tmp_path / "demo" / "index.html").read_text()
    assert page.count("gear/scratch/") >= 1
    assert str(tmp_path / "demo" / "index.html") in printed.out
    with Image.open(tmp_path / "demo" / "contact_sheet.png") as sheet:
        assert sheet.width > sheet.height > 400  # a good part beside a defective one, twice


def test_quiet_is_over_afterwards() -> None:
    ours, levels = logging.getLogger("anomalib_clipad.host.evaluator"), (logging.NOTSET, logging.INFO)
    for level in levels:
        ours.setLevel(level)
        with quiet():
            assert not ours.isEnabledFor(logging.WARNING)
        assert ours.level == level
    ours.setLevel(logging.NOTSET)

"""`python -m anomalib_clipad.lab large-images`: only small defects, three ways to look, each beside its own time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalib_clipad.lab.bench import large_images as module
from anomalib_clipad.lab.bench.large_images import WAYS, SmallDefects, large_images
from anomalib_clipad.metrics import METRICS


def small(tmp_path: Path, largest: float) -> SmallDefects:
    numbers = {"image_size": 96, "train_images": 1, "good_images": 2, "defective_images": 14, "num_workers": 0}
    return SmallDefects(largest, root=tmp_path, category="wood", **numbers)


def test_only_small_defects_are_left(tmp_path: Path) -> None:
    everything, some = small(tmp_path, 1.0), small(tmp_path, 0.02)
    for data in (everything, some):
        data.prepare_data()
        data.setup("test")
    kept = some.test_data.samples
    shares = [(np.asarray(Image.open(path)) > 0).mean() for path in kept["mask_path"][kept["label_index"] == 1]]
    assert 0 < len(shares) < 14
    assert max(shares) <= 0.02
    assert (kept["label_index"] == 0).sum() == 2
    assert len(everything.test_data) == 16


def test_no_defect_that_small_is_an_error(tmp_path: Path) -> None:
    data = small(tmp_path, 0.0)
    data.prepare_data()
    with pytest.raises(ValueError, match="No generated defect of wood covers"):
        data.setup("test")


def test_each_way_has_its_own_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {None: 0.5, 608: 0.6}

    def fake(categories: list[str], options: dict[str, Any], *rest: object) -> Any:
        value = 0.7 if "tiles" in options else found[options.get("image_size")]
        for category in categories:
            yield dict.fromkeys(METRICS, value + (0.1 if category == "gear" else 0)), 2.0 * value, 2

    monkeypatch.setattr(module, "_results", fake)
    large_images(["gear", "wood"])
    rows = [line.split("|")[1:] for line in capsys.readouterr().out.splitlines()[2:5]]
    assert [row[0].strip() for row in rows] == list(WAYS)
    assert [float(row[1]) for row in rows] == pytest.approx([0.55, 0.65, 0.75])
    assert [float(row[8]) for row in rows] == pytest.approx([0.5, 0.6, 0.7])

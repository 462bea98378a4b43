"""The study of solar cells, on generated parts where their package would be."""

from pathlib import Path

import numpy as np
import pytest
from conftest import save

from anomalib_clipad.lab.bench import solar_cells
from anomalib_clipad.lab.bench.shots import ways_of
from anomalib_clipad.parts.samples import named_sample


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a handful of whole, doubtful and broken parts of each kind."""
    folder, lines = tmp_path / "elpv_dataset/data", []
    for number in range(18):
        for kind in ("mono", "poly"):
            probability = (0, 0, 1 / 3, 1)[number % 4]
            defect = "hole" if probability == 1 else None
            picture = named_sample("wood", kind, number, defect, 0, 64).image
            save(folder / f"images/{kind}{number:02}.png", np.asarray(picture))
            lines.append(f"images/{kind}{number:02}.png  {probability} {kind}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_no_cell_is_compared_with_itself_and_doubtful_ones_are_left_out(installed: Path) -> None:
    drawn = solar_cells.draw(installed, "mono", seed=1, normal=3, each=4)
    assert [len(part) for part in drawn] == [3, 8, 8]
    assert not set(drawn.normal) & set(drawn.images)
    numbers = [int(path.stem[-2:]) % 4 for path in drawn.images]
    assert [number == 3 for number in numbers] == drawn.labels == [False] * 4 + [True] * 4
    assert 2 not in numbers
    assert solar_cells.draw(installed, "mono", seed=2, normal=3, each=4) != drawn


@pytest.mark.slow
def test_text_normal_and_unlabelled_images_are_compared(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solar_cells.main(shots=(2,), draws=1)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == list(ways_of((2,)))
    assert all(0 <= float(value) <= 1 for line in lines[2:] for value in line.split("|")[2:4])


def test_without_the_photographs_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solar_cells, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install elpv-dataset"):
        solar_cells.main()

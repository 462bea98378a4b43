"""The study of textiles, on generated parts where their package would be."""

from pathlib import Path

import numpy as np
import pytest
from conftest import save

from anomalib_clipad.lab.bench import textiles
from anomalib_clipad.parts.samples import named_sample


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a few parts of each folder."""
    folder = tmp_path / "conformal_clip_data/data/textile_images/simulated"
    for kind, defect, count in (("nominal", None, 7), ("local", "hole", 3), ("global", "colour", 3)):
        for number in range(count):
            picture = named_sample("wood", kind, number, defect, 0, 64).image
            save(folder / f"{kind}/textile_{number:04}.png", np.asarray(picture))
    (tmp_path / "conformal_clip_data/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_no_textile_is_compared_with_itself_and_each_has_the_label_of_its_folder(installed: Path) -> None:
    drawn = textiles.draw(installed, "local", normal=4, each=3)
    assert [len(part) for part in drawn] == [4, 6, 6]
    assert not set(drawn.normal) & set(drawn.images)
    assert [path.parent.name == "local" for path in drawn.images] == drawn.labels == [False] * 3 + [True] * 3


@pytest.mark.slow
def test_text_and_normal_images_are_compared_for_both_kinds(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    textiles.main(each=3)
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")[2:4]] == ["local defects", "global defects"]
    assert all(0 <= float(value) <= 1 for line in lines for value in line.split("|")[2:4])
    assert len(lines) == 4


def test_without_the_photographs_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textiles, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install conformal-clip-data"):
        textiles.main()

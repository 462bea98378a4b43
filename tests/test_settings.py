"""Settings name files so that they are found from any folder."""

from dataclasses import fields
from pathlib import Path

import pytest

from anomalib_clipad.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/0123").touch()
    path = tmp_path / "model.pt"
    path.symlink_to(tmp_path / "blobs/0123")
    return path


def test_paths_become_absolute_and_keep_their_name_and_tag(file: Path) -> None:
    assert Settings(pretrained="model.pt").pretrained == str(file)
    assert Settings(pretrained="openai:model.pt").pretrained == f"openai:{file}"
    assert Settings(backbone="local-dir:blobs").backbone == f"local-dir:{file.parent / 'blobs'}"


@pytest.mark.parametrize("name", ["openai", "none.pt", "openai:none.pt", "hf-hub:someone/model", "local-dir:none"])
def test_other_names_stay(name: str) -> None:
    assert Settings(backbone=name, pretrained=name).pretrained == name


def test_every_field_is_an_option_that_is_described_and_its_default_makes_the_default_settings() -> None:
    options = Settings.options()
    assert [option.name for option in options] == [field.name for field in fields(Settings)]
    assert all(option.text.endswith(".") for option in options)
    assert Settings.of(**{option.name: option.default for option in options}) == Settings()


def test_what_a_user_gives_is_not_always_what_a_field_holds() -> None:
    types = {option.name: option.type for option in Settings.options()}
    assert types["prompts"] is str
    assert types["tiles"] == list[int] | None
    assert types["text_weight"] is float

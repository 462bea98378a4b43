"""Settings name files so that they are found from any folder."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"backbone": None}, "backbone has to be the name of a backbone, such as 'clipad-mini'; got None"),
        ({"pretrained": 3}, "pretrained has to be a tag, the path of a weights file, or None .*; got 3"),
        ({"image_size": 1.5}, "image_size has to be an integer, 1 or more; got 1.5"),
        ({"image_size": "240"}, "image_size has to be an integer, 1 or more; got '240'"),
        ({"image_size": 1_600_000}, "image_size has to be 8192 at most, or no memory is large enough; got 1600000"),
        ({"rvs": None}, "Unknown RVS method 'None'; expected one of mean, pca"),
        ({"rvs_options": 3}, "The RVS options have to be a mapping .*; got 3"),
        ({"rvs_options": {"eps": "a"}}, "'eps' has to be a positive number; got 'a'"),
        ({"rvs_options": {"eps": float("inf")}}, "'eps' has to be a positive number; got inf"),
        ({"prompts": 3}, "prompts has to be one of .*'industrial'.* got 3"),
        ({"prompts": "industrail"}, "No prompt set 'industrail' .did you mean 'industrial'?"),
        ({"smoothing": "a"}, "smoothing has to be a standard deviation in pixels, from 0 to 1000; got 'a'"),
        ({"smoothing": 1e9}, "smoothing has to be .* from 0 to 1000; got 1000000000.0"),
        ({"smoothing": 10**400}, "smoothing has to be .* from 0 to 1000; got 1000"),
        ({"smoothing": True}, "smoothing has to be .*; got True"),
        ({"tap": "refernce"}, "Unknown tap 'refernce'; expected one of reference, block .did you mean 'reference'?"),
        ({"precision": 3}, "Unknown precision '3'; expected one of float32"),
        ({"precision": []}, r"Unknown precision '\[\]'; expected one of float32"),
        ({"text_weight": "a"}, r"text_weight has to be a share in \[0, 1\]; got 'a'"),
        ({"text_weight": 1.5}, r"text_weight has to be a share in \[0, 1\]; got 1.5"),
        ({"joining": "mean"}, "Unknown joining 'mean'; expected one of spread, sum"),
        ({"text_weight": float("nan")}, r"text_weight has to be a share in \[0, 1\]; got nan"),
        ({"tiles": "a"}, "tiles has to be two integers.*; got 'a'"),
        ({"tiles": 3}, "tiles has to be two integers.*; got 3"),
        ({"aligned": "yes", "tiles": [2, 2]}, "aligned has to be true or false; got 'yes'"),
    ],
    ids=str,
)
def test_a_value_of_a_wrong_type_gets_a_sentence(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.of(**setting)


def test_settings_made_by_hand_are_checked_too() -> None:
    for wrong in ({"prompts": "industrial"}, {"rvs_options": None}):
        with pytest.raises(ValueError, match=r"ha(s|ve) to be a"):
            Settings(**wrong)


def test_numbers_of_numpy_are_numbers_that_json_knows() -> None:
    settings = Settings(image_size=np.int64(240), smoothing=np.float32(4), text_weight=np.float64(0.25))
    assert (
        json.loads(json.dumps(settings.as_dict())) == Settings(image_size=240, smoothing=4, text_weight=0.25).as_dict()
    )


def test_what_a_user_gives_is_not_always_what_a_field_holds() -> None:
    types = {option.name: option.type for option in Settings.options()}
    assert types["prompts"] is str
    assert types["tiles"] == list[int] | None
    assert types["text_weight"] == float | None


def test_the_plain_sum_has_the_published_share() -> None:
    assert Settings(joining="sum").text_weight == 0.5
    assert Settings(joining="sum", text_weight=0.2).text_weight == 0.2
    assert Settings().text_weight is None
    assert Settings().uses_text
    assert not Settings(text_weight=0).uses_text

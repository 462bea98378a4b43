"""A model configuration is checked before anything is built from it, and errors name what is wrong."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
from conftest import GOLDEN, TINY

from anomalib_clipad import load_backbone
from anomalib_clipad.backbones.configuration import check_config


def changed(tmp_path: Path, preprocess: object = None, **changes: Any) -> str:
    """The tiny CLIP's configuration with changes, ``part__key`` for a key of a part."""
    config = json.loads((GOLDEN / "tiny12.json").read_text())
    for name, value in changes.items():
        part, _, key = name.rpartition("__")
        (config[part] if part else config)[key] = value
    path = tmp_path / "changed.json"
    path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess} if preprocess else config))
    return str(path)


@pytest.mark.parametrize("value", [0, -4, "12", 12.0, True, None])
@pytest.mark.parametrize(
    "key", ["embed_dim", "vision_cfg__layers", "vision_cfg__width", "vision_cfg__patch_size", "text_cfg__heads"]
)
def test_sizes_are_positive_whole_numbers(tmp_path: Path, key: str, value: object) -> None:
    message = rf"{key.replace('__', '.')} of the model configuration '.*changed\.json' has to be .*whole number; got"
    with pytest.raises(ValueError, match=message.replace(".*changed\\.json", "changed")):
        load_backbone(changed(tmp_path, **{key: value}), None)


@pytest.mark.parametrize("part", ["vision_cfg", "text_cfg"])
@pytest.mark.parametrize("value", [None, [], "ViT-B-32"])
def test_a_part_is_an_object(tmp_path: Path, part: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"`{part}` of the model configuration 'changed' has to be an object"):
        load_backbone(changed(tmp_path, **{part: value}), None)


@pytest.mark.parametrize("size", [0, "64", None, [64, 64], 65])
def test_an_image_size_is_one_multiple_of_the_patch(tmp_path: Path, size: object) -> None:
    with pytest.raises(ValueError, match="one positive multiple of the patch size 16 of 'changed'"):
        load_backbone(changed(tmp_path, vision_cfg__image_size=size), None)


def test_widths_fit_their_heads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vision_cfg\.width of 'changed' .* multiple of its head_width 32; got 100"):
        load_backbone(changed(tmp_path, vision_cfg__width=100), None)
    with pytest.raises(ValueError, match=r"text_cfg\.width of 'changed' .* multiple of its 3 heads; got 16"):
        load_backbone(changed(tmp_path, text_cfg__heads=3), None)


@pytest.mark.parametrize(
    ("key", "value"), [("vision_cfg__depth", 12), ("vision_cfg__mlp_ratio", "four"), ("text_cfg__mlp_ratio", -4.0)]
)
def test_what_open_clip_cannot_build_is_explained(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ValueError, match="configuration of 'changed' is not one of open_clip, which cannot build it"):
        load_backbone(changed(tmp_path, **{key: value}), None)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ({"mean": [0.5, 0.5]}, "`mean` of 'changed' has to be 3 numbers, one per channel"),
        ({"mean": ["a", "b", "c"]}, "`mean` of 'changed'"),
        ({"std": [0.2, 0.2, 0]}, "`std` of 'changed' has to be 3 numbers above 0"),
        ({"std": "half"}, "`std` of 'changed'"),
        ([0.5], r"`preprocess_cfg` of .*changed\.json has to be an object"),
    ],
)
def test_a_normalisation_is_three_numbers(tmp_path: Path, preprocess: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone(changed(tmp_path, preprocess), TINY["pretrained"])


def test_one_number_stands_for_all_channels(tmp_path: Path) -> None:
    backbone = load_backbone(changed(tmp_path, {"mean": 0.5, "std": None}), TINY["pretrained"])
    assert backbone.mean == (0.5, 0.5, 0.5)
    assert backbone.std == open_clip.OPENAI_DATASET_STD


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: str) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    path = changed(tmp_path)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ValueError, match=r"changed\.json cannot be read: .*Permission denied"):
        load_backbone(path, TINY["pretrained"])


def test_open_clips_own_vision_transformers_pass() -> None:
    passed = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        try:
            check_config(config, name, None)
            passed.append(name)
        except ValueError as error:
            assert "CLIP-AD cannot run on" in str(error), name  # noqa: PT017
    assert {"ViT-B-16-plus-240", "ViT-B-32", "ViT-L-14-quickgelu", "ViT-H-14", "ViT-bigG-14"} <= set(passed)


def test_open_clips_list_of_models_stays_as_it_was(tmp_path: Path) -> None:
    before = open_clip.list_models()
    load_backbone(**TINY)
    with pytest.raises(ValueError, match="cannot build it"):
        load_backbone(changed(tmp_path, vision_cfg__depth=12), None)
    assert open_clip.list_models() == before

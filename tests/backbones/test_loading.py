"""Backbones: every way to name one, and clear errors for what cannot run."""

import copy
import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import GOLDEN, TINY
from open_clip.transformer import CustomResidualAttentionBlock
from safetensors.torch import load_file, save_file

from anomalib_clipad import ClipADModel, load_backbone
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.backbones.loading import check_tower
from anomalib_clipad.backbones.sources import WeightsUnavailableError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny CLIP as a folder of the hub's layout, with a normalisation of its own."""
    config = {
        "model_cfg": json.loads((GOLDEN / "tiny12.json").read_text()),
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(TINY["pretrained"], tmp_path / "open_clip_model.safetensors")
    return tmp_path


def config_with(tmp_path: Path, **changes: object) -> str:
    config = json.loads((GOLDEN / "tiny12.json").read_text())
    config["vision_cfg"] |= changes
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_a_configuration_file_with_its_weights() -> None:
    backbone = load_backbone(**TINY)
    weights = load_file(TINY["pretrained"])
    assert backbone.image_size == 64
    assert all(torch.equal(value, weights[name]) for name, value in backbone.clip.state_dict().items())
    assert (backbone.mean, backbone.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def test_a_local_folder_brings_weights_and_normalisation(folder: Path) -> None:
    backbone = load_backbone(f"local-dir:{folder}")
    assert backbone.mean == (0.5, 0.5, 0.5)
    assert torch.equal(backbone.clip.visual.proj, load_file(TINY["pretrained"])["visual.proj"])


def test_weights_as_a_torch_checkpoint(tmp_path: Path) -> None:
    state = load_file(TINY["pretrained"])
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "weights.pt")
    backbone = load_backbone(TINY["backbone"], str(tmp_path / "weights.pt"))
    assert torch.equal(backbone.clip.visual.proj, state["visual.proj"])


@pytest.mark.slow
def test_an_open_clip_name_with_a_weights_file(tmp_path: Path) -> None:
    clip = open_clip.create_model("ViT-S-32-alt")
    save_file(clip.state_dict(), tmp_path / "weights.safetensors")
    backbone = load_backbone("ViT-S-32-alt", str(tmp_path / "weights.safetensors"))
    assert torch.equal(backbone.clip.visual.proj, clip.visual.proj)


def test_random_weights_are_loudly_random_and_always_the_same() -> None:
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="RANDOM weights"):
        first = load_backbone(TINY["backbone"], None)
    drawn = torch.rand(1)
    with pytest.warns(UserWarning, match="mean nothing"):
        second = load_backbone(TINY["backbone"], None)
    assert torch.equal(first.clip.visual.proj, second.clip.visual.proj)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # the caller's random numbers are left alone


@pytest.mark.parametrize("image_size", [32, 96, 240])
def test_another_image_size_interpolates_positions(image_size: int) -> None:
    backbone = load_backbone(**TINY, image_size=image_size)
    grid = image_size // 16
    assert backbone.image_size == image_size
    assert backbone.clip.visual.positional_embedding.shape == (grid * grid + 1, 64)
    model = ClipADModel(backbone)
    model.setup("cup")
    assert model(torch.zeros(2, 3, image_size, image_size)).anomaly_map.shape == (2, image_size, image_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B/32"])
def test_open_clips_names_work(name: str) -> None:
    with pytest.warns(UserWarning, match="RANDOM"):
        clip = load_backbone(name, None).clip
    activation = type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__
    assert activation == ("QuickGELU" if "quick" in name else "GELU")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("RN50", "a ResNet"),
        ("convnext_base", "a timm tower"),
        ("coca_ViT-B-32", "does not pool by its CLS token"),
    ],
)
def test_towers_of_another_kind_are_refused_before_any_download(name: str, kind: str) -> None:
    pretrained = None if name.startswith("coca") else "openai"
    with pytest.raises(ValueError, match=rf"'{name}', whose image tower is .*{kind}.*Supported are.*ViT-B-16-plus-240"):
        load_backbone(name, pretrained)


def test_custom_attention_is_refused(backbone: Backbone) -> None:
    visual = copy.deepcopy(backbone.clip.visual)
    visual.transformer.resblocks[3] = CustomResidualAttentionBlock(64, 2)
    with pytest.raises(
        ValueError, match=r"'mine', whose image tower is a transformer of CustomResidualAttentionBlocks"
    ):
        check_tower(visual, "mine")


@pytest.mark.parametrize("layers", [6, 10])
def test_blocks_have_to_make_four_stages(tmp_path: Path, layers: int) -> None:
    with pytest.raises(ValueError, match=f"'changed' has {layers} blocks, which is no multiple of 4"):
        load_backbone(config_with(tmp_path, layers=layers), None)


@pytest.mark.parametrize("image_size", [250, 0, -16, 8])
def test_an_image_size_has_to_be_a_multiple_of_the_patch(image_size: int) -> None:
    with pytest.raises(ValueError, match=rf"multiple of the patch size 16 of 'ViT-B-16-plus-240'; got {image_size}"):
        load_backbone(image_size=image_size)


def test_an_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown backbone 'ViT-B-16-plus-24O'.*ViT-B-16-plus-240.*hf-hub:"):
        load_backbone("ViT-B-16-plus-24O")


@pytest.mark.parametrize("name", ["clipad_mini", "CLIPAD-mini", "clipadmini"])
def test_a_misspelt_name_of_our_own_backbone_suggests_it(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Unknown backbone '{name}' \(did you mean 'clipad-mini'\?\)"):
        load_backbone(name)


@pytest.mark.parametrize("tag", ["laion40m_e31", "Laion400-m_e31", "lion400m_e31:/weights.pt"])
def test_a_misspelt_tag_suggests_the_near_one(tag: str) -> None:
    with pytest.raises(ValueError, match=rf"No weights '{tag}' \(did you mean 'laion400m_e31'\?\): expected"):
        load_backbone("ViT-B-16-plus-240", tag)


def test_a_misspelt_default_tag_suggests_it_to_our_own_backbone_too() -> None:
    with pytest.raises(ValueError, match=r"No weights 'laion400m_e3l' \(did you mean 'laion400m_e31'\?\)"):
        load_backbone("clipad-mini", "laion400m_e3l")


def test_an_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"No weights 'laion5b'.*weights file or a tag of ViT-B-32 \(openai, laion400m_e31"
    ):
        load_backbone("ViT-B-32", "laion5b")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json does not exist"):
        load_backbone(str(tmp_path / "none.json"), None)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[]", "lacks embed_dim"), ("{}", "lacks embed_dim")]
)
def test_a_broken_configuration_is_explained(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(ValueError, match=rf"broken\.json.*{message}"):
        load_backbone(str(tmp_path / "broken.json"), None)


def test_a_configuration_has_no_tags() -> None:
    with pytest.raises(ValueError, match=r"has no weights 'laion400m_e31'.*path of its weights.*null for random"):
        load_backbone(TINY["backbone"])


def test_a_folder_without_a_model_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no open_clip model: expected open_clip_config\.json"):
        load_backbone(f"local-dir:{tmp_path}")


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"tiny12\.safetensors does not fit the backbone 'ViT-B-32'.*this architecture"
    ):
        load_backbone("ViT-B-32", TINY["pretrained"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_corrupt_weights_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corrupt{suffix}"
    path.write_bytes(Path(TINY["pretrained"]).read_bytes()[:5000])
    with pytest.raises(ValueError, match=rf"corrupt\{suffix} does not fit the backbone 'tiny12', or is damaged"):
        load_backbone(TINY["backbone"], str(path))


def test_a_weights_file_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match=r"No weights 'nowhere\.pt': expected the path of a weights file"):
        load_backbone(TINY["backbone"], "nowhere.pt")


@pytest.mark.parametrize("name", ["ViT-B-16-plus-240", "hf-hub:someone/a-model"])
def test_without_a_network_the_message_says_how_to_go_on(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailableError, match="could not be downloaded from https://") as error:
        load_backbone(name)
    message = str(error.value)
    assert "clipad-mini" in message
    assert "pretrained" in message or "local-dir:" in message

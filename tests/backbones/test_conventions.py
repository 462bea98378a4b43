"""The same weights are the same model, whether they are named by their tag or by the path of their file."""

import json
import shutil
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import GOLDEN, TINY
from safetensors.torch import load_file, save_file

from anomalib_clipad import load_backbone
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.backbones.sources import find_source

HALVES = (0.5, 0.5, 0.5)
TAGS = {
    "plain": {"url": "https://example.org/tiny-plain.pt", "mean": open_clip.OPENAI_DATASET_MEAN},
    "quick": {
        "url": "https://example.org/tiny-quick.pt",
        "hf_hub": "someone/Tiny-quick/",
        "mean": HALVES,
        "std": HALVES,
        "quick_gelu": True,
    },
}


@pytest.fixture
def tiny_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny CLIP as an open_clip name with two tags, of which one has QuickGELU and a normalisation of its own."""
    config = json.loads((GOLDEN / "tiny12.json").read_text())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny12", config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny12", TAGS)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda known: TINY["pretrained"])
    monkeypatch.setattr("anomalib_clipad.backbones.downloads._reachable", lambda server: True)


def place(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(TINY["pretrained"], path)
    return str(path)


def traits(backbone: Backbone) -> tuple[object, ...]:
    activations = {type(block.mlp[1]).__name__ for block in backbone.clip.visual.transformer.resblocks}
    activations |= {type(block.mlp[1]).__name__ for block in backbone.clip.transformer.resblocks}
    return activations, backbone.mean, backbone.std


def test_a_tag_brings_its_activation_and_normalisation(tiny_tags: None) -> None:
    assert traits(load_backbone("tiny12", "quick")) == ({"QuickGELU"}, HALVES, HALVES)
    assert traits(load_backbone("tiny12", "plain"))[0] == {"GELU"}


@pytest.mark.parametrize(
    "path",
    [
        "tiny-quick.pt",
        "TINY-Quick.pt",
        "models--someone--Tiny-quick/snapshots/0123abcd/open_clip_model.safetensors",
        "Tiny-quick/open_clip_model.safetensors",
    ],
)
def test_a_file_under_its_published_name_is_that_of_the_tag(tiny_tags: None, tmp_path: Path, path: str) -> None:
    by_tag = load_backbone("tiny12", "quick")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_path = load_backbone("tiny12", place(tmp_path / path))
    assert traits(by_path) == traits(by_tag)
    assert by_path.fingerprint == by_tag.fingerprint


def test_a_link_to_a_published_file_is_followed(tiny_tags: None, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(place(tmp_path / "tiny-quick.pt"))
    assert traits(load_backbone("tiny12", str(tmp_path / "current"))) == ({"QuickGELU"}, HALVES, HALVES)


def test_a_relative_path_is_known_by_the_folder_it_is_in(
    tiny_tags: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path / "Tiny-quick/open_clip_model.safetensors")
    monkeypatch.chdir(tmp_path / "Tiny-quick")
    assert traits(load_backbone("tiny12", "open_clip_model.safetensors"))[0] == {"QuickGELU"}


@pytest.mark.parametrize("tag", ["quick", "QUICK"])
def test_a_tag_before_the_path_says_what_the_file_is(tiny_tags: None, tmp_path: Path, tag: str) -> None:
    path = place(tmp_path / "renamed.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = load_backbone("tiny12", f"{tag}:{path}")
    assert traits(backbone) == ({"QuickGELU"}, HALVES, HALVES)
    assert backbone.fingerprint == load_backbone("tiny12", "quick").fingerprint
    assert (backbone.name, backbone.pretrained) == ("tiny12", f"{tag}:{path}")


def test_an_unknown_tag_before_a_path_lists_the_known_ones(tiny_tags: None, tmp_path: Path) -> None:
    path = place(tmp_path / "renamed.bin")
    with pytest.raises(ValueError, match=r"No weights 'quik:.*a tag of tiny12 \(plain, quick\) or 'tag:path'"):
        load_backbone("tiny12", f"quik:{path}")
    with pytest.raises(ValueError, match=r"No weights '/none\.pt': expected the path of a weights file"):
        load_backbone("tiny12", "quick:/none.pt")


def test_the_configuration_beside_a_file_tells(tiny_tags: None, tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "tiny12.json").read_text()) | {"quick_gelu": True}
    beside = {"model_cfg": config, "preprocess_cfg": {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(beside))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = load_backbone("tiny12", place(tmp_path / "mine.pt"))
    assert traits(backbone) == ({"QuickGELU"}, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))


@pytest.mark.parametrize("beside", [None, "{", '{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}'])
def test_where_nothing_tells_a_warning_says_what_is_assumed(
    tiny_tags: None, tmp_path: Path, beside: str | None
) -> None:
    if beside:
        (tmp_path / "open_clip_config.json").write_text(beside)
    path = place(tmp_path / "mine.pt")
    with pytest.warns(UserWarning, match=r"mine\.pt were trained .*assumed are GELU.*quick of 'tiny12'") as caught:
        backbone = load_backbone("tiny12", path)
    assert f"pretrained='quick:{path}'" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert traits(backbone)[0] == {"GELU"}


def test_where_all_tags_agree_there_is_no_doubt(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_source("ViT-B-16-plus-240", str(tmp_path / "mine.pt"))


def test_every_tag_of_a_vision_transformer_is_recognised_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of open_clip's own registry; names and tags that differ from their model in activation or normalisation."""
    monkeypatch.setattr(open_clip, "download_pretrained", lambda known: "somewhere")
    monkeypatch.setattr("anomalib_clipad.backbones.downloads._reachable", lambda server: True)
    compared = 0
    for name, tag in open_clip.list_pretrained():
        known = open_clip.get_pretrained_cfg(name, tag)
        if "layers" not in (open_clip.get_model_config(name) or {"vision_cfg": {}})["vision_cfg"]:
            continue
        by_tag = find_source(name, tag)
        places = [Path(known["url"]).name] if known.get("url") else []
        owner, _, rest = known.get("hf_hub", "").partition("/")
        if owner:
            places.append(f"models--{owner}--{rest.partition('/')[0]}/snapshots/0/open_clip_model.safetensors")
        for number, relative in enumerate(places):
            path = tmp_path / f"{name}-{tag}-{number}" / relative
            path.parent.mkdir(parents=True)
            path.touch()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for pretrained in (str(path), f"{tag}:{path}"):
                    by_path = find_source(name, pretrained)
                    assert (by_path.config, by_path.mean, by_path.std) == (by_tag.config, by_tag.mean, by_tag.std)
                    compared += 1
    assert compared > 100


@pytest.mark.parametrize("tag", ["openai", "laion400m_e31"])
def test_tags_with_quickgelu_have_it_in_every_version_of_open_clip(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "download_pretrained", lambda known: "somewhere")
    monkeypatch.setattr("anomalib_clipad.backbones.downloads._reachable", lambda server: True)
    assert find_source("ViT-B-32", tag).config["quick_gelu"]
    assert not find_source("ViT-B-32", "laion2b_s34b_b79k").config.get("quick_gelu")


@pytest.mark.slow
def test_activation_normalisation_and_heads_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "tiny12.json").read_text())
    heads = config | {"vision_cfg": config["vision_cfg"] | {"head_width": 16}}
    variants = [
        {"model_cfg": config},
        {"model_cfg": config | {"quick_gelu": True}},
        {"model_cfg": heads},
        {"model_cfg": config, "preprocess_cfg": {"mean": HALVES}},
        {"model_cfg": config, "preprocess_cfg": {"std": HALVES}},
    ]
    fingerprints = set()
    for number, variant in enumerate(variants):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(variant))
        fingerprints.add(load_backbone(str(path), TINY["pretrained"]).fingerprint)
    assert len(fingerprints) == 5
    assert load_backbone(**TINY).fingerprint in fingerprints  # a bare configuration has the defaults


def test_openais_own_files_are_read(tmp_path: Path) -> None:
    class Archive(torch.nn.Module):
        def __init__(self, state: dict[str, torch.Tensor]) -> None:
            super().__init__()
            for name, value in state.items():
                module = self
                *parents, leaf = name.split(".")
                for parent in parents:
                    if not hasattr(module, parent):
                        setattr(module, parent, torch.nn.Module())
                    module = getattr(module, parent)
                module.register_buffer(leaf, value)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    state = load_file(TINY["pretrained"])
    sizes = {name: torch.tensor(64) for name in ("input_resolution", "context_length", "vocab_size")}
    archive = Archive({name: value.half() if value.is_floating_point() else value for name, value in state.items()})
    for name, value in sizes.items():
        archive.register_buffer(name, value)
    torch.jit.save(torch.jit.script(archive), tmp_path / "ViT.pt")
    backbone = load_backbone(TINY["backbone"], str(tmp_path / "ViT.pt"))
    assert torch.equal(backbone.clip.visual.proj, state["visual.proj"].half().float())


def test_a_file_of_the_hubs_cache_needs_no_suffix(tmp_path: Path) -> None:
    save_file(load_file(TINY["pretrained"]), tmp_path / "0123abcd")
    assert load_backbone(TINY["backbone"], str(tmp_path / "0123abcd")).fingerprint == load_backbone(**TINY).fingerprint


def test_the_fingerprint_is_that_of_the_weights_as_loaded(tmp_path: Path) -> None:
    state = load_file(TINY["pretrained"])
    rounded = {name: value.bfloat16() for name, value in state.items()}
    save_file(rounded, tmp_path / "rounded.safetensors")
    loaded = load_backbone(TINY["backbone"], str(tmp_path / "rounded.safetensors"))
    assert loaded.fingerprint != load_backbone(**TINY).fingerprint

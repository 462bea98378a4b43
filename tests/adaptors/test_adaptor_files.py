"""Files of AF-CLIP's and AA-CLIP's layers: their authors', ours, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from neighbours import FILES, authors, close, numbers, tiny, weights
from torch import Tensor, nn

from anomalib_clipad import ClipAD, ClipADModel
from anomalib_clipad.adaptors import files
from anomalib_clipad.adaptors.af_clip import AFClip
from anomalib_clipad.adaptors.files import TrainedLayers, adapter_file, save_adapter
from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.adaptors.releases import Release, blob_id
from anomalib_clipad.backbones.sources import WeightsUnavailableError
from anomalib_clipad.predictor.building import by_name
from anomalib_clipad.settings import Settings

OPENAI = {"backbone": "ViT-L-14-336", "pretrained": "openai", "image_size": 518}


def new_model(folder: Path, variant: str) -> ClipADModel:
    return ClipADModel(tiny(folder, quick_gelu=True), variant=variant)


def load(model: ClipADModel, path: Path) -> dict[str, Tensor]:
    TrainedLayers(path).load(model.adapter, model.settings, model.fingerprint)
    return model.adapter.state_dict()


@pytest.mark.parametrize(("variant", "prefix"), [("af_clip", "af"), ("aa_clip", "aa")])
def test_the_authors_files_are_read(tmp_path: Path, variant: str, prefix: str) -> None:
    state = load(new_model(tmp_path, variant), authors(tmp_path, variant))
    expected = weights(numbers(), f"{prefix}/weights/")
    assert set(state) - set(expected) <= {"trained", "relu"}
    assert state["trained"]
    for name, value in expected.items():
        close(state[name], value, 0)


@pytest.mark.parametrize(("variant", "key"), [("af_clip", "af/map"), ("aa_clip", "aa/map")])
def test_a_folder_is_all_it_takes(tmp_path: Path, variant: str, key: str) -> None:
    clip = tiny(tmp_path, quick_gelu=True)
    predictor = by_name("bottle", adapter=authors(tmp_path, variant), **clip.settings(), text_cache=False)
    assert predictor.model.settings.variant == variant
    close(predictor.model(numbers()["images"]).anomaly_map, numbers()[key], 1e-4)


@pytest.mark.parametrize("variant", FILES)
def test_our_own_file_says_its_variant(tmp_path: Path, variant: str) -> None:
    model = new_model(tmp_path, variant)
    state = {name: value.clone() for name, value in load(model, authors(tmp_path, variant)).items()}
    path = tmp_path / "layers.safetensors"
    save_adapter(model.adapter, path, model.settings, model.fingerprint)
    assert TrainedLayers(path).settings({})["variant"] == variant
    again = load(new_model(tmp_path, variant), path)
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_our_own_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, path, reads = tiny(tmp_path, quick_gelu=True), tmp_path / "layers.safetensors", []
    model = new_model(tmp_path, "af_clip")
    load(model, authors(tmp_path, "af_clip"))
    save_adapter(model.adapter, path, model.settings, model.fingerprint)
    read = files._own
    monkeypatch.setattr(files, "_own", lambda file: reads.append(file) or read(file))
    by_name("bottle", adapter=path, **clip.settings(), text_cache=False)
    assert reads == [path]
    ClipAD("bottle", adapter=path, **clip.settings(), text_cache=False, visualizer=False)
    assert reads == [path, path]


def test_a_leaky_projection_is_told_by_its_name(tmp_path: Path) -> None:
    folder, images = authors(tmp_path, "aa_clip"), numbers()["images"]
    plain, leaky = new_model(tmp_path, "aa_clip"), new_model(tmp_path, "aa_clip")
    load(plain, folder)
    content = torch.load(folder / "image_adapter.pth", weights_only=True)
    layers = content["image_adapter"]
    for name in [name for name in layers if "proj" in name]:
        layers[name.replace(".fc.", ".fc.0.")] = layers.pop(name)
    torch.save(content, folder / "image_adapter.pth")
    state = load(leaky, folder)
    assert state["relu"]
    close(state["det_projection.weight"], plain.adapter.det_projection.weight, 0)
    for model in (plain, leaky):
        model.setup("bottle")
    assert (plain(images).anomaly_map - leaky(images).anomaly_map).abs().max() > 0.1


def test_as_many_image_adapters_as_a_file_has(tmp_path: Path) -> None:
    folder = authors(tmp_path, "aa_clip")
    content = torch.load(folder / "image_adapter.pth", weights_only=True)
    del content["image_adapter"]["layer_adapters.5.fc.0.weight"]
    torch.save(content, folder / "image_adapter.pth")
    assert sum(name.startswith("image_adapter.") for name in load(new_model(tmp_path, "aa_clip"), folder)) == 5


def test_any_other_class_in_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    folder = authors(tmp_path, "af_clip")
    for other, name in ((nn.Bilinear(2, 2, 2), "torch.nn.modules.linear.Bilinear"), (Code(), "getattr")):
        torch.save(other, folder / "visa_adaptor.pt")
        with pytest.raises(ValueError, match=f"{name}.*no part of these layers"):
            load(new_model(tmp_path, "af_clip"), folder)
    assert not Path("executed").exists()


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_layers_of_another_variant_or_size_are_refused(tmp_path: Path) -> None:
    other = ClipADModel(tiny(tmp_path, quick_gelu=True), variant="sdp_plus")
    folder = authors(tmp_path, "af_clip")
    with pytest.raises(ValueError, match=r"no file of SDP\+ layers"):
        load(other, folder)
    torch.save(nn.Parameter(torch.zeros(1, 12, 768)), folder / "visa_prompt.pt")
    with pytest.raises(ValueError, match=r"prompt is \(1, 12, 768\) in the file, the backbone needs \(1, 12, 16\)"):
        load(new_model(tmp_path, "af_clip"), folder)


def test_a_folder_without_layers_says_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"AF-CLIP: \*_prompt.pt and \*_adaptor.pt; AA-CLIP: image_adapter.pth"):
        adapter_file(str(tmp_path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A server that has the released files: those of the tiny model; an empty cache."""
    folder = authors(tmp_path, "af_clip")
    releases = tuple(
        Release(folder.as_uri(), name, blob_id((folder / name).read_bytes()), "af_clip_visa")
        for name in FILES["af_clip"].values()
    )
    monkeypatch.setitem(AFClip.released, "af_clip_visa", releases)
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_release_of_two_files_is_downloaded_once(server: Path, tmp_path: Path) -> None:
    place = adapter_file("af_clip_visa")
    shutil.rmtree(server)
    assert adapter_file("af_clip_visa") == place == tmp_path / "cache/adapters/af_clip_visa"
    load(new_model(tmp_path, "af_clip"), place)
    (place / "visa_adaptor.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the file that was released"):
        adapter_file("af_clip_visa")


def test_without_a_network_the_message_says_where_to_put_it(server: Path, tmp_path: Path) -> None:
    shutil.rmtree(server)
    with pytest.raises(WeightsUnavailableError, match="The AF-CLIP layers 'af_clip_visa' could not be downl") as error:
        adapter_file("af_clip_visa")
    for name in FILES["af_clip"].values():
        assert str(tmp_path / "cache/adapters/af_clip_visa" / name) in str(error.value)
        assert f"{server.as_uri()}/{name}" in str(error.value)


def test_released_layers_bring_their_backbone() -> None:
    assert (
        TrainedLayers("af_clip_visa").settings(Settings().as_dict()).items() >= {**OPENAI, "variant": "af_clip"}.items()
    )
    assert (
        TrainedLayers("af_clip_mvtec").settings({"pretrained": "openai:/a/file.pt"})["pretrained"]
        == "openai:/a/file.pt"
    )
    with pytest.raises(ValueError, match="belong to backbone 'ViT-L-14-336'; got 'clipad-mini'"):
        TrainedLayers("af_clip_visa").settings({"backbone": "clipad-mini"})
    assert TrainedLayers("visa").settings({"backbone": "clipad-mini"}) == {
        "backbone": "clipad-mini",
        "variant": "sdp_plus",
    }


def test_names_of_releases_are_unique() -> None:
    names = [name for kind in ADAPTORS.values() for name in kind.released]
    assert sorted(names) == sorted({"visa", "mvtec", "af_clip_visa", "af_clip_mvtec"})

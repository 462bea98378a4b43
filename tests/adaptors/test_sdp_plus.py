"""The layers of SDP+: the reference's maps, and files that come from elsewhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLASSES, TINY
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from anomalib_clipad import ClipAD, ClipADModel, load_backbone
from anomalib_clipad.adaptors.files import TrainedLayers, adapter_file, save_adapter
from anomalib_clipad.adaptors.releases import Release, blob_id
from anomalib_clipad.adaptors.sdp_plus import SDPPlus
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.backbones.sources import WeightsUnavailableError
from anomalib_clipad.settings import Settings
from anomalib_clipad.vision.smoothing import upsampling_matrix

SETTINGS, TOWER = Settings(backbone="tiny", variant="sdp_plus"), "a" * 40


def trained_layers() -> SDPPlus:
    adapter = SDPPlus(8, 6, 2, 32)
    adapter.trained.fill_(True)
    return adapter


def golden_layers(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("adapter/"): value for name, value in expected.items() if name.startswith("adapter/")}


@pytest.fixture
def authors_file(expected: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "layers.pth"
    torch.save({"linear_layers": golden_layers(expected)}, path)
    return path


@pytest.mark.parametrize("name", CLASSES)
def test_maps_and_probabilities_are_the_references(
    backbone: Backbone, expected: dict[str, Tensor], name: str, authors_file: Path
) -> None:
    model = ClipADModel(backbone, variant="sdp_plus")
    TrainedLayers(authors_file).load(model.detector.adapter, SETTINGS, TOWER)
    model.setup(name)
    output = model(expected["images"])
    torch.testing.assert_close(output.anomaly_map, expected[f"sdpplus/{name}/map"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.pred_score, expected[f"sdpplus/{name}/text_prob"], atol=1e-4, rtol=0)


def test_upsampling_and_softmax_are_torchs() -> None:
    torch.manual_seed(0)
    adapter = SDPPlus(8, 6, 5, 33)
    text = normalize(torch.randn(2, 6, 2), dim=1)
    patches = [torch.randn(2, 25, 8) for _ in range(4)]
    probabilities = adapter(patches, text)
    for layer, tokens, probability in zip(adapter.fc, patches, probabilities, strict=True):
        logits = 100 * normalize(layer(tokens), dim=-1) @ text
        grid = logits.transpose(1, 2).unflatten(2, (5, 5))
        pixels = interpolate(grid, size=33, mode="bilinear", align_corners=True).softmax(dim=1)
        torch.testing.assert_close(probability, pixels[:, 1], atol=1e-4, rtol=0)
    torch.testing.assert_close(upsampling_matrix(5, 33).sum(dim=1), torch.ones(33))


def test_a_files_layers_come_back_with_what_they_were_trained_under(tmp_path: Path) -> None:
    adapter, other = trained_layers(), SDPPlus(8, 6, 2, 32)
    path = tmp_path / "new" / "layers.safetensors"
    save_adapter(adapter, path, SETTINGS, TOWER)
    TrainedLayers(path).load(other, SETTINGS, TOWER)
    for name, value in adapter.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=0, rtol=0)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["settings"]) == {**SETTINGS.as_dict(), "image_tower": TOWER}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_untrained_layers_are_refused(tmp_path: Path) -> None:
    save_adapter(SDPPlus(8, 6, 2, 32), tmp_path / "layers.safetensors", SETTINGS, TOWER)
    with pytest.raises(ValueError, match=r"layers\.safetensors are not trained"):
        TrainedLayers(tmp_path / "layers.safetensors").load(trained_layers(), SETTINGS, TOWER)


def test_layers_of_the_papers_backbone_take_less_than_twelve_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "layers.safetensors"
    save_adapter(SDPPlus(896, 640, 15, 240), path, SETTINGS, TOWER)
    assert 9_000_000 < path.stat().st_size < 12_000_000


@pytest.mark.parametrize(("setting", "what"), [("tap", "the tap 'block'"), ("image_tower", "image tower bbbbbbbbbbbb")])
def test_layers_of_another_backbone_or_tap_are_refused(tmp_path: Path, setting: str, what: str) -> None:
    adapter, path = trained_layers(), tmp_path / "layers.safetensors"
    other = {"tap": (replace(SETTINGS, tap="block"), TOWER), "image_tower": (SETTINGS, "b" * 40)}[setting]
    save_adapter(adapter, path, *other)
    with pytest.raises(ValueError, match=what) as error:
        TrainedLayers(path).load(adapter, SETTINGS, TOWER)
    assert {"tap": "'reference'", "image_tower": TOWER[:12]}[setting] in str(error.value)  # both sides


@pytest.mark.parametrize(
    ("shape", "message"),
    [((9, 6), r"fc.0.weight is \(6, 8\) in the file, the backbone needs \(6, 9\)"), ((8, 5), r"fc.0.bias is \(6,\)")],
)
def test_layers_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, int], message: str) -> None:
    path = tmp_path / "layers.safetensors"
    save_adapter(SDPPlus(8, 6, 2, 32), path, SETTINGS, TOWER)
    with pytest.raises(ValueError, match=message):
        TrainedLayers(path).load(SDPPlus(*shape, 2, 32), SETTINGS, TOWER)


def test_another_number_of_layers_is_refused(tmp_path: Path, expected: dict[str, Tensor], backbone: Backbone) -> None:
    layers = {name: value for name, value in golden_layers(expected).items() if "3" not in name}
    torch.save({"linear_layers": layers}, tmp_path / "layers.pth")
    model = ClipADModel(backbone, variant="sdp_plus")
    with pytest.raises(ValueError, match=r"fc.3.bias is missing in the file.*7 tensors against 9"):
        TrainedLayers(tmp_path / "layers.pth").load(model.detector.adapter, SETTINGS, TOWER)


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    "content",
    [b"", b"no layers", {"linear_layers": _Code()}, {"weights": {}}, [1, 2]],
    ids=["empty", "text", "code", "other keys", "list"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
def test_damaged_and_dangerous_files_are_refused(tmp_path: Path, content: object, suffix: str) -> None:
    path = tmp_path / f"layers{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="no file of SDP"):
        TrainedLayers(path).load(SDPPlus(8, 6, 2, 32), SETTINGS, TOWER)
    assert not Path("executed").exists()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'nowhere.pth'; expected a path or one of visa, mvtec"):
        ClipAD(**TINY, adapter="nowhere.pth")


@pytest.fixture
def released(authors_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A server that has a release: the authors' golden layers; an empty cache."""
    content = authors_file.read_bytes()
    release = Release(tmp_path.as_uri(), authors_file.name, blob_id(content))
    monkeypatch.setitem(SDPPlus.released, "visa", (release,))
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE", str(tmp_path / "cache"))
    return authors_file


def test_blob_ids_are_gits() -> None:
    assert blob_id(b"test content\n") == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"


@pytest.mark.slow
def test_a_release_is_downloaded_once_and_used(released: Path, expected: dict[str, Tensor]) -> None:
    model = ClipAD(**TINY, adapter="visa", class_name="bottle")
    released.unlink()
    again = ClipAD(**TINY, adapter="visa", class_name="bottle")
    assert model.hparams["variant"] == "sdp_plus"
    for part in (model, again):
        torch.testing.assert_close(part.model.detector.adapter.fc[0].weight.data, expected["adapter/fc.0.weight"])


def test_without_a_network_the_message_says_where_to_put_the_file(released: Path, tmp_path: Path) -> None:
    content = released.read_bytes()
    released.unlink()
    with pytest.raises(WeightsUnavailableError, match="could not be downloaded") as error:
        adapter_file("visa")
    place = tmp_path / "cache/adapters" / released.name
    assert str(place) in str(error.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert adapter_file("visa") == place


def test_a_changed_release_is_never_read(released: Path, tmp_path: Path) -> None:
    cached = adapter_file("visa")
    cached.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the file that was released"):
        adapter_file("visa")
    cached.unlink()
    released.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the released file"):
        adapter_file("visa")
    assert list(cached.parent.iterdir()) == []


def test_released_layers_do_not_fit_other_backbones(released: Path, tmp_path: Path) -> None:
    backbone = load_backbone("clipad-mini", image_size=32)
    model = ClipADModel(backbone, variant="sdp_plus")
    with pytest.raises(ValueError, match="do not fit the backbone"):
        TrainedLayers("visa").load(model.detector.adapter, SETTINGS, TOWER)

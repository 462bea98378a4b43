"""The cache of prompt embeddings: never stale, and its troubles only cost time."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.cache import Cache
from anomalib_clipad.text.cache import EmbeddingCache


class Encoder:
    """Counts how often it has to compute."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.full((2, 3), float(self.calls))


@pytest.fixture
def tokens(backbone: Backbone) -> Tensor:
    return backbone.tokenizer(["a cup", "a nut"])


def test_the_second_time_is_read(backbone: Backbone, tokens: Tensor, tmp_path: Path) -> None:
    encode = Encoder()
    first = EmbeddingCache(tmp_path).get(backbone.clip, tokens, encode)
    second = EmbeddingCache(tmp_path).get(backbone.clip, tokens, encode)
    assert encode.calls == 1
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "change", ["transformer.resblocks.1.mlp.c_fc.weight", "token_embedding.weight", "ln_final.bias"]
)
def test_other_weights_are_another_entry(backbone: Backbone, tokens: Tensor, change: str) -> None:
    clip = copy.deepcopy(backbone.clip)
    before = EmbeddingCache.key(clip, tokens)
    weight = clip.get_parameter(change)
    row = int(tokens[0, 1]) if "token" in change else 0
    weight.data[row].view(-1)[0] += 1e-6 * 2
    assert EmbeddingCache.key(clip, tokens) != before


def test_a_vector_is_selected_once_for_each_cloud_and_method(tmp_path: Path) -> None:
    clouds = [torch.eye(3), torch.eye(3)[:, [1, 0, 2]]]
    ways = [(cloud, *way) for cloud in clouds for way in [("kde", {}), ("kde", {"bandwidth": 0.2}), ("mean", {})]]
    for repeat in range(2):
        for number, (cloud, method, options) in enumerate(ways):
            select = pytest.fail if repeat else lambda _="", number=number: torch.full((3,), float(number))
            found = EmbeddingCache(tmp_path).vector(cloud, method, options, select)
            assert torch.equal(found, torch.full((3,), float(number)))


def test_swapped_weights_are_another_entry(backbone: Backbone, tokens: Tensor) -> None:
    clip = copy.deepcopy(backbone.clip)
    before = EmbeddingCache.key(clip, tokens)
    weight = clip.get_parameter("transformer.resblocks.0.attn.in_proj_weight")
    weight.data = weight.data.flip(0)
    assert EmbeddingCache.key(clip, tokens) != before


@pytest.mark.parametrize("rows", [([0, 1], [1, 0]), ([0, 15], [15, 0])])
def test_rows_that_change_places_are_another_entry(backbone: Backbone, tokens: Tensor, rows: tuple) -> None:
    """In place and unseen by the version counter, within a kilobyte and beyond."""
    clip = copy.deepcopy(backbone.clip)
    before = EmbeddingCache.key(clip, tokens)
    weight = clip.get_parameter("transformer.resblocks.0.mlp.c_proj.weight").data
    weight[rows[0]] = weight[rows[1]]
    assert EmbeddingCache.key(clip, tokens) != before


def test_precision_activation_and_heads_are_part_of_the_key(backbone: Backbone, tokens: Tensor) -> None:
    clip = copy.deepcopy(backbone.clip)
    keys = [EmbeddingCache.key(clip, tokens)]
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            keys.append(EmbeddingCache.key(clip, tokens))
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    keys.append(EmbeddingCache.key(clip, tokens))
    torch.backends.mkldnn.matmul.fp32_precision = before
    assert EmbeddingCache.key(clip, tokens) == keys[0]
    for block in clip.transformer.resblocks:
        block.attn.num_heads = 4
    keys.append(EmbeddingCache.key(clip, tokens))
    for block in clip.transformer.resblocks:
        block.mlp[1] = torch.nn.GELU(approximate="tanh")
    keys.append(EmbeddingCache.key(clip, tokens))
    keys.append(EmbeddingCache.key(clip.bfloat16(), tokens))
    assert len(set(keys)) == len(keys)


def test_other_prompts_are_another_entry(backbone: Backbone, tokens: Tensor) -> None:
    assert EmbeddingCache.key(backbone.clip, tokens) != EmbeddingCache.key(backbone.clip, tokens.flip(0))


def test_the_image_tower_and_unused_tokens_do_not_matter(backbone: Backbone, tokens: Tensor) -> None:
    clip = copy.deepcopy(backbone.clip)
    before = EmbeddingCache.key(clip, tokens)
    clip.visual.proj.data += 1
    clip.token_embedding.weight.data[12345] += 1
    for block in clip.visual.transformer.resblocks:
        block.attn.num_heads = 1
    assert EmbeddingCache.key(clip, tokens) == before


def test_the_number_format_of_tokens_does_not_matter(backbone: Backbone, tokens: Tensor) -> None:
    assert EmbeddingCache.key(backbone.clip, tokens.int()) == EmbeddingCache.key(backbone.clip, tokens.long())


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_corrupt_entry_is_computed_again(
    backbone: Backbone, tokens: Tensor, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache, encode = EmbeddingCache(tmp_path), Encoder()
    cache.get(backbone.clip, tokens, encode)
    (entry,) = (tmp_path / "text").glob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-4] if damage is None else damage)
    assert cache.get(backbone.clip, tokens, encode)[0, 0] == 2
    assert f"Ignoring the unreadable cache entry {entry}" in caplog.text
    assert cache.get(backbone.clip, tokens, encode)[0, 0] == 2


def test_a_directory_that_cannot_be_written_only_costs_time(
    backbone: Backbone, tokens: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    encode = Encoder()
    cache = EmbeddingCache(blocked)
    cache.get(backbone.clip, tokens, encode)
    cache.get(backbone.clip, tokens, encode)
    assert encode.calls == 2
    assert "Nothing is kept for the next run" in caplog.text


@pytest.mark.parametrize("other", [torch.zeros(2, 7), torch.zeros(2), torch.zeros(2, 3, dtype=torch.int8)])
def test_an_entry_that_was_not_written_here_is_computed_again(
    backbone: Backbone, tokens: Tensor, tmp_path: Path, other: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    cache, encode = EmbeddingCache(tmp_path), Encoder()
    cache.get(backbone.clip, tokens, encode)
    (entry,) = (tmp_path / "text").glob("*.safetensors")
    save_file({"embeddings": other}, entry)
    assert cache.get(backbone.clip, tokens, encode)[0, 0] == 2
    assert f"Ignoring the cache entry {entry}: it is not what was written there" in caplog.text
    assert cache.get(backbone.clip, tokens, encode)[0, 0] == 2


def test_an_entry_of_another_number_of_prompts_is_computed_again(
    backbone: Backbone, tokens: Tensor, tmp_path: Path
) -> None:
    cache, encode = EmbeddingCache(tmp_path), Encoder()
    cache.get(backbone.clip, tokens, lambda: torch.zeros(5, 3))
    assert torch.equal(cache.get(backbone.clip, tokens, encode), torch.ones(2, 3))


def test_embeddings_of_any_layout_are_kept(backbone: Backbone, tokens: Tensor, tmp_path: Path) -> None:
    embeddings = torch.arange(6.0).view(3, 2).T
    assert torch.equal(EmbeddingCache(tmp_path).get(backbone.clip, tokens, lambda: embeddings), embeddings)
    assert torch.equal(EmbeddingCache(tmp_path).get(backbone.clip, tokens, Encoder()), embeddings)


def test_a_flipped_bit_is_noticed(backbone: Backbone, tokens: Tensor, tmp_path: Path) -> None:
    cache, encode = EmbeddingCache(tmp_path), Encoder()
    cache.get(backbone.clip, tokens, encode)
    (entry,) = (tmp_path / "text").glob("*.safetensors")
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    assert cache.get(backbone.clip, tokens, encode)[0, 0] == 2


def test_an_entry_that_is_a_folder_only_costs_time(backbone: Backbone, tokens: Tensor, tmp_path: Path) -> None:
    cache, encode = EmbeddingCache(tmp_path), Encoder()
    (tmp_path / "text" / f"{cache.key(backbone.clip, tokens)}.safetensors").mkdir(parents=True)
    for count in (1, 2):
        assert cache.get(backbone.clip, tokens, encode)[0, 0] == count


@pytest.mark.parametrize("method", ["mkdir", "stat"])
def test_a_directory_without_permission_only_costs_time(
    backbone: Backbone, tokens: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    allowed = getattr(Path, method)

    def refuse(path: Path, *args: object, **options: object) -> object:
        if tmp_path in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return allowed(path, *args, **options)

    monkeypatch.setattr(Path, method, refuse)
    cache, encode = EmbeddingCache(tmp_path / "locked"), Encoder()
    for count in (1, 2):
        assert cache.get(backbone.clip, tokens, encode)[0, 0] == count


@pytest.mark.slow
def test_several_processes_leave_one_whole_entry(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from anomalib_clipad.cache import Cache, Entry\n"
        "for _ in range(50):\n"
        "    Cache('text', Path()).put('0' * 64, Entry({'value': torch.full((400, 640), float(sys.argv[1]))}))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(value)], cwd=tmp_path) for value in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    entry = Cache("text", tmp_path).get("0" * 64)
    assert entry is not None
    assert len(entry.tensors["value"].unique()) == 1
    assert [path.name for path in (tmp_path / "text").iterdir()] == [f"{'0' * 64}.safetensors"]


def test_the_environment_variable_moves_it(
    backbone: Backbone, tokens: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE", str(tmp_path / "elsewhere"))
    EmbeddingCache().get(backbone.clip, tokens, Encoder())
    assert len(list((tmp_path / "elsewhere" / "text").glob("*.safetensors"))) == 1


def test_cached_features_are_those_computed(backbone: Backbone, tmp_path: Path) -> None:
    features = []
    for cache in (None, EmbeddingCache(tmp_path), EmbeddingCache(tmp_path)):
        model = ClipADModel(backbone, cache=cache)
        model.setup("bottle")
        features.append(model.text_features.clone())
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])

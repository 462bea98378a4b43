"""What variants cost: pairs of runs, and multiplications that are counted."""

import pytest
import torch
from conftest import shallow
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.lab.bench import variants


def test_a_ratio_is_the_median_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slow = [0.0], iter([1.0, 1.0, 4.0, 6.0, 2.0, 2.0])  # the machine has other work in the second pair

    def run() -> None:
        now[0] += next(slow)

    monkeypatch.setattr(variants, "process_time", lambda: now[0])
    assert variants.pairs(run, run, 3) == (2.0, 1.0)


@torch.inference_mode()
def test_multiplications_of_layers_and_attention_are_counted() -> None:
    layer, tokens = nn.MultiheadAttention(64, 2, batch_first=True).eval(), torch.randn(1, 5, 64)
    heads = torch.randn(1, 2, 5, 32)
    attention = 2 * 2 * 5 * 5 * 32 / 1e9
    assert variants.multiplications(lambda: scaled_dot_product_attention(heads, heads, heads)) == attention
    whole = variants.multiplications(lambda: layer(tokens, tokens, tokens, need_weights=False))
    assert whole == pytest.approx(attention + 4 * 5 * 64 * 64 / 1e9)
    assert torch.backends.mha.get_fastpath_enabled()


def test_every_variant_is_measured_beside_the_tower(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(variants, "load_backbone", lambda *_: load_backbone(**shallow()))
    variants.main(repeats=1)
    lines = capsys.readouterr().out.splitlines()[2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert names[2:] == ["`encode_image`", "SDP", "SDP+", "AF-CLIP", "AA-CLIP"]
    assert lines[2].split("|")[3].strip() == "1.00"

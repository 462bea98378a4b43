"""Text embeddings: the reference's numbers, and open_clip's at the full context."""

import copy

import open_clip
import pytest
import torch
from conftest import CLASSES
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn.functional import normalize

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.text.class_encoder import ClassEncoder
from anomalib_clipad.text.encoder import encode_prompts
from anomalib_clipad.text.prompts import INDUSTRIAL

PROMPTS = ["a photo of a flawless cup.", "a cup", "a jpeg corrupted photo of the cup without contamination."]

VISION = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}


@pytest.mark.parametrize("name", CLASSES)
def test_embeddings_are_the_references_in_its_order(backbone: Backbone, expected: dict[str, Tensor], name: str) -> None:
    normal, abnormal = ClassEncoder(backbone.clip, backbone.tokenizer, INDUSTRIAL).embed(name)
    torch.testing.assert_close(normal, expected[f"text/{name}/embeddings_normal"], atol=1e-4, rtol=0)
    torch.testing.assert_close(abnormal, expected[f"text/{name}/embeddings_abnormal"], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("method", ["mean", "pca", "kde", "dbscan", "dbscan_visa", "mean_shift"])
def test_text_features_are_the_references(
    backbone: Backbone, expected: dict[str, Tensor], name: str, method: str
) -> None:
    options = {"eps": 1.5, "min_samples": 25} if method == "dbscan_visa" else {}
    encoder = ClassEncoder(backbone.clip, backbone.tokenizer, INDUSTRIAL, method.removesuffix("_visa"), options)
    torch.testing.assert_close(encoder.encode(name), expected[f"text/{name}/{method}"], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("custom_text", [False, True])
def test_cutting_the_context_changes_nothing(custom_text: bool, quick_gelu: bool) -> None:
    clip = open_clip.create_model("ViT-S-32-alt", force_custom_text=custom_text, force_quick_gelu=quick_gelu).eval()
    with torch.inference_mode():
        full = normalize(clip.encode_text(open_clip.tokenize(PROMPTS)), dim=-1)
    torch.testing.assert_close(encode_prompts(clip, open_clip.tokenize, PROMPTS), full, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_text_tower_of_another_kind_runs_as_it_is() -> None:
    """CoCa's tower reads a class token after the padding, so its context can not be cut."""
    clip = open_clip.create_model("coca_base").eval()
    with torch.inference_mode():
        full = normalize(clip.encode_text(open_clip.tokenize(PROMPTS, 76)), dim=-1)
    cut = encode_prompts(clip, lambda texts: open_clip.tokenize(texts, 76), PROMPTS)
    torch.testing.assert_close(cut, full, atol=1e-5, rtol=0)


class OtherBlock(ResidualAttentionBlock):
    """A block that computes something else."""

    def forward(self, *args: object, **options: object) -> Tensor:
        return 2 * super().forward(*args, **options)


@pytest.mark.parametrize(
    "kind", [{"no_causal_mask": True}, {"embed_cls": True}, {"pool_type": "last"}, {"proj_bias": True}, {}], ids=str
)
def test_towers_that_read_what_follows_the_end_run_as_they_are(kind: dict) -> None:
    torch.manual_seed(0)
    clip = open_clip.CustomTextCLIP(24, VISION, {**TEXT, **kind}).eval()
    if not kind:
        clip.text.transformer.resblocks[0].__class__ = OtherBlock
    with torch.inference_mode():
        wanted = normalize(clip.encode_text(open_clip.tokenize(PROMPTS)), dim=-1)
    found = encode_prompts(clip, open_clip.tokenize, PROMPTS)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not found.requires_grad


def test_a_tower_without_a_module_of_its_own_may_pool_elsewhere_too() -> None:
    torch.manual_seed(0)
    clip = open_clip.CLIP(24, VISION, {**TEXT, "pool_type": "last"}).eval()
    with torch.inference_mode():
        wanted = normalize(clip.encode_text(open_clip.tokenize(PROMPTS)), dim=-1)
    torch.testing.assert_close(encode_prompts(clip, open_clip.tokenize, PROMPTS), wanted, atol=1e-5, rtol=0)


def test_a_prompt_may_leave_one_token_of_the_context(backbone: Backbone) -> None:
    assert encode_prompts(backbone.clip, backbone.tokenizer, ["cup " * 74]).isfinite().all()
    with pytest.raises(ValueError, match="longer than the 77 tokens"):
        encode_prompts(backbone.clip, backbone.tokenizer, ["cup " * 75])


def test_a_class_name_beyond_the_context_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match=r"longer than the 77 tokens.*shorter class name"):
        ClassEncoder(backbone.clip, backbone.tokenizer, INDUSTRIAL).encode("very " * 80 + "long nut")


def test_the_model_is_not_changed(backbone: Backbone) -> None:
    before = copy.deepcopy(backbone.clip.state_dict())
    encode_prompts(backbone.clip, backbone.tokenizer, PROMPTS)
    assert all(torch.equal(value, backbone.clip.state_dict()[name]) for name, value in before.items())


def test_progress_is_shown_when_asked_for(backbone: Backbone, capfd: pytest.CaptureFixture[str]) -> None:
    encode_prompts(backbone.clip, backbone.tokenizer, PROMPTS, progress="Prompts of 'cup'")
    assert "Prompts of 'cup'" in capfd.readouterr().err
    encode_prompts(backbone.clip, backbone.tokenizer, PROMPTS)
    assert not capfd.readouterr().err

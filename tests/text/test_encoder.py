"""Text embeddings: the reference's numbers, and open_clip's at the full context."""

import copy

import open_clip
import pytest
import torch
from conftest import CLASSES
from torch import Tensor
from torch.nn.functional import normalize

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.text.class_encoder import ClassEncoder
from anomalib_clipad.text.encoder import encode_prompts
from anomalib_clipad.text.prompts import INDUSTRIAL

PROMPTS = ["a photo of a flawless cup.", "a cup", "a jpeg corrupted photo of the cup without contamination."]


@pytest.mark.parametrize("name", CLASSES)
def test_embeddings_are_the_references_in_its_order(backbone: Backbone, expected: dict[str, Tensor], name: str) -> None:
    normal, abnormal = ClassEncoder(backbone.clip, backbone.tokenizer, INDUSTRIAL).embed(name)
    torch.testing.assert_close(normal, expected[f"text/{name}/embeddings_normal"], atol=1e-4, rtol=0)
    torch.testing.assert_close(abnormal, expected[f"text/{name}/embeddings_abnormal"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("method", ["mean", "pca", "kde", "dbscan", "dbscan_visa", "mean_shift"])
def test_text_features_are_the_references(
    backbone: Backbone, expected: dict[str, Tensor], name: str, method: str
) -> None:
    options = {"eps": 1.5, "min_samples": 25} if method == "dbscan_visa" else {}
    encoder = ClassEncoder(backbone.clip, backbone.tokenizer, INDUSTRIAL, method.removesuffix("_visa"), options)
    torch.testing.assert_close(encoder.encode(name), expected[f"text/{name}/{method}"], atol=1e-4, rtol=0)


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

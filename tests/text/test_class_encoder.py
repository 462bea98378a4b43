"""Class names to representative vectors: whose options count, and what a warning names."""

import pytest
import torch
from torch import Tensor

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.text import rvs
from anomalib_clipad.text.class_encoder import ClassEncoder
from anomalib_clipad.text.prompts import PromptSet

PROMPTS = PromptSet(normal=("good {}", "perfect {}"), abnormal=("bad {}",), templates=("a {}.", "one {}.", "the {}."))


def kde(encoder: ClassEncoder, bandwidth: float) -> Tensor:
    return torch.stack([rvs.kde(embeddings, bandwidth) for embeddings in encoder.embed("cup")], dim=1)


@pytest.mark.parametrize(
    ("own", "given", "bandwidth"),
    [(None, None, 0.3), ({"bandwidth": 0.05}, None, 0.05), ({"bandwidth": 0.05}, {"bandwidth": 0.1}, 0.1),
     ({"bandwidth": 0.05}, {}, 0.3)],
)  # fmt: skip
def test_options_of_a_class_come_before_the_encoders(
    backbone: Backbone, own: dict | None, given: dict | None, bandwidth: float
) -> None:
    encoder = ClassEncoder(backbone.clip, backbone.tokenizer, PROMPTS, "kde", own)
    assert torch.equal(encoder.encode("cup", given), kde(encoder, bandwidth))
    assert (kde(encoder, 0.05) - kde(encoder, 0.1)).abs().max() > 1e-5
    assert (kde(encoder, 0.1) - kde(encoder, 0.3)).abs().max() > 1e-5


def test_by_default_it_is_dbscan_and_a_warning_names_state_and_class(backbone: Backbone) -> None:
    with pytest.warns(UserWarning, match="prompts of class 'cup'") as caught:
        ClassEncoder(backbone.clip, backbone.tokenizer, PROMPTS).encode("cup")
    normal, abnormal = (str(warning.message) for warning in caught)
    assert normal.startswith("RVS of the normal prompts of class 'cup' takes the mean of all embeddings: 6 prompts")
    assert abnormal.startswith("RVS of the abnormal prompts of class 'cup' takes the mean of all embeddings: 3 prompts")


def test_progress_names_the_class(backbone: Backbone, capfd: pytest.CaptureFixture[str]) -> None:
    ClassEncoder(backbone.clip, backbone.tokenizer, PROMPTS).embed("cup")
    assert "Prompts of 'cup'" in capfd.readouterr().err

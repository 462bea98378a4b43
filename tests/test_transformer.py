"""Parts of a block: the same numbers whichever library multiplies, and gradients where they are wanted."""

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_clipad import transformer
from anomalib_clipad.transformer import affine, feed_forward


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 17, 64)


def network(activation: nn.Module) -> nn.Sequential:
    """As open_clip builds it."""
    parts = {"c_fc": nn.Linear(64, 256), "gelu": activation, "c_proj": nn.Linear(256, 64)}
    return nn.Sequential(OrderedDict(parts))


@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU(approximate="tanh"), QuickGELU(), nn.ReLU()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_feed_forward_network_is_itself(tokens: Tensor, activation: nn.Module, dtype: torch.dtype) -> None:
    mlp = network(activation).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    with torch.inference_mode():
        torch.testing.assert_close(
            feed_forward(mlp, tokens.to(dtype)), mlp(tokens.to(dtype)), atol=tolerance, rtol=tolerance
        )


def test_tokens_may_be_views(tokens: Tensor) -> None:
    layer = nn.Linear(64, 48)
    with torch.inference_mode():
        for view in (tokens[:, :1], tokens[:, 1:], tokens.transpose(0, 1)):
            result = affine(view, layer.weight[16:], layer.bias[16:])
            torch.testing.assert_close(result, layer(view)[..., 16:], atol=1e-5, rtol=0)


def test_gradients_flow_where_they_are_wanted(tokens: Tensor) -> None:
    mlp = network(nn.GELU())
    feed_forward(mlp, tokens).sum().backward()
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_autocast_is_heeded(tokens: Tensor) -> None:
    layer = nn.Linear(64, 48)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(affine(tokens, layer.weight, layer.bias), layer(tokens))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_onednn_is_not_called_where_it_is_switched_off(tokens: Tensor) -> None:
    mlp, operators = network(nn.GELU()), []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            operators.append(str(func))
            return func(*args, **(kwargs or {}))

    for enabled in (True, False):
        operators.clear()
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=enabled), Record():
            feed_forward(mlp, tokens)
        assert any("mkldnn" in name for name in operators) == (enabled and torch.backends.mkl.is_available())


@pytest.mark.slow
def test_a_torch_without_the_private_call_computes_the_same(tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = network(nn.GELU())
    with torch.inference_mode():
        expected = feed_forward(mlp, tokens)
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
        monkeypatch.setattr(transformer, "_LINEAR_POINTWISE", transformer._onednn())
        torch.testing.assert_close(feed_forward(mlp, tokens), expected, atol=1e-5, rtol=1e-5)


def test_exported_graphs_have_torchs_own_operators(tokens: Tensor) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = network(nn.GELU())

        def forward(self, tokens: Tensor) -> Tensor:
            return feed_forward(self.mlp, tokens)

    with torch.no_grad():
        program = torch.export.export(Network(), (tokens,))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operators == {"aten.linear.default", "aten.gelu.default"}

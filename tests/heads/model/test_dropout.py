"""Dropout from the model's own random numbers: rate, scale and seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vocprep.heads.model.dropout import Attention, Dropout, use_fast_dropout
from vocprep.heads.model.tfdet import TFDetHeads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.99])
def test_the_rate_and_the_scale_are_those_of_torch(p: float, dtype: torch.dtype):
    torch.manual_seed(0)
    inputs = torch.ones(3, 7, 50_001, dtype=dtype, requires_grad=True)
    outputs = Dropout(p)(inputs)
    assert (outputs.dtype, outputs.shape) == (dtype, inputs.shape)
    assert (outputs == 0).float().mean().item() == pytest.approx(p, abs=0.002)
    kept = outputs[outputs != 0].unique()
    assert kept.numel() == 1
    assert kept.item() == pytest.approx(1 / (1 - p), rel=0.01)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach())


def test_places_are_drawn_apart_from_their_neighbours():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).float().view(-1, 4)
    correlation = torch.corrcoef(kept.T)
    assert (correlation - torch.eye(4)).abs().max() < 0.01
    following = torch.stack([kept.flatten()[:-1], kept.flatten()[1:]])
    assert torch.corrcoef(following)[0, 1].abs() < 0.01


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5])
def test_any_number_of_places(count: int):
    assert Dropout(0.5)(torch.ones(count)).shape == (count,)


def test_a_seed_decides_the_draw():
    inputs = torch.ones(1000)
    torch.manual_seed(4)
    first = Dropout(0.3)(inputs)
    torch.manual_seed(4)
    assert torch.equal(Dropout(0.3)(inputs), first)
    assert not torch.equal(Dropout(0.3)(inputs), first)


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)])
def test_nothing_is_dropped_in_evaluation_or_at_rate_zero(layer: nn.Module):
    inputs = torch.rand(100)
    assert torch.equal(layer(inputs), inputs)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_without_dropout_is_that_of_torch(padded: bool):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(256, 8, 64, dropout=0.0, batch_first=True)
    tokens = torch.randn(3, 7, 256, requires_grad=True)
    padding = torch.arange(7) >= torch.tensor([[7], [4], [1]]) if padded else None
    found = []
    for _ in range(2):
        encoded = layer(tokens, src_key_padding_mask=padding)
        real = encoded if padding is None else encoded[~padding]
        (gradient,) = torch.autograd.grad(real.square().sum(), tokens)
        weights = torch.autograd.grad(
            layer(tokens, src_key_padding_mask=padding)[:, 0].sum(), list(layer.parameters())
        )
        found.append([real, gradient, *weights])
        use_fast_dropout(layer)
    assert type(layer.self_attn) is Attention
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


def test_attention_drops_weights_in_training_alone():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(256, 8, 64, dropout=0.5, batch_first=True)
    use_fast_dropout(layer)
    same = torch.ones(1, 400, 256)
    mixed, weights = layer.self_attn(same, same, same, need_weights=False)
    assert weights is None
    values = mixed - layer.eval().self_attn(same, same, same, need_weights=False)[0]
    assert 0 < values.abs().mean() < 0.1
    assert not values[0, 0].allclose(values[0, 1])


def test_all_dropout_of_the_heads_is_replaced_and_no_weight_is_renamed():
    heads = TFDetHeads(outputs=3)
    found = [module for module in heads.modules() if isinstance(module, nn.Dropout)]
    assert {type(module) for module in found} == {Dropout}
    assert all(type(layer.self_attn) is Attention for layer in heads.te.layers)
    assert [module.p for module in found].count(0.1) == 6 * 3
    assert [module.p for module in found].count(0.5) == 2
    names = list(heads.state_dict())
    use_fast_dropout(heads)
    assert list(heads.state_dict()) == names

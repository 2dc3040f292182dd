from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vocprep.heads.encoders import encode, make_transformer_encoder, sine_position_code
from vocprep.heads.tfdet import TFDetHeads


@pytest.fixture(scope="module")
def heads() -> TFDetHeads:
    torch.manual_seed(0)
    return TFDetHeads(categories=21)


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def test_layers_start_different_and_in_the_shape_of_the_design():
    encoder = make_transformer_encoder()
    assert len(encoder.layers) == 6
    first, second = encoder.layers[0].linear1.weight, encoder.layers[1].linear1.weight
    assert tuple(first.shape) == (2048, 256)
    assert not torch.equal(first, second)
    assert not encoder.layers[0].norm_first
    assert isinstance(encoder.norm, nn.LayerNorm)


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(training: bool):
    heads = TFDetHeads(categories=21)
    without_dropout(heads).train(training)
    embeddings = torch.rand(2, 49, 256)
    grids = torch.tensor([[7, 7], [7, 7]])
    # Large values: what stands at padded places must not reach the others at all.
    padded = torch.cat([embeddings, 1e3 * torch.rand(2, 21, 256)], dim=1)
    padding = torch.zeros(2, 70, dtype=torch.bool)
    padding[:, 49:] = True
    with torch.set_grad_enabled(training):
        alone = heads(embeddings, None, grids)
        together = heads(padded, padding, grids)
    for short, long in zip(alone, together, strict=True):
        assert long.shape[1] == 70
        torch.testing.assert_close(long[:, :49], short, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_neighbours_in_the_batch_change_nothing_even_when_all_padding(
    heads: TFDetHeads, training: bool
):
    encoder = without_dropout(heads.te).train(training)
    tokens = torch.rand(2, 5, 256)
    padding = torch.tensor([[False] * 4 + [True], [True] * 5])
    with torch.set_grad_enabled(training):
        both = encode(encoder, tokens, padding)
        one = encode(encoder, tokens[:1], padding[:1])
    assert both.isfinite().all()
    torch.testing.assert_close(both[:1], one, atol=1e-5, rtol=1e-5)


def test_a_batch_whose_longest_image_is_shorter_than_p_keeps_its_length(heads: TFDetHeads):
    padding = torch.tensor([[False, False, True, True]])
    with torch.inference_mode():
        y, z = heads.eval()(torch.rand(1, 4, 256), padding, torch.tensor([[1, 2]]))
    assert y.shape == (1, 4, 21)
    assert z.shape == (1, 4, 1024, 4)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 5))
def test_position_code_depends_on_row_and_column_only(grid: tuple[int, int], extra: int):
    ny, nx = grid
    code = sine_position_code(torch.tensor([grid]), ny * nx + extra)[0]
    large = sine_position_code(torch.tensor([[9, 9]]), 81)[0].view(9, 9, 256)
    torch.testing.assert_close(code[: ny * nx].view(ny, nx, 256), large[:ny, :nx], atol=0, rtol=0)
    assert not code[ny * nx :].any()


def test_position_code_tells_all_places_apart_and_halves_are_row_and_column():
    code = sine_position_code(torch.tensor([[16, 16]]), 256)[0]
    apart = torch.cdist(code, code) + torch.eye(256)
    assert apart.min() > 0.5
    square = code.view(16, 16, 256)
    assert torch.equal(square[:, 0, :128], square[:, 9, :128])
    assert torch.equal(square[0, :, 128:], square[9, :, 128:])
    assert square[3, 5, 0] == torch.tensor(3.0).sin()
    assert square[3, 5, 192] == torch.tensor(5.0).cos()

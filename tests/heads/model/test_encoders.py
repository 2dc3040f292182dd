"""Encoders: shapes, padding, position code, the transformer equal to torch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.encoders import TransformerEncoder, make_encoder, sine_position_code
from vocprep.heads.model.tfdet import TFDetHeads

pytestmark = pytest.mark.slow

ENCODERS = ("transformer", "spikformer", "none")


@pytest.fixture(scope="module")
def heads() -> TFDetHeads:
    torch.manual_seed(0)
    return TFDetHeads(outputs=21)


def made(name: str, training: bool) -> nn.Module:
    """An encoder in float64, where no rounding moves a spike; its dropout is off."""
    torch.manual_seed(3)
    encoder = make_encoder(HeadsConfig(outputs=1, encoder=name)).double()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return encoder.train(training)


def state_of(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {**encoder.state_dict(), **{f"d {n}": p.grad for n, p in encoder.named_parameters()}}


def test_layers_start_different_and_in_the_shape_of_the_design():
    encoder = TransformerEncoder()
    assert len(encoder.layers) == 6
    first, second = encoder.layers[0].linear1.weight, encoder.layers[1].linear1.weight
    assert tuple(first.shape) == (2048, 256)
    assert not torch.equal(first, second)
    assert not encoder.layers[0].norm_first
    assert isinstance(encoder.norm, nn.LayerNorm)


@pytest.mark.parametrize("training", [True, False])
def test_the_transformer_is_that_of_torch_bit_for_bit(training: bool):
    torch.manual_seed(0)
    own = TransformerEncoder()
    torch.manual_seed(0)
    torchs = nn.Transformer(d_model=256, nhead=8, batch_first=True).encoder
    torchs.enable_nested_tensor = torchs.use_nested_tensor = False
    assert list(own.state_dict()) == list(torchs.state_dict())
    tokens, padding = torch.rand(2, 5, 256), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    outputs = []
    for encoder, masks in ((own, (padding,)), (torchs, (None, padding))):
        torch.manual_seed(1)
        with torch.set_grad_enabled(training):
            outputs.append(encoder.train(training)(tokens, *masks))
    assert torch.equal(*outputs)


def test_depth_width_and_norm_are_options():
    encoder = TransformerEncoder(depth=2, feedforward=96, norm_first=True)
    assert len(encoder.layers) == 2
    assert {layer.linear1.out_features for layer in encoder.layers} == {96}
    tokens, (layer, *_) = torch.rand(1, 3, 256), encoder.eval().layers
    normed = layer.norm1(tokens)
    mixed = tokens + layer.self_attn(normed, normed, normed)[0]
    hidden = torch.relu(layer.linear1(layer.norm2(mixed)))
    torch.testing.assert_close(layer(tokens), mixed + layer.linear2(hidden))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_padding_changes_nothing(name: str, training: bool):
    """Outputs, gradients and what a norm remembers; pictures of 4 and 6 patches."""
    grids = torch.tensor([[2, 2], [2, 3]])
    tokens = torch.randn(2, 6, 256, dtype=torch.float64, generator=torch.manual_seed(1))
    wider = torch.cat([tokens, torch.zeros(2, 5, 256)], dim=1)
    padding = torch.arange(11) >= torch.tensor([[4], [6]])
    found = []
    for filling in (0.0, 1e3):  # what stands at padded places must not reach the others at all
        encoder = made(name, training)
        filled = torch.where(padding.unsqueeze(-1), filling * torch.rand(2, 11, 1), wider)
        for width in (6, 11):
            if filling and width == 6:
                continue
            encoder = made(name, training)
            with torch.set_grad_enabled(training):
                encoded = encoder(filled[:, :width], padding[:, :width], grids)
            assert encoded.isfinite().all()
            real = encoded[~padding[:, :width]]
            if training and list(encoder.parameters()):
                real.square().sum().backward()
            found.append({"out": real, **state_of(encoder)})
    reference, *others = found
    assert len(others) == 2
    for other in others:
        for key, value in reference.items():
            if value is not None:
                torch.testing.assert_close(other[key], value, atol=1e-9, rtol=1e-9, msg=key)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_mask_without_padding_is_no_mask(name: str, training: bool):
    tokens = torch.randn(2, 6, 256, dtype=torch.float64, generator=torch.manual_seed(1))
    grids = torch.tensor([[2, 3], [3, 2]])
    masks = (None, torch.zeros(2, 6, dtype=torch.bool))
    encoders = [made(name, training) for _ in masks]
    with torch.set_grad_enabled(training):
        one, other = (e(tokens, mask, grids) for e, mask in zip(encoders, masks, strict=True))
    torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    for key, value in encoders[0].state_dict().items():
        torch.testing.assert_close(encoders[1].state_dict()[key], value, msg=key)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_picture_of_padding_alone_changes_nothing_and_stays_finite(name: str, training: bool):
    tokens = torch.randn(2, 5, 256, dtype=torch.float64, generator=torch.manual_seed(1))
    padding = torch.tensor([[False] * 4 + [True], [True] * 5])
    grids = torch.tensor([[2, 2], [2, 2]])
    with torch.set_grad_enabled(training):
        both = made(name, training)(tokens, padding, grids)
        one = made(name, training)(tokens[:1], padding[:1], grids[:1])
    assert both.isfinite().all()
    torch.testing.assert_close(both[:1, :4], one[:, :4], atol=1e-9, rtol=1e-9)


def test_without_an_encoder_every_patch_is_alone():
    heads = TFDetHeads(outputs=5, encoder="none").eval()
    embeddings, grids = torch.rand(1, 4, 256), torch.tensor([[2, 2]])
    other = embeddings.clone()
    other[0, 1] += 1
    with torch.no_grad():
        one, two = (heads(tokens, None, grids)[0] for tokens in (embeddings, other))
    torch.testing.assert_close(one[:, [0, 2, 3]], two[:, [0, 2, 3]])
    assert not torch.allclose(one[:, 1], two[:, 1])


def test_a_batch_whose_longest_image_is_shorter_than_p_keeps_its_length(heads: TFDetHeads):
    padding = torch.tensor([[False, False, True, True]])
    with torch.inference_mode():
        y, z = heads.eval()(torch.rand(1, 4, 256), padding, torch.tensor([[1, 2]]))
    assert y.shape == (1, 4, 21)
    assert z.shape == (1, 4, 1024, 4)


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

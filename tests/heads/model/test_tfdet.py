"""The TFDet heads: parameters, shapes, and label maps of their outputs."""

from __future__ import annotations

import pytest
import torch
from builders.heads import cell_heads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.heads.model.tfdet import HeadsConfig, TFDetHeads, to_label_map, to_segment, top_labels


def seed_to_segment(y: Tensor, z: Tensor, outputs: int) -> Tensor:
    """The seed's toSegment, word for word but for the size of the label space."""
    num = z.shape[0]
    u = torch.zeros(num, 1024, outputs)
    _val, ind = torch.topk(y, 4)
    for i in range(num):
        for j in range(1024):
            u[i, j, ind[i, :]] = z[i, j, :]

    return u


def random_outputs(outputs: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(number, outputs, generator=generator)
    z = torch.rand(number, 1024, 4, generator=generator)
    return y, z


def test_parameters_are_those_of_the_design():
    heads = TFDetHeads(outputs=460)
    assert sum(p.numel() for p in heads.parameters() if p.requires_grad) == 12_470_732


def test_shapes_and_the_seeds_probabilities():
    heads = TFDetHeads(outputs=21).eval()
    embeddings, grids = torch.rand(2, 6, 256), torch.tensor([[2, 3], [3, 2]])
    with torch.no_grad():
        y, logits = heads(embeddings, None, grids)
        same, masks = heads.probabilities(embeddings, None, grids)
    assert y.shape == (2, 6, 21)
    assert logits.shape == (2, 6, 1024, 4)
    assert torch.equal(y, same)
    assert torch.equal(masks, logits.sigmoid())


def test_the_literal_model_knows_no_place():
    heads = TFDetHeads(outputs=5, position=False).eval()
    embeddings = torch.rand(1, 4, 256)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        y, _ = heads(embeddings)
        moved, _ = heads(embeddings[:, order])
    torch.testing.assert_close(moved, y[:, order], atol=1e-5, rtol=1e-5)


def test_the_position_code_tells_equal_patches_apart():
    heads = TFDetHeads(outputs=5).eval()
    with torch.no_grad():
        y, _ = heads(torch.ones(1, 4, 256), None, torch.tensor([[2, 2]]))
    assert not torch.allclose(y[0, 0], y[0, 3])


def test_a_layer_in_front_of_the_encoder_is_an_option_where_the_sizes_are_equal():
    one, other = (
        TFDetHeads.from_config(cell_heads(5, input_layer=there)) for there in (True, False)
    )
    names = {name for name, _ in one.named_parameters()}
    assert names - {name for name, _ in other.named_parameters()} == {
        *("project.weight", "project.bias")
    }


def test_embeddings_of_another_size_are_projected():
    heads = TFDetHeads(outputs=5, embedding_dim=12)
    y, _ = heads(torch.rand(1, 4, 12), None, torch.tensor([[2, 2]]))
    assert y.shape == (1, 4, 5)


def test_position_and_cells_without_grids_are_refused():
    for config in (HeadsConfig(outputs=5), cell_heads(5, position=False)):
        with pytest.raises(UsageError, match="expected grids"):
            TFDetHeads.from_config(config)(torch.rand(1, 4, 256))


@pytest.mark.parametrize("encoder", ["transformer", "spikformer", "none"])
def test_cells_have_logits_of_their_own_which_patches_sum_up(encoder: str):
    heads = TFDetHeads.from_config(cell_heads(5, encoder=encoder)).eval()
    embeddings, grids = torch.rand(2, 6, 256), torch.tensor([[2, 3], [3, 2]])
    with torch.no_grad():
        y, logits = heads(embeddings, None, grids)
        same, chances = heads.probabilities(embeddings, None, grids)
    assert logits.shape == (2, 6, 4, 5)
    assert torch.equal(y, same)
    torch.testing.assert_close(y.softmax(dim=-1), chances.mean(dim=2))


def test_a_linear_probe_is_one_layer():
    heads = TFDetHeads.from_config(cell_heads(5, encoder="none", position=False))
    assert [tuple(p.shape) for p in heads.parameters()] == [(5, 64), (5,)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_loss": "multi_hot"},
            "classes' shares.*: expected class_loss soft_cross_en",
        ),
        ({"embedding_dim": 255}, "layers of 256 numbers together: expected embedding_dim 255"),
        ({"cells": 3}, "cells 3: expected one of 1, 2, 4"),
        ({"windows": (32, 32)}, "windows of 2 layers: expected one for each of the 1 layers"),
        ({"windows": (16,)}, "windows.* 16: expected 32 or more"),
    ],
)
def test_cells_refuse_what_does_not_go_with_them(changes: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        cell_heads(**changes)


@pytest.mark.parametrize("mask_head", ["slots", "cells"])
def test_embeddings_are_dropped_in_training_alone(mask_head: str):
    """Before anything reads them: heads of half the rate see each number 0 or doubled."""
    config = cell_heads(5, mask_head=mask_head, input_dropout=0.5)
    heads, seen = TFDetHeads.from_config(config), []
    heads.project.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    embeddings, grids = torch.ones(1, 100, 256), torch.tensor([[10, 10]])
    if mask_head == "cells":
        heads.cells.own.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for training in (True, False):
        heads.train(training)(embeddings, None, grids)
    trained, evaluated = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert all(torch.equal(each, trained[0]) for each in trained)
    assert trained[0].unique().tolist() == pytest.approx([0, 2], abs=1e-3)
    assert (trained[0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert all(torch.equal(each, embeddings) for each in evaluated)


@pytest.mark.parametrize("field", ["outputs", "embedding_dim"])
def test_config_refuses_sizes_below_one(field: str):
    with pytest.raises(UsageError, match=f"{field} 0: expected 1 or more"):
        HeadsConfig(**{"outputs": 2, "embedding_dim": 2, field: 0})


@settings(max_examples=6)
@given(st.integers(4, 30), st.integers(1, 2), st.integers(0, 10**6))
def test_to_segment_is_the_seeds_double_loop_bit_for_bit(outputs: int, number: int, seed: int):
    y, z = random_outputs(outputs, number, seed)
    assert torch.equal(to_segment(y, z), seed_to_segment(y, z, outputs))


def test_to_segment_with_460_classes_and_tied_logits():
    y, z = random_outputs(460, 2, seed=1)
    y = y.round()
    assert torch.equal(to_segment(y, z), seed_to_segment(y, z, 460))


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_label_map_is_the_dense_argmax_where_nothing_ties(outputs: int, number: int, seed: int):
    y, noise = random_outputs(outputs, number, seed)
    logits = 4 * noise - 2
    z = logits.sigmoid()
    first, second = z[..., : min(4, outputs)].topk(2, dim=-1).values.unbind(-1)
    untied = first - second > 1e-6
    expected = to_segment(y, z).argmax(dim=-1)
    assert torch.equal(to_label_map(y, z)[untied], expected[untied])
    assert torch.equal(to_label_map(y, logits)[untied], expected[untied])


def test_label_map_tie_goes_to_the_larger_class_logit():
    y = torch.tensor([[0.0, 5.0, 1.0, 2.0, 9.0]])
    z = torch.zeros(1, 1024, 4)
    z[0, 7] = 0.5
    labels = to_label_map(y, z)
    assert labels[0, 7] == 4
    assert labels[0, 8] == 4
    assert to_segment(y, z).argmax(dim=-1)[0, 7] == 1
    assert to_segment(y, z).argmax(dim=-1)[0, 8] == 0


def test_top_labels_are_strongest_first_and_fewer_in_a_small_label_space():
    assert top_labels(torch.tensor([0.1, 3.0, 2.0, 5.0, 4.0])).tolist() == [3, 4, 1, 2]
    assert top_labels(torch.tensor([[0.1, 3.0]])).tolist() == [[1, 0]]

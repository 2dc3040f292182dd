"""The spiking encoder: neurons, norm, attention, spike rates and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vocprep.heads.model.spiking import (
    LIF,
    RealBatchNorm,
    Spikformer,
    SpikingAttention,
    reset_spike_counts,
    spike_rates,
)
from vocprep.heads.model.tfdet import TFDetHeads


def naive_lif(current: np.ndarray, threshold: float = 1.0) -> np.ndarray:
    """One neuron and one step at a time."""
    spikes = np.zeros_like(current)
    for place in np.ndindex(current.shape[1:]):
        membrane = 0.0
        for step in range(len(current)):
            membrane += (current[(step, *place)] - membrane) / 2
            if membrane >= threshold:
                spikes[(step, *place)], membrane = 1.0, 0.0
    return spikes


@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_neurons_leak_fire_and_start_again_at_zero(threshold: float):
    current = 2 * torch.randn(6, 5, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    spikes = LIF(threshold)(current)
    assert np.array_equal(spikes.numpy(), naive_lif(current.numpy(), threshold))
    assert 0 < spikes.mean() < 1


def test_a_neuron_at_its_threshold_fires():
    assert LIF()(torch.tensor([[2.0], [1.99], [0.0]])).flatten().tolist() == [1, 0, 0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_spikes_and_gradients_are_those_of_spikingjelly(threshold: float):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    theirs = neuron.LIFNode(
        tau=2.0,
        v_threshold=threshold,
        v_reset=0.0,
        detach_reset=True,
        surrogate_function=surrogate.ATan(),
        step_mode="m",
    )
    generator = torch.manual_seed(0)
    current = 2 * torch.randn(4, 3, 49, 64, generator=generator)
    weight = torch.randn(4, 3, 49, 64, generator=generator)
    spikes, gradients = [], []
    for layer in (LIF(threshold), theirs):
        own = current.clone().requires_grad_()
        spikes.append(layer(own))
        (spikes[-1] * weight).sum().backward()
        gradients.append(own.grad)
    assert torch.equal(*spikes)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)
    assert gradients[0].abs().max() > 0.1


def test_the_norm_is_that_of_torch_over_the_real_patches():
    inputs = torch.randn(3, 2, 5, 7, dtype=torch.float64, generator=torch.manual_seed(0))
    keep = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).double().unsqueeze(-1)
    real = keep.bool().squeeze(-1)
    own, torchs = RealBatchNorm(7).double(), nn.BatchNorm1d(7).double()
    for _ in range(3):
        found, expected = own(inputs, keep)[:, real], torchs(inputs[:, real].flatten(0, 1))
        torch.testing.assert_close(found.flatten(0, 1), expected)
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], value)
    found, expected = (
        own.eval()(inputs, keep)[:, real],
        torchs.eval()(inputs[:, real].flatten(0, 1)),
    )
    torch.testing.assert_close(found.flatten(0, 1), expected)


def test_the_norm_of_a_single_patch_is_its_shift():
    norm = RealBatchNorm(3)
    nn.init.constant_(norm.bias, 0.5)
    assert norm(torch.randn(1, 1, 1, 3)).unique().item() == 0.5
    assert norm.running_var.isfinite().all()


def test_attention_is_the_product_of_spikes_without_a_softmax():
    torch.manual_seed(0)
    attention = SpikingAttention().double()
    for layer in (attention.q, attention.k, attention.v):
        nn.init.constant_(layer.norm.weight, 3.0)  # many spikes
    tokens = torch.randint(0, 3, (4, 1, 6, 256)).double()
    seen: list[torch.Tensor] = []
    attention.lif.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    attention(tokens, None)
    q, k, v = (
        layer(tokens, None)[:, 0].detach().view(4, 6, 8, 32).numpy()
        for layer in (attention.q, attention.k, attention.v)
    )
    expected = 0.125 * np.einsum("tphc,tqhc,tqhd->tphd", q, k, v).reshape(4, 1, 6, 256)
    assert expected.max() > 0.5
    np.testing.assert_allclose(seen[0].detach().numpy(), expected)


def test_outputs_are_means_of_residual_sums_of_spikes():
    encoder = Spikformer().eval()
    tokens = torch.randn(1, 9, 256, generator=torch.manual_seed(0))
    with torch.no_grad():
        encoded = encoder(tokens)
    counts = encoded * 4
    assert torch.equal(counts, counts.round())
    assert counts.min() >= 0
    assert counts.max() <= 4 * (1 + 2 * 4)


def test_spike_rates_count_the_real_patches_since_the_last_reset():
    encoder = Spikformer()
    tokens = torch.randn(2, 4, 256, generator=torch.manual_seed(0))
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(
                lambda _, __, spikes, name=name: seen.setdefault(name, []).append(spikes)
            )
    encoder(tokens, padding)
    reset_spike_counts(encoder)
    assert set(spike_rates(encoder).values()) == {0.0}
    seen.clear()
    for _ in range(2):
        encoder(tokens, padding)
    rates = spike_rates(encoder)
    assert len(rates) == 1 + 4 * 7
    for name, spikes in seen.items():
        real = torch.cat([step[:, ~padding] for step in spikes])
        assert rates[name] == pytest.approx(real.mean().item(), rel=1e-6)
        assert not any(step[:, padding].any() for step in spikes)
    assert 0 < max(rates.values()) < 1


def test_counting_is_no_part_of_the_weights_and_other_encoders_have_no_spikes():
    assert not any("fired" in name or "sites" in name for name in Spikformer().state_dict())
    assert spike_rates(TFDetHeads(outputs=3)) == {}


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    heads = TFDetHeads(outputs=5, encoder="spikformer")
    y, z = heads(torch.randn(2, 4, 256), None, torch.tensor([[2, 2], [2, 2]]))
    (y.square().sum() + z.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    assert heads.te.embed.weight.grad.any()

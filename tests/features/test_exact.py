"""Exact arithmetic: the definition of docs/format.md, in integers, against the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vocprep.backbones import BACKBONES, NORMALISATIONS, Normalisation
from vocprep.checks.deviation import measure_deviation
from vocprep.errors import UsageError, WeightsError
from vocprep.features import probe
from vocprep.features.compiling import can_compile
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.exact import (
    Carrier,
    ExactBackbone,
    ExactConvolution,
    integers_of,
    to_rows,
)
from vocprep.features.integer_network import IntegerConvolution, IntegerNetwork
from vocprep.features.weights import StateDict, load_weights

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WEIGHTS = load_weights("random:0", Path())
RESNET32 = BACKBONES["resnet32-cifar100"]
LAYERS = ("layer2", "layer3")
BF16, FP32 = Carrier(torch.bfloat16), Carrier(torch.float32)
MATMUL = Carrier(torch.float32, by_matmul=True)
PATCHES = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
Ints = NDArray[np.int64]


@pytest.fixture(scope="module")
def integers() -> IntegerNetwork:
    return integers_of(WEIGHTS, Normalisation())


def embed(integers: IntegerNetwork, carrier: Carrier = FP32) -> NDArray[np.float32]:
    backbone = ExactBackbone(integers, RESNET32, LAYERS, carrier)
    with torch.inference_mode():
        found: NDArray[np.float32] = backbone(torch.from_numpy(PATCHES).permute(0, 3, 1, 2)).numpy()
    return found


# The definition once more, in Python's integers and numpy's, as format.md words it


def eight_bits(value: int) -> int:
    """The nearest integer of 8 significant bits; of two, the one whose last bit is 0."""
    unit = 1 << max(0, abs(value).bit_length() - 8)
    whole, rest = divmod(abs(value), unit)
    up = 2 * rest > unit or (2 * rest == unit and whole % 2 == 1)
    return (whole + up) * unit * (1 if value >= 0 else -1)


def rounded(values: Ints) -> Ints:
    return np.vectorize(eight_bits, otypes=[np.int64])(values)


def convolve(x: Ints, by: IntegerConvolution) -> Ints:
    side, stride = by.weight.shape[-1], by.stride
    margin = side // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    height, width = x.shape[1] // stride, x.shape[2] // stride
    sums = np.zeros((len(by.weight), height, width), dtype=np.int64)
    for row in range(side):
        for column in range(side):
            seen = padded[:, row : row + stride * height : stride, column:][
                :, :, : stride * width : stride
            ]
            sums += np.einsum("oi,ihw->ohw", by.weight[:, :, row, column], seen)
    assert np.abs(sums).max() <= by.largest_sum < 1 << 24
    total = rounded(sums) + by.bias[:, None, None]
    # Below 2**25 one rounding to float32, and one more of the product.
    product = total.astype(np.float32) * by.multiplier[:, None, None]
    return np.rint(product).astype(np.int64)


def embed_by_definition(integers: IntegerNetwork, patch: NDArray[np.uint8]) -> list[float]:
    x = patch.transpose(2, 0, 1).astype(np.int64) - integers.centre[:, None, None]
    x = convolve(x, integers.stem).clip(0, 2040)
    numbers: list[float] = []
    for number, stage in enumerate(integers.stages, 1):
        for block in stage.blocks:
            x = rounded(x)
            y = rounded(convolve(x, block.first).clip(0, 2040))
            shortcut = x if block.shortcut is None else convolve(x, block.shortcut)
            x = (convolve(y, block.second) + shortcut).clip(0, 2040)
        if number > 1:
            cells = x.shape[1] // 4
            pooled = x.reshape(len(x), cells, 4, cells, 4).sum(axis=(2, 4))
            numbers += (pooled / 16 * stage.step[:, None, None]).ravel().tolist()
    return numbers


def test_the_network_computes_what_the_definition_says(integers: IntegerNetwork) -> None:
    found = embed(integers)
    for row in (0, 3):
        expected = embed_by_definition(integers, PATCHES[row])
        assert found[row].tolist() == expected  # binary64 here: the network rounded nothing


@pytest.mark.parametrize("carrier", [BF16, FP32, MATMUL], ids=str)
def test_every_carrier_gives_the_same_bits(carrier: Carrier, integers: IntegerNetwork) -> None:
    np.testing.assert_array_equal(embed(integers, carrier), embed(integers))


# Integers from weights


def convolutions(integers: IntegerNetwork) -> dict[str, IntegerConvolution]:
    return dict(integers.convolutions())


def test_weights_have_eight_bits_and_sums_stay_below_the_limit(integers: IntegerNetwork) -> None:
    found = convolutions(integers)
    assert len(found) == 33
    assert list(found)[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    for convolution in found.values():
        np.testing.assert_array_equal(rounded(convolution.weight), convolution.weight)
        assert np.abs(convolution.bias).max() < 1 << 24
        assert convolution.largest_sum < 1 << 24
    # Nothing is wasted: with weights of one step more the bound would not hold.
    assert found["layer3.1.conv1"].largest_sum > 0.999 * (1 << 24)


@pytest.mark.parametrize("carrier", [BF16, FP32, MATMUL], ids=str)
def test_the_largest_sum_is_reached_and_exact(carrier: Carrier, integers: IntegerNetwork) -> None:
    convolution = convolutions(integers)["layer3.2.conv1"]
    ups = np.maximum(convolution.weight, 0).sum(axis=(1, 2, 3))
    downs = np.minimum(convolution.weight, 0).sum(axis=(1, 2, 3))
    output = int(np.maximum(ups, -downs).argmax())
    sign = 1 if ups[output] > -downs[output] else -1
    window = torch.from_numpy(2040 * (sign * convolution.weight[output] > 0)).float()[None]
    module = ExactConvolution(replace(convolution, stride=1), carrier)
    found = (module._convolve_unfolded if carrier.by_matmul else module._convolve)(
        window.to(carrier.dtype)
    )
    expected = sign * convolution.largest_sum
    if carrier == BF16:
        expected = eight_bits(expected)
    assert found[0, output, 1, 1].item() == expected


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**WEIGHTS, name: change(WEIGHTS[name])}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layer2.1.bn1.weight", torch.zeros_like),
        ("layer2.1.bn1.weight", torch.neg),
        ("layer2.1.bn1.bias", lambda x: x - 1000),
        ("layer2.1.bn2.bias", lambda x: x + 1000),
        ("layer2.1.conv1.weight", torch.zeros_like),
        ("layer2.1.conv2.weight", lambda x: x * 1e-20),
        ("layer2.1.bn1.running_var", torch.zeros_like),
        ("layer2.1.bn2.running_mean", lambda x: x + 1e6),
        ("conv1.weight", lambda x: x * 1e6),
    ],
)
def test_odd_weights_have_integers_too(
    name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    integers = integers_of(changed(name, change), Normalisation())
    for convolution in convolutions(integers).values():
        assert convolution.largest_sum < 1 << 24
        assert np.abs(convolution.bias).max() <= 1 << 24
        assert np.isfinite(convolution.multiplier).all()
        assert (convolution.multiplier > 0).all()
    np.testing.assert_array_equal(embed(integers, BF16), embed(integers, MATMUL))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("layer2.1.conv1.weight", lambda x: x * 1e30),
        ("layer2.1.bn1.running_var", lambda x: x - 2),
    ],
)
def test_weights_far_out_of_range_are_refused(
    name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    with pytest.raises(
        WeightsError, match=r"what surrounds layer2\.1\.conv1 is out of the range that "
    ):
        integers_of(changed(name, change), Normalisation())


def test_the_embeddings_are_those_of_the_float_network_but_for_quantisation() -> None:
    # Of untrained weights the batch norms' statistics are not true: trained ones are closer.
    pictures = probe.probe_patches()[:20]  # without the checkerboards
    spec = EmbeddingSpec(layers=LAYERS)
    expected = Embedder(WEIGHTS, spec, device=CPU).embed(pictures)
    found = Embedder(WEIGHTS, replace(spec, precision="exact"), device=CPU).embed(pictures)
    for part in (slice(0, 512), slice(512, 768)):
        assert measure_deviation(found[:, part], expected[:, part]).smallest_cosine > 0.95


def test_the_normalisation_is_part_of_the_integers() -> None:
    pictures = probe.probe_patches()[:8]
    cifar, imagenet = (
        {
            precision: Embedder(
                WEIGHTS, EmbeddingSpec(precision=precision, normalisation=constants), device=CPU
            ).embed(pictures)
            for precision in ("fp32", "exact")
        }
        for constants in NORMALISATIONS.values()
    )
    for here, other in ((cifar, imagenet), (imagenet, cifar)):
        own, foreign = (np.abs(here["exact"] - each["fp32"]).mean() for each in (here, other))
        assert own < 0.8 * foreign


# What decides the bits


def other_weight(integers: IntegerNetwork) -> IntegerNetwork:
    weight = integers.stem.weight.copy()
    place = np.unravel_index(np.abs(weight).argmin(), weight.shape)
    weight[place] += 1
    return replace(integers, stem=replace(integers.stem, weight=weight))


def other_step(integers: IntegerNetwork) -> IntegerNetwork:
    *others, last = integers.stages
    step = last.step.copy()
    step[7] += np.ldexp(1.0, int(np.frexp(step[7])[1]) - 8)  # its last bit
    return replace(integers, stages=(*others, replace(last, step=step)))


def other_multiplier(integers: IntegerNetwork) -> IntegerNetwork:
    bits = integers.stem.multiplier.view(np.int32) ^ (1 << 8)
    stem = replace(integers.stem, multiplier=bits.view(np.float32))
    return replace(integers, stem=stem)


@pytest.mark.parametrize("change", [other_weight, other_step, other_multiplier])
def test_one_bit_changes_the_embeddings(
    change: Callable[[IntegerNetwork], IntegerNetwork], integers: IntegerNetwork
) -> None:
    assert not np.array_equal(embed(change(integers)), embed(integers))


def bias_first(self: ExactConvolution, x: torch.Tensor) -> torch.Tensor:
    sums = to_rows(self._convolve(x)).float() + self.bias
    return (sums.bfloat16().float() * self.multiplier).round_()


def test_another_order_of_roundings_is_detected(
    monkeypatch: pytest.MonkeyPatch, integers: IntegerNetwork
) -> None:
    expected = embed(integers)
    monkeypatch.setattr(ExactConvolution, "forward", bias_first)
    assert not np.array_equal(embed(integers), expected)
    probe.prove.cache_clear()
    with pytest.raises(UsageError, match="'exact': cpu does not compute sums of integers exactly"):
        probe.prove(CPU)
    probe.prove.cache_clear()


# The probe


@pytest.fixture
def fresh_probe() -> Any:
    probe.prove.cache_clear()
    yield probe.prove
    probe.prove.cache_clear()


def test_the_slower_way_is_taken_where_convolutions_are_not_exact(
    monkeypatch: pytest.MonkeyPatch, fresh_probe: Callable[[torch.device], Carrier]
) -> None:
    convolve = F.conv2d

    def inexact(x: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        return convolve(x, weight, **options) * (1 + 2**-7)

    monkeypatch.setattr(F, "conv2d", inexact)
    assert fresh_probe(CPU) == MATMUL


def raise_for(*raising: Carrier) -> Callable[..., tuple[float, str]]:
    tried = probe._try

    def wrapped(network: IntegerNetwork, carrier: Carrier, *rest: Any) -> tuple[float, str]:
        if carrier in raising:
            raise torch.OutOfMemoryError("could not create a primitive")
        return tried(network, carrier, *rest)

    return wrapped


@pytest.mark.parametrize(
    ("raising", "left"), [((BF16,), FP32), ((FP32,), BF16), ((BF16, FP32), MATMUL)], ids=str
)
def test_what_a_device_cannot_run_is_not_taken(
    raising: tuple[Carrier, ...],
    left: Carrier,
    monkeypatch: pytest.MonkeyPatch,
    fresh_probe: Callable[[torch.device], Carrier],
) -> None:
    monkeypatch.setattr(probe, "_try", raise_for(*raising))
    assert fresh_probe(CPU) == left


def test_a_device_that_can_run_nothing_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, fresh_probe: Callable[[torch.device], Carrier]
) -> None:
    monkeypatch.setattr(probe, "_try", raise_for(BF16, FP32, MATMUL))
    found = r"found could not create a primitive in bfloat16, .* in float32 matmul; install another"
    with pytest.raises(UsageError, match=found):
        fresh_probe(CPU)


def test_gpus_may_round_to_tf32() -> None:
    fast, _ = probe._carriers(torch.device("cuda"))
    assert [str(carrier) for carrier in fast] == ["bfloat16", "float32", "float32 tf32"]


def test_a_decoder_of_other_pixels_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, fresh_probe: Callable[[torch.device], Carrier]
) -> None:
    decode = probe.decode_jpeg
    monkeypatch.setattr(probe, "decode_jpeg", lambda data, where: decode(data, where) ^ 1)
    with pytest.raises(UsageError, match=r"'exact': simplejpeg .* other pixels here .*b11d6f"):
        fresh_probe(CPU)


def test_a_batch_whose_rows_differ_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    network = integers_of(WEIGHTS, Normalisation())
    inputs = torch.from_numpy(PATCHES).permute(0, 3, 1, 2)
    _, alone = probe._try(network, FP32, inputs, 4)
    rows = probe._rows(4, 10)
    _, repeated = probe._try(network, FP32, inputs[rows], 4)
    assert rows == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert repeated == alone
    _, differing = probe._try(network, FP32, inputs[[0, 1, 2, 3, 0, 1, 2, 2]], 4)
    assert differing != alone


def test_zeros_have_no_sign() -> None:
    embedder = Embedder(WEIGHTS, EmbeddingSpec(precision="exact"), device=CPU)
    embedder._network = lambda pixels: torch.full((len(pixels), 256), -0.0)
    found = embedder.embed(PATCHES)
    assert not found.any()
    assert not np.signbit(found).any()


def test_windows_and_chunks_give_the_same_bits() -> None:
    image = np.random.default_rng(4).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    spec = EmbeddingSpec(windows=(32, 64), layers=LAYERS, precision="exact")
    (whole,) = Embedder(WEIGHTS, spec, device=CPU).embed_images([image])
    (pairs,) = Embedder(WEIGHTS, spec, device=CPU, chunk=2).embed_images([image])
    assert whole.shape == (6, 2 * 768)
    np.testing.assert_array_equal(pairs, whole)


def shortened(weights: StateDict, normalisation: Normalisation) -> IntegerNetwork:
    """One block a stage, which compiles in a quarter of the time."""
    integers = integers_of(weights, normalisation)
    stages = tuple(replace(stage, blocks=stage.blocks[:1]) for stage in integers.stages)
    return replace(integers, stages=stages)


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler here")
@pytest.mark.parametrize("carrier", [BF16, FP32], ids=str)
def test_compiled_bits_are_those_uncompiled(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.features.embed.prove", lambda *_: carrier)
    monkeypatch.setattr("vocprep.features.exact.integers_of", shortened)
    embedder = Embedder(WEIGHTS, EmbeddingSpec(precision="exact"), device=CPU, chunk=10)
    expected = embedder.embed(PATCHES)
    embedder.compile()
    np.testing.assert_array_equal(embedder.embed(PATCHES), expected)


def test_the_bounds_on_the_page_are_those_of_the_published_weights(shared_data: Path) -> None:
    weights = load_weights(str(shared_data / "weights" / "cifar100_resnet32.pth"), Path())
    page = (Path(__file__).resolve().parents[2] / "docs" / "exact.md").read_text(encoding="utf-8")
    lines = page.partition("```text bounds\n")[2].partition("```")[0].splitlines()[1:]
    shown = {line.split()[0]: line.replace(",", "").split()[-4] for line in lines}
    expected = convolutions(integers_of(weights, Normalisation()))
    assert shown == {name: str(by.largest_sum) for name, by in expected.items()}

"""Images → embeddings of their patches, through the frozen backbone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vocprep.backbones import DEFAULT_BACKBONE, Backbone, Network, Normalisation, backbone_of
from vocprep.errors import UsageError
from vocprep.features.backbone import FrozenBackbone, FrozenMaps, keep_freed_memory, set_tf32
from vocprep.features.compiling import compiler_options, compiling, require_compiler
from vocprep.features.components import Components, make_reducer
from vocprep.features.devices import GPU_CHUNK
from vocprep.features.exact import Carrier, ExactBackbone, without_signed_zeros
from vocprep.features.on_device.graphs import ChunkGraph
from vocprep.features.on_device.placing import (
    Picture,
    Pixels,
    cut_patches,
    place_on,
    scale_patches,
    shrink_windows,
    upload,
)
from vocprep.features.probe import probe_patches, prove
from vocprep.features.weights import StateDict
from vocprep.geometry import PATCH, SIDE
from vocprep.recipe import Precision, Recipe, Reduction

CHUNK = 49
"""Patches per forward pass on a CPU in fp32: an image of 7×7 patches suits its caches best."""
BF16_CHUNK = 98
"""The same in bf16, of half the size."""
EXACT_CHUNK = 28
"""Patches per forward pass of exact arithmetic on a CPU, which passes memory more often."""
IMAGE_CHUNK, GPU_IMAGE_CHUNK = 4, 32
"""Images per forward pass of a backbone of whole images."""
ANY_IMAGE_CHUNK, ANY_GPU_IMAGE_CHUNK = 1, 32
"""The same of a network that is not built in, of any sizes of images: always whole chunks of one
size, since nothing is known of what its bits depend on."""
_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_GPU_ONLY = ("tf32", "fp16")


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpec:
    """The part of a recipe that decides the embeddings of an image after the geometry."""

    backbone: str = DEFAULT_BACKBONE
    windows: tuple[int, ...] = (32,)
    layers: tuple[str, ...] = ("layer3",)
    normalisation: Normalisation = field(default_factory=Normalisation)
    precision: Precision = "fp32"
    network: Network | None = None
    """The backbone, where it is not a built-in one."""
    reduction: Reduction | None = None

    @property
    def described_backbone(self) -> Backbone:
        """What is known of the backbone without the library that makes it."""
        return backbone_of(self.backbone, self.network, self.normalisation)

    @classmethod
    def of(cls, recipe: Recipe) -> EmbeddingSpec:
        """Return the specification in a recipe."""
        return cls(
            backbone=recipe.backbone,
            windows=recipe.windows,
            layers=recipe.layers,
            normalisation=recipe.normalisation,
            precision=recipe.precision,
            network=recipe.network,
            reduction=recipe.reduction,
        )


def require_compilable(spec: EmbeddingSpec, device: torch.device) -> None:
    """Raise UsageError for a backbone that is not compiled there, and without a C++ compiler."""
    if spec.network is not None:
        raise UsageError(
            f"{spec.backbone} is not compiled, which could change its bits: leave --compile out"
        )
    if device.type == "cuda" and spec.precision != "exact":
        raise UsageError(
            f"precision {spec.precision!r} is not compiled on a GPU, where passes are CUDA graphs "
            "and compiled code has other bits: leave --compile out"
        )
    require_compiler()


def _default_chunk(spec: EmbeddingSpec, *, on_gpu: bool) -> int:
    if spec.network is not None and not spec.network.takes_patches:
        return ANY_GPU_IMAGE_CHUNK if on_gpu else ANY_IMAGE_CHUNK
    if spec.described_backbone.takes_whole_images:
        return GPU_IMAGE_CHUNK if on_gpu else IMAGE_CHUNK
    if on_gpu:
        return GPU_CHUNK
    return {"exact": EXACT_CHUNK, "bf16": BF16_CHUNK}.get(spec.precision, CHUNK)


class Embedder:
    """Computes embeddings of uint8 images or patches, in chunks that suit the device.

    The bits of a patch's embedding do not depend on the other patches of its chunk. On a CPU no
    chunk holds a single patch, which oneDNN would compute by another algorithm; on a GPU, and when
    compiled, all chunks have one size. Several threads may share an embedder; on a GPU each has its
    own stream, so that copies of one overlap with the computation of another.
    """

    def __init__(
        self,
        weights: StateDict,
        spec: EmbeddingSpec,
        *,
        device: torch.device,
        chunk: int | None = None,
        components: Components | None = None,
    ) -> None:
        on_gpu = device.type == "cuda"
        if not on_gpu:
            keep_freed_memory()
        backbone = spec.described_backbone
        if chunk is None:
            chunk = _default_chunk(spec, on_gpu=on_gpu)
        elif chunk < 2:
            raise UsageError(f"chunk {chunk}: expected 2 inputs or more")
        if spec.precision in _GPU_ONLY and not on_gpu:
            raise UsageError(
                f"precision {spec.precision!r} needs a GPU, found device {str(device)!r}: expected "
                f"{'exact, ' if backbone.has_exact else ''}fp32 or bf16"
            )
        self.device = device
        self.spec = spec
        self.chunk = chunk
        self._described = backbone
        carrier = self._prove() if spec.precision == "exact" else None
        self._tf32 = spec.precision == "tf32" if carrier is None else carrier.tf32
        self.backbone = self._make_backbone(weights, carrier)
        self._reducer = make_reducer(spec.reduction, self._backbone_size, device, components)
        self._network: Callable[[Tensor], Tensor] = self.backbone
        # cuDNN chooses its algorithm by the size of the batch, and so may any network.
        self._fixed_shape = on_gpu or spec.network is not None
        self._mean = torch.tensor(spec.normalisation.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(spec.normalisation.std, device=device).view(3, 1, 1)
        self._streams = threading.local()
        self._graph = self._capture()

    def _capture(self) -> ChunkGraph | None:
        """Return the network's graph for whole chunks of its usual input; None on a CPU."""
        if self.device.type != "cuda" or self.spec.network is not None:
            return None
        set_tf32(self.device, allowed=self._tf32)
        return ChunkGraph.capture(self._pass, self._blank_chunk())

    def _blank_chunk(self) -> Tensor:
        side = self._described.input_side or SIDE
        shape = (self.chunk, side, side, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=self.device)

    def _prove(self) -> Carrier:
        """Return what computes exactly here; on a GPU in batches as they will be."""
        return prove(self.device, self.chunk if self.device.type == "cuda" else None)

    def _make_backbone(self, weights: StateDict, carrier: Carrier | None) -> nn.Module:
        spec = self.spec
        if spec.network is not None:
            maps = FrozenMaps.from_weights(weights, spec.backbone, spec.network, spec.layers)
            return maps.to(self.device, _DTYPES[spec.precision])
        if carrier is None:
            is_slow = self.device.type == "cuda" and spec.precision == "fp32"
            frozen = FrozenBackbone.from_weights(
                weights,
                spec.backbone,
                spec.layers,
                # cuDNN's convolutions of fp32, unlike all others, are slower with channels last.
                torch.contiguous_format if is_slow else torch.channels_last,
            )
            return frozen.to(self.device, _DTYPES[spec.precision])
        return ExactBackbone.from_weights(
            weights, spec.backbone, spec.layers, spec.normalisation, carrier
        ).to(self.device)

    @property
    def dim(self) -> int:
        """D, the numbers per patch."""
        reduction = self.spec.reduction
        return self._backbone_size if reduction is None else reduction.size

    @property
    def _backbone_size(self) -> int:
        return self._described.embedding_size(self.spec.windows, self.spec.layers)

    def compile(self) -> None:
        """Compile the backbone for whole chunks, which takes seconds: the same bits, faster.

        Raises UsageError, and leaves the embedder unchanged, where there is no C++ compiler or it
        fails, for a network that is not built in, and on a GPU for all precisions but ``exact``.
        """
        require_compilable(self.spec, self.device)
        before = self._network, self._fixed_shape, self._graph
        is_exact = self.spec.precision == "exact"
        self._fixed_shape, self._graph = True, None
        try:
            # The compiler raises errors of many types, and so do its tools.
            with compiling("the backbone does", Exception), _frozen_weights(frozen=is_exact):
                # Without the last option the compiler leaves out roundings to bfloat16 and back.
                options = {**compiler_options(), "emulate_precision_casts": is_exact}
                self._network = torch.compile(self.backbone, options=options, dynamic=False)
                with self._on_device():
                    self._embed(self._blank_chunk())
            if is_exact:
                self._require_same_bits()
            self._graph = self._capture()
        except UsageError:
            self._network, self._fixed_shape, self._graph = before
            raise

    def _require_same_bits(self) -> None:
        """Raise UsageError where the compiled backbone has other bits than the eager one."""
        patches = probe_patches()
        compiled, network = self.embed(patches), self._network
        self._network = self.backbone
        eager = self.embed(patches)
        self._network = network
        if not np.array_equal(compiled, eager):
            raise UsageError(
                f"precision 'exact': the backbone gives other bits compiled by torch "
                f"{torch.__version__} than uncompiled; use --no-compile"
            )

    def embed(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return embeddings float32 [P, D] of patches uint8 [P, 32, 32, 3] (RGB).

        Only for a backbone of patches and the window 32; ``embed_images`` works for all.
        """
        with self._on_device():
            inputs = upload([patches], self.device).view(patches.shape)
            return self._fetch(self._embed(inputs))

    def embed_images(self, images: Sequence[Pixels | Picture]) -> list[NDArray[np.float32]]:
        """Return each image's embeddings float32 [P, D], all computed together.

        Images uint8 [32·ny, 32·nx, 3] (RGB) are cut into patches, row-major, on the device, which
        brings a ``Picture`` to its patch grid before.
        """
        if not images:
            return []
        with self._on_device():
            placed = place_on(self.device, images)
            embeddings = self._fetch(self._embed_stacks([stack for _, stack in placed]))
        found: dict[int, NDArray[np.float32]] = {}
        end = 0
        for numbers, stack in placed:
            patches = stack.shape[1] * stack.shape[2] // (PATCH * PATCH)
            for number in numbers:
                found[number] = embeddings[end : end + patches]
                end += patches
        return [found[number] for number in range(len(images))]

    def _embed_stacks(self, stacks: Sequence[Tensor]) -> Tensor:
        """Return the embeddings [P, D] of stacks of images uint8 [N, h, w, 3], in their order."""
        if not self.spec.windows:  # the network takes whole images
            side = self._described.patch_pixels
            return torch.cat([self._embed(scale_patches(stack, side)) for stack in stacks])
        tiles = []
        for window in self.spec.windows:
            tiles += [cut_patches(*shrink_windows(stack, window)) for stack in stacks]
        embeddings = self._embed(tiles[0] if len(tiles) == 1 else torch.cat(tiles))
        windows = len(self.spec.windows)
        return embeddings.view(windows, -1, embeddings.shape[1]).transpose(0, 1).flatten(1)

    def _fetch(self, embeddings: Tensor) -> NDArray[np.float32]:
        """Return embeddings as the recipe makes them smaller, copied to the host in one piece."""
        if self._reducer is not None:
            return self._reducer.reduce(embeddings)
        if self.spec.precision == "exact":
            return without_signed_zeros(embeddings)
        found: NDArray[np.float32] = embeddings.cpu().numpy()
        return found

    def _embed(self, inputs: Tensor) -> Tensor:
        """Return the embeddings float32 of network inputs uint8 [N, s, s, 3], on the device."""
        with _one_thread(needed=self.spec.network is not None):
            return self._embed_chunks(inputs)

    def _embed_chunks(self, inputs: Tensor) -> Tensor:
        set_tf32(self.device, allowed=self._tf32)
        side = self._described.patch_pixels
        places = (inputs.shape[1] // side) * (inputs.shape[2] // side)
        dim = self._described.embedding_size((), self.spec.layers)
        out = torch.empty(len(inputs) * places, dim, device=self.device)
        for part in _chunks(len(inputs), self.chunk, whole=self._fixed_shape):
            rows = slice(part.start * places, part.stop * places)
            if self._graph is not None and self._graph.shape[1:] == inputs.shape[1:]:
                self._graph.replay(inputs[part], out[rows])
            else:
                out[rows] = self._forward(inputs[part])[: rows.stop - rows.start]
        return out

    def _forward(self, inputs: Tensor) -> Tensor:
        least = self.chunk if self._fixed_shape else 2
        if len(inputs) < least:
            # Copies of the last input, whose embeddings are discarded.
            filler = inputs[-1:].expand(least - len(inputs), -1, -1, -1)
            inputs = torch.cat([inputs, filler])
        return self._pass(inputs)

    def _pass(self, inputs: Tensor) -> Tensor:
        """Return the network's output float32 for a chunk of inputs uint8 [N, s, s, 3]."""
        return self._network(self._network_inputs(inputs)).float()

    def _network_inputs(self, inputs: Tensor) -> Tensor:
        """Return what the backbone takes: normalised pixels, or with ``exact`` the pixels."""
        if self.spec.precision == "exact":
            return inputs.to(self.device).permute(0, 3, 1, 2)
        return self.normalise(inputs).to(_DTYPES[self.spec.precision])

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return the backbone's input float32 [N, 3, s, s] of pixels uint8 [N, s, s, 3]."""
        pixels = inputs.to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(self._mean).div_(self._std)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Run a block without gradients, on a GPU on this thread's own stream."""
        with torch.inference_mode():
            if self.device.type != "cuda":
                yield
                return
            if not hasattr(self._streams, "stream"):
                self._streams.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch's own gap
            with torch.cuda.stream(self._streams.stream):
                yield


@contextmanager
def _one_thread(*, needed: bool) -> Iterator[None]:
    """Let torch use one thread of the CPU, as in builds: of any network more may change the bits.

    Where it uses one already nothing is set, which would be for all threads of the process.
    """
    before = torch.get_num_threads()
    if not needed or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _frozen_weights(*, frozen: bool) -> Iterator[None]:
    """Let weights become constants of compiled code, which makes it faster.

    It changes the bits of bf16, whose sums it fuses with what follows, but not those of ``exact``.
    As an option of ``torch.compile`` it has no effect in recent versions of torch.
    """
    if not frozen:
        yield
        return
    from torch._inductor import config  # noqa: PLC0415  # takes a second to import

    with config.patch(freezing=True):
        yield


def _chunks(count: int, size: int, *, whole: bool = False) -> Iterator[slice]:
    """Cut ``count`` patches into slices of ``size``.

    Unless chunks must be ``whole``, a single leftover is added to the last one.

    >>> [(part.start, part.stop) for part in _chunks(7, 3)]
    [(0, 3), (3, 7)]
    """
    start = 0
    while start < count:
        stop = min(start + size, count)
        if count - stop == 1 and not whole:
            stop = count
        yield slice(start, stop)
        start = stop

"""The probe of exact arithmetic: whether this machine computes the bits that all others do.

Small pictures that the package holds pass JPEG decoder, resize and, with some checkerboards of
the greatest contrast, a network of untrained weights; the results are compared with digests. The
bound on sums holds for the pictures of a build and the weights of its backbone as it does for
these: what is tried here is the machine, that is, whether its libraries decode, resize and multiply
as docs/format.md defines.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, Normalisation
from vocprep.errors import UsageError
from vocprep.features.backbone import set_tf32
from vocprep.features.exact import Carrier, ExactBackbone, integers_of, without_signed_zeros
from vocprep.features.image import decode_jpeg
from vocprep.features.integer_network import IntegerNetwork
from vocprep.features.weights import load_weights
from vocprep.geometry import PATCH, Geometry
from vocprep.placement import place_image, split_patches
from vocprep.validation import explain

PICTURES = (
    *("downscaled.jpg", "upscaled.jpg", "half_width.jpg", "half_height.jpg"),
    *("grey.jpg", "cmyk.jpg"),
)
"""In the folder ``probe_pictures``: drawn by ``vocprep sample``, made smaller, and stored with the
chroma at half resolution, progressive, with the chroma at half the width, at half the height,
without chroma, and in CMYK, which Pillow decodes."""
TIMED = 3
"""Forward passes whose time decides between ways that are exact."""
WEIGHTS = "random:0"
LAYERS = ("layer3", "layer2")
EVERY = 13
"""Of the pictures' patches every thirteenth passes the network."""
PIXELS_SHA256 = "b11d6f4dabbd64faf38cccb8e2dbcede9ae59d49ee5d04249604ab10c299b3c2"
"""Of the pictures' patches."""
EMBEDDINGS_SHA256 = "28ce9142086d8745442e2aa7cec3d417c8e5b34b4068133ac01ba88b8e2ba848"
"""Of the embeddings, as little-endian float32."""
NUMERICS_CLASS = {"probe": f"exact 1, {EMBEDDINGS_SHA256[:12]}"}
"""The numerics class of all machines that the probe succeeds on."""
_INSTEAD = "new versions can also be built with --precision fp32"


@cache
def prove(device: torch.device, batch: int | None = None) -> Carrier:
    """Return the fastest way of exact arithmetic on a device that gives the bits of all machines.

    On a GPU, where libraries choose their algorithms by the size of a batch, ``batch`` is that of
    the build. Raises UsageError where there is none, or where pictures decode to other pixels. What
    a device cannot run at all, or not within its memory, counts as not exact.
    """
    patches = torch.from_numpy(probe_patches())
    network = integers_of(load_weights(WEIGHTS, Path()), Normalisation())
    inputs = patches[_rows(len(patches), batch)].to(device).permute(0, 3, 1, 2)
    proven, found = [], {}
    for carriers in _carriers(device):
        for carrier in carriers:
            try:
                seconds, digest = _try(network, carrier, inputs, len(patches))
            except RuntimeError as error:  # also torch's for too little memory
                found[str(carrier)] = explain(error)
                continue
            found[str(carrier)] = f"{digest[:12]}…"
            if digest == EMBEDDINGS_SHA256:
                proven.append((seconds, carrier))
        if proven:
            return min(proven, key=lambda pair: pair[0])[1]
    listed = ", ".join(f"{result} in {carrier}" for carrier, result in found.items())
    raise UsageError(
        f"precision 'exact': {device} does not compute sums of integers exactly with torch "
        f"{torch.__version__}: expected embeddings of the probe with sha256 "
        f"{EMBEDDINGS_SHA256[:12]}…, found {listed}; install another release of torch; {_INSTEAD}"
    )


def probe_patches() -> NDArray[np.uint8]:
    """Return the patches uint8 [P, 32, 32, 3] of pictures and checkerboards that pass the network.

    Raises UsageError where the pictures have other pixels here than on other machines.
    """
    folder = resources.files("vocprep.features") / "probe_pictures"
    pixels = np.concatenate(
        [
            split_patches(place_image(decode_jpeg((folder / name).read_bytes(), name), Geometry()))
            for name in PICTURES
        ]
    )
    found = hashlib.sha256(pixels.tobytes()).hexdigest()
    if found != PIXELS_SHA256:
        raise UsageError(
            f"precision 'exact': simplejpeg {simplejpeg.__version__} or Pillow {PIL.__version__} "
            "gives other pixels here than on other machines: expected pixels of the probe with "
            f"sha256 {PIXELS_SHA256[:12]}…, found {found[:12]}…; install other releases of them; "
            f"{_INSTEAD}"
        )
    return np.concatenate([pixels[::EVERY], _checkerboards()])


def _checkerboards() -> NDArray[np.uint8]:
    """Return black and white patches [4, 32, 32, 3] of squares of 1, 2, 4 and 8 pixels."""
    square, y, x, channel = np.indices((4, PATCH, PATCH, 3))
    is_white = (y >> square ^ (x + channel) >> square) & 1
    patches: NDArray[np.uint8] = (255 * is_white).astype(np.uint8)
    return patches


def _rows(count: int, batch: int | None) -> list[int]:
    """Return the indices of ``count`` patches, repeated to fill a batch."""
    return [row % count for row in range(max(count, batch or 0))]


def _carriers(device: torch.device) -> Sequence[Sequence[Carrier]]:
    """Return what may compute convolutions, in groups: a later one where none before is exact."""
    fast = [Carrier(torch.bfloat16), Carrier(torch.float32)]
    if device.type == "cuda":
        fast.append(Carrier(torch.float32, tf32=True))
    return fast, [Carrier(torch.float32, by_matmul=True)]


@torch.inference_mode()
def _try(
    network: IntegerNetwork, carrier: Carrier, inputs: Tensor, count: int
) -> tuple[float, str]:
    """Return the seconds that some passes take, and the digest of the embeddings.

    The first ``count`` inputs are digested; the others are the same again, and two of them are
    embedded alone as well: where one has other embeddings then, the digest is of them all.
    """
    backbone = ExactBackbone(network, BACKBONES[DEFAULT_BACKBONE], LAYERS, carrier)
    backbone.to(inputs.device)
    set_tf32(inputs.device, allowed=carrier.tf32)
    alone = without_signed_zeros(backbone(inputs[:2]))
    embeddings = without_signed_zeros(backbone(inputs))  # libraries prepare code for each shape
    started = time.perf_counter()
    for _ in range(TIMED):
        backbone(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    seconds = time.perf_counter() - started
    distinct = embeddings[:count]
    repeated = distinct[_rows(count, len(inputs))]
    if not (np.array_equal(embeddings, repeated) and np.array_equal(alone, distinct[:2])):
        distinct = np.concatenate([embeddings, alone])
    return seconds, hashlib.sha256(distinct.astype("<f4").tobytes()).hexdigest()

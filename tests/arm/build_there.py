"""Make the sample, build four of its pictures in exact arithmetic and print what must be the same.

Run by tests/arm/run.sh, once on this machine and once on emulated 64-bit ARM:
python build_there.py FOLDER
"""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

import numpy as np
import torch

import vocprep
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, BuildOptions
from vocprep.placement import place_image

SIZES = range(33, 1025)


def resized_sha256() -> str:
    """Return the digest of noise of every usual width after the resize."""
    digest = hashlib.sha256()
    for size in SIZES:
        noise = np.random.default_rng(size).integers(0, 256, (33, size, 3), dtype=np.uint8)
        digest.update(place_image(noise, Geometry(geometry="squash")).tobytes())
    return digest.hexdigest()


def main() -> None:
    """Build and print."""
    folder = Path(sys.argv[1])
    vocprep.sample(folder / "data", images=6)
    result = vocprep.build(
        "pascal-context",
        out=folder / "shards",
        data_dir=folder / "data",
        weights="random:0",
        choices=BuildChoices(limit_per_split=3, precision="exact", layers=("layer3", "layer2")),
        options=BuildOptions(device="cpu", workers=1, compiled=False),
    )
    print(f"{platform.machine()}, torch {torch.__version__}", file=sys.stderr)
    print("source_id ", result.index.source_id)
    print("content_id", result.index.content_id)
    print("resizes   ", resized_sha256())


if __name__ == "__main__":
    main()

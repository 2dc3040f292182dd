"""Build two of the sample's pictures in exact arithmetic and print the version's content_id.

Run by tests/arm/run.sh, once on this machine and once on emulated 64-bit ARM:
python build_there.py TREE OUT
"""

from __future__ import annotations

import platform
import sys

import torch

import vocprep
from vocprep.options import BuildChoices, BuildOptions


def main() -> None:
    """Build and print."""
    tree, out = sys.argv[1:]
    result = vocprep.build(
        "pascal-context",
        out=out,
        data_dir=tree,
        weights="random:0",
        choices=BuildChoices(limit=1, precision="exact", layers=("layer3", "layer2")),
        options=BuildOptions(device="cpu", workers=1, compiled=False),
    )
    print(f"{platform.machine()}, torch {torch.__version__}", file=sys.stderr)
    print(result.index.content_id)


if __name__ == "__main__":
    main()

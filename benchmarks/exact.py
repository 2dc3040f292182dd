"""Exact arithmetic beside floating point: how close its embeddings are, how fast, its bounds.

The first table compares the embeddings of every window and layer with those of fp32, patch by
patch. The second is benchmarks/build.py's measure, end to end, of the three precisions in one run.
The third has the bound on the partial sums of each convolution, which is proved from the weights
when the network is built, and what its integers are. Real pictures where VOCPREP_SHARED_DATA or
../shared/data has them, else generated ones.

A machine without bf16 units is emulated by
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/exact.py --no-compile

Run: python benchmarks/exact.py [--images 200] [--compared 100] [--windows 32 128] [--no-compile]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from _pictures import Pictures, make_pictures
from _report import Cell, Column, Report, Table, command_line
from build import Way, by_vocprep
from numpy.typing import NDArray

from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, Normalisation
from vocprep.features.compiling import can_compile
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.exact import integers_of
from vocprep.features.image import decode_jpeg, read_image_file
from vocprep.features.integer_network import SUM_LIMIT, IntegerConvolution
from vocprep.features.weights import load_weights
from vocprep.geometry import WINDOWS, Geometry
from vocprep.placement import place_image
from vocprep.recipe import Precision

CPU = torch.device("cpu")
LAYERS = tuple(BACKBONES[DEFAULT_BACKBONE].layers)
COMPARED: tuple[Precision, ...] = ("exact", "bf16")
GROUP = 16
"""Images that are embedded together."""
COSINES = (
    Column("name", "cosine with fp32"),
    Column("mean", "mean", ".5f"),
    Column("of_999", "99.9 % at least", ".5f"),
    Column("least", "least", ".5f"),
)
SPEEDS = (
    Column("name", "end to end"),
    Column("images_per_s", "images/s", ",.1f"),
    Column("of_fp32", "of fp32", ".2f"),
    Column("of_bf16", "of bf16", ".2f"),
)
BOUNDS = (
    Column("name", "convolution"),
    Column("shape", "outputs × inputs × taps"),
    Column("largest_sum", "largest sum", ",d"),
    Column("of_limit", "of 2^24", ".3f"),
    Column("largest_weight", "largest weight", ",d"),
    Column("largest_bias", "largest bias", ",d"),
)


def compare(pictures: Pictures, count: int, windows: Sequence[int]) -> Table:
    """Return the table of cosines with the fp32 embeddings of the same patches."""
    samples = pictures.samples()[:count]
    images = [
        place_image(decode_jpeg(read_image_file(sample.image_path), sample.image_id), Geometry())
        for sample in samples
    ]
    rows: list[dict[str, Cell]] = []
    for window in windows:
        expected = embed(pictures.weights, window, "fp32", images)
        for precision in COMPARED:
            found = embed(pictures.weights, window, precision, images)
            start = 0
            for layer in LAYERS:
                size = BACKBONES[DEFAULT_BACKBONE].layers[layer].size
                part = np.s_[:, start : start + size]
                name = f"{precision}, window {window}, {layer}"
                rows.append({"name": name, **describe(found[part], expected[part])})
                start += size
    return Table("", COSINES, rows)


def embed(
    weights: str, window: int, precision: Precision, images: Sequence[NDArray[np.uint8]]
) -> NDArray[np.float64]:
    """Return embeddings [images · patches, D] of all layers."""
    spec = EmbeddingSpec(windows=(window,), layers=LAYERS, precision=precision)
    embedder = Embedder(load_weights(weights, Path()), spec, device=CPU)
    groups = [images[start : start + GROUP] for start in range(0, len(images), GROUP)]
    found = [part for group in groups for part in embedder.embed_images(group)]
    return np.concatenate(found).astype(np.float64)


def describe(one: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Cell]:
    """Return mean, 0.1 % quantile and minimum of the cosines between rows."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / norms
    quantile = float(np.quantile(cosines, 0.001, method="lower"))
    return {"mean": float(cosines.mean()), "of_999": quantile, "least": float(cosines.min())}


def time_builds(pictures: Pictures, out: Path, warm: int, *, compiled: bool, repeats: int) -> Table:
    """Return the table of images a second, the best of some builds each."""
    ways = [Way("fp32", False), Way("bf16", compiled), Way("exact", compiled)]
    rates = dict.fromkeys(ways, 0.0)
    for _ in range(repeats):
        for way in ways:
            rates[way] = max(rates[way], by_vocprep(pictures, out, CPU, way, warm))
    fp32, bf16, _ = rates.values()
    rows: list[dict[str, Cell]] = [
        {
            "name": way.backbone,
            "images_per_s": rate,
            "of_fp32": rate / fp32,
            "of_bf16": rate / bf16,
        }
        for way, rate in rates.items()
    ]
    return Table("", SPEEDS, rows)


def bounds(weights: str) -> Table:
    """Return the table of the bounds that the network's integers keep."""
    integers = integers_of(load_weights(weights, Path()), Normalisation())
    return Table("", BOUNDS, list(_bounds(integers.convolutions())))


def _bounds(
    convolutions: Iterator[tuple[str, IntegerConvolution]],
) -> Iterator[dict[str, Cell]]:
    for name, convolution in convolutions:
        outputs, inputs, side, _ = convolution.weight.shape
        yield {
            "name": name,
            "shape": f"{outputs} × {inputs} × {side * side}",
            "largest_sum": convolution.largest_sum,
            "of_limit": convolution.largest_sum / SUM_LIMIT,
            "largest_weight": int(np.abs(convolution.weight).max()),
            "largest_bias": int(np.abs(convolution.bias).max()),
        }


def main() -> None:
    """Measure and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=200, help="of each timed build")
    parser.add_argument("--start-up", type=int, default=32, help="before the clock starts")
    parser.add_argument("--compared", type=int, default=100, help="whose embeddings are compared")
    parser.add_argument("--windows", type=int, nargs="+", choices=WINDOWS, default=list(WINDOWS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="time uncompiled backbones")
    arguments = parser.parse_args()
    warm = arguments.start_up
    if arguments.images <= warm:
        parser.error(f"--images {arguments.images}: expected more than {warm}, the start-up")
    compared = min(arguments.compared, arguments.images)
    compiled = can_compile() and not arguments.no_compile
    with tempfile.TemporaryDirectory() as name:
        pictures = make_pictures(arguments.images, Path(name) / "data")
        report = Report(
            "exact",
            {"images": arguments.images, "compared": compared, "repeats": arguments.repeats},
            f"{pictures.title}, weights {Path(pictures.weights).name}; cosines over "
            f"{49 * compared:,} patches; speeds best of {arguments.repeats}",
            ("simplejpeg", "pillow"),
        )
        report.add(compare(pictures, compared, arguments.windows))
        report.add(
            time_builds(pictures, Path(name), warm, compiled=compiled, repeats=arguments.repeats)
        )
        report.add(bounds(pictures.weights))
    report.write(arguments.json)


if __name__ == "__main__":
    main()

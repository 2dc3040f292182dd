"""From heads' outputs to a segmentation: the seed's double loop beside vocprep, for one image.

Three rows: the seed's `toSegment`, a loop over patches and pixels that fills the dense form; the
same dense form by one scatter; and the label map alone, which needs no dense form. Rows take turns,
so that variations of the machine's speed affect all of them alike; first all are checked to agree.

Run: python benchmarks/segment.py [--patches 49] [--classes 460] [--repeats 5] [--json PATH]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from _report import Cell, Column, Report, Table, command_line
from torch import Tensor

from vocprep.heads.model.tfdet import to_label_map, to_segment

PIXELS = 1024
COLUMNS = (
    Column("name", ""),
    Column("ms", "ms", ",.2f"),
    Column("ms_least", "least", ",.2f"),
    Column("ms_most", "most", ",.2f"),
    Column("ratio", "ratio", ",.1f"),
)
LOOPS = {"vocprep, dense by scatter": 5, "vocprep, label map": 50}
"""Calls per measurement, where one call is too short."""


def double_loop(y: Tensor, z: Tensor) -> Tensor:
    """Fill the dense form as the seed does, pixel by pixel."""
    dense = torch.zeros(len(y), PIXELS, y.shape[1])
    _, strongest = torch.topk(y, 4)
    for patch in range(len(y)):
        for pixel in range(PIXELS):
            dense[patch, pixel, strongest[patch, :]] = z[patch, pixel, :]
    return dense


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--patches", type=int, default=49)
    parser.add_argument("--classes", type=int, default=460)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    samples: dict[str, Cell] = {
        "patches": arguments.patches,
        "classes": arguments.classes,
        "repeats": arguments.repeats,
    }
    report = Report(
        "segment",
        samples,
        f"{arguments.patches} patches, {arguments.classes} classes, median of {arguments.repeats}",
    )
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(arguments.patches, arguments.classes, generator=generator)
    z = torch.rand(arguments.patches, PIXELS, 4, generator=generator)
    check_agreement(y, z)
    rows: dict[str, Callable[[], Tensor]] = {
        "seed's double loop": partial(double_loop, y, z),
        "vocprep, dense by scatter": partial(to_segment, y, z),
        "vocprep, label map": partial(to_label_map, y, z),
    }
    report.add(Table("one image", COLUMNS, table(measure(rows, arguments.repeats))))
    report.write(arguments.json)


def check_agreement(y: Tensor, z: Tensor) -> None:
    """Stop unless the dense forms have the same bits and the label map is their argmax."""
    looped = double_loop(y, z)
    if not torch.equal(to_segment(y, z), looped):
        raise SystemExit("the scatter and the double loop differ")
    first, second = z.topk(2, dim=-1).values.unbind(-1)
    untied = first > second
    if not torch.equal(to_label_map(y, z)[untied], looped.argmax(dim=-1)[untied]):
        raise SystemExit("the label map is not the argmax of the dense form")


def measure(rows: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds per call of each row and repeat, the rows taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, work in rows.items():
            loops = LOOPS.get(name, 1)
            started = time.perf_counter()
            for _ in range(loops):
                work()
            seconds[name].append((time.perf_counter() - started) / loops)
    return seconds


def table(seconds: dict[str, list[float]]) -> list[dict[str, Cell]]:
    """Return the lines of the table: median, extremes and the ratio to the first row."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    return [
        {
            "name": name,
            "ms": 1e3 * medians[name],
            "ms_least": 1e3 * min(values),
            "ms_most": 1e3 * max(values),
            "ratio": first / medians[name],
        }
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    main()

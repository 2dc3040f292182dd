"""Label maps per second: `vocprep decode` beside a plain loop over scipy.

Two tables: reading .mat files into arrays of a label space, and the whole of `vocprep decode`
(16-bit PNG and statistics). The plain loop checks nothing; vocprep checks every tag and id. Rows
take turns, so that variations of the machine's speed affect all of them alike.

Run: python benchmarks/decode.py [--maps 300] [--repeats 3]
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from _report import Column, Report, Table, command_line
from PIL import Image
from scipy.io import loadmat

from vocprep.data_dir.layout import SampleRef
from vocprep.labels.decode import read_label_map
from vocprep.labels.export import write_label_maps
from vocprep.labels.label_space import load_label_space
from vocprep.parallel import map_ordered
from vocprep.synthetic.dataset import sample

SPACE = load_label_space("context460")


def scipy_read(paths: list[Path]) -> None:
    """Read the maps in a plain loop."""
    for path in paths:
        loadmat(path)["LabelMap"]


def scipy_decode(paths: list[Path], out: Path) -> None:
    """Write the maps as PNG and count their classes in a plain loop."""
    out.mkdir()
    for path in paths:
        label_map = loadmat(path)["LabelMap"]
        np.unique(label_map, return_counts=True)
        Image.fromarray(label_map).save(out / f"{path.stem}.png")


def vocprep_read(paths: list[Path], workers: int) -> None:
    """Read the maps with vocprep."""
    deque(map_ordered(partial(read_label_map, space=SPACE), paths, workers), maxlen=0)


def vocprep_decode(paths: list[Path], out: Path, workers: int) -> None:
    """Do what `vocprep decode` does."""
    samples = [
        SampleRef(image_id=path.stem, split="", image_path=path, label_path=path) for path in paths
    ]
    write_label_maps(samples, SPACE, out, workers=workers)


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--maps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    report = Report(
        "decode",
        {"maps": arguments.maps, "repeats": arguments.repeats},
        f"{arguments.maps} generated label maps, median of {arguments.repeats}",
        ("scipy", "pillow"),
    )
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "out"
        sample(data, images=arguments.maps)
        paths = sorted((data / "trainval").iterdir())
        works: dict[str, dict[str, Callable[[], None]]] = {
            "read": {
                "scipy in a loop": partial(scipy_read, paths),
                "vocprep, 1 worker": partial(vocprep_read, paths, 1),
                "vocprep, 2 workers": partial(vocprep_read, paths, 2),
            },
            "decode to PNG": {
                "scipy and Pillow in a loop": partial(scipy_decode, paths, out),
                "vocprep, 1 worker": partial(vocprep_decode, paths, out, 1),
                "vocprep, 2 workers": partial(vocprep_decode, paths, out, 2),
            },
        }
        for title, rows in works.items():
            seconds = measure(rows, out, arguments.repeats)
            report.add(fill_table(title, len(paths), seconds))
    report.write(arguments.json)


def measure(rows: dict[str, Callable[[], None]], out: Path, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each row and repeat, the rows taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, work in rows.items():
            shutil.rmtree(out, ignore_errors=True)
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def fill_table(title: str, maps: int, seconds: dict[str, list[float]]) -> Table:
    """Return maps per second and the ratio to the first row."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    columns = (
        Column("name", ""),
        Column("maps_per_s", "maps/s", ",.0f"),
        Column("ratio", "ratio", ".2f"),
    )
    rows: list[dict[str, str | float | None]] = [
        {"name": name, "maps_per_s": maps / median, "ratio": first / median}
        for name, median in medians.items()
    ]
    return Table(title, columns, rows)


if __name__ == "__main__":
    main()

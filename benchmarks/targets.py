"""Microseconds for the top-4 targets of one 224×224 label map.

Three plain ways to rank the labels of 49 patches (a loop of numpy.unique, bincount into a table,
row sort and run length) and vocprep.labels.targets.make_targets, which sorts rows too. All give
slot_labels, slot_pixels, label_count and slot_planes, and one untimed pass checks that all are
equal; the plain ways pack the planes by the same plain code. Rows take turns.

Real label maps where VOCPREP_SHARED_DATA or ../shared/data has them, and generated ones.

Run: python benchmarks/targets.py [--maps 100] [--repeats 5]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from _pictures import shared_data
from _report import Column, Report, Table, command_line
from numpy.typing import NDArray

from vocprep.data_dir.layout import list_samples
from vocprep.data_dir.limits import Limit
from vocprep.geometry import Geometry
from vocprep.labels.decode import read_label_map
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.labels.targets import make_targets
from vocprep.manifests import load_dataset
from vocprep.placement import place_labels
from vocprep.synthetic.scene import draw_label_map

LabelMap = NDArray[np.uint16]
Ranking = tuple[NDArray[np.int16], NDArray[np.uint16], NDArray[np.uint8]]
"""slot_labels [49, 4], slot_pixels [49, 4], label_count [49]."""
PIXELS, SLOTS = 1024, 4
MINE = "vocprep.labels.targets.make_targets"
COLUMNS = (
    Column("name", ""),
    Column("rank_us", "rank, µs", ",.0f"),
    Column("targets_us", "with planes, µs", ",.0f"),
    Column("of_best", "of best plain", ".2f"),
)


def cut(label_map: LabelMap) -> LabelMap:
    """Return the patches [49, 1024] of a label map [224, 224]."""
    return label_map.reshape(7, 32, 7, 32).swapaxes(1, 2).reshape(49, PIXELS)


def by_unique(label_map: LabelMap, void: int, classes: int) -> Ranking:
    """Rank patch by patch with numpy.unique, as the project's first notebook did."""
    del classes
    labels = np.full((49, SLOTS), -1, dtype=np.int16)
    areas = np.zeros((49, SLOTS), dtype=np.uint16)
    count = np.zeros(49, dtype=np.uint8)
    for patch, pixels in enumerate(cut(label_map)):
        found, counts = np.unique(pixels[pixels != void], return_counts=True)
        best = np.lexsort((found, -counts))[:SLOTS]
        labels[patch, : len(best)], areas[patch, : len(best)] = found[best], counts[best]
        count[patch] = len(found)
    return labels, areas, count


def by_bincount(label_map: LabelMap, void: int, classes: int) -> Ranking:
    """Count all patches into one table [49, classes], and take the largest counts of each row."""
    pixels = cut(label_map).astype(np.int64)
    rows = np.arange(49)[:, None]
    table = np.bincount((pixels + rows * classes).ravel(), minlength=49 * classes)
    table = table.reshape(49, classes)
    table[:, void] = 0
    # One number per cell, larger for larger areas and then for smaller ids.
    keys = table * classes + (classes - 1 - np.arange(classes))
    best = np.argpartition(-keys, SLOTS - 1, axis=1)[:, :SLOTS]
    best = np.take_along_axis(best, np.argsort(-keys[rows, best], axis=1), axis=1)
    areas = table[rows, best]
    labels = np.where(areas > 0, best, -1)
    return (
        labels.astype(np.int16),
        areas.astype(np.uint16),
        np.count_nonzero(table, axis=1).astype(np.uint8),
    )


def by_sorting(label_map: LabelMap, void: int, classes: int) -> Ranking:
    """Sort the pixels of every patch, so that each class is one run, and rank all runs."""
    del classes
    ordered = np.sort(cut(label_map), axis=1)
    starts = np.flatnonzero(np.diff(ordered, axis=1, prepend=np.uint16(0xFFFF)))
    lengths = np.diff(starts, append=ordered.size)
    found = ordered.ravel()[starts]
    valid = found != void
    patches, lengths, found = starts[valid] // PIXELS, lengths[valid], found[valid]
    order = np.lexsort((found, -lengths, patches))
    patches, lengths, found = patches[order], lengths[order], found[order]
    count = np.bincount(patches, minlength=49)
    place = np.arange(len(patches)) - (np.cumsum(count) - count)[patches]
    kept = place < SLOTS
    labels = np.full((49, SLOTS), -1, dtype=np.int16)
    areas = np.zeros((49, SLOTS), dtype=np.uint16)
    labels[patches[kept], place[kept]] = found[kept]
    areas[patches[kept], place[kept]] = lengths[kept]
    return labels, areas, count.astype(np.uint8)


def pack(label_map: LabelMap, void: int, labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return the bit planes [49, 3, 128] of each pixel's slot, 4 for others, 5 for void."""
    pixels, wanted = cut(label_map), labels.astype(np.uint16)
    state = np.full(pixels.shape, 4, dtype=np.uint8)
    for slot in range(SLOTS):
        state[pixels == wanted[:, slot, None]] = slot
    state[pixels == void] = 5
    planes = [np.packbits((state >> bit) & 1, axis=1) for bit in range(3)]
    return np.stack(planes, axis=1)


PLAIN: dict[str, Callable[..., Ranking]] = {
    "numpy.unique, patch by patch": by_unique,
    "bincount": by_bincount,
    "row sort and run length": by_sorting,
}


def rank_and_pack(label_map: LabelMap, rank: Callable[..., Ranking], space: LabelSpace) -> None:
    """Rank the classes of a label map and pack its planes."""
    labels, _, _ = rank(label_map, space.void, classes_of(space))
    pack(label_map, space.void, labels)


def classes_of(space: LabelSpace) -> int:
    """Return the width of a table of all ids, void included."""
    return max(*space.names, space.void) + 1


def check_same(maps: list[LabelMap], space: LabelSpace) -> None:
    """Stop unless every way gives the targets that vocprep gives."""
    for label_map in maps:
        mine = make_targets(label_map, space.void)
        for name, rank in PLAIN.items():
            labels, areas, count = rank(label_map, space.void, classes_of(space))
            same = (
                np.array_equal(labels, mine.slot_labels)
                and np.array_equal(areas, mine.slot_pixels)
                and np.array_equal(count, mine.label_count)
                and np.array_equal(pack(label_map, space.void, labels), mine.slot_planes)
            )
            if not same:
                raise SystemExit(f"{name} gave other targets than {MINE}")


def find_maps(limit: int) -> dict[str, tuple[list[LabelMap], LabelSpace]]:
    """Return label maps [224, 224] by their kind."""
    wide, narrow = load_label_space("context460"), load_label_space("voc21")
    drawn = [draw_label_map(np.random.default_rng([0, n]), n) for n in range(limit)]
    found = {"generated, 459 labels": (drawn, wide)}
    for title, folder, dataset, space in (
        ("VOC 2012 masks, 21 labels", "voc2012-real", "voc2012", narrow),
        ("Pascal Context maps, 459 labels", "pascal-context", "pascal-context", wide),
    ):
        data_dir = shared_data() / folder
        if data_dir.is_dir():
            samples = list_samples(data_dir, load_dataset(dataset), ["train"], Limit(total=limit))
            found[title] = [read_label_map(s.label_path, space) for s in samples], space
    return {
        f"{len(maps)} {title}": ([place_labels(m, Geometry(), s.void) for m in maps], s)
        for title, (maps, s) in found.items()
    }


def measure(maps: list[LabelMap], space: LabelSpace, repeats: int) -> dict[tuple[str, str], float]:
    """Return microseconds per map by row and column: each map's best, averaged."""
    works: dict[tuple[str, str], Callable[[LabelMap], object]] = {}
    for name, rank in PLAIN.items():
        works[name, "rank_us"] = partial(rank, void=space.void, classes=classes_of(space))
        works[name, "targets_us"] = partial(rank_and_pack, rank=rank, space=space)
    works[MINE, "targets_us"] = partial(make_targets, void=space.void)
    best = {key: [float("inf")] * len(maps) for key in works}
    for _ in range(repeats):
        for key, work in works.items():
            for number, label_map in enumerate(maps):
                started = time.perf_counter()
                work(label_map)
                elapsed = time.perf_counter() - started
                best[key][number] = min(best[key][number], elapsed)
    return {key: statistics.mean(seconds) * 1e6 for key, seconds in best.items()}


def fill_table(title: str, times: dict[tuple[str, str], float]) -> Table:
    """Return the table of one kind of label maps, with the ratio to the best plain way."""
    best = min(times[name, "targets_us"] for name in PLAIN)
    rows: list[dict[str, str | float | None]] = [
        {
            "name": name,
            "rank_us": times.get((name, "rank_us")),
            "targets_us": times[name, "targets_us"],
            "of_best": times[name, "targets_us"] / best,
        }
        for name in (*PLAIN, MINE)
    ]
    return Table(title, COLUMNS, rows)


def main() -> None:
    """Measure and print one table per kind of label maps."""
    parser = command_line(__doc__)
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    kinds = find_maps(arguments.maps)
    report = Report(
        "targets",
        {**{title: len(maps) for title, (maps, _) in kinds.items()}, "repeats": arguments.repeats},
        f"{', '.join(kinds)}; one thread; mean over the maps of each one's best of "
        f"{arguments.repeats}",
    )
    for title, (maps, space) in kinds.items():
        check_same(maps, space)
        report.add(fill_table(title, measure(maps, space, arguments.repeats)))
    report.write(arguments.json)


if __name__ == "__main__":
    main()

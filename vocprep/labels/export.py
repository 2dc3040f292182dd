"""Writing a dataset's label maps out as 16-bit PNG, with their statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import UsageError
from vocprep.files import atomic_folder, write_json
from vocprep.labels.decode import read_label_map
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.png import encode_png
from vocprep.labels.statistics import LabelStatistics
from vocprep.parallel import map_ordered

STATISTICS_FILE = "labels.json"


def export_label_maps(
    items: Iterable[tuple[str, Path]],
    schema: LabelSpace,
    out: Path,
    *,
    workers: int = 2,
    on_image: Callable[[], None] = lambda: None,
) -> LabelStatistics:
    """Write ``out/ID.png`` for each (image id, label file), and ``out/labels.json``.

    The folder appears when all of it is there. It may replace what an earlier call wrote, and
    nothing else. ``workers`` threads decode and compress. Raises LabelDecodeError naming the bad
    file.
    """
    is_ours = (out / STATISTICS_FILE).is_file()
    if out.exists() and not is_ours and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out}: holds other things than decoded label maps; choose an empty --out"
        )
    statistics = LabelStatistics(schema)
    with atomic_folder(out) as folder:
        export = partial(_export_one, schema=schema, folder=folder)
        for label_map in map_ordered(export, items, workers):
            statistics.add(label_map)
            on_image()
        write_json(folder / STATISTICS_FILE, statistics.to_json())
    return statistics


def _export_one(item: tuple[str, Path], schema: LabelSpace, folder: Path) -> NDArray[np.uint16]:
    image_id, path = item
    label_map = read_label_map(path, schema)
    (folder / f"{image_id}.png").write_bytes(encode_png(label_map))
    return label_map

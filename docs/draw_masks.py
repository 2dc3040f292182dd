"""Draw docs/pictures/masks.png and masks-wide.png: what mask heads make of generated pictures.

For both kinds of embeddings, 256 numbers per patch and those of ``wide``: six pictures of the val
split in columns; below the picture and its truth, one row per way to train. Everything is
generated, and kept in a folder that can be given again. Takes some ten minutes on two idle cores.

Run: python docs/draw_masks.py FOLDER [--weights FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import vocprep
from vocprep import BuildChoices, ShardDataset
from vocprep.analysis.photographs import Photographs
from vocprep.drawing.fonts import draw_text
from vocprep.drawing.label_maps import paint_label_map
from vocprep.drawing.palette import ClassStyle
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.run import Run, load_run
from vocprep.recipe import View
from vocprep.shards.record import Record

PICTURES = Path(__file__).parent / "pictures"
IMAGES = 150
"""Generated pictures, a sixth of them val."""
EPOCHS = 10
COLUMNS = 6
SIDE = 140
"""Of a picture as it is drawn, in pixels."""
GAP, LINE, TEXT = 6, 18, 13
COLOURS = 96
"""Of the PNG's palette."""

VIEWS: tuple[View, ...] = ("identity", "flip")
EARLIER = ("mask_loss=all", "mask_dropout=0.5", "slots=predicted")
BEFORE = "before: slots, taught by all patches", ("default", EARLIER)
AFTER = "preset default: slots, taught by patches of several classes", ("default", ())
"""A row's title; a preset, and settings laid over it."""

PLAIN = BuildChoices(schema="context59", views=VIEWS)
WIDE = replace(PLAIN, windows=(32, 64, 128), layers=("layer3", "layer2"))
KINDS = {
    "masks": (PLAIN, [BEFORE, AFTER, ("preset cells", ("cells", ()))]),
    "masks-wide": (WIDE, [BEFORE, AFTER, ("preset wide", ("wide", ()))]),
}
"""By the name of a picture: what its shards hold, and its rows."""


def main() -> None:
    """Generate, build, train and draw what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="keeps pictures, shards and runs")
    parser.add_argument("--weights", default="random:0", help="of the backbone")
    arguments = parser.parse_args()
    data = arguments.folder / "data"
    vocprep.sample(data, images=IMAGES)
    for name, (choices, rows) in KINDS.items():
        out = arguments.folder / name
        vocprep.build(
            "pascal-context",
            out=out,
            data_dir=data,
            weights=arguments.weights,
            choices=choices,
        )
        dataset = ShardDataset.open(out)
        runs = {title: _trained(dataset, out, *row) for title, row in rows}
        sheet = draw(dataset, Photographs.of(dataset, data), runs, first(dataset, COLUMNS))
        save(sheet, PICTURES / f"{name}.png")


def _trained(dataset: ShardDataset, out: Path, preset: str, settings: Sequence[str]) -> Run:
    folder = out.with_name("-".join((out.name, preset, *settings)))
    length = {"epochs": EPOCHS, "batch_size": 8, "validate_every": EPOCHS, "resume": True}
    vocprep.train(dataset, folder, vocprep.load_options(preset, settings, length))
    return load_run(folder)


def first(dataset: ShardDataset, count: int) -> list[Record]:
    """Return the first records of the val split."""
    names = dataset.shard_names("val")
    return list(islice((each for name in names for each in dataset.read_shard(name)), count))


def draw(
    dataset: ShardDataset,
    photographs: Photographs,
    runs: Mapping[str, Run],
    records: Sequence[Record],
) -> Image.Image:
    """Return pictures in columns: themselves, their truth, and what each run labels them as."""
    style = dataset.label_space.style
    columns = [list(_column(record, photographs, runs.values(), style)) for record in records]
    titles = ["picture", "truth", *runs]
    height = LINE + SIDE + GAP
    sheet = Image.new("RGB", (GAP + len(records) * (SIDE + GAP), len(titles) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        draw_text(pen, (GAP, row * height), title, TEXT)
        for number, column in enumerate(columns):
            place = (GAP + number * (SIDE + GAP), row * height + LINE)
            sheet.paste(_small(column[row]), place)
    return sheet


def _column(
    record: Record, photographs: Photographs, runs: Iterable[Run], style: ClassStyle
) -> Iterator[NDArray[np.uint8]]:
    image = photographs.read(record.image_id, record.image_sha256)
    yield image
    yield paint_label_map(record.label_map, style, image)
    for run in runs:
        found = predict_label_map(run, record.embeddings, record.grid)
        yield paint_label_map(found.label_map, style, image)


def _small(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def save(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, in few colours so that it is small."""
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()

"""``vocprep sample`` and ``vocprep decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, comma_list, json_option
from vocprep.cli.printing import print_json, print_table
from vocprep.cli.shared_options import data_dir_option, split_flags_option, workers_option

if TYPE_CHECKING:
    from vocprep.labels.statistics import LabelStatistics
    from vocprep.manifests import SplitFlags
    from vocprep.synthetic.layouts import SampleLayout

TOP_CLASSES = 15


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--images", default=240, show_default=True, help="How many images.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--layout",
    type=click.Choice(["voc", "labelme", "camvid", "cvat", "coco", "plain"]),
    default="voc",
    show_default=True,
    help="How folders and label maps are.",
)
def sample(folder: Path, images: int, seed: int, layout: SampleLayout) -> None:
    """Generate a small data dir in the official layout, to try and test everything offline.

    The images are abstract scenes in which each class has colours and a texture of its own, so that
    heads can learn the classes: no photographs, no terms of use. The files are those of VOC 2010
    and Pascal Context: JPEGs of several sizes, .mat label maps with ids from 1 to 459, palette PNGs
    with void borders, split files, labels.txt. There are patches with more than four classes, with
    ties, with void alone and with one class only.

    Other layouts hold the same scenes with fewer classes, to try with vocprep init what your own
    data need: the VOC output of labelme, CamVid, a CVAT export "Segmentation mask 1.1", COCO's
    panoptic label maps, or plain images/ and masks/.

    \b
    Example:
      vocprep sample data/sample
      vocprep build-shards pascal-context --data-dir data/sample --weights random:0 --out shards
      vocprep sample street --layout camvid --images 24
    """
    from vocprep.synthetic.dataset import sample as write_sample

    summary = write_sample(folder, images=images, seed=seed, progress=Bars("images"), layout=layout)
    splits = f" ({summary.train} train, {summary.val} val)"
    if layout in ("labelme", "cvat", "plain"):
        splits = ""  # their files do not tell splits apart
    click.echo(f"{folder}: {summary.images} images{splits}, {summary.classes} classes, seed {seed}")


@click.command()
@click.argument("dataset")
@data_dir_option
@click.option("--out", type=PATH, required=True, help="Folder for ID.png and labels.json.")
@click.option("--schema", help="Label space.  [default: the dataset's first]")
@click.option("--void-unknown", is_flag=True, help='Make the class "unknown" void.')
@click.option("--splits", callback=comma_list, help="Comma-separated.  [default: the dataset's]")
@split_flags_option
@workers_option
@click.option("--chart", type=PATH, help="Also draw the largest classes as a bar chart, PNG.")
@click.option(
    "--overlays",
    type=PATH,
    help="Also draw label maps over their images, with a legend, into this folder.",
)
@click.option(
    "--overlay-count",
    type=int,
    default=20,
    show_default=True,
    help="How many, of images spread over the dataset.",
)
@json_option
def decode(
    dataset: str,
    data_dir: Path,
    out: Path,
    schema: str | None,
    void_unknown: bool,
    splits: tuple[str, ...] | None,
    split_flags: SplitFlags | None,
    workers: int,
    chart: Path | None,
    overlays: Path | None,
    overlay_count: int,
    as_json: bool,
) -> None:
    """Write a dataset's label maps as 16-bit PNG, and print statistics of the classes.

    \b
    Example:
      vocprep decode pascal-context --data-dir data --out labels460
      vocprep decode pascal-context --data-dir data --schema context59 --out labels59
      vocprep decode pascal-context --data-dir data --out labels460 --overlays pictures
    """
    from vocprep.analysis.decode import DecodeOptions
    from vocprep.analysis.decode import decode as decode_dataset

    options = DecodeOptions(
        schema=schema,
        void_unknown=void_unknown,
        splits=splits,
        split_flags=split_flags,
        workers=workers,
        chart=chart,
        overlays=overlays,
        overlay_count=overlay_count,
    )
    statistics = decode_dataset(
        dataset, data_dir=data_dir, out=out, options=options, progress=Bars("maps")
    )
    for note in statistics.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json({**statistics.to_json(), "notes": list(statistics.notes)})
    else:
        _print_statistics(statistics, out)


def _print_statistics(statistics: LabelStatistics, out: Path) -> None:
    """Print the largest classes and a summary."""
    from vocprep.labels.export import STATISTICS_FILE

    space = statistics.space
    rows = [
        (class_id, space.names[class_id], statistics.images_of[class_id], pixels)
        for class_id, pixels in statistics.pixels_of.most_common(TOP_CLASSES)
    ]
    print_table(("id", "class", "images", "pixels"), rows)
    more = len(statistics.pixels_of) - len(rows)
    if more > 0:
        click.echo(f"… and {more} more, in {out / STATISTICS_FILE}")
    click.echo(
        f"{statistics.images:,} label maps in label space {space.name} in {out}: "
        f"{statistics.mean_classes:.2f} classes per image, "
        f"{100 * statistics.void_pixels / max(statistics.pixels, 1):.2f} % void, "
        f"{len(statistics.unused)} of {len(space.names)} classes unused"
    )

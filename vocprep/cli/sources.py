"""``vocprep sample`` and ``vocprep decode``."""

from __future__ import annotations

from pathlib import Path

import click

from vocprep.cli.common import (
    PATH,
    comma_list,
    data_dir_option,
    json_option,
    print_json,
    print_table,
    progress,
    workers_option,
)

TOP_LABELS = 15


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--images", default=240, show_default=True, help="How many pictures.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same bytes.")
def sample(folder: Path, images: int, seed: int) -> None:
    """Generate a small data dir in the official layout, to try and test everything offline.

    The pictures are abstract scenes whose labels have colours and textures of their own, so that
    heads can learn them: no photographs, no terms of use. The tree holds what VOC 2010 and Pascal
    Context hold: JPEGs of several sizes, .mat label maps with ids from 1 to 459, palette PNGs with
    void borders, split files, labels.txt. Patches with more than four labels, with ties, without
    any label and with one only are all there.

    \b
    Example:
      vocprep sample data/sample
      vocprep build-shards pascal-context --data-dir data/sample --weights random:0 --out shards
    """
    from vocprep.synthetic.dataset import SampleOptions, write_sample

    with progress(images, "images") as step:
        summary = write_sample(folder, SampleOptions(images=images, seed=seed), lambda _: step())
    click.echo(
        f"{folder}: {summary.images} images ({summary.train} train, {summary.val} val), "
        f"{summary.labels} labels, seed {seed}"
    )


@click.command()
@click.argument("dataset")
@data_dir_option
@click.option("--out", type=PATH, required=True, help="Folder for ID.png and labels.json.")
@click.option("--schema", help="Label space.  [default: the dataset's first]")
@click.option("--void-unknown", is_flag=True, help='Make the label "unknown" void.')
@click.option("--splits", callback=comma_list, help="Comma-separated.  [default: the dataset's]")
@workers_option
@click.option("--chart", type=PATH, help="Also draw the largest labels as a bar chart, PNG.")
@json_option
def decode(
    dataset: str,
    data_dir: Path,
    out: Path,
    schema: str | None,
    void_unknown: bool,
    splits: tuple[str, ...] | None,
    workers: int,
    chart: Path | None,
    as_json: bool,
) -> None:
    """Write a dataset's label maps as 16-bit PNG, and print label statistics.

    \b
    Example:
      vocprep decode pascal-context --data-dir data --out labels460
      vocprep decode pascal-context --data-dir data --schema context59 --out labels59
    """
    from vocprep.data_dir.layout import list_samples
    from vocprep.labels.export import export_label_maps
    from vocprep.labels.label_space import load_label_space
    from vocprep.manifests import load_dataset

    manifest = load_dataset(dataset)
    space = load_label_space(manifest.schema_for(schema), void_unknown=void_unknown)
    samples = list_samples(data_dir, manifest, splits or manifest.splits)
    items = [(item.image_id, item.label_path) for item in samples]
    with progress(len(items), "maps") as step:
        statistics = export_label_maps(items, space, out, workers=workers, on_image=step)
    if chart is not None:
        from vocprep.files import write_atomic
        from vocprep.labels.statistics import draw_label_chart

        write_atomic(chart, draw_label_chart(statistics))
    if as_json:
        print_json(statistics.to_json())
        return
    rows = [
        (label, space.names[label], statistics.images_of[label], pixels)
        for label, pixels in statistics.pixels_of.most_common(TOP_LABELS)
    ]
    print_table(("id", "label", "images", "pixels"), rows)
    more = len(statistics.pixels_of) - len(rows)
    if more > 0:
        click.echo(f"… and {more} more, in {out / 'labels.json'}")
    click.echo(
        f"{statistics.images:,} label maps under {space.name} in {out}: "
        f"{statistics.mean_labels:.2f} labels an image, "
        f"{100 * statistics.void_pixels / statistics.pixels:.2f} % void, "
        f"{len(statistics.unused)} of {len(space.names)} labels unused"
    )

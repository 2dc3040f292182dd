"""``vocprep init``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, json_option
from vocprep.cli.printing import counted, print_json, print_more, print_table
from vocprep.cli.shared_options import workers_option
from vocprep.errors import UsageError

if TYPE_CHECKING:
    from vocprep.own_data.result import InitResult

_MOST_CLASSES = 40
"""Rows of the table of classes that are printed."""


def _void(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> int | Literal["none"] | None:
    if value is None:
        return None
    if value == "none":
        return "none"
    if not value.isdecimal():
        raise UsageError(f"void {value!r}: expected an id, as 255, or none")
    return int(value)


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--out", type=PATH, help="Folder for what is written.  [default: DIR]")
@click.option("--name", help="Name of the dataset.  [default: that of DIR]")
@click.option(
    "--split",
    metavar="TRAIN/VAL",
    help="Percentages of train and val, as 80/20, or of train, val and test, as 80/10/10.  "
    "[default: the splits that DIR has]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the split and of the sample."
)
@click.option(
    "--void",
    callback=_void,
    metavar="ID|none",
    help="Id of pixels of no class; none where every id is a class.  [default: found, or asked "
    "for in classes.toml]",
)
@click.option(
    "--all", "all_masks", is_flag=True, help="Decode all masks, not a sample of 200 of them."
)
@workers_option
@click.option("--dry-run", is_flag=True, help="Print what is found and write nothing.")
@json_option
def init(
    folder: Path,
    out: Path | None,
    name: str | None,
    split: str | None,
    seed: int,
    void: int | Literal["none"] | None,
    all_masks: bool,
    workers: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Recognise your own pictures and masks, and write the manifests that builds need.

    DIR is a folder of pictures and masks: images/ and masks/, folders per split, or what labelme,
    CVAT, Datumaro, CamVid, COCO or VOC have. Written are dataset.toml, classes.toml, lists of
    splits where there are none that fit, and init-overlay.png, three pictures with their masks to
    look at. No other file is changed. What cannot be known from the files is a question in
    dataset.toml or classes.toml; builds refuse to start until it is answered there.

    \b
    Example:
      vocprep init pets --dry-run
      vocprep init pets --split 80/20
    """
    from vocprep.own_data.init import init as init_folder
    from vocprep.own_data.options import InitOptions

    options = InitOptions(
        name=name,
        split=split,
        seed=seed,
        void=void,
        all_masks=all_masks,
        dry_run=dry_run,
        workers=workers,
    )
    result = init_folder(folder, out=out, options=options, progress=Bars("masks"))
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result)


def _print_result(result: InitResult) -> None:
    print_table(("layout", result.layout), _facts(result))
    click.echo()
    rows = [
        (
            row.value,
            "?" if row.id is None else str(row.id),
            row.name,
            _percent(row.percent),
            row.masks,
        )
        for row in result.classes
    ]
    print_table(("value", "id", "class", "pixels", "masks"), rows[:_MOST_CLASSES])
    print_more(len(rows), _MOST_CLASSES)
    for note in result.notes:
        click.echo(f"note: {note}")
    for question in result.questions:
        click.echo(f"question: {question}")
    verb = "would write" if result.dry_run else "wrote"
    click.echo(f"{verb} {', '.join(map(str, result.files))}")
    after = "once the questions are answered, " if result.questions else ""
    click.echo(f"{after}next: {result.command}")


def _facts(result: InitResult) -> list[tuple[str, str]]:
    formats = ", ".join(f"{count:,} {suffix}" for suffix, count in result.pictures.items())
    sizes = ", ".join(f"{key} {w}×{h}" for key, (w, h) in result.sizes.items())
    modes = ", ".join(f"{count:,} {mode}" for mode, count in result.modes.items())
    sample = f"values of {result.looked_at:,} of {counted(result.paired, 'mask')}"
    splits = ", ".join(f"{split} {count:,}" for split, count in result.splits.items())
    void = f"{result.void}, {result.void_percent or 0:.2f} % of the pixels ({result.void_note})"
    if not result.void_percent:
        void = f"none in these masks, {result.void} stands for it ({result.void_note})"
        if any(row.id is None for row in result.classes):
            void = f"{result.void}, which the colours in question may be"
    return [
        ("pictures", formats),
        ("masks", f"{result.masks:,}, {result.paired:,} with a picture"),
        ("sizes", sizes),
        ("modes", modes),
        ("looked at", sample),
        ("void", "a question" if result.void is None else void),
        ("splits", splits),
    ]


def _shown(key: int | None) -> str:
    return "?" if key is None else str(key)


def _percent(percent: float) -> str:
    return f"{percent:.2f} %" if percent >= 0.01 or not percent else "<0.01 %"

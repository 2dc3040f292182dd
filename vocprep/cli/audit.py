"""``vocprep audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.auditing.options import AuditOptions
from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, PLACE, json_option
from vocprep.cli.printing import counted, print_json, print_table
from vocprep.cli.shared_options import dataset_option
from vocprep.storage.places import Place

if TYPE_CHECKING:
    from vocprep.auditing.result import AuditResult

_PRINTED = 20
"""Pictures that are printed at most."""


@click.command()
@click.argument("shards", type=PLACE)
@click.option(
    "--out",
    "outs",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="File to write: .json, .csv or .html; may be given several times.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="Split to audit; may be given several times.  [default: all, together]",
)
@click.option(
    "--folds",
    type=int,
    default=AuditOptions.folds,
    show_default=True,
    help="Parts of the pictures; each is judged by heads trained on the others.",
)
@click.option(
    "--top",
    type=int,
    default=AuditOptions.top,
    show_default=True,
    help="Pictures in CSV and HTML; JSON has all.",
)
@click.option("--data-dir", type=PATH, help="Data dir of the build: photographs in the HTML page.")
@dataset_option
@json_option
def audit(
    shards: Place,
    outs: tuple[Path, ...],
    splits: tuple[str, ...],
    folds: int,
    top: int,
    data_dir: Path | None,
    dataset: str | None,
    as_json: bool,
) -> None:
    """List the pictures whose labels are likely wrong, worst first.

    Small heads, trained on the cached embeddings, judge pictures that they have not learnt. A
    picture's quality is the probability that its label map is right: that no class stands for
    another, that it is no other picture's, not moved or mirrored, and that no object is missing.

    Also told: pictures with far more void than the others, and pictures that are there twice.

    SHARDS is a folder, or a URL of an object store.

    \b
    Example:
      vocprep audit shards/voc --out audit.json --out audit.html --data-dir data
      vocprep view shards/voc --audit audit.json
    """
    from vocprep.auditing.audit import audit as audit_version
    from vocprep.pages.report.audit_page import check_targets, write_audit

    options = AuditOptions(folds=folds, top=top, splits=splits or None)
    check_targets(outs)
    result = audit_version(shards, options, Bars("it"))
    write_audit(result, outs, shards, data_dir, dataset)
    if as_json:
        print_json(result.to_json())
        return
    _print_result(result)
    for out in outs:
        click.echo(f"{out}")


def _print_result(result: AuditResult) -> None:
    suspected = sum(picture.suspected is not None for picture in result.pictures)
    click.echo(
        f"{counted(len(result.pictures), 'picture')} of {', '.join(result.splits)} in "
        f"{result.folds} folds: {suspected:,} with likely errors"
    )
    rows = [
        (
            picture.id,
            picture.split,
            f"{picture.quality:.2f}",
            picture.suspected or "-",
            picture.given or "-",
            picture.believed or "-",
            f"{100 * picture.confidence:.0f} %",
        )
        for picture in result.listed[:_PRINTED]
    ]
    print_table(("picture", "split", "quality", "suspected", "labels", "model", "sure"), rows)
    void = [picture.id for picture in result.pictures if picture.void_outlier]
    if void:
        click.echo(f"far more void than usual: {len(void):,}, such as {', '.join(void[:5])}")
    if result.duplicates.leaks:
        click.echo(f"in more than one split: {len(result.duplicates.leaks):,} pictures or pairs")

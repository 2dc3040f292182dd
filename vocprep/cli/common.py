"""What the commands share: options, tables, words for numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from vocprep.data_dir.layout import DATA_DIR_VARIABLE, default_data_dir, default_data_place
from vocprep.errors import UsageError
from vocprep.heads.model.config import Tta
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.manifests import SplitFlags
from vocprep.options import BuildOptions, usable_cores
from vocprep.storage.places import Place, local_path, parse_place

F = TypeVar("F", bound=Callable[..., Any])

DIFFERENCES = 1
"""Exit code of a check that ran to its end and found something."""


class _LocalPath(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases only
    """A path of this machine: a URL is refused, not taken for the name of a folder."""

    name = "path"

    def convert(
        self, value: str | Path, option: click.Parameter | None, _context: click.Context | None
    ) -> Path:
        return local_path(value, "" if option is None else _shown_name(option))


class _PlaceType(click.ParamType):  # type: ignore[type-arg]
    """A folder of this machine, or one of an object store by its URL."""

    name = "path"

    def convert(
        self, value: str | Place, _option: click.Parameter | None, _context: click.Context | None
    ) -> Place:
        return parse_place(value)


def _shown_name(parameter: click.Parameter) -> str:
    """Return how the help names a parameter, e.g. ``--out`` or ``RUN``."""
    if isinstance(parameter, click.Option):
        return parameter.opts[0]
    return parameter.human_readable_name.strip("[]")


PATH = _LocalPath()
PLACE = _PlaceType()

data_dir_option = click.option(
    "--data-dir",
    type=PATH,
    default=default_data_dir,
    show_default=f"${DATA_DIR_VARIABLE} or ./data",
    help="Folder that the sources are unpacked in.",
)
data_place_option = click.option(
    "--data-dir",
    type=PLACE,
    default=default_data_place,
    show_default=f"${DATA_DIR_VARIABLE} or ./data",
    help="Folder that the sources are unpacked in, or the URL of its copy in an object store.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
device_option = click.option(
    "--device",
    default=BuildOptions.device,
    show_default=True,
    help="auto, cpu, cuda (all GPUs) or cuda:N.",
)
scored_split_option = click.option(
    "--split",
    show_default="val; without one, the split of the run's validation, else of its training",
    help="Split that runs are scored on.",
)
_prior_power_option = click.option(
    "--prior-power",
    metavar="POWER",
    type=float,
    default=EvaluateOptions.prior_power,
    help="Divide each class's probability by its share of the training's pixels to this power, 0 "
    "to 1: rare classes are predicted more often.  [default: 0]",
)
_tta_option = click.option(
    "--tta",
    type=click.Choice(get_args(Tta)),
    default=EvaluateOptions.tta,
    help="flip: the mean of each image's plain and mirrored view.",
)


def decoding_options(command: F) -> F:
    """Give a command ``--prior-power`` and ``--tta``."""
    return _prior_power_option(_tta_option(command))


split_flags_option = click.option(
    "--split-flags",
    type=click.Choice(get_args(SplitFlags)),
    help="Which lines count of split files that hold flags, as VOC's of one class do: positive "
    "(flag 1), present (1 and 0) or all.  [default: as the manifest says]",
)
workers_option = click.option(
    "--workers",
    type=int,
    default=usable_cores,
    show_default="one per core",
    help="Threads that read and decode.",
)


def comma_list(
    _context: click.Context, option: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Split an option's comma-separated value; UsageError for an empty or a repeated part."""
    if value is None:
        return None
    parts = tuple(part.strip() for part in value.split(","))
    if "" in parts or len(set(parts)) < len(parts):
        raise UsageError(
            f"{option.name} {value!r}: expected names with commas between them, each once"
        )
    return parts


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 epoch", "1,000 epochs"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def megabytes(size: int) -> str:
    """Write bytes as people read them."""
    return f"{size / 1e6:,.1f} MB"


def gigabytes(size: int) -> str:
    """Write bytes of memory as people read them."""
    return f"{size / 1e9:,.1f} GB"


def duration(seconds: float) -> str:
    """Return a time as people read it.

    >>> duration(7.68), duration(89.6), duration(1234), duration(20000)
    ('7.7 s', '90 s', '21 min', '5.6 h')
    """
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def check_folder(out: Path) -> None:
    """Refuse, before there is work to lose, a place where no folder can be."""
    from vocprep.files.writing import check_output_folder

    check_output_folder(out)


AS_JSON = "vocprep.as_json"
"""In a context's meta data: whether JSON is still to be printed."""


def print_json(value: Any) -> None:
    """Print the result of a command as indented JSON."""
    click.get_current_context().meta[AS_JSON] = False
    click.echo(json.dumps(value, indent=2))


def print_json_error(text: str, code: int) -> None:
    """Print an error as JSON where --json was given and no result was printed."""
    if click.get_current_context().meta[AS_JSON]:
        print_json({"ok": False, "error": text, "exit_code": code})


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns as wide as they need to be; numbers to the right, the rest to the left.

    None leaves a place empty.
    """
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(head, *texts, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(head))
    ]
    for line in [list(head), *texts]:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def print_tables(head: Sequence[str], rows: Sequence[Sequence[object]], most: int = 100) -> None:
    """Print one table, or several below each other where it would be wider than ``most``.

    Each repeats the first column.
    """
    columns = list(zip(head, *[map(_cell, row) for row in rows], strict=True))
    first, *others = (list(column) for column in columns)
    start = 0
    while start < len(others):
        width, stop = max(map(len, first)), start
        while stop < len(others) and (width := width + 2 + max(map(len, others[stop]))) <= most:
            stop += 1
        stop = max(stop, start + 1)
        if start:
            click.echo()
        chosen = [0, *range(start + 1, stop + 1)]
        print_table([head[i] for i in chosen], [[row[i] for i in chosen] for row in rows])
        start = stop


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_more(count: int, printed: int) -> None:
    """Print how many lines were left out, where ``count`` is more than what is printed."""
    if count > printed:
        click.echo(f"… and {count - printed:,} more: --json lists them all")

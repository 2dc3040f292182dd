"""What the commands share: types of arguments, checks of values.

Options whose defaults are the library's are in ``shared_options``, so that a command without them
loads less.
"""

from __future__ import annotations

from pathlib import Path

import click

from vocprep.errors import UsageError
from vocprep.storage.places import Place, local_path, parse_place

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

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


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


def check_folder(out: Path) -> None:
    """Refuse, before there is work to lose, a place where no folder can be."""
    from vocprep.files.writing import check_output_folder

    check_output_folder(out)

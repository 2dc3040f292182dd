"""Write docs/cli.md from the commands' own help texts."""

from __future__ import annotations

from pathlib import Path

import click

from vocprep.cli import main

TARGET = Path(__file__).parent / "cli.md"
COLUMNS = 88
"""What fits beside the two menus of the site on a small screen."""
HEAD = """<!-- Written by `python docs/generate_cli.py` from the help texts; do not edit. -->

# The command line

Exit codes: 0 done; 1 a check found differences; 2 usage; 3 bad data or integrity, or no room or
memory; 4 source unavailable; 5 failure quota exceeded; 70 a fault in vocprep itself; 130 Ctrl-C,
143 SIGTERM, 129 SIGHUP ended it; 141 the output's reader has closed it.

An error is one sentence on standard error. With `--json` it is on standard output too, as
`{"ok": false, "error": "…", "exit_code": N}`, unless the command has printed its result. With
`VOCPREP_DEBUG=1` a fault in vocprep itself shows its traceback.
"""


def reference() -> str:
    """Return the page: a section a command, in the order of the way of the data."""
    context = click.Context(
        main, info_name="vocprep", max_content_width=COLUMNS, terminal_width=COLUMNS
    )
    parts = [HEAD]
    for name, command in main.commands.items():
        child = click.Context(command, info_name=name, parent=context, terminal_width=COLUMNS)
        parts.append(f"## vocprep {name}\n\n```text\n{command.get_help(child).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")

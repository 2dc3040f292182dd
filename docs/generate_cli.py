"""Write docs/cli.md from the commands' own help texts."""

from __future__ import annotations

from pathlib import Path

import click

from vocprep.cli import main

TARGET = Path(__file__).parent / "cli.md"
HEAD = """# The command line

Written by `python docs/generate_cli.py` from the help texts; do not edit.

Exit codes: 0 done; 1 a check found differences; 2 usage; 3 bad data or integrity; 4 source
unavailable; 5 failure quota exceeded; 130 interrupted.
"""


def reference() -> str:
    """Return the page: a section a command, in the order of the way of the data."""
    context = click.Context(main, info_name="vocprep", max_content_width=100, terminal_width=100)
    parts = [HEAD]
    for name, command in main.commands.items():
        child = click.Context(command, info_name=name, parent=context, terminal_width=100)
        parts.append(f"## vocprep {name}\n\n```text\n{command.get_help(child).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")

"""Running the console blocks of a page, and comparing what they print with what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_VARIES = re.compile(
    r"\d[\d,]*(?:\.\d+)? (?:s|min|h|images/s)\b|\d[\d,]*\.\d+|\b[0-9a-f]{12}…"
    r"|(?<=images/s, ).+"  # where the time went
)
"""Losses, scores, times and digests of files: those of the machine."""
SKIPPED = "…"
"""A line that stands for any number of lines."""


@dataclass(frozen=True)
class Shown:
    """A command of a page and the lines shown below it."""

    command: str
    lines: tuple[str, ...]


def shown_commands(page: str) -> Iterator[Shown]:
    """Yield the commands of all console blocks; an empty line ends what one prints or is in it."""
    for block in _BLOCK.findall(page.replace("\\\n", "")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            yield Shown(command, tuple(lines))


def differences(shown: Shown, printed: str) -> str:
    """Return what the first difference is, empty where there is none.

    Numbers that another machine prints otherwise are not compared, nor the spaces that align them.
    """
    expected = [_comparable(line) for line in shown.lines]
    found = [_comparable(line) for line in printed.rstrip("\n").split("\n")]
    place = 0
    for number, line in enumerate(expected):
        if line == SKIPPED:
            following = expected[number + 1] if number + 1 < len(expected) else None
            while place < len(found) and found[place] != following:
                place += 1
            continue
        if place >= len(found) or found[place] != line:
            now = found[place] if place < len(found) else "(nothing)"
            return f"$ {shown.command}\nshown:   {line}\nprinted: {now}"
        place += 1
    if place < len(found) and found[place]:
        return f"$ {shown.command}\nnot shown: {found[place]}"
    return ""


def _comparable(line: str) -> str:
    return " ".join(_VARIES.sub("N", line).split())

"""Running what a page of the documentation shows, and comparing what it prints with the page."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from builders.verbs import invoke

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"(?:#!.*\n)?# (?P<name>[\w-]+\.\w+)\b")
_VARIES = re.compile(
    r"127\.0\.0\.1:\d+"
    r"|\d[\d,]*(?:\.\d+)? (?:s|min|h|images/s)\b(?:, (?:most|\d+ %) of the time in .+)?"
    r"|\d[\d,]*\.\d+(?!\d* %)|\b[0-9a-f]{12}…"
    r"|(?<=-fp32@)[0-9a-f]{12}|(?<= on )\w+ in (?:bf16|fp32)\b|^memory .+"
)
"""Of the machine: losses, scores, times, memory, ports, devices, digests that are cut short, and
those of embeddings in fp32."""
SKIPPED = "…"
"""A line that stands for any number of lines."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    reason: str
    """Why it is not run, by the comment above it; empty where it is."""

    @property
    def file(self) -> str:
        """The name of the file that the block is, by its first comment; empty where it is none."""
        found = _FILE.match(self.text) if self.language != "console" else None
        return found["name"] if found else ""


@dataclass(frozen=True)
class Shown:
    """A command of a page and the lines shown below it."""

    command: str
    lines: tuple[str, ...]


@dataclass
class Shell:
    """Runs commands in the current folder: vocprep in this process, everything else in bash."""

    places: dict[str, str] = field(default_factory=dict)
    """What stands on a page for a place of the tests, and that place."""
    status: int = 0
    """Of the last command."""
    timeout: float = 60
    """Seconds that a command of bash may take."""

    def run(self, command: str) -> str:
        """Return what a command prints, to both streams, in the page's names of places."""
        command = self.as_here(command)
        words = shlex.split(command, comments=True)
        if words[0] == "vocprep":
            result = invoke(*words[1:])
            printed, self.status = result.output, result.exit_code
        else:
            done = subprocess.run(
                ["bash", "-c", f"(exit {self.status}); {command}"],
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=self.timeout,
            )
            printed, self.status = done.stdout, done.returncode
        for shown, place in self.places.items():
            printed = printed.replace(place, shown)
        return printed

    def as_here(self, text: str) -> str:
        """Return a text of the page with the places of the tests."""
        for shown, place in self.places.items():
            text = text.replace(shown, place)
        return text


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in _BLOCK.finditer(page):
        yield Block(found["language"], found["text"], found["reason"] or "")


def without_blocks(page: str) -> str:
    """Return the text of a page beside its blocks."""
    return _BLOCK.sub("", page)


def shown_commands(block: str) -> Iterator[Shown]:
    """Yield the commands of a console block; an empty line ends what one prints or is in it."""
    for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        command, *lines = part.rstrip("\n").split("\n")
        yield Shown(command, tuple(lines))


def run_page(page: str, shell: Shell) -> list[str]:
    """Run a page in the current folder from its first block to its last; return all differences.

    Blocks of Python run in one module, a block that begins with a comment of a file's name is
    written there, and commands print what is shown below them.
    """
    names: dict[str, object] = {}
    found = []
    for block in blocks(page):
        if block.reason:
            continue
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(shell.as_here(block.text), "a page", "exec"), names)
        elif block.language == "console":
            for each in shown_commands(block.text):
                found.append(differences(each, shell.run(each.command)) or _failure(each, shell))
    return [difference for difference in found if difference]


def _failure(shown: Shown, shell: Shell) -> str:
    """Return that a command failed, of which no error is shown; 1 is what checks end with."""
    is_told = any(line.startswith("error: ") for line in shown.lines)
    return (
        "" if is_told or shell.status in (0, 1) else f"$ {shown.command}\nends with {shell.status}"
    )


def differences(shown: Shown, printed: str) -> str:
    """Return what the first difference is, empty where there is none.

    Numbers that another machine prints otherwise are not compared, nor the spaces that align them,
    and nothing where nothing is shown.
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
    if expected and place < len(found) and found[place]:
        return f"$ {shown.command}\nnot shown: {found[place]}"
    return ""


def _comparable(line: str) -> str:
    return " ".join(_VARIES.sub("N", line).split())

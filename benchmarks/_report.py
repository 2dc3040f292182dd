"""What every benchmark reports: where it ran, on how much, its tables, and all of it as JSON.

A report tells hardware and versions, never whose machine it was: no host or user name and no path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Cell = str | float | None
ALWAYS = ("torch", "numpy", "vocprep")
"""Packages whose versions every report names."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its key in the JSON, its heading, and how numbers are printed."""

    key: str
    heading: str
    spec: str = ""
    spread: bool = False
    """Whether rows may have KEY_lowest and KEY_highest, which are printed behind the number."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all that the column shows."""
        ends = ("_lowest", "_highest") if self.spread else ()
        return tuple(f"{self.key}{end}" for end in ("", *ends))

    def shown(self, row: Mapping[str, Cell]) -> str:
        """Return the text of the column in a row."""
        number, *ends = (_shown(row.get(key), self.spec) for key in self.keys)
        return number if "-" in ends or not ends else f"{number} ({'-'.join(ends)})"


@dataclass(frozen=True)
class Table:
    """Rows side by side; a row lacks what does not apply to it."""

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Cell]]

    def text(self) -> str:
        """Return the table as lines, names to the left and numbers to the right."""
        cells = [[column.shown(row) for column in self.columns] for row in self.rows]
        headings = [self.title or self.columns[0].heading, *(c.heading for c in self.columns[1:])]
        widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in [headings, *cells]
        ]
        return "\n".join(line.rstrip() for line in lines)


@dataclass
class Report:
    """One run of one benchmark; each part is printed when it is added."""

    benchmark: str
    samples: Mapping[str, Cell]
    """How much was measured: counts, repeats, sizes."""
    what: str
    """The same in words, for the line above the tables."""
    packages: tuple[str, ...] = ()
    """Packages whose versions matter here, beside those that always do."""
    machine: dict[str, Cell] = field(init=False)
    versions: dict[str, str] = field(init=False)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look at the machine before there is work on it, and print what it is."""
        self.machine = describe_machine()
        self.versions = {"python": platform.python_version()}
        for name in (*ALWAYS, *self.packages):
            self.versions[name] = installed_version(name)
        print(self.header(), flush=True)

    def header(self) -> str:
        """Return the lines above the tables."""
        machine = self.machine
        parts = [
            str(machine["cpu"]),
            f"{machine['cores']} cores",
            f"{machine['instruction_set']}, {machine['threads']} threads of torch",
            f"{machine['memory_gb']} GB",
            str(machine["gpu"] or "no GPU"),
            f"load {machine['load']} before it began",
        ]
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{'; '.join(parts)}\n{versions}\n{self.what}"

    def add(self, table: Table) -> None:
        """Print a table and keep it."""
        self.tables.append(table)
        print(f"\n{table.text()}", flush=True)

    def note(self, text: str) -> None:
        """Print a line about what is or is not in the tables, and keep it."""
        self.notes.append(text)
        print(text, flush=True)

    def write(self, path: Path | None) -> None:
        """Write all of it as JSON, where a path was given."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """Return plain values: benchmark, machine, versions, samples, tables, notes."""
        return {
            "benchmark": self.benchmark,
            "machine": self.machine,
            "versions": self.versions,
            "samples": dict(self.samples),
            "tables": [
                {
                    "title": table.title,
                    "rows": [
                        {key: row.get(key) for c in table.columns for key in c.keys}
                        for row in table.rows
                    ],
                }
                for table in self.tables
            ],
            "notes": self.notes,
        }


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the first line of a script's docstring and the option all share."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the report here too")
    return parser


def installed_version(name: str) -> str:
    """Return a package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def describe_machine() -> dict[str, Cell]:
    """Return what the speed of a benchmark depends on."""
    on_gpu = torch.cuda.is_available()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _from_cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "instruction_set": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        + (" AMX" if "amx_bf16" in _from_cpuinfo("flags") else ""),
        "memory_gb": round(memory / 1e9, 1),
        "gpu": torch.cuda.get_device_name(0) if on_gpu else None,
        "load": round(os.getloadavg()[0], 1),
    }


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from_cpuinfo(key: str) -> str:
    """Return a value of the first core's entry; empty where the system has no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _shown(value: Cell, spec: str) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, spec)

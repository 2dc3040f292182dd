"""Sweeps: several values of one training option, each of which trains a run of its own.

Nothing here loads torch, so that the command line can read a sweep at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Self, get_args

from pydantic import model_validator

from vocprep.errors import UsageError
from vocprep.heads.runs.options import TrainOptions
from vocprep.validation import checked, printable

Swept = Literal["weight_decay", "lr", "warmup", "clip", "ema"]
"""Options of the steps alone: runs that differ in one of them draw the same batches and the same
random numbers, and have heads of the same shapes."""
SWEPT: tuple[Swept, ...] = get_args(Swept)
MOST_VALUES = 100
"""Values of a sweep: each has a run in memory and some open files until the last epoch."""
SWEEP_FILE = "sweep.json"
"""The scores of a sweep's runs, beside their folders."""


@checked
class Sweep:
    """Values of one option of ``TrainOptions``; the other options are the same in all runs.

    >>> sweep = Sweep.parse("weight_decay=0, 1e-4,4")
    >>> [sweep.name(value) for value in sweep.values]
    ['weight_decay-0', 'weight_decay-0.0001', 'weight_decay-4']
    """

    option: Swept
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _each_value_once(self) -> Self:
        if len(self.values) > MOST_VALUES:
            raise UsageError(
                f"sweep of {self.option}: expected {MOST_VALUES} values at most, found "
                f"{len(self.values)}; divide them between several commands with the same --out"
            )
        self.options(TrainOptions())  # raises for a value that the option cannot have
        if not self.values or len(set(self.values)) < len(self.values):
            shown = printable(", ".join(map(number_text, self.values)), 60)
            raise UsageError(f"sweep of {self.option}: expected values, each once, found {shown!r}")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the sweep of a text such as ``weight_decay=0,1e-4``; UsageError for others."""
        option, equals, listed = (part.strip() for part in text.partition("="))
        shown = printable(text, 60)
        if option not in SWEPT:
            raise UsageError(
                f"sweep {shown!r}: expected OPTION=VALUE,VALUE… with an option of "
                f"{', '.join(SWEPT)}, whose runs share every batch; train a run with each value of "
                "another one"
            )
        try:
            values = tuple(map(float, listed.split(",")))
        except ValueError:
            values = ()
        if not equals or not values:
            raise UsageError(
                f"sweep {shown!r}: expected numbers with commas between them, such as "
                f"{option}=0.01,0.1"
            )
        return cls(option=option, values=values)

    def options(self, base: TrainOptions) -> list[TrainOptions]:
        """Return the options of each run; UsageError for a value that the option cannot have."""
        each: list[dict[str, Any]] = [{self.option: value} for value in self.values]
        return [replace(base, **changes) for changes in each]

    def name(self, value: float) -> str:
        """Return the name of a value's run."""
        return run_name(self.option, value)


def run_name(option: str, value: float) -> str:
    """Return the name of the folder of one of several runs that differ in an option.

    >>> run_name("seed", 3), run_name("lr", 1e-5)
    ('seed-3', 'lr-1e-05')
    """
    return f"{option}-{number_text(value)}"


def parse_run_name(name: str) -> tuple[str, float] | None:
    """Return the option and the value that ``run_name`` made a name of; None for other names.

    >>> parse_run_name("seed-3"), parse_run_name("seed-03"), parse_run_name("first-3")
    (('seed', 3), None, None)
    """
    option, _, text = name.partition("-")
    if option not in ("seed", *SWEPT):
        return None
    try:
        value = int(text) if option == "seed" else float(text)
    except ValueError:
        return None
    return (option, value) if run_name(option, value) == name and value >= 0 else None


def number_text(value: float) -> str:
    """Return a number in the fewest digits that give it back.

    >>> [number_text(value) for value in (0.0, 4.0, 0.05, 1e-5, 3)]
    ['0', '4', '0.05', '1e-05', '3']
    """
    return repr(value).removesuffix(".0")

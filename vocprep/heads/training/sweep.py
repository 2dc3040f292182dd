"""Runs that differ in one option of their steps, trained by one call on one pass over the shards.

Each is a whole run in ``OUT/OPTION-VALUE``; a table of their scores is in ``OUT/sweep.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vocprep.errors import UsageError
from vocprep.files.writing import write_json
from vocprep.heads.runs.folder import check_folder_of_several
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.sweeps import SWEEP_FILE, Sweep, number_text
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.one_pass import RunInputs, RunToTrain, train_on_one_pass
from vocprep.heads.training.seeds import raise_first
from vocprep.heads.training.summary import RunSummary, SweepSummary
from vocprep.progress import Progress

OnSweepEpoch = Callable[[float, EpochMetrics], None]
"""Called with a value and the metrics of an epoch of its run."""


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """What is trained with each value of a sweep."""

    inputs: RunInputs
    out: Path
    options: TrainOptions
    """Fitted to the splits of the dataset; the swept option in them does not count."""
    sweep: Sweep
    on_epoch: OnSweepEpoch
    progress: Progress

    def runs(self) -> list[RunToTrain]:
        """Return the run of each value."""
        return [
            RunToTrain(
                run_dir=self.out / self.sweep.name(value),
                options=options,
                on_epoch=partial(self.on_epoch, value),
            )
            for value, options in zip(
                self.sweep.values, self.sweep.options(self.options), strict=True
            )
        ]


def train_sweep(job: SweepJob, processes: Processes) -> SweepSummary:
    """Train a run with each value; see ``train``.

    A run that fails leaves the others to be trained; what it failed of is raised after them.
    """
    if processes.world_size > 1:
        raise UsageError(
            f"sweep: expected one process, found {processes.world_size} of torchrun; start without "
            "torchrun, or train a run with each value"
        )
    if job.options.compiled:
        raise UsageError(
            "sweep: expected steps that are not compiled, found compiled, which would take a "
            "minute or more for each value; leave --compile out"
        )
    check_folder_of_several(job.out, job.sweep.option)
    started = time.perf_counter()
    found = train_on_one_pass(job.inputs, job.runs(), processes, job.progress)
    outcomes = dict(zip(job.sweep.values, found, strict=True))
    whole = {value: each for value, each in outcomes.items() if isinstance(each, RunSummary)}
    summary = SweepSummary(
        out=job.out,
        option=job.sweep.option,
        values=tuple(whole),
        runs=tuple(whole.values()),
        seconds=time.perf_counter() - started,
    )
    write_json(job.out / SWEEP_FILE, summary.table())
    raise_first(outcomes, job.sweep.option, number_text)
    return summary

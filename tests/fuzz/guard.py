"""Workers under watch: an input that takes too long or kills its process is a failure.

The parent runs no input itself. A worker that dies or is killed is replaced.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from fuzz.inputs import Input, make_input
from fuzz.worker import MEMORY, SECONDS, Done, quiet_exit

_START_SECONDS = 300.0
_INPUTS_A_WORKER = 3000
"""After so many a worker is replaced, so that a leak is not blamed on an input."""
Task = int | Input
_SPAWN = multiprocessing.get_context("spawn")


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    folder: Path
    deadline: float
    task: Task | None = None
    is_ready: bool = False
    inputs: int = 0


class Guard:
    """Runs inputs in worker processes; a context manager that ends them."""

    def __init__(self, sound: Path, scratch: Path, seed: int, workers: int) -> None:
        self._sound = sound
        self._scratch = scratch
        self._seed = seed
        self._number = 0
        self._count = workers
        self._late: list[Task] = []
        """Tasks that took too long once: on a busy machine, it may not have been their fault."""
        self._again: list[Task] = []
        """Those of them that wait for their second turn."""
        self._workers: list[_Worker] = []

    def run(
        self, tasks: Iterator[Task], is_over: Callable[[], bool] = lambda: False
    ) -> Iterator[Done]:
        """Yield what became of each task, as they end; no task is begun once ``is_over``."""
        waiting = True
        while len(self._workers) < self._count:
            self._workers.append(self._start())
        while True:
            for worker in self._workers:
                if worker.is_ready and worker.task is None:
                    if self._again:
                        self._give(worker, self._again.pop())
                    elif waiting:
                        task = None if is_over() else next(tasks, None)
                        waiting = task is not None
                        if task is not None:
                            self._give(worker, task)
            if not waiting and not self._again and all(each.task is None for each in self._workers):
                return
            yield from self._collect()

    def _collect(self) -> Iterator[Done]:
        """Wait for a report, an end, or a deadline."""
        active = [each for each in self._workers if each.task is not None or not each.is_ready]
        until = min(each.deadline for each in active)
        ready = wait([each.connection for each in active], max(0.0, until - time.monotonic()))
        for worker in active:
            if worker.connection in ready:
                try:
                    report = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    yield from self._lost(worker)
                    continue
                if report is None:
                    worker.is_ready = True
                else:
                    worker.task = None
                    yield _judged(report)
                    if worker.inputs >= _INPUTS_A_WORKER:
                        self._replace(worker)
            elif time.monotonic() >= worker.deadline:
                yield from self._lost(worker)

    def _give(self, worker: _Worker, task: Task) -> None:
        worker.task, worker.deadline = task, time.monotonic() + SECONDS
        worker.inputs += 1
        worker.connection.send(task)

    def _lost(self, worker: _Worker) -> Iterator[Done]:
        """Report and replace a worker that died or does not answer."""
        task, is_late = (
            worker.task,
            worker.process.is_alive() and worker.deadline <= time.monotonic(),
        )
        if not worker.is_ready:
            raise RuntimeError(f"a worker did not start: exit code {worker.process.exitcode}")
        worker.process.kill()
        worker.process.join()
        stacks = (worker.folder / "stacks").read_text(errors="replace")
        if task is not None and is_late and task not in self._late:
            self._late.append(task)
            self._again.append(task)
        elif task is not None:
            made = task if isinstance(task, Input) else make_input(self._sound, self._seed, task)
            code = worker.process.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            detail = f"took more than {SECONDS:.0f} s" if is_late else f"the process died: {name}"
            about = (made.number, made.kind, made.verb, "failure", detail, stacks[-6000:])
            yield Done(*about, seconds=SECONDS if is_late else 0.0, memory=0)
        self._replace(worker)

    def _start(self) -> _Worker:
        self._number += 1
        folder = self._scratch / f"worker-{self._number}"
        here, there = _SPAWN.Pipe()
        arguments = (there, self._sound, folder, self._seed)
        process = _SPAWN.Process(target=quiet_exit, args=arguments, daemon=True)
        process.start()
        there.close()
        return _Worker(process, here, folder, time.monotonic() + _START_SECONDS)

    def _replace(self, worker: _Worker) -> None:
        self._end([worker])
        self._workers[self._workers.index(worker)] = self._start()

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
            shutil.rmtree(worker.folder, ignore_errors=True)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._workers)


def _judged(done: Done) -> Done:
    """Make a failure of an input that took too long or too much memory."""
    if done.state == "failure":
        return done
    if done.seconds > SECONDS:
        return replace(done, state="failure", detail=f"took {done.seconds:.1f} s ({done.detail})")
    if done.memory > MEMORY:
        detail = f"took {done.memory >> 20:,} MB of memory ({done.detail})"
        return replace(done, state="failure", detail=detail)
    return done

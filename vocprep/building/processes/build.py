"""The part of a build that several processes do: from missing shards to staged ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from vocprep.building.handing_out import worker_setup
from vocprep.building.orders import ShardOrder
from vocprep.building.output.store_output import AnyOutput
from vocprep.building.pipeline import FailureBudget, is_compiled
from vocprep.building.plan import BuildKey, ShardPlan
from vocprep.building.processes.messages import Job, Made
from vocprep.building.processes.pool import WorkerPool
from vocprep.building.results import MadeShards
from vocprep.features.embed import EmbeddingSpec, require_compilable
from vocprep.options import BuildOptions
from vocprep.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ProcessesBuild:
    """A build whose shards several processes of this machine make."""

    key: BuildKey
    output: AnyOutput
    devices: Sequence[torch.device]
    options: BuildOptions
    budget: FailureBudget

    def make_shards(self, missing: Sequence[ShardPlan], progress: Progress) -> MadeShards:
        """Make shards in as many processes as the options say, but no more than shards."""
        plan, made = self.key.plan, MadeShards()
        progress.advance(len(plan.samples) - sum(len(shard.samples) for shard in missing))
        with WorkerPool(self._jobs(missing)) as pool:
            for message in pool.make(missing):
                if isinstance(message, Made):
                    made.add(message.shards)
                    continue
                progress.advance(message.images)
                for sample, problem in message.quarantined:
                    self.budget.spend(sample, problem=problem)
        return made

    def _jobs(self, missing: Sequence[ShardPlan]) -> list[Job]:
        """Return the job of each process: the same but for its device and its threads."""
        plan, options = self.key.plan, self.options
        count = min(options.processes, len(missing))
        samples = sum(len(shard.samples) for shard in missing) // count
        compiled = is_compiled(plan.recipe, samples, options)
        if options.compiled:
            require_compilable(EmbeddingSpec.of(plan.recipe), self.devices[0])
        first = ShardOrder.of(
            self.key, replace(missing[0], samples=()), options.decoder, compiled=compiled
        )
        order = replace(first, label_rule=plan.label_rule)
        setup = replace(worker_setup(self.key, self.output, options.reuse), data_dir=plan.data_dir)
        threads = divide(torch.get_num_threads(), count)
        readers = divide(options.workers, count)
        devices = divide_devices(self.devices, count)
        return [
            Job(order=order, setup=replace(setup, threads=own, readers=reading, device=device))
            for own, reading, device in zip(threads, readers, devices, strict=True)
        ]


def divide(threads: int, count: int) -> list[int]:
    """Divide threads among processes, at least one for each.

    >>> divide(16, 3), divide(2, 4)
    ([5, 5, 6], [1, 1, 1, 1])
    """
    ends = [threads * number // count for number in range(count + 1)]
    return [max(1, end - begin) for begin, end in pairwise(ends)]


def divide_devices(devices: Sequence[torch.device], count: int) -> list[str]:
    """Return the device of each process: a GPU each in turn, all of them where there are more.

    >>> divide_devices([torch.device("cuda", 0), torch.device("cuda", 1)], 3)
    ['cuda:0', 'cuda:1', 'cuda:0']
    """
    if count < len(devices):
        return [devices[0].type] * count
    return [str(devices[number % len(devices)]) for number in range(count)]

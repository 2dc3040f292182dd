"""In the place of the workers of ``--processes``: calls in this process, one after the other."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from vocprep.building import orders
from vocprep.building.plan import ShardPlan
from vocprep.building.processes.messages import Job, Made, Progressed


class Here:
    """Workers that are calls in this process, one after the other."""

    jobs: Sequence[Job] = ()

    def __init__(self, jobs: Sequence[Job]) -> None:
        type(self).jobs = jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def make(self, shards: Iterable[ShardPlan]) -> Iterator[Progressed | Made]:
        for number, job in enumerate(self.jobs):
            own = [shard for place, shard in enumerate(shards) if place % len(self.jobs) == number]
            counted: list[Progressed] = []

            def count(outcome: Any, counted: list[Progressed] = counted) -> None:
                bad = ((outcome.quarantined, outcome.problem),) if outcome.quarantined else ()
                counted.append(Progressed(images=1, quarantined=bad))

            sent = pickle.loads(pickle.dumps(job))
            made = orders.build_shards(sent.order, own, sent.setup, count)
            yield from counted
            yield Made(shards=made)

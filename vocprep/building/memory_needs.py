"""About how much memory a build takes, by what was measured (docs/performance.md)."""

from __future__ import annotations

from dataclasses import dataclass

from vocprep.building.plan import BuildPlan

LOADED = 900_000_000
"""Bytes of a build's own process before it holds a shard: PyTorch, mostly."""
WORKER = 100_000_000
"""Bytes of each of several processes, which share the libraries."""
THREAD = 25_000_000
"""Bytes of what a thread decodes and embeds."""
HELD = 4
"""How often a process holds a shard: while it is gathered, and in several forms while it is written
as the next is gathered."""
HELD_WEIGHTS = 3
"""How often it holds the weights: as they are read, and as the network has them."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeeds:
    """Bytes of memory, what processes share being counted once."""

    per_process: int
    """Of each process that makes shards, without what it shares with others."""
    total: int

    @classmethod
    def of(cls, plan: BuildPlan, bytes_per_image: int, processes: int, threads: int) -> MemoryNeeds:
        """Estimate the needs of so many processes that divide so many threads.

        What the maps of a large network take is not known before it runs.
        """
        images = max((len(shard.samples) for shard in plan.shards), default=0)
        weights = sum(tensor.nbytes for tensor in plan.weights.values())
        own = HELD * images * bytes_per_image + HELD_WEIGHTS * weights
        own += max(1, threads // processes) * THREAD
        if processes == 1:
            return cls(per_process=LOADED + own, total=LOADED + own)
        return cls(per_process=WORKER + own, total=LOADED + processes * (WORKER + own))

"""What the process of a build and those that make its shards tell each other.

A worker also receives the ``ShardPlan`` of its next shard, or None when there is none left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they load torch, which the starter does later
    from vocprep.building.orders import ShardOrder, WorkerSetup
    from vocprep.building.results import MadeShards
    from vocprep.shards.samples import QuarantinedSample


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker does with every shard that it gets."""

    order: ShardOrder
    """It holds for all shards of the build; its own has no samples."""
    setup: WorkerSetup


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker has read the samples of its last shard and needs another."""


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """Samples that a worker is done with."""

    images: int
    quarantined: tuple[tuple[QuarantinedSample, str], ...]
    """Those of them that no record can be made of, each with the reason, for people."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """All that a worker made: its last message."""

    shards: MadeShards


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What ended the work of a worker, or kept all from being started: the last message too."""

    error: Exception


@dataclass(frozen=True, kw_only=True)
class Started:
    """The workers run."""

    pids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A worker has ended."""

    pid: int
    status: int
    """Its exit code, or the negative number of the signal that killed it."""


WorkerMessage = Claim | Progressed | Made | Failed
StarterMessage = Started | Ended | Failed

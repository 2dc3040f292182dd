"""What the process of a build and the process that Ray runs in tell each other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """The cluster that a build uses, and what one of its tasks takes."""

    address: str | None
    """None for a cluster of this machine alone, which is started and ended with the build."""
    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {counted(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{counted(self.cpus, 'CPU')}{gpus}"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a cluster."""

    id: str
    address: str
    name: str
    """Its host name and address, for people."""
    cpus: float
    gpus: float

    def room(self, task: Task) -> int:
        """Return how many tasks it runs at once."""
        by_gpus = [int(self.gpus / task.gpus)] if task.gpus else []
        return min([int(self.cpus / task.cpus), *by_gpus])


@dataclass(frozen=True, kw_only=True)
class Order:
    """A shard to make."""

    shard: str
    """Its name."""
    call: bytes
    """A pickled ``ShardOrder`` and ``WorkerSetup``."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A shard that is made."""

    node: str
    """Name of the node that made it."""
    built: bytes
    """A pickled ``BuiltShard``."""


def node_name(host: str, address: str) -> str:
    """Return what a node is called to people.

    >>> node_name("gpu7", "10.0.0.7")
    'gpu7 (10.0.0.7)'
    """
    return f"{host} ({address})"


def counted(count: float, noun: str) -> str:
    """Return a number with its noun: "1 node", "2 nodes"."""
    return f"{count:g} {noun}" + ("" if count == 1 else "s")

"""Training in several processes: their ranks, and what they exchange.

``torchrun`` starts them and sets rank and world size in environment variables. Each takes its part
of every batch; gradients, counts and losses are summed over all ranks.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vocprep.errors import VocprepError
from vocprep.features.devices import choose_device
from vocprep.heads.model.tfdet import TFDetHeads

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that train together, from the view of one of them."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the run's files."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Sum a tensor over all ranks in place, and return it."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, by rank, on every rank; each is pickled."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return cast("list[T]", values)

    def on_leader(self, act: Callable[[], T]) -> T:
        """Run a function on rank 0 and return its result, or raise its error, on every rank."""
        if self.world_size == 1:
            return act()
        outcome: list[T | VocprepError | OSError | None] = [None]
        if self.leads:
            try:
                outcome[0] = act()
            except (VocprepError, OSError) as error:
                outcome[0] = error
        dist.broadcast_object_list(outcome)
        (result,) = outcome
        if isinstance(result, VocprepError | OSError):
            raise result
        return cast("T", result)

    def wait(self) -> None:
        """Return when all ranks have called this."""
        if self.world_size > 1:
            dist.barrier()

    def wrapped(self, model: TFDetHeads) -> nn.Module:
        """Return what to call instead of the model so that gradients are means over all ranks."""
        if self.world_size == 1:
            return model
        ddp: Any = nn.parallel.DistributedDataParallel
        # The same switch, renamed: no step waits for buffers, which are the same on all ranks.
        renamed = "forward_sync_buffers" in inspect.signature(ddp).parameters
        wrapped: nn.Module = ddp(
            model, **{"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        )
        return wrapped


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Yield the processes that ``torchrun`` started, or this one alone.

    They communicate by NCCL between GPUs (one each, unless ``device`` names one) and by gloo else;
    a process group that the caller has formed already is used. Raises UsageError when there is no
    such device.
    """
    chosen = choose_device(device)
    if dist.is_available() and dist.is_initialized():
        yield Processes(chosen, dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(chosen)
        return
    if chosen.type == "cuda":
        if device in ("auto", "cuda"):
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(chosen, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()

"""Training in several processes: who they are, and what they tell each other.

``torchrun`` starts them and says by environment variables which is which. Each takes its part of
every batch; gradients, counts and losses are added up over all.
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
from vocprep.features.embed import choose_device
from vocprep.heads.model.tfdet import TFDetHeads

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that train together, seen from one of them."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and scores."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which images of a batch are this process's."""
        return slice(self.rank, None, self.world)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, the tensor itself where there is one."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def once(self, act: Callable[[], T]) -> T:
        """Let the leader act, and return what came of it, or raise what it could not do, in all."""
        if self.world == 1:
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
        """Return when all processes have come here."""
        if self.world > 1:
            dist.barrier()

    def wrapped(self, model: TFDetHeads) -> nn.Module:
        """Return what to call instead of the model so that gradients become means over all."""
        if self.world == 1:
            return model
        ddp: Any = nn.parallel.DistributedDataParallel
        # The same switch, renamed: no step waits for buffers, which all processes keep alike.
        renamed = "forward_sync_buffers" in inspect.signature(ddp).parameters
        wrapped: nn.Module = ddp(
            model, **{"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        )
        return wrapped


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Yield the processes that ``torchrun`` started, this one alone where it did not.

    They talk by NCCL between GPUs (one each, unless ``device`` names one) and by gloo else; a
    process group that the caller has formed already is taken as it is. Raises UsageError when
    there is no such device.
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

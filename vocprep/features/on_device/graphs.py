"""A network's pass over one chunk as a CUDA graph, which a GPU starts at once.

A pass is some two hundred kernels. Launched one by one from Python they take longer to launch than
to compute where a chunk is small, and hold the interpreter's lock meanwhile. A graph launches the
same kernels on the same shapes, so that the bits are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

_WARM_UP = 3
"""Passes before the capture, in which libraries choose algorithms and load kernels."""


class ChunkGraph:
    """Replays a function of a tensor of one shape; several threads may share it.

    Its input and output are buffers of its own, which threads take in turn.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
        self._lock = threading.Lock()
        self._inputs = inputs
        self._graph = torch.cuda.CUDAGraph()
        self._is_free = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own gap
        with torch.cuda.device(inputs.device), torch.inference_mode():
            for _ in range(_WARM_UP):
                expected = function(inputs)
            torch.cuda.synchronize()
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._output = function(inputs)
            self._graph.replay()
            torch.cuda.synchronize()
            if not torch.equal(self._output, expected):
                raise RuntimeError("the graph gives other bits")

    @classmethod
    def capture(cls, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Self | None:
        """Return the graph of a function; None where it cannot be captured, or differs in a bit."""
        try:
            return cls(function, inputs)
        except RuntimeError:  # torch's for all that CUDA refuses, memory included
            return None

    @property
    def shape(self) -> torch.Size:
        """Shape of the input."""
        return self._inputs.shape

    def replay(self, inputs: Tensor, output: Tensor) -> None:
        """Compute the output of inputs [n, …] that may be fewer than the graph's.

        What is missing is left from calls before.
        """
        with self._lock:
            stream = torch.cuda.current_stream(inputs.device)
            stream.wait_event(self._is_free)
            self._inputs[: len(inputs)].copy_(inputs)
            self._graph.replay()
            output.copy_(self._output[: len(output)])
            self._is_free.record(stream)

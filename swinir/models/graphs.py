"""CUDA graphs: a network's hundreds of kernels started at once, for sizes of input that return.

A graph replays kernels on the memory that they were recorded with. Recording one takes about as long as a run and holds
the memory of a run, so it is done only where it pays: for inputs so small that kernels end before the processor has
started the next, and for sizes that were seen lately. The recordings of a network lie in one pool of memory.
"""

import functools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_ELEMENTS = 3 * 512 * 512  # of an input: for larger ones, the kernels themselves take the time
MAX_RECORDINGS = 4
LOOK_BACK = 128  # calls: a recording that none of them used makes room for another size
Function = Callable[[Tensor], Tensor]

# A process can record one graph at a time, and a replay must not begin before the last one's output is copied.
_LOCK = threading.RLock()


class Recording:
    """A function of one tensor of one shape, as a CUDA graph.

    Args:
        function: (any shape) to a tensor, on a CUDA device, without synchronising with it. It has run on this shape.
        example: a tensor of the shape to come.
        pool: handle of the memory pool to record in.
        stream: of the same device, to record on.

    Attributes:
        reserved: bytes by which the pool grew.
    """

    def __init__(self, function: Function, example: Tensor, pool: Any, stream: torch.cuda.Stream) -> None:
        self.input = torch.empty_like(example)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads, which decode images or watch NCCL, may call CUDA meanwhile.
        with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            before = torch.cuda.memory_reserved()
            self.output = function(self.input)
            self.reserved = torch.cuda.memory_reserved() - before

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        self.graph.replay()
        return self.output.clone()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all networks: cuBLAS keeps a workspace of up to 32 MB for each stream that it has met.
    return torch.cuda.Stream(device)


class Recordings:
    """The recordings of one network on one device.

    An input runs directly when its size is first seen, and is recorded when the size returns within LOOK_BACK calls.
    When MAX_RECORDINGS exist, one that was not used within LOOK_BACK calls leaves; if all were, the new size runs
    directly. So at most MAX_RECORDINGS are made in LOOK_BACK calls, in whatever order sizes come.

    Attributes:
        reserved: bytes of the pool.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.reserved = device, 0
        self._kept: dict[Any, Recording] = {}
        self._recent: deque[Any] = deque(maxlen=LOOK_BACK)
        self._largest = MAX_ELEMENTS
        self._pool: Any = None  # its handle, while there are recordings
        self._last_stream: torch.cuda.Stream | None = None
        _LIVE.add(self)

    def run(self, function: Function, x: Tensor) -> Tensor:
        """Compute `function(x)`, the same function at each call, with the network's device as the current one.

        Inference mode must be off: a tensor made in it could not be written to outside of it.
        """
        with torch.cuda.device(self.device):
            with _LOCK:
                output = self._by_graph(function, x)
            return function(x) if output is None else output

    def clear(self) -> bool:
        """Drop all recordings, so that their memory can be used otherwise; tell whether there were any."""
        with _LOCK:
            dropped = bool(self._kept)
            self._kept.clear()
            self._recent.clear()
            self._pool, self.reserved = None, 0
            return dropped

    def _by_graph(self, function: Function, x: Tensor) -> Tensor | None:
        """Replay or record; None where the input is to run directly."""
        key = x.shape, x.dtype
        returns = key in self._recent
        self._recent.append(key)
        if key in self._kept:
            return self._replay(self._kept[key], x)
        if not returns or x.numel() > self._largest or not self._has_room():
            return None
        return self._record(key, function, x)

    def _replay(self, recording: Recording, x: Tensor) -> Tensor:
        stream = torch.cuda.current_stream()
        if self._last_stream not in (None, stream):
            stream.wait_stream(self._last_stream)  # all recordings share memory
        self._last_stream = stream
        return recording(x)

    def _has_room(self) -> bool:
        """Make room if need be, by dropping a recording that is out of use."""
        if len(self._kept) >= MAX_RECORDINGS:
            for key in [key for key in self._kept if key not in self._recent][:1]:
                del self._kept[key]
        return len(self._kept) < MAX_RECORDINGS

    def _record(self, key: Any, function: Function, x: Tensor) -> Tensor:
        """Run the function on the stream that records, which makes its workspaces there, then record it."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        current, side = torch.cuda.current_stream(), _side_stream(self.device)
        side.wait_stream(current)
        try:
            with torch.cuda.stream(side):
                output = function(x)
                try:
                    self._kept[key] = Recording(function, x, self._pool, side)
                    self.reserved += self._kept[key].reserved
                except RuntimeError as error:
                    self._give_up(x, error)
        finally:
            current.wait_stream(side)
        return output

    def _give_up(self, x: Tensor, error: RuntimeError) -> None:
        """Record nothing more, or no inputs as large as one for which memory ran out."""
        # PyTorch never frees the pool of a recording that failed, so the others move to another one.
        self.clear()
        self._largest = x.numel() - 1 if isinstance(error, torch.OutOfMemoryError) else 0
        reason = str(error).partition("\n")[0]
        logger.warning("%s: no CUDA graph for input %s, which runs without: %s", self.device, tuple(x.shape), reason)


_LIVE: weakref.WeakSet[Recordings] = weakref.WeakSet()


def live_on(device: torch.device) -> list[Recordings]:
    """The recordings of all networks on a device; one without an index stands for all of its type."""
    return [r for r in list(_LIVE) if r.device.type == device.type and device.index in (None, r.device.index)]


def reserved_bytes(device: torch.device) -> int:
    """Bytes that recordings of all networks on a device keep from other uses."""
    return sum(recordings.reserved for recordings in live_on(device))


def drop_recordings(device: torch.device) -> bool:
    """Drop the recordings of all networks on a device; tell whether there were any."""
    return sum(recordings.clear() for recordings in live_on(device)) > 0

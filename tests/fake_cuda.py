"""A CUDA device played by the CPU: streams, graphs that replay the operators they recorded, and memory in numbers."""

import functools
import weakref
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from swinir.models import graphs


class Stream:
    def __init__(self, device):
        self.device, self.waited_for = device, []

    def wait_stream(self, other):
        self.waited_for.append(other)


class Graph(TorchDispatchMode):
    """Operators and the tensors that they read and wrote, to run again on the same memory."""

    def __init__(self):
        super().__init__()
        self.calls, self.replays = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, outputs))
        return outputs

    def replay(self):
        self.replays += 1
        for func, args, kwargs, outputs in self.calls:
            for old, new in zip(tree_leaves(outputs), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class FakeCuda:
    """Stands in for the parts of torch.cuda that recordings use; tensors lie on the CPU.

    Attributes:
        current: the current device's index.
        captures: (device's index, pool, stream) of each graph recorded so far.
        graphs: those that still exist; each keeps 1000 bytes.
        failure: raised while a graph is recorded.
        total: bytes of the device.
        emptied: devices that were current when the cache was emptied.
    """

    def __init__(self, patch):
        self.current, self.captures, self.failure, self.graphs = 0, [], None, weakref.WeakSet()
        self.total, self.emptied, self.pools = 10**6, [], 0
        self.streams = {index: [Stream(index)] for index in range(2)}
        for name in (
            *("device", "stream", "graph", "current_stream", "graph_pool_handle", "memory_reserved"),
            *("memory_allocated", "max_memory_allocated", "mem_get_info", "empty_cache"),
        ):
            patch.setattr(torch.cuda, name, getattr(self, name))
        for name in ("synchronize", "reset_peak_memory_stats"):
            patch.setattr(torch.cuda, name, lambda device: None)
        patch.setattr(torch.cuda, "Stream", lambda device: Stream(device.index))
        patch.setattr(graphs, "_side_stream", functools.cache(graphs._side_stream.__wrapped__))
        patch.setattr(torch.cuda, "CUDAGraph", self.new_graph)

    def new_graph(self):
        graph = Graph()
        self.graphs.add(graph)
        return graph

    @contextmanager
    def device(self, device):
        before, self.current = self.current, device.index
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def stream(self, stream):
        self.streams[stream.device].append(stream)
        try:
            yield
        finally:
            self.streams[stream.device].pop()

    def current_stream(self):
        return self.streams[self.current][-1]

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"  # threads that read images would fail otherwise
        with self.stream(stream), graph:
            yield
            if self.failure is not None:
                raise self.failure
        self.captures.append((self.current, pool, stream))

    def graph_pool_handle(self):
        self.pools += 1
        return self.pools

    def memory_reserved(self, device=None):
        return 1000 * sum(bool(graph.calls) for graph in self.graphs)

    def memory_allocated(self, device=None):
        return 0

    def max_memory_allocated(self, device=None):
        return 0

    def mem_get_info(self, device=None):
        return self.total - self.memory_reserved(), self.total

    def empty_cache(self):
        self.emptied.append(self.current)

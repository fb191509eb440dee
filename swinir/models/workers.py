"""Threads that each take whole pieces of a layer's work, in place of threads that share every operator.

A core keeps its piece in its own cache, and waits for the others once a layer instead of once an operator.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Barrier, Lock
from typing import TypeVar

import torch

T = TypeVar("T")
_start = Lock()


def each(pieces: Iterable[T], work: Callable[[T], None]) -> None:
    """Do `work` on each piece, in as many threads as PyTorch uses; operators of PyTorch inside are single-threaded.

    The first error ends the work and is raised here. Gradients are not recorded.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for piece in pieces:
            work(piece)
        return
    shared, inference = _Shared(pieces), torch.is_inference_mode_enabled()

    def follow() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            try:
                for piece in shared:
                    work(piece)
            finally:
                shared.end()

    with _start:
        pool = _pool(threads)
    futures: list[Future[None]] = []
    try:
        for _ in range(threads):
            futures.append(pool.submit(follow))
        wait(futures)
    finally:  # an interruption leaves no thread at work on tensors that the caller drops
        shared.end()
        wait(futures)
    for future in futures:
        future.result()


class _Shared(Iterator[T]):
    """An iterator for several threads, which any of them can end."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._lock = iter(items), Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)

    def end(self) -> None:
        with self._lock:
            self._items = iter(())


@functools.lru_cache(maxsize=2)
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, "swinir", initializer=_compute_alone)
    started = Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(started.wait)
        started.wait()
    except BaseException:  # an interruption, or no further thread can be started: those that wait must end
        started.abort()
        pool.shutdown(wait=False)
        raise
    finally:  # the number is each thread's own, but threads yet to start inherit the one set last
        torch.set_num_threads(threads)
    return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # the first call in a thread sets the number that is inherited
    torch.set_num_threads(1)


def _forget() -> None:
    global _start
    _start = Lock()
    _pool.cache_clear()  # a forked process has no threads but its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

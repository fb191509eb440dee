"""Iterators in processes of their own, which work only when they are asked for the next item.

The thread pools of two engines in one process disturb each other, and no process gives back all memory of a network.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import torch

from swinir.bench.turns import describe

Item = TypeVar("Item")


class Remote(Iterator[Item], Generic[Item]):
    """The items of a generator function that runs in a new process, with as many threads as PyTorch has here.

    The process ends with this object's `close`, or when this process ends, even if it is killed.

    Args:
        work: the generator function; it, its arguments and the items can be pickled.

    Raises:
        MemoryError: by `next`, if the process is killed.
        Exception: by `next`, from the work.
    """

    def __init__(self, work: Callable[..., Generator[Item, None, None]], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._answers, theirs = context.Pipe()
        threads = torch.get_num_threads()
        self._process = context.Process(target=_serve, args=(theirs, threads, work, args), daemon=True)
        with _no_interrupts():
            self._process.start()
        theirs.close()

    def __next__(self) -> Item:
        try:
            self._answers.send(True)
            item, error = self._answers.recv()
        except (EOFError, OSError) as gone:
            self._process.join()
            if self._process.exitcode == -signal.SIGKILL:
                why = "was killed, likely for want of memory; try a smaller size or tile"
                raise MemoryError(f"the process {why}") from gone
            raise RuntimeError(f"the process ended with exit code {self._process.exitcode}") from gone
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """End the process at once."""
        self._answers.close()
        self._process.kill()
        self._process.join()


def here(work: Callable[..., Generator[Item, None, None]], *args: Any) -> Generator[Item, None, None]:
    """Start a generator in this process: `Remote` where new processes would cost more than they are worth."""
    return work(*args)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let processes that start in the block never receive Ctrl-C, which a terminal sends to all of a command's."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(requests: Connection, threads: int, work: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> None:
    """Answer each request with an item and None, or None and an error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    items = work(*args)
    with contextlib.suppress(EOFError):
        while requests.recv():
            try:
                requests.send((next(items), None))
            except Exception as error:  # StopIteration, too
                requests.send((None, _portable(error)))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, also in the middle of its work."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _portable(error: Exception) -> Exception:
    """The error, or one with its text if it cannot be sent to another process."""
    try:
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(describe(error))
    return sent

"""How much memory a piece of work takes at most."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
NEW_PEAK = "5"  # written to CLEAR: the high-water mark becomes what is resident now
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def alone(work: Callable[Arguments, Result], *args: Arguments.args, **options: Arguments.kwargs) -> Result:
    """What `work` returns in a new process, with as many threads as PyTorch has here.

    Raises:
        MemoryError: when the process is killed.
        Exception: whatever the work raises.
    """
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        try:
            return pool.submit(work, *args, **options).result()
        except BrokenProcessPool as error:
            raise MemoryError(
                "the process was killed, likely for want of memory; try a smaller size or tile"
            ) from error


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `work` takes at most, on top of what is in use before it.

    On a CUDA device, what PyTorch's allocator hands out. Elsewhere, memory of this process that is resident, in a
    process where nothing else runs: Linux alone lets the high-water mark start anew; None where that is not possible,
    since a mark that stands since the process began may belong to something earlier.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _give_back_freed()
    try:
        CLEAR.write_text(NEW_PEAK)
        before = _resident("VmRSS:")
    except (OSError, StopIteration):
        return None
    work()
    return max(0, _resident("VmHWM:") - before)


def _resident(field: str) -> int:
    """Bytes of a line of this process's status; StopIteration where the system does not have it."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field))


def _give_back_freed() -> None:
    """Have the C library return what it keeps of freed memory: work that takes it again would seem to take none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)

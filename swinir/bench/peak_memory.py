"""The peak memory of a piece of work."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from swinir.inference.memory import release_memory

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
NEW_PEAK = "5"  # written to CLEAR, it sets the high-water mark to the resident memory


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Measure the peak of the bytes that `work` takes on top of those in use before it.

    On a CUDA device, these are bytes of PyTorch's allocator, elsewhere resident memory of this process, in which
    nothing else may run. Only Linux can reset the high-water mark; the result is None where that fails, since the mark
    may be older than the work.
    """
    gc.collect()
    if device.type == "cuda":
        release_memory(device)  # what was recorded before would work in memory of its own
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
    """Read bytes from a line of this process's status; StopIteration where the system does not have it."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field))


def _give_back_freed() -> None:
    """Make the C library return freed memory to the system; work that reused it would seem to take none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library other than GNU's
            ctypes.CDLL(None).malloc_trim(0)

"""Arrays for images of any size: in memory while they fit, otherwise memory-mapped temporary files."""

import math
import mmap
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 2**21  # pixels that are worked on together


class DiskSpaceError(OSError):
    """Too little disk space for temporary files."""


class Workspace:
    """A source of arrays that share one limit of main memory.

    An array that would exceed the limit is mapped onto a temporary file, which has no name and vanishes with the
    array, even if the process is killed. Memory and disk space are free again when the last reference to an array, or
    to a view of it, is gone. Threads may share a workspace.

    Attributes:
        folder: place of temporary files; beside the output, so that the disk is the one the user chose.
        memory_limit: bytes of main memory for all live arrays together.
    """

    def __init__(self, folder: Path | str, memory_limit: float = math.inf) -> None:
        self.folder, self.memory_limit = Path(folder), memory_limit
        self._in_memory: dict[int, int] = {}  # bytes by id of the array
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._lock = threading.RLock()  # a finalizer may run while the lock is held

    def array(self, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """Make an array of undefined content.

        Raises:
            DiskSpaceError: when neither memory nor the disk of `folder` has room for it.
            OSError: when no file can be made in `folder`.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            if self.fits(size):
                array = np.empty(shape, dtype)
                self._in_memory[id(array)] = size
                weakref.finalize(array, self._in_memory.pop, id(array), None)
                return array
        self.require(size)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            try:
                if hasattr(os, "posix_fallocate"):  # without it a disk that fills up later would kill the process
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            except OSError as error:
                raise DiskSpaceError(f"no room for {size / 1e9:.1f} GB in {self.folder}: {error.strerror}") from error
            mapped = mmap.mmap(file.fileno(), size)
        with self._lock:
            self._maps.add(mapped)
        return np.ndarray(shape, dtype, buffer=mapped)

    def fits(self, size: float) -> bool:
        """Tell whether a further array of `size` bytes would lie in memory."""
        with self._lock:
            return sum(self._in_memory.values()) + size <= self.memory_limit

    def require(self, size: float) -> None:
        """Raise a DiskSpaceError unless `size` bytes fit into memory or onto the disk."""
        free = shutil.disk_usage(self.folder).free
        if not self.fits(size) and size > free:
            raise DiskSpaceError(
                f"too large for memory, and temporary files need {size / 1e9:.1f} GB in {self.folder}, "
                f"which has {free / 1e9:.1f} GB free; make room or choose another output folder"
            )

    def release(self) -> None:
        """Take pages of mapped arrays out of main memory; they are read back where they are used again."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        with self._lock:
            for mapped in list(self._maps):
                mapped.madvise(mmap.MADV_DONTNEED)  # a shared mapping's changes stay in the file's cached pages


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Divide the rows of an image into blocks of about BLOCK pixels."""
    step = max(1, BLOCK // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))

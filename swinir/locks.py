"""Locks that end with their process: the hold of a run on a folder, and its claims of single outputs there.

They are POSIX record locks on a hidden file. The system drops them when the process ends, however it ends: a killed
run leaves an empty file and no lock. Machines that share a folder exclude each other where its file system passes
locks on, as NFS and SMB do unless they are mounted without. Threads of one process do not exclude each other, and
neither does anything on systems without such locks, such as Windows.

`filelock` locks whole files only: a claim would need a file for each image.
"""

import errno
import hashlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".swinir.lock"  # in the folder, while a process holds it
HOLD = 2**40  # byte of the file that stands for the folder; beyond the text, which others read
CLAIMS = 2**41  # first byte of 2**40 that stand for outputs, by a hash of their names
POLL = 0.2  # seconds


class BusyError(OSError):
    """Another process holds the folder; the message says which."""


class FolderLock:
    """A lock on a folder, which one process holds alone or several share; those may claim outputs in it.

    Where the lock file cannot be written, nothing else can be either, and every request is granted.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: BinaryIO | None = None

    @property
    def held(self) -> bool:
        """True between `hold` or `share` and `close`, where locks exist."""
        return self._file is not None

    def hold(self) -> None:
        """Hold the folder alone, until `close` or the end of the process.

        Raises:
            BusyError: if another process holds it, with what is known about that.
        """
        if not self._open(alone=True):
            try:
                holder = self.path.read_text(encoding="utf-8").strip()
            except (OSError, ValueError):
                holder = ""
            who = holder or "another process"
            raise BusyError(f"{self.path.parent} is in use by {who}; wait until it ends, or name another folder")
        if self._file is not None:
            self._file.truncate(0)
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            self._file.write(f"process {os.getpid()} on {platform.node()}, since {since}\n".encode())
            self._file.flush()

    def share(self) -> None:
        """Share the folder with other processes; waits while one holds it alone."""
        while not self._open(alone=False):
            time.sleep(POLL)

    def _open(self, *, alone: bool) -> bool:
        while True:
            try:
                file = self.path.open("a+b")
            except OSError:
                return True
            if _lock(file, HOLD, shared=not alone) is False:
                file.close()
                return False
            if _is_at(file, self.path):
                self._file = file
                return True
            file.close()  # its last holder removed it meanwhile

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Try to keep others out of a shared folder within the block; yields false if there are any."""
        alone = self._file is not None and _lock(self._file, HOLD) is True
        try:
            yield alone
        finally:
            if alone and self._file is not None:
                _lock(self._file, HOLD, shared=True)

    def claim(self, name: str) -> bool:
        """Claim an output for this process; false if another process has it."""
        return self._file is None or _lock(self._file, _byte(name)) is not False

    def release(self, name: str) -> None:
        """Give up a claim."""
        if self._file is not None:
            _lock(self._file, _byte(name), free=True)

    def close(self) -> None:
        """End the hold and all claims; the last holder removes the file."""
        if self._file is None:
            return
        _lock(self._file, HOLD, free=True)  # first, so that of two who leave at once the later one is alone
        if _lock(self._file, HOLD) is True and _is_at(self._file, self.path):
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None


@contextmanager
def alone_in(file: BinaryIO) -> Iterator[None]:
    """Keep other processes that ask for the same from a file within the block, such as for appending over a network.

    The lock ends early if this process closes the file elsewhere meanwhile.
    """
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
    yield  # closing the file frees it


def _byte(name: str) -> int:
    return CLAIMS + int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:5], "big")


def _lock(file: BinaryIO, start: int, *, shared: bool = False, free: bool = False) -> bool | None:
    """Lock or free a byte; false if another process has locked it, None where the system has no such locks."""
    if fcntl is None:
        return None
    kind = fcntl.LOCK_UN if free else (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        fcntl.lockf(file, kind, 1, start)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False

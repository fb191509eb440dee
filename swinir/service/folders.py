"""Private folders for uploads and outputs, which do not outlive their process by long."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swinir.locks import BusyError, FolderLock

PREFIX = "swinir-service-"
FRESH = 60.0  # seconds; a younger folder may belong to a process that is about to lock it
_own: set[Path] = set()  # locks do not keep a process out of its own folders


@contextmanager
def work_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that only the owner may read, and remove it afterwards.

    Args:
        parent: the folder to make it in; None is the system's for temporary files.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
    _own.add(folder)
    lock = FolderLock(folder)
    lock.hold()
    try:
        yield folder
    finally:
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)
        _own.discard(folder)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders that killed processes of this user left in a parent folder."""
    if os.name != "posix":  # no locks tell which are in use
        return
    for folder in parent.resolve().glob(f"{PREFIX}*"):
        with suppress(OSError):  # of others, or gone meanwhile
            status = folder.lstat()
            if folder in _own or status.st_uid != os.getuid() or time.time() - status.st_mtime < FRESH:
                continue
            lock = FolderLock(folder)
            with suppress(BusyError):
                lock.hold()
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()

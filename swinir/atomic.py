"""Atomic writing: a file appears under its final name when it is complete."""

import errno
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Random digits, the machine, and the process that writes the file.
TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.(?P<machine>[0-9a-f]{8})\.(?P<process>[0-9]{1,9}))?\.part")
PROCESSES = Path("/proc/self/ns/pid")  # names the container, whose processes have numbers of their own

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # errors of a full disk

# Errors of systems that cannot sync a folder, or cannot sync one that we may not list.
CANNOT_SYNC = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that replaces `path` if the block succeeds and is deleted if not.

    The data is synced before the file is renamed, and the folder before the block ends: even after a power failure
    `path` holds the old file or the new one, and the new one if the block had ended.

    Raises:
        OSError: if the folder does not exist or is read-only, or the disk is full.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.{_machine()}.{os.getpid()}.part")
    try:
        temporary.open("xb").close()  # `tempfile` makes files that only the owner may read
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        unnamed = error.filename is None and error.errno in NO_ROOM  # from a write, not from opening
        if not unnamed and str(error.filename) != str(temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that the user knows
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, as fsync does with a file's content, if the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def temporaries(folder: Path) -> list[Path]:
    """List the files of `atomic_path` in a folder that are being written, or were left by a killed process."""
    return [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]


def leftovers(folder: Path, *, of_others: bool = False) -> list[Path]:
    """List the files of `atomic_path` in a folder whose process has ended.

    Args:
        of_others: also list those of other machines, whose processes cannot be seen from here: for a caller who
            knows that none of them writes into the folder.
    """
    found = []
    for path in temporaries(folder):
        match = TEMPORARY.fullmatch(path.name)
        assert match is not None
        if (of_others and match["machine"] != _machine()) or (
            match["machine"] == _machine() and not runs(int(match["process"]))
        ):
            found.append(path)
    return found


def _machine() -> str:
    container = os.readlink(PROCESSES) if PROCESSES.is_symlink() else ""
    return hashlib.sha256(f"{platform.node()} {container}".encode()).hexdigest()[:8]


def runs(process: int) -> bool:
    """Tell whether a process with that number runs on this machine; true where the system cannot tell."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

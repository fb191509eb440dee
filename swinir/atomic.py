"""Files that are whole or as they were: nobody meets half of one under its final name."""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part")

# What systems answer that cannot put a folder's names on the disk by request, or not in a folder we may not list.
NOT_POSSIBLE = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces `path` when the block ends well, and vanishes otherwise.

    The data is on the disk before the name is, and the name before the block is left: after a power cut, too,
    `path` holds the old file or the new one, and the new one if the block had been left.

    Raises:
        OSError: when the folder is missing or read-only, or the disk is full.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    temporary.open("xb").close()  # not by `tempfile`, whose files none but the owner may read
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, as fsync does with a file's content; nothing where that is not possible."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NOT_POSSIBLE:
            raise


def temporaries(folder: Path) -> list[Path]:
    """The files of `atomic_path` in a folder that are being written, or were when their process was killed."""
    return [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]

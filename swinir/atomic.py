"""Files that are whole or as they were: nobody meets half of one under its final name."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces `path` when the block ends well, and vanishes otherwise.

    The data is on the disk before the name is: after a power cut, too, `path` holds the old file or the new one.

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
    finally:
        temporary.unlink(missing_ok=True)

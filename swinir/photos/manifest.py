"""The record of each image: a line of `results.jsonl` in the output folder.

The last line about an output says from which input and with which settings it was made. A second run of the same
command skips such outputs.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swinir.image_io.reader import named
from swinir.photos.jobs import Job, Output
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.restore_photo import Treatment
from swinir.version import __version__

RECORDS = "results.jsonl"
DONE = ("restored", "unchanged")
# Errors of writing that the next image would meet as well.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)


class OutputError(OSError):
    """Nothing more can be written; the message is one line with a remedy."""


@dataclass(frozen=True)
class Result:
    """The record of one image.

    Attributes:
        status: "restored"; "unchanged" if no repair was needed; "skipped"; "failed"; "begun" in the file alone, before
            the output is written.
        experts: name and SHA-256 of the checkpoint of each pass.
        settings: digest of all settings that decide the output.
        noise_level, jpeg_quality: estimates; None where there is none, or no sign of compression.
        replaces: size and time of the file that had the output's name when the work began.
    """

    input: str
    output: str
    status: str
    error: str = ""
    input_sha256: str = ""
    settings: str = ""
    width: int | None = None
    height: int | None = None
    output_width: int | None = None
    output_height: int | None = None
    experts: tuple[tuple[str, str], ...] = ()
    precision: str = ""
    tile: int | str | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    noise_level: float | None = None
    jpeg_quality: float | None = None
    replaces: tuple[int, int] | None = None


@contextmanager
def raise_output_errors(path: Path) -> Iterator[None]:
    """Turn errors of a full, read-only or vanished folder into an `OutputError`, which stops the run."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno not in FATAL:
            raise
        advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder"
        raise OutputError(
            f"cannot write {named(path)}: {error.strerror}; {advice}, and run the same command again"
        ) from error


def settings_digest(treatment: Treatment, output: Output, precision: str) -> str:
    """Return a hash of everything that decides an output, apart from its input and the weights."""
    settings = asdict(treatment) | asdict(output) | {"precision": precision, "version": __version__}
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Records:
    """The lines of `results.jsonl`: the last one about each output."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORDS
        self.last: dict[str, dict[str, Any]] = {}
        self._torn = False
        if self.path.is_file():
            content = self.path.read_bytes()
            self._torn = bool(content) and not content.endswith(b"\n")  # a process was killed while writing
            for line in content.splitlines():
                try:
                    row = json.loads(line)
                    self.last[row["output"]] = row
                except (ValueError, KeyError, TypeError):
                    continue

    def add(self, result: Result) -> None:
        """Append a line; it is on the disk when this returns."""
        row = asdict(result)
        text = json.dumps(row, ensure_ascii=True) + "\n"
        with raise_output_errors(self.path), self.path.open("ab") as file:
            file.write(b"\n" * self._torn + text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self.last[result.output] = row

    def is_done(self, job: Job, input_hash: str, settings: str, models: LoadedModels) -> bool:
        """Tell whether the output is there and was made from this input with these settings and checkpoints."""
        row, state = self.last.get(str(job.target)), state_of(job.target)
        if row is None or state is None or (row["input_sha256"], row["settings"]) != (input_hash, settings):
            return False
        if row["status"] == "begun":  # and interrupted, perhaps after the output had its name
            return row["replaces"] is None or tuple(row["replaces"]) != state
        if row["status"] not in DONE:
            return False
        try:
            return all(models.sha256(name) == known for name, known in row["experts"])
        except (OSError, ValueError):
            return False


def state_of(path: Path) -> tuple[int, int] | None:
    """Return size and modification time of a file, None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns

"""What was made of each picture: a line of `results.jsonl` in the output folder.

The last line about a result says from which input and with which settings it was made, so that running again does
only what is left.
"""

import errno
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swinir.image_io.reader import named
from swinir.photos.jobs import Job, Output
from swinir.photos.restore_photo import Experts, Treatment
from swinir.version import __version__

RECORDS = "results.jsonl"
DONE = ("restored", "unchanged")
# Errors of writing that the next picture would meet as well.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)


class OutputError(OSError):
    """Nothing more can be written; the message is one line with the way out."""


@dataclass(frozen=True)
class Result:
    """The record of one picture.

    Attributes:
        status: "restored"; "unchanged" for one that needed nothing and was written as it is; "skipped"; "failed";
            "begun" in the file alone, while it is worked on.
        experts: name and SHA-256 of the weights of each pass.
        settings: digest of everything else that decides the result.
        noise_level, jpeg_quality: as measured; None where they were not, or there is no sign of compression.
        replaces: size and time of the file that stood under the name when the work began.
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


class stopping:  # noqa: N801 - a context manager, used as a verb
    """Turns the errors of a full or vanished disk into the one that stops the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, OutputError) and error.errno in FATAL:
            advice = {errno.ENOSPC: "make room", errno.EDQUOT: "make room"}.get(error.errno or 0, "check the folder")
            raise OutputError(
                f"cannot write {named(self.path)}: {error.strerror}; {advice}, and run the same command again"
            ) from error


def settings_digest(treatment: Treatment, how: Output, precision: str) -> str:
    """Of everything that decides a result beside input and weights."""
    facts = asdict(treatment) | asdict(how) | {"precision": precision, "version": __version__}
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Records:
    """The lines of `results.jsonl`: the last one about each output, and a place for more."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORDS
        self.last: dict[str, dict[str, Any]] = {}
        torn = False
        if self.path.is_file():
            content = self.path.read_bytes()
            torn = bool(content) and not content.endswith(b"\n")  # a process was killed while it wrote
            for line in content.splitlines():
                try:
                    row = json.loads(line)
                    self.last[row["output"]] = row
                except (ValueError, KeyError, TypeError):
                    continue
        self._torn = torn

    def add(self, result: Result) -> None:
        """Append a line, on the disk before this returns."""
        row = asdict(result)
        text = json.dumps(row, ensure_ascii=True) + "\n"
        with stopping(self.path), self.path.open("ab") as file:
            file.write(b"\n" * self._torn + text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self.last[result.output] = row

    def show(self, job: Job, input_hash: str, settings: str, experts: Experts) -> bool:
        """Whether the file under a result's name is what its record says, from this input with these settings."""
        row, state = self.last.get(str(job.target)), state_of(job.target)
        if row is None or state is None or (row["input_sha256"], row["settings"]) != (input_hash, settings):
            return False
        if row["status"] == "begun":  # and interrupted, perhaps after the result had got its name
            return row["replaces"] is None or tuple(row["replaces"]) != state
        if row["status"] not in DONE:
            return False
        try:
            return all(experts.sha256(name) == known for name, known in row["experts"])
        except (OSError, ValueError):
            return False


def state_of(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns

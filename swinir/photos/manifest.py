"""The record of each image: a line of `results.jsonl` in the output folder.

The last line about an output that was made says from which input and with which settings. A second run of the same
command skips such outputs. Lines about failed attempts stand beside it. A line may hold anything: those that are no
valid records are counted and ignored.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock
from typing import Annotated, Literal

from pydantic import Field, InstanceOf, TypeAdapter

from swinir.image_io.reader import named
from swinir.locks import alone_in
from swinir.photos.jobs import Job, Output
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.restore_photo import Treatment
from swinir.version import __version__
from swinir.weights.verify import sha256

RECORDS = "results.jsonl"
DONE = ("restored", "unchanged")
MAX_LINE = 2**20  # bytes; longer lines are no records
# Errors of writing that the next image would meet as well.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)

Text = InstanceOf[str]  # pydantic's own strings refuse lone surrogates, which file names may hold
Number = Annotated[int, Field(strict=True)]
Pixels = Annotated[int, Field(strict=True, gt=0, lt=2**31)]
Level = Annotated[float, Field(strict=True, ge=0, le=255)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Status = Literal["begun", "restored", "unchanged", "skipped", "failed"]


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
        precision, engine: of the networks, and the library that ran them, with its version.
        strength: share of the repair in the output.
        noise_level, jpeg_quality: estimates; None where there is none, or no sign of compression.
        replaces: size and time of the file that had the output's name when the work began.
    """

    input: Text
    output: Text
    status: Status
    error: Text = ""
    input_sha256: Text = ""
    output_sha256: Text = ""
    settings: Text = ""
    width: Pixels | None = None
    height: Pixels | None = None
    output_width: Pixels | None = None
    output_height: Pixels | None = None
    experts: tuple[tuple[Text, Text], ...] = ()
    precision: Text = ""
    engine: Text = ""
    strength: Share = 1.0
    tile: Number | Text | None = None
    seconds: Seconds | None = None
    notes: tuple[Text, ...] = ()
    findings: tuple[Text, ...] = ()
    noise_level: Level | None = None
    jpeg_quality: Level | None = None
    replaces: tuple[Number, Number] | None = None


_LINE = TypeAdapter(Result)  # checks what comes from a file; other keys are ignored


def read_rows(path: Path, start: int = 0) -> tuple[list[Result], int, int]:
    """Read the records in a file from a byte on, in its order.

    Returns:
        The records; the number of other lines; the end of the last whole line, from where a later call goes on.
    """
    rows: list[Result] = []
    invalid, end = 0, start
    for _, end, row in each_row(path, start):  # noqa: B007 - the last one counts
        if row is not None:
            rows.append(row)
        else:
            invalid += 1
    return rows, invalid, end


def each_row(path: Path, start: int = 0) -> Iterator[tuple[int, int, Result | None]]:
    """Yield first byte, end and record of each whole line from a byte on; None for a line that is no record."""
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(MAX_LINE):
            rest = line
            while rest and not rest.endswith(b"\n"):  # of a line that is too long
                rest = file.readline(MAX_LINE)
            row = parse_row(line)
            if row is None and not rest:  # another process may be writing this line, or was killed meanwhile
                break
            begin, start = start, file.tell()
            if line.strip():
                yield begin, start, row


def parse_row(line: bytes | str) -> Result | None:
    """Return the record in a line of JSON; None if it is none."""
    try:
        return _LINE.validate_python(json.loads(line))
    except (ValueError, RecursionError, OverflowError):
        return None


def row_text(result: Result) -> str:
    """Return a record as one line of JSON, in ASCII."""
    return json.dumps(asdict(result), ensure_ascii=True)


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


def settings_digest(treatment: Treatment, output: Output, precision: str, **more: object) -> str:
    """Return a hash of everything that decides an output, apart from its input and the weights."""
    form = {"extension": output.extension, "quality": output.quality, "keep_metadata": output.keep_metadata}
    settings = asdict(treatment) | form | {"precision": precision, "version": __version__} | more
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Records:
    """The lines of `results.jsonl`, to which several runs may append.

    Memory holds the place of the last line about each output, 0.1 KB, and not the line.

    Attributes:
        ignored: number of lines that are no records.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORDS
        self.ignored = 0
        self._read_to = 0
        self._busy = RLock()  # images are read in another thread than the one that writes records
        self._made: dict[int, int] = {}  # first byte of the last record of each output that was made
        self._begun: dict[int, int] = {}  # later attempts, which may have been killed after the output was written
        self.refresh()

    def refresh(self) -> None:
        """Read the lines that were added since the last time."""
        with self._busy:
            if not self.path.is_file():
                return
            for begin, end, row in each_row(self.path, self._read_to):
                self._read_to = end
                if row is None:
                    self.ignored += 1
                elif row.status in DONE:
                    self._made[_key(row.output)] = begin
                    self._begun.pop(_key(row.output), None)
                elif row.status == "begun":
                    self._begun[_key(row.output)] = begin

    def add(self, *results: Result) -> None:
        """Append lines; they are on the disk when this returns."""
        text = "".join(f"{row_text(result)}\n" for result in results)
        with self._busy:
            with raise_output_errors(self.path), self.path.open("a+b") as file, alone_in(file):
                file.seek(0, os.SEEK_END)
                # A process that was killed while writing leaves half a line.
                torn = file.tell() > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
                file.write(b"\n" * torn + text.encode())
                file.flush()
                os.fsync(file.fileno())
            self.refresh()

    def last(self, output: str) -> tuple[Result | None, Result | None]:
        """Return the last record of an output that was made, and that of a later attempt."""
        with self._busy:
            return self._record(self._made, output), self._record(self._begun, output)

    def _record(self, places: dict[int, int], output: str) -> Result | None:
        begin = places.get(_key(output))
        if begin is None:
            return None
        with self.path.open("rb") as file:
            file.seek(begin)
            row = parse_row(file.readline(MAX_LINE))
        return row if row is not None and row.output == output else None

    def maker(self, target: Path) -> Result | None:
        """Return the record of the output that is there; None if there is none, or no record of it."""
        state = state_of(target)
        if state is None:
            return None
        made, begun = self.last(str(target))
        if begun is not None and begun.replaces != state:  # interrupted after the output had its name
            return begun
        return made

    def is_done(self, job: Job, input_hash: str, settings: str, models: LoadedModels) -> bool:
        """Tell whether the output is there and was made from this input with these settings and checkpoints."""
        row = self.maker(job.target)
        if row is None or (row.input_sha256, row.settings) != (input_hash, settings):
            return False
        try:
            if row.output_sha256 and sha256(job.target) != row.output_sha256:
                return False
            return all(models.sha256(name) == known for name, known in row.experts)
        except (OSError, ValueError):
            return False


def state_of(path: Path) -> tuple[int, int] | None:
    """Return size and modification time of a file, None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _key(output: str) -> int:
    """64 bits for the name of an output; of ten million names, two are the same with a probability of 3e-6."""
    return int.from_bytes(hashlib.blake2b(output.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")

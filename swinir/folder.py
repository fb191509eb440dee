"""Files and folders of real pictures in, the same out: planned before the work, one record each, nothing lost.

A record is a line of `results.jsonl` in the output folder. The last line about a result says from which input and
with which settings it was made, so that running again does only what is left.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from swinir import __version__
from swinir.atomic import atomic_path, temporaries
from swinir.decoding import EXTENSIONS, MAX_PIXELS, ImageError, named, open_rows, read_picture
from swinir.encoding import can_hold, write_picture
from swinir.large import STRIP_BYTES, Plan, bytes_whole, make_plan, repair_rows, why_whole
from swinir.memory import free_memory
from swinir.picture import Picture, Rows, rows_of
from swinir.repair import Experts, Repaired, Treatment, describe, repair
from swinir.restoration import out_of_memory, resolve_precision

RECORDS = "results.jsonl"
DONE = ("restored", "unchanged")
WHOLE_SHARE = 0.4  # of the memory that is free at first, that a picture held whole may take
Existing = Literal["recorded", "skip", "overwrite"]
# Errors of writing that the next picture would meet as well.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)


class OutputError(OSError):
    """Nothing more can be written; the message is one line with the way out."""


@dataclass(frozen=True)
class Output:
    """How results are named and stored.

    Attributes:
        suffix: added to the name's stem.
        extension: "auto" keeps that of the input where it can be written, else .png; or one such as "png".
        quality: of JPEG, WebP and AVIF, 1 to 100; None is the format's own.
        keep_metadata: EXIF, XMP and resolution; the colour profile stays in any case.
    """

    suffix: str = ""
    extension: str = "auto"
    quality: int | None = None
    keep_metadata: bool = True

    def __post_init__(self) -> None:
        if "/" in self.suffix or "\0" in self.suffix:
            raise ValueError(f"suffix must be part of a file name, got {self.suffix!r}")
        if self.extension != "auto":
            can_hold(f".{self.extension}")

    def name(self, source: Path) -> str:
        """Of the result of a file."""
        extension = f".{self.extension}"
        if self.extension == "auto":
            extension = source.suffix
            try:
                can_hold(extension)
            except ValueError:
                extension = ".png"
        return f"{source.stem}{self.suffix}{extension}"


@dataclass(frozen=True)
class Job:
    """A file and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """The record of one picture.

    Attributes:
        status: "restored"; "unchanged" for one that needed nothing and was written as it is; "skipped"; "failed";
            "begun" in the file alone, while it is worked on.
        experts: name and SHA-256 of the weights of each pass.
        settings: digest of everything else that decides the result.
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
    replaces: tuple[int, int] | None = None


# Planning


def plan_jobs(inputs: Sequence[Path], output: Path, how: Output, *, recursive: bool = False) -> list[Job]:
    """What to make of files and folders; no picture is opened.

    Args:
        inputs: files, in which case their suffix does not matter, and folders, of which the pictures are taken.
        output: the folder for results; for a single file it may be the result's own name.
        recursive: folders below folders too; their layout is kept.

    Raises:
        FileNotFoundError: for an input that is not there.
        ValueError: for a folder without pictures, an output inside an input folder, two inputs with one output,
            an input that would be replaced.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir() and output.suffix != ""
    if single:
        can_hold(output.suffix)
        jobs = [Job(inputs[0], output)]
    else:
        jobs = [job for given in inputs for job in _jobs_of(given, output, how, recursive)]
    for given in inputs:
        if not os.path.lexists(given):
            raise FileNotFoundError(f"{named(given)} is not there; check the path")
    _check(jobs)
    return jobs


def _jobs_of(given: Path, output: Path, how: Output, recursive: bool) -> list[Job]:
    if not given.is_dir():
        return [Job(given, output / how.name(given))]
    folder = given.resolve()
    if output.resolve() == folder and not how.suffix:
        raise ValueError(f"{named(output)} is the input folder itself; name another with -o, or a --suffix")
    if recursive and output.resolve() != folder and output.resolve().is_relative_to(folder):
        raise ValueError(f"{named(output)} lies inside the input folder {named(given)}; name another with -o")
    files = sorted(path for path in _files(given, recursive) if path.suffix.lower() in EXTENSIONS)
    if not files:
        below = "" if recursive else "; -r looks into folders below it"
        raise ValueError(f"no pictures in {named(given)}{below}")
    return [Job(path, output / path.relative_to(given).parent / how.name(path)) for path in files]


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    """Names that do not begin with a dot; links to folders are not followed."""
    if not recursive:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
        return
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in names if not name.startswith("."))


def _check(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve(): job.source for job in jobs if job.source.exists()}
    seen: dict[str, Job] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise ValueError(
                f"the result of {named(job.source)} would replace the input {named(sources[target])}; "
                "name another folder with -o, or a --suffix"
            )
        same = str(target).casefold()  # some file systems take two such names for one
        if same in seen and seen[same].source.resolve() != job.source.resolve():
            raise ValueError(
                f"{named(seen[same].source)} and {named(job.source)} would both become {named(job.target)}; "
                "restore them into folders of their own"
            )
        seen[same] = job


# Records


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
        with _stopping(self.path), self.path.open("ab") as file:
            file.write(b"\n" * self._torn + text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self.last[result.output] = row

    def show(self, job: Job, input_hash: str, settings: str, experts: Experts) -> bool:
        """Whether the file under a result's name is what its record says, from this input with these settings."""
        row, state = self.last.get(str(job.target)), _state(job.target)
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


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


# The work


class _stopping:  # noqa: N801 - a context manager, used as a verb
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


@dataclass
class Clock:
    """Where the time went: how long networks computed, of how long in all."""

    busy: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def utilisation(self) -> float:
        """Share of the time in which networks computed."""
        return self.busy / max(time.perf_counter() - self.started, 1e-9)


@dataclass(frozen=True)
class _Read:
    """What the reading thread found: a picture, or the rows of one too large for memory, or why there is none."""

    picture: Picture | None = None
    rows: Rows | None = None
    input_hash: str = ""
    done: bool = False
    error: str = ""


def restore_files(
    jobs: Sequence[Job],
    folder: Path,
    treatment: Treatment,
    experts: Experts,
    how: Output | None = None,
    *,
    existing: Existing = "recorded",
    max_pixels: int = MAX_PIXELS,
    whole_bytes: float | None = None,
    clock: Clock | None = None,
    progress: Callable[[Job, float], None] | None = None,
    shown: Callable[[Job, Repaired, Picture], None] | None = None,
) -> Iterator[Result]:
    """Restore pictures one after another; the next is read and the last one written meanwhile.

    A failure becomes a result and the rest goes on. Interrupted by an exception, what is being written is finished.

    Args:
        folder: where the records are; it is made, as are those of the results.
        existing: what becomes of results that are there: "recorded" leaves those alone that a record shows to be
            made from the same input with the same settings, and refuses others; "skip" leaves all alone;
            "overwrite" makes all again.
        whole_bytes: pictures that would take more memory are restored and written in strips; None is a share of what
            is free now.
        progress: called with the job and the share of it that is done.
        shown: called with the input and what became of it, before it is written; not for those in strips.

    Raises:
        OutputError: when nothing more can be written: disk full, folder gone or read-only.
    """
    how, clock = how or Output(), clock or Clock()
    with _stopping(folder):
        folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder)
    precision = resolve_precision(treatment.precision, experts.device)
    settings = settings_digest(treatment, how, precision)
    for parent in {job.target.parent for job in jobs}:
        for leftover in temporaries(parent) if parent.is_dir() else ():  # of a run that was killed
            leftover.unlink(missing_ok=True)

    room = WHOLE_SHARE * free_memory(torch.device("cpu")) if whole_bytes is None else whole_bytes
    scale = _likely_scale(treatment, experts)

    def is_large(height: int, width: int) -> bool:
        return bytes_whole(height, width, scale) > room

    def read_next(job: Job) -> _Read:
        def is_done(found: str) -> bool:
            return existing != "overwrite" and records.show(job, found, settings, experts)

        return _read(job, max_pixels, is_done, is_large, why_whole(treatment))

    writing: Future[Result] | None = None

    def written() -> Iterator[Result]:
        nonlocal writing
        if writing is not None:
            done, writing = writing.result(), None
            records.add(done)
            yield done

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        upcoming = [reader.submit(read_next, job) for job in jobs[:1]]
        for number, job in enumerate(jobs):
            read = upcoming.pop().result()
            upcoming = [reader.submit(read_next, following) for following in jobs[number + 1 : number + 2]]
            result = _prepared(job, read, treatment, records, settings, precision, existing)
            if result.status == "begun" and read.rows is not None:
                yield from written()
                records.add(result)
                result = _in_strips(
                    job, read.rows, result, treatment, experts, how, min(STRIP_BYTES, room), clock, progress
                )
                if shown is not None:
                    result = replace(result, notes=(*result.notes, "too large to be shown side by side"))
                records.add(result)
                yield result
                continue
            repaired = None
            if read.rows is not None:
                read.rows.close()
            elif result.status == "begun" and read.picture is not None:
                result, repaired = _one(job, read.picture, result, treatment, experts, clock, progress)
            yield from written()  # one at a time: results do not pile up in memory
            if repaired is None or read.picture is None:
                if result.status != "skipped":
                    records.add(result)
                yield result
                continue
            if shown is not None:
                shown(job, repaired, read.picture)
            records.add(replace(result, status="begun"))
            as_it_is = result.status == "unchanged" and _same_format(job.target, read.picture.format, how)
            writing = writer.submit(_copy if as_it_is else _write, job, result, repaired, how)
        yield from written()


def _likely_scale(treatment: Treatment, experts: Experts) -> float:
    """By how much pictures will be enlarged, before any is looked at."""
    wanted = treatment.outscale or treatment.wish.scale
    if treatment.model is None:
        return wanted
    try:
        return max(wanted, experts.get(treatment.model).config.upscale)
    except (ValueError, OSError):  # to be told with each picture
        return wanted


def _read(
    job: Job,
    max_pixels: int,
    is_done: Callable[[str], bool],
    is_large: Callable[[int, int], bool],
    not_in_strips: str | None,
) -> _Read:
    input_hash = ""
    try:
        if job.source.is_file():  # of anything else the reader says what it is
            with job.source.open("rb") as file:
                input_hash = hashlib.file_digest(file, "sha256").hexdigest()
            if is_done(input_hash):
                return _Read(input_hash=input_hash, done=True)
            if not_in_strips is None and (rows := open_rows(job.source, max_pixels=max_pixels, wanted=is_large)):
                return _Read(rows=rows, input_hash=input_hash)
        picture = read_picture(job.source, max_pixels=max_pixels)
        if not is_large(*picture.pixels.shape[:2]):
            return _Read(picture, input_hash=input_hash)
        if not_in_strips is None:
            return _Read(rows=rows_of(picture), input_hash=input_hash)
        return _Read(replace(picture, notes=(*picture.notes, f"large: {not_in_strips}")), input_hash=input_hash)
    except ImageError as error:
        return _Read(input_hash=input_hash, error=str(error))
    except (OSError, MemoryError) as error:
        return _Read(input_hash=input_hash, error=f"{named(job.source)}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _prepared(
    job: Job,
    read: _Read,
    treatment: Treatment,
    records: Records,
    settings: str,
    precision: str,
    existing: Existing,
) -> Result:
    """What is known before the work; "begun" where there is work to do."""
    result = Result(
        input=str(job.source),
        output=str(job.target),
        status="failed",
        input_sha256=read.input_hash,
        settings=settings,
        precision=precision,
        tile=treatment.tile,
        replaces=_state(job.target),
    )
    if read.done:
        return replace(result, status="skipped", error="done before")
    found = read.rows or read.picture
    if found is None:
        return replace(result, error=read.error)
    height, width = (found.height, found.width) if isinstance(found, Rows) else found.pixels.shape[:2]
    result = replace(result, width=width, height=height, notes=found.notes)
    if result.replaces is not None and existing != "overwrite":
        row = records.last.get(result.output)
        differs = "was made from another input or with other settings" if row else "is there, and not by this command"
        if existing == "skip":
            return replace(result, status="skipped", error=f"{named(job.target)} {differs}")
        return replace(
            result, error=f"{named(job.target)} {differs}; --overwrite makes it again, --skip-existing leaves it"
        )
    return replace(result, status="begun")


def _one(
    job: Job,
    picture: Picture,
    result: Result,
    treatment: Treatment,
    experts: Experts,
    clock: Clock,
    progress: Callable[[Job, float], None] | None,
) -> tuple[Result, Repaired | None]:
    """Restore one picture; the result is not written yet."""
    start = time.perf_counter()
    try:
        repaired = repair(picture, treatment, experts, progress=_of_job(job, progress))
    except (MemoryError, RuntimeError, ValueError, OSError) as error:
        return replace(result, status="failed", error=_failure(job, error)), None
    finally:
        clock.busy += time.perf_counter() - start
    height, width = repaired.picture.pixels.shape[:2]
    result = _done(result, repaired, height, width, experts, picture.pixels.shape[:2])
    return replace(result, seconds=time.perf_counter() - start), repaired


def _in_strips(
    job: Job,
    rows: Rows,
    result: Result,
    treatment: Treatment,
    experts: Experts,
    how: Output,
    strip_bytes: float,
    clock: Clock,
    progress: Callable[[Job, float], None] | None,
) -> Result:
    """Restore and write a picture too large for memory."""
    start = time.perf_counter()
    try:
        plan = make_plan(rows, treatment, experts)
        height, width = plan.of(rows)
        result = _done(result, plan, height, width, experts, (rows.height, rows.width))
        with _stopping(job.target):
            job.target.parent.mkdir(parents=True, exist_ok=True)
            if result.status == "unchanged" and _same_format(job.target, rows.format, how):
                _copy_file(job)
                return replace(result, seconds=time.perf_counter() - start)
            lost = repair_rows(
                rows,
                plan,
                job.target,
                treatment,
                experts,
                quality=_quality(job.target, how),
                keep_metadata=how.keep_metadata,
                strip_bytes=strip_bytes,
                progress=_of_job(job, progress),
            )
    except OutputError:
        raise
    except (MemoryError, RuntimeError, ValueError, OSError) as error:
        return replace(result, status="failed", error=_failure(job, error))
    finally:
        clock.busy += time.perf_counter() - start
        rows.close()
    return replace(result, seconds=time.perf_counter() - start, notes=(*result.notes, *lost))


def _of_job(job: Job, progress: Callable[[Job, float], None] | None) -> Callable[[float], None] | None:
    return None if progress is None else lambda share: progress(job, share)


def _failure(job: Job, error: Exception) -> str:
    """What to say of an error; those of programming pass."""
    if isinstance(error, ImageError):  # which names the file
        return str(error)
    if isinstance(error, MemoryError | RuntimeError):
        if not out_of_memory(error):
            raise error
        advice = "a smaller model, --precision bf16 or another --device would help"
        return f"{named(job.source)}: {_reason(error)}; {advice}"
    return f"{named(job.source)}: {_reason(error)}"


def _done(
    result: Result, made: Repaired | Plan, height: int, width: int, experts: Experts, before: tuple[int, ...]
) -> Result:
    """The record of a picture that passes, or a change of size, have made."""
    return replace(
        result,
        status="restored" if made.passes or (height, width) != before else "unchanged",
        output_width=width,
        output_height=height,
        experts=tuple((step.weights, experts.sha256(step.weights)) for step in made.passes),
        findings=made.findings,
    )


def _same_format(target: Path, name: str, how: Output) -> bool:
    """Whether a picture that needs nothing can stay the very file it is."""
    return can_hold(target.suffix).name == name and how.quality is None and how.keep_metadata


def _copy(job: Job, result: Result, _repaired: Repaired, _how: Output) -> Result:
    with _stopping(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(job)
    return result


def _copy_file(job: Job) -> None:
    with atomic_path(job.target) as temporary:
        shutil.copyfile(job.source, temporary)


def _write(job: Job, result: Result, repaired: Repaired, how: Output) -> Result:
    with _stopping(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _stopping(job.target):
            lost = write_picture(
                job.target, repaired.picture, quality=_quality(job.target, how), keep_metadata=how.keep_metadata
            )
    except OutputError:
        raise
    except (ValueError, OSError, MemoryError) as error:
        return replace(result, status="failed", error=f"{named(job.target)}: {_reason(error)}")
    return replace(result, notes=(*result.notes, *lost))


def _quality(target: Path, how: Output) -> int | None:
    """The quality for formats that have one."""
    return how.quality if can_hold(target.suffix).takes_quality else None


def expert_names(result: Result) -> str:
    """The experts of a result for a line of text."""
    return ", ".join(describe(name) for name, _ in result.experts)

"""Files and folders of real pictures in, the same out: one after another, one record each, nothing lost."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from swinir.atomic import atomic_path, temporaries
from swinir.image_io.picture import Picture, Rows, rows_of
from swinir.image_io.reader import MAX_PIXELS, ImageError, named, open_rows, read_picture
from swinir.image_io.writer import can_hold, write_picture
from swinir.inference.forward import out_of_memory
from swinir.inference.memory import free_memory
from swinir.models.optimized import resolve_precision
from swinir.photos.jobs import Job, Output
from swinir.photos.large import STRIP_BYTES, bytes_whole, make_plan, repair_rows, why_whole
from swinir.photos.manifest import OutputError, Records, Result, settings_digest, state_of, stopping
from swinir.photos.restore_photo import Decision, Experts, Repaired, Treatment, describe, repair

WHOLE_SHARE = 0.4  # of the memory that is free at first, that a picture held whole may take
Existing = Literal["recorded", "skip", "overwrite"]


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
    with stopping(folder):
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
        replaces=state_of(job.target),
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
    result = _done(result, repaired.decision, height, width, experts, picture.pixels.shape[:2])
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
        result = _done(result, plan.decision, height, width, experts, (rows.height, rows.width))
        with stopping(job.target):
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
    result: Result, decision: Decision, height: int, width: int, experts: Experts, before: tuple[int, ...]
) -> Result:
    """The record of a picture that passes, or a change of size, have made."""
    measured = decision.measured
    return replace(
        result,
        status="restored" if decision.passes or (height, width) != before else "unchanged",
        output_width=width,
        output_height=height,
        experts=tuple((step.weights, experts.sha256(step.weights)) for step in decision.passes),
        findings=decision.findings,
        noise_level=None if measured is None else round(measured.noise_level, 1),
        jpeg_quality=None if measured is None else measured.jpeg_quality,
    )


def _same_format(target: Path, name: str, how: Output) -> bool:
    """Whether a picture that needs nothing can stay the very file it is."""
    return can_hold(target.suffix).name == name and how.quality is None and how.keep_metadata


def _copy(job: Job, result: Result, _repaired: Repaired, _how: Output) -> Result:
    with stopping(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(job)
    return result


def _copy_file(job: Job) -> None:
    with atomic_path(job.target) as temporary:
        shutil.copyfile(job.source, temporary)


def _write(job: Job, result: Result, repaired: Repaired, how: Output) -> Result:
    with stopping(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with stopping(job.target):
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

"""Files and folders of photographs: read, restore and write stages that run side by side, one record for each image.

An image that cannot be restored is recorded as failed, and the next one follows. Outputs are written atomically.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from swinir.atomic import atomic_path, leftovers
from swinir.image_io.canvas import Workspace
from swinir.image_io.picture import Picture
from swinir.image_io.reader import MAX_PIXELS, ImageError, named, read_picture
from swinir.image_io.writer import can_hold, write_picture
from swinir.inference.forward import out_of_memory
from swinir.inference.memory import free_memory
from swinir.locks import POLL, FolderLock
from swinir.models.optimized import resolve_precision
from swinir.photos.jobs import Job, Output
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.manifest import OutputError, Records, Result, raise_output_errors, settings_digest, state_of
from swinir.photos.restore_photo import Decision, Treatment, bytes_needed, decide, restore_photo
from swinir.weights.verify import sha256

MEMORY_SHARE = 0.25  # of the free memory, for images
COMPARISON_BYTES = 60  # for each output pixel, to show the input beside it
Existing = Literal["recorded", "skip", "overwrite"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """Handling of existing outputs and of large images.

    Attributes:
        existing: "recorded" skips outputs whose record has the same input and settings, and refuses to replace
            others; "skip" skips all; "overwrite" replaces all.
        recorded: False writes no records.
        max_pixels: larger inputs are refused.
        memory_limit: bytes of memory for images; what exceeds it goes into temporary files in the output folder. None
            is a share of the free memory.
    """

    existing: Existing = "recorded"
    recorded: bool = True
    max_pixels: int = MAX_PIXELS
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        if self.max_pixels <= 0:
            raise ValueError(f"max_pixels must be positive, got {self.max_pixels}")


@dataclass
class Clock:
    """Time spent in the restore stage, and in all, in seconds."""

    busy: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def utilisation(self) -> float:
        """Share of the time in which networks computed."""
        return self.busy / max(time.perf_counter() - self.started, 1e-9)


@dataclass(frozen=True)
class Item:
    """An image on its way through the stages.

    Attributes:
        result: its record so far; "begun" where there is work to do.
        picture: the input; None if it is not to be restored.
        restored: the output; None before it is made, or if it could not be made.
    """

    job: Job
    result: Result
    picture: Picture | None = None
    restored: Picture | None = None


def restore_files(
    jobs: Iterable[Job],
    folder: Path,
    treatment: Treatment,
    models: LoadedModels,
    output: Output | None = None,
    policy: Policy | None = None,
    *,
    clock: Clock | None = None,
    planned: Callable[[Job, Picture, Decision], None] | None = None,
    progress: Callable[[Job, float], None] | None = None,
    shown: Callable[[Item], None] | None = None,
) -> Iterator[Result]:
    """Restore images one after another; the next is read and the last one written meanwhile.

    Several processes may restore into one folder: each image is restored by one of them, and each ends when all of its
    images are done. After an interruption by an exception, the output that is being written is finished.

    Args:
        folder: for the records and temporary files; it is made, as are the folders of outputs.
        planned: called with the job, its image and what will be done with it, before that begins.
        progress: called with the job and the share of it that is done.
        shown: called with each restored image before it is written, unless it is too large to be shown.

    Raises:
        OutputError: when nothing more can be written: disk full, folder gone or read-only.
    """
    batch = Batch(folder, treatment, models, output or Output(), policy or Policy())
    try:
        batch.open()
        yield from batch.run(jobs, clock or Clock(), planned, progress, shown)
    finally:
        batch.lock.close()


def _restore_each(
    batch: "Batch",
    jobs: Iterable[Job],
    elsewhere: list[Job],
    clock: Clock,
    planned: Callable[[Job, Picture, Decision], None] | None,
    progress: Callable[[Job, float], None] | None,
    shown: Callable[[Item], None] | None,
) -> Iterator[Result]:
    """Restore the images that no other run works on, and list the others in `elsewhere`."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        upcoming = ((job, reader.submit(batch.read, job)) for job in jobs)
        reading = next(upcoming, None)
        writing: list[Future[Result]] = []
        while reading is not None:
            job, item = reading[0], reading[1].result()
            reading = next(upcoming, None)
            start = time.perf_counter()
            if item is not None and item.picture is not None:
                item = batch.restore(item, planned, progress and partial(progress, job))
            clock.busy += time.perf_counter() - start
            if writing:  # one output at a time, so that outputs do not pile up in memory
                yield batch.record(writing.pop().result())
            if item is None:
                elsewhere.append(job)
                continue
            if item.restored is None:
                yield batch.record(item.result)
                continue
            if shown is not None:
                item = batch.show(item, shown)
            batch.record(replace(item.result, status="begun"))
            writing.append(writer.submit(batch.write, item))
            del item
        if writing:
            yield batch.record(writing.pop().result())


class Batch:
    """The stages of a run, and what they share."""

    def __init__(
        self, folder: Path, treatment: Treatment, models: LoadedModels, output: Output, policy: Policy
    ) -> None:
        self.folder, self.treatment, self.models, self.output, self.policy = folder, treatment, models, output, policy
        limit = policy.memory_limit
        if limit is None:
            limit = MEMORY_SHARE * free_memory(torch.device("cpu"))
        self.workspace = Workspace(folder, limit)
        self.lock = FolderLock(folder)
        self._tidied: set[Path] = set()  # folders of outputs without files of killed runs
        self.precision = resolve_precision(treatment.run.precision, models.device)
        self.settings = settings_digest(treatment, output, self.precision)

    def open(self) -> None:
        """Make the folder, and load the records."""
        with raise_output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.lock.share()
        self.records = self.load_records()
        if self.records.ignored:
            place = named(self.records.path)
            logger.warning("%s: %d lines are no records and were ignored", place, self.records.ignored)

    def load_records(self) -> Records:
        """Read the records of earlier runs."""
        return Records(self.folder)

    def run(
        self,
        jobs: Iterable[Job],
        clock: Clock,
        planned: Callable[[Job, Picture, Decision], None] | None = None,
        progress: Callable[[Job, float], None] | None = None,
        shown: Callable[[Item], None] | None = None,
    ) -> Iterator[Result]:
        """Restore images, and wait for those that other runs work on; the arguments are those of `restore_files`."""
        elsewhere: list[Job] = []  # images that other runs work on
        yield from _restore_each(self, jobs, elsewhere, clock, planned, progress, shown)
        if elsewhere:
            logger.warning("waiting for another run, which restores %s", named(elsewhere[0].source))
        while elsewhere:
            time.sleep(POLL)
            waiting, elsewhere = elsewhere, []
            yield from _restore_each(self, waiting, elsewhere, clock, planned, progress, shown)

    def _remove_leftovers(self, folder: Path) -> None:
        """Remove temporary files of runs that were killed, once for each folder of outputs."""
        if folder not in self._tidied and folder.is_dir():
            with self.lock.alone() as alone:
                for leftover in leftovers(folder, of_others=alone):
                    leftover.unlink(missing_ok=True)
        self._tidied.add(folder)

    def record(self, result: Result) -> Result:
        """Write the record of an image, unless there is to be none, and give up the claim on it when it is done."""
        if result.status != "skipped" and self.policy.recorded:
            self.records.add(result)
        if result.status != "begun":
            self.lock.release(_claim(Path(result.output)))
        return result

    def begin(self, job: Job) -> Result | None:
        """Claim an output and hash its input; None if another run works on it.

        Returns:
            A record that is "begun"; "skipped" if the output is there already, "failed" if the input cannot be read.
        """
        self._remove_leftovers(job.target.parent)
        if not self.lock.claim(_claim(job.target)):
            return None
        self.records.refresh()
        result = Result(
            input=str(job.source),
            output=str(job.target),
            status="begun",
            settings=self.settings,
            precision=self.precision,
            strength=self.treatment.strength,
            tile=self.treatment.run.tile,
            replaces=state_of(job.target),
        )
        try:
            if job.source.is_file():  # the reader explains what else it may be
                digest = sha256(job.source)
                result = replace(result, input_sha256=digest)
                if self.policy.existing != "overwrite" and self.records.is_done(
                    job, digest, self.settings, self.models
                ):
                    return replace(result, status="skipped", error="done before")
        except OSError as error:
            return replace(result, status="failed", error=f"{named(job.source)}: {reason(error)}")
        return result

    def allow(self, job: Job, result: Result) -> Result:
        """Skip or refuse a job whose output is there and was not asked to be replaced."""
        if result.replaces is None or self.policy.existing == "overwrite":
            return result
        differs = self._difference(job, result)
        if self.policy.existing == "skip":
            return replace(result, status="skipped", error=f"{named(job.target)} {differs}")
        advice = "--overwrite makes it again, --skip-existing leaves it, --suffix names another"
        return replace(result, status="failed", error=f"{named(job.target)} {differs}; {advice}")

    def read(self, job: Job) -> Item | None:
        """Read an image, unless its output is there already; None if another run works on it."""
        result = self.begin(job)
        if result is None or result.status != "begun":
            return None if result is None else Item(job, result)
        try:
            picture = read_picture(job.source, max_pixels=self.policy.max_pixels, workspace=self.workspace)
        except ImageError as error:
            return Item(job, replace(result, status="failed", error=str(error)))
        except (OSError, MemoryError) as error:
            return Item(job, replace(result, status="failed", error=f"{named(job.source)}: {reason(error)}"))
        height, width = picture.pixels.shape[:2]
        result = self.allow(job, replace(result, width=width, height=height, notes=picture.notes))
        return Item(job, result, picture if result.status == "begun" else None)

    def _difference(self, job: Job, result: Result) -> str:
        """Say how an output that is there differs from the one that was asked for."""
        maker = self.records.maker(job.target)
        if maker is None:
            return "is there, and not by this command"
        if maker.output_sha256 and sha256(job.target) != maker.output_sha256:
            return "was changed since it was made"
        return "was made from another input or with other settings"

    def restore(
        self,
        item: Item,
        planned: Callable[[Job, Picture, Decision], None] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Item:
        """Restore an image in memory, or in temporary files if it is large."""
        assert item.picture is not None
        job, picture, start = item.job, item.picture, time.perf_counter()
        try:
            decision = decide(picture, self.treatment, self.models)
            self._reserve(job, bytes_needed(picture, decision, self.treatment, self.models))
            if planned is not None:
                planned(job, picture, decision)
            with raise_output_errors(self.folder):
                restored = restore_photo(
                    picture, decision, self.treatment, self.models, self.workspace, progress=progress
                )
        except OutputError:
            raise
        except (MemoryError, RuntimeError, ValueError, OSError) as error:
            return replace(item, result=replace(item.result, status="failed", error=failure(job, error)))
        result = self.described(item.result, decision, picture)
        return replace(item, result=replace(result, seconds=time.perf_counter() - start), restored=restored)

    def _reserve(self, job: Job, size: int) -> None:
        """Check the space for temporary files, and announce them, before the work."""
        self.workspace.require(size)
        if not self.workspace.fits(size):
            logger.warning(
                "%s is too large for memory: up to %.1f GB of temporary files in %s",
                named(job.source), size / 1e9, named(self.folder),
            )  # fmt: skip

    def described(self, result: Result, decision: Decision, picture: Picture) -> Result:
        height, width = decision.size
        changed = decision.models or decision.size != picture.pixels.shape[:2]
        measured = decision.measured
        engines = [self.models.engine(*step) for step in decision.steps] or [("", result.precision)]
        engine, precision = (", ".join(dict.fromkeys(words)) for words in zip(*engines, strict=True))
        return replace(
            result,
            engine=engine,
            precision=precision,
            status="restored" if changed else "unchanged",
            output_width=width,
            output_height=height,
            experts=tuple((name, self.models.sha256(name)) for name in decision.models),
            findings=decision.findings,
            notes=(*result.notes, *decision.notes),
            noise_level=None if measured is None else round(measured.noise_level, 1),
            jpeg_quality=None if measured is None else measured.jpeg_quality,
        )

    def show(self, item: Item, shown: Callable[[Item], None]) -> Item:
        """Show an image before it is written, or note that it is too large."""
        assert item.restored is not None
        if math.prod(item.restored.pixels.shape[:2]) * COMPARISON_BYTES <= self.workspace.memory_limit:
            shown(item)
            return item
        notes = (*item.result.notes, "too large to be shown side by side")
        return replace(item, result=replace(item.result, notes=notes))

    def write(self, item: Item) -> Result:
        """Write the output."""
        assert item.picture is not None
        assert item.restored is not None
        target = item.job.target
        try:
            with raise_output_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                lost = write_output(item.job.source, target, item.picture, item.restored, self.output, self.workspace)
                digest = sha256(target)
        except OutputError:
            raise
        except (ValueError, OSError, MemoryError) as error:
            return replace(item.result, status="failed", error=f"{named(target)}: {reason(error)}")
        return replace(item.result, notes=(*item.result.notes, *lost), output_sha256=digest)


def write_output(
    source: Path | None, target: Path, picture: Picture, restored: Picture, output: Output, workspace: Workspace
) -> tuple[str, ...]:
    """Write a restored image; its file is copied if it needs no repair and no other format was asked for.

    Args:
        source: file of the image; None if it comes from none.

    Returns:
        A note for each thing that the format cannot hold.
    """
    target_format = can_hold(target.suffix)
    same_format = target_format.name == picture.format and output.quality is None and output.keep_metadata
    if source is not None and restored is picture and same_format:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        return ()
    return write_picture(
        target,
        restored,
        quality=output.quality if target_format.takes_quality else None,
        keep_metadata=output.keep_metadata,
        workspace=workspace,
    )


def _claim(target: Path) -> str:
    """Name an output in the same way from any current folder."""
    return str(target.resolve())


def reason(error: BaseException) -> str:
    """One line for an error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def failure(job: Job, error: Exception) -> str:
    """The message for an image that could not be restored. Errors of programming are raised."""
    if isinstance(error, MemoryError | RuntimeError):
        if not out_of_memory(error):
            raise error
        advice = "a smaller model, --precision bf16 or another --device would help"
        return f"{named(job.source)}: {reason(error)}; {advice}"
    return f"{named(job.source)}: {reason(error)}"

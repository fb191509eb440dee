"""Files to restore and the names of their outputs, known before the work begins."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinir.image_io.errors import absence
from swinir.image_io.reader import EXTENSIONS, named
from swinir.image_io.writer import can_hold
from swinir.photos.loaded_models import short_name
from swinir.photos.restore_photo import Treatment


@dataclass(frozen=True)
class Output:
    """Names and formats of outputs.

    Attributes:
        suffix: added to the stem of the name; None adds the request.
        request: as `describe_request` names it, so that outputs for different requests have different names.
        extension: such as "png"; "auto" keeps that of the input where it can be written, else takes .png.
        quality: of JPEG, WebP and AVIF, 1 to 100; None is the default of the format.
        keep_metadata: EXIF, XMP and resolution; the colour profile is always kept.
    """

    suffix: str | None = None
    extension: str = "auto"
    quality: int | None = None
    keep_metadata: bool = True
    request: str = ""

    def __post_init__(self) -> None:
        if self.suffix and ("/" in self.suffix or "\0" in self.suffix):
            raise ValueError(f"suffix must be part of a file name, got {self.suffix!r}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be from 1 to 100, got {self.quality}")
        if self.extension != "auto":
            can_hold(f".{self.extension}")

    def name(self, source: Path) -> str:
        """Return the name of the output for an input."""
        extension = f".{self.extension}"
        if self.extension == "auto":
            extension = source.suffix
            try:
                can_hold(extension)
            except ValueError:
                extension = ".png"
        return f"{source.stem}{self.request if self.suffix is None else self.suffix}{extension}"


def describe_request(treatment: Treatment) -> str:
    """Return what names of outputs state about a request, such as "_x2_noise25"; "" if nothing was asked for."""
    wish, model = treatment.wish, treatment.model
    numbers = (("x", treatment.outscale), ("noise", wish.noise), ("jpeg", wish.jpeg))
    parts = [f"{kind}{number:g}" for kind, number in numbers if number is not None]
    parts += [word for word in (wish.task, model and Path(short_name(model)).stem) if word]
    if treatment.strength != Treatment.strength:
        parts.append(f"strength{treatment.strength:g}")
    return "".join(f"_{part}" for part in parts)


@dataclass(frozen=True)
class Job:
    """An input file and its output file."""

    source: Path
    target: Path


def plan_jobs(inputs: Sequence[Path], output: Path, naming: Output, *, recursive: bool = False) -> list[Job]:
    """List the jobs for files and folders. No image is opened.

    Args:
        inputs: files, whatever their suffix, and folders, of which the files with the suffix of an image are taken.
        output: folder for the outputs; for a single input file also the name of its output.
        recursive: also take subfolders; their layout is kept.

    Raises:
        FileNotFoundError: for an input that is not there.
        ValueError: for a folder without images, the name of one output for several inputs, an output inside an input
            folder, two inputs with one output, an input that would be replaced.
    """
    if len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir() and output.suffix != "":
        can_hold(output.suffix)
        jobs = [Job(inputs[0], output)]
    elif not output.is_dir() and output.suffix.lower() in EXTENSIONS:
        reason = f"{len(inputs)} inputs are given" if len(inputs) > 1 else f"{named(inputs[0])} is a folder"
        raise ValueError(f"{named(output)} is the name of one image, and {reason}; name a folder with -o")
    else:
        jobs = [job for given in inputs for job in _jobs_of(given, output, naming, recursive)]
    for given in inputs:
        if not os.path.lexists(given):
            raise FileNotFoundError(f"{named(given)} is {absence(given)}")
    _check(jobs)
    return jobs


def _jobs_of(given: Path, output: Path, naming: Output, recursive: bool) -> list[Job]:
    if not given.is_dir():
        return [Job(given, output / naming.name(given))]
    folder = given.resolve()
    if output.resolve() == folder and not naming.suffix:
        raise ValueError(f"{named(output)} is the input folder itself; name another with -o, or a --suffix")
    if recursive and output.resolve() != folder and output.resolve().is_relative_to(folder):
        raise ValueError(f"{named(output)} lies inside the input folder {named(given)}; name another with -o")
    files = sorted(path for path in _files(given, recursive) if path.suffix.lower() in EXTENSIONS)
    if not files:
        below = "" if recursive else "; -r also takes subfolders"
        raise ValueError(f"no images in {named(given)}{below}")
    return [Job(path, output / path.relative_to(given).parent / naming.name(path)) for path in files]


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    """Files that are not hidden; links to folders are not followed."""
    if not recursive:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
        return
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in names if not name.startswith("."))


def _check(jobs: Sequence[Job]) -> None:
    """Refuse jobs that would replace an input or the output of another job."""
    sources = {job.source.resolve(): job.source for job in jobs if job.source.exists()}
    seen: dict[str, Job] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise ValueError(
                f"the output for {named(job.source)} would replace the input {named(sources[target])}; "
                "name another folder with -o, or a --suffix"
            )
        same = str(target).casefold()  # some file systems ignore case
        if same in seen and seen[same].source.resolve() != job.source.resolve():
            raise ValueError(
                f"{named(seen[same].source)} and {named(job.source)} would both become {named(job.target)}; "
                "restore them into folders of their own"
            )
        seen[same] = job

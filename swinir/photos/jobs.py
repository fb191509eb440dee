"""Files to restore and the names of their outputs, known before the work begins."""

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinir.image_io.errors import absence
from swinir.image_io.reader import EXTENSIONS, named
from swinir.image_io.writer import can_hold
from swinir.photos.loaded_models import short_name
from swinir.photos.restore_photo import Treatment
from swinir.weights.multitask import split_name, stem


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
    stated = model and (stem(model) if split_name(model)[1] else Path(short_name(model)).stem)
    parts += [word for word in (wish.task, stated) if word]
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
    check_folders(named(given), named(output), str(given.resolve()), str(output.resolve()), naming, recursive)
    files = sorted(given / below / name for below, names in image_folders(given, recursive) for name in names)
    if not files:
        raise no_images(named(given), recursive)
    return [Job(path, output / path.relative_to(given).parent / naming.name(path)) for path in files]


def check_folders(
    given: str, output: str, given_place: str, output_place: str, naming: Output, recursive: bool
) -> None:
    """Refuse an output folder among the inputs.

    Args:
        given, output: names for messages.
        given_place, output_place: absolute paths or URLs.

    Raises:
        ValueError: with the way out.
    """
    if output_place == given_place and not naming.suffix:
        raise ValueError(f"{output} is the input folder itself; name another with -o, or a --suffix")
    if recursive and output_place.startswith(given_place.rstrip("/") + "/"):
        raise ValueError(f"{output} lies inside the input folder {given}; name another with -o")


def no_images(given: str, recursive: bool) -> ValueError:
    """Return the error for a folder without images."""
    return ValueError(f"no images in {given}" + ("" if recursive else "; -r also takes subfolders"))


def is_image(name: str) -> bool:
    """Tell whether a file in a folder is taken: it is not hidden, and has the suffix of an image."""
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def image_folders(folder: Path, recursive: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each subfolder that is not hidden, by its path in the folder, with the sorted names of its images.

    Links to folders are not followed.
    """
    os.scandir(folder).close()  # raises an OSError; `walk` yields nothing instead
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        yield os.path.relpath(root, folder), sorted(name for name in names if is_image(name))


@dataclass(frozen=True)
class Shard:
    """One of several parts of the jobs, such as for the machines of a cluster.

    The name of an output decides its part, so that files that come or go meanwhile move no others.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "I/N".

        Raises:
            ValueError: unless I is from 1 to N.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise ValueError(f"--shard must be I/N with I from 1 to N, such as 3/16, got {text!r}")
        return cls(int(number), int(of))

    def __contains__(self, target: object) -> bool:
        return zlib.crc32(os.fsencode(str(target))) % self.of == self.number - 1


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

"""Which files are restored, and where each result goes: planned before the work."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinir.image_io.reader import EXTENSIONS, named
from swinir.image_io.writer import can_hold


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

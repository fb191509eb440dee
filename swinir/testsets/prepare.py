"""Preparation of a set: copy its images from a user's folder or archive, and make missing low-quality images.

    source_images -> candidates (role, pixels) -> targets (one for each image) -> copies -> low-quality images

Files are copied unchanged and never overwritten, so that the same call continues an interrupted one.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from swinir.atomic import atomic_path
from swinir.image_io.image import list_images, read
from swinir.image_io.reader import ImageError, named
from swinir.testsets.pairs import find_lq, fits, lq_name, write_reduced
from swinir.testsets.sets import BenchmarkSet, known_files, pixel_hash
from swinir.testsets.sources import Role, role_in, role_of, set_of, source_images
from swinir.weights.verify import sha256

MAX_PIXELS = 100_000_000  # of one image; the largest of these sets has four million
Progress = Callable[[str, int, int | None], None]


@dataclass
class Outcome:
    """The result of a preparation.

    Attributes:
        copied, there: files that were copied, and that existed already.
        moved: number of images that lay in the set's folder itself, and were moved into HR.
        made: number of low-quality images that were made.
        left_out: files of the source that were not used, by reason.
        failed: a message for each file that could not be read or written.
    """

    copied: set[Path] = field(default_factory=set)
    there: set[Path] = field(default_factory=set)
    moved: int = 0
    made: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def leave_out(self, label: PurePosixPath, reason: str) -> None:
        """Record a file of the source that is not used; control characters in its name are escaped."""
        self.left_out.setdefault(reason, []).append(named(Path(label)))


@dataclass(frozen=True)
class _Candidate:
    """An image of the source that may belong to the set; `number` is its place in the source."""

    number: int
    label: PurePosixPath
    role: Role
    sha256: str
    pixels: str
    size: tuple[int, int]
    known: bool = False

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Preference among images of one name: known pixels, then lossless formats, then more pixels."""
        return self.known, self.label.suffix.lower() not in (".jpg", ".jpeg"), self.size[0] * self.size[1]


def prepare(
    row: BenchmarkSet,
    source: Path | None,
    root: Path,
    *,
    scales: Sequence[int] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Outcome:
    """Copy a set into a folder of sets, and make the low-quality images that are missing.

    Ground truths of a set with scales that lie in the set's folder itself are moved into its subfolder HR.

    Args:
        source: folder or archive to copy from; None only makes low-quality images.
        scales: of the low-quality images to make; those of the set by default.
        progress: called with the name of a stage, the number of files done, and the number of all files.

    Raises:
        ValueError, FileNotFoundError: for a source that cannot be read or has no image of the set.
        OSError: if the folder cannot be written.
    """
    outcome = Outcome()
    if row.scales:
        outcome.moved = _move_into_hr(row, root)
    if source is not None and not (outcome.moved and source.resolve() == (root / row.name).resolve()):
        images = _candidates(row, source, outcome, progress)
        targets = _targets(row, root, images, outcome)
        if not targets:
            reasons = (f"; {len(files)} files were not used: {reason}" for reason, files in outcome.left_out.items())
            raise ValueError(f"{source} holds no images of {row.name}{''.join(reasons)}")
        _copy(source, targets, outcome, progress)
    if row.scales:
        _make_low_quality(row, root, row.scales if scales is None else scales, outcome, progress)
    return outcome


def _move_into_hr(row: BenchmarkSet, root: Path) -> int:
    """Move images that lie flat in the folder of a set into HR, which gets its name when all are there."""
    folder = root / row.name
    target, part = folder / "HR", folder / ".HR"
    if target.exists() or not folder.is_dir():
        return 0
    flat = [path for path in list_images(folder) if role_of(PurePosixPath(path.name)) == Role("gt", path.stem)]
    if not flat and not part.is_dir():
        return 0
    part.mkdir(exist_ok=True)
    for path in flat:
        path.rename(part / path.name)
    part.rename(target)
    return len(flat)


def _candidates(row: BenchmarkSet, source: Path, outcome: Outcome, progress: Progress) -> list[_Candidate]:
    """Find the images of a source that may belong to the set, and give them the set's own names."""
    known = {file.pixels: file for file in known_files().get(row.name, ())}
    stems = {stem.lower(): stem for stem in row.stems}
    found, unnamed = [], []
    for number, entry in enumerate(source_images(source)):
        progress("examining", number + 1, None)
        role = role_in(row, entry.label)
        owner = set_of(entry.label)
        if owner is not None and owner is not row:
            outcome.leave_out(entry.label, f"in a folder of {owner.name}")
        elif role.kind == "other" or (role.kind == "lq" and role.scale not in row.lq_scales):
            outcome.leave_out(entry.label, role.reason or "a low-quality image of a scale that is not measured here")
        elif entry.path is None:
            outcome.leave_out(entry.label, entry.reason)
        elif row.names and role.name.lower() not in stems:  # not decoded: BSDS and DIV2K have hundreds of others
            outcome.leave_out(entry.label, f"no image of {row.name} has its name")
        else:
            try:
                image = _candidate(number, entry.label, role, entry.path)
            except (ImageError, OSError) as error:
                reason = str(error).removeprefix(f"{named(entry.path)}: ")
                outcome.failed.append(f"{named(Path(entry.label))}: {reason}")
                continue
            if file := known.get(image.pixels):
                found.append(replace(image, role=role_in(row, PurePosixPath(file.file)), known=True))
            elif not stems or role.name.lower() in stems:
                found.append(replace(image, role=replace(role, name=stems.get(role.name.lower(), role.name))))
            else:
                unnamed.append(image)
    return found + _accept_unnamed(row, found, unnamed, outcome)


def _candidate(number: int, label: PurePosixPath, role: Role, path: Path) -> _Candidate:
    pixels = read(path, max_pixels=MAX_PIXELS)
    return _Candidate(number, label, role, sha256(path), pixel_hash(pixels), (pixels.shape[0], pixels.shape[1]))


def _accept_unnamed(
    row: BenchmarkSet, found: list[_Candidate], unnamed: list[_Candidate], outcome: Outcome
) -> list[_Candidate]:
    """Accept images without known names or pixels if they complete the set exactly."""
    truths = {image.role.name for image in found if image.role.kind == "gt"}
    if len(truths | {image.role.name for image in unnamed}) == row.images:
        return unnamed
    for image in unnamed:
        outcome.leave_out(image.label, f"no image of {row.name} has its name or its pixels")
    return []


def _targets(
    row: BenchmarkSet, root: Path, images: list[_Candidate], outcome: Outcome
) -> dict[int, tuple[Path, _Candidate]]:
    """Choose one image for each name, and its place in the set; by its number in the source."""
    folder = row.gt_folder(root)
    if row.scales and not (folder.is_dir() and list_images(folder)):
        folder = root / row.name / "HR"
    truths = _best([image for image in images if image.role.kind == "gt"], outcome)
    targets = {
        image.number: (folder / f"{name}{image.label.suffix.lower()}", image) for (name, _), image in truths.items()
    }
    sizes = {name: image.size for (name, _), image in truths.items()}
    sizes |= {
        path.stem: _size(path) for path in (list_images(folder) if folder.is_dir() else ()) if path.stem not in sizes
    }
    low_quality = []
    for image in images:
        if image.role.kind == "lq":
            if image.role.name not in sizes:
                outcome.leave_out(image.label, "a low-quality image without its ground truth")
            elif not fits(sizes[image.role.name], image.size, image.role.scale):
                outcome.leave_out(image.label, "not of the size of its reduced ground truth")
            else:
                low_quality.append(image)
    for (name, scale), image in _best(low_quality, outcome).items():
        target = row.lq_folder(root, scale) / lq_name(name, scale)
        targets[image.number] = (target.with_suffix(image.label.suffix.lower()), image)
    return targets


def _best(images: Iterable[_Candidate], outcome: Outcome) -> dict[tuple[str, int], _Candidate]:
    """Choose one image for each name and scale."""
    chosen: dict[tuple[str, int], _Candidate] = {}
    for image in images:
        key = image.role.name, image.role.scale
        rival = chosen.setdefault(key, image)
        if rival is not image:
            chosen[key] = better = max(rival, image, key=lambda i: i.rank)
            outcome.leave_out((rival if better is image else image).label, "another file of the same name is used")
    return chosen


def _size(path: Path) -> tuple[int, int]:
    try:
        height, width = read(path, max_pixels=MAX_PIXELS).shape[:2]
    except ImageError:
        return 0, 0
    return height, width


def _copy(source: Path, targets: dict[int, tuple[Path, _Candidate]], outcome: Outcome, progress: Progress) -> None:
    done = 0
    for number, entry in enumerate(source_images(source)):
        if number not in targets or entry.path is None:
            continue
        target, image = targets[number]
        done += 1
        progress("copying", done, len(targets))
        there = next((p for p in (target, *_siblings(target)) if p.exists()), None)
        if there is not None:
            if _same(there, image):
                outcome.there.add(there)
            else:
                outcome.leave_out(entry.label, f"{target.parent} has another image of its name, which is kept")
            continue
        if sha256(entry.path) != image.sha256:
            outcome.failed.append(f"{named(Path(entry.label))}: changed while it was copied; run the command again")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(entry.path, temporary)
        outcome.copied.add(target)


def _siblings(target: Path) -> list[Path]:
    """Files of the same name in other formats."""
    return [p for p in list_images(target.parent) if p.stem == target.stem] if target.parent.is_dir() else []


def _same(path: Path, image: _Candidate) -> bool:
    if sha256(path) == image.sha256:
        return True
    try:
        return pixel_hash(read(path, max_pixels=MAX_PIXELS)) == image.pixels
    except ImageError:
        return False


def _make_low_quality(
    row: BenchmarkSet, root: Path, scales: Sequence[int], outcome: Outcome, progress: Progress
) -> None:
    folder = row.gt_folder(root)
    images = list_images(folder) if folder.is_dir() else []
    if not images:
        raise FileNotFoundError(f"no images in {folder}; give a folder or archive that holds {row.name}")
    jobs = [(image, scale) for scale in scales for image in images]
    for done, (image, scale) in enumerate(jobs, 1):
        progress("reducing", done, len(jobs))
        lq_folder = row.lq_folder(root, scale)
        if path := find_lq(lq_folder, image.stem, scale):
            outcome.there |= {path} - outcome.copied
            continue
        try:
            os.makedirs(lq_folder, exist_ok=True)
            outcome.made += write_reduced(image, lq_folder / lq_name(image.stem, scale), scale)
        except ValueError as error:
            outcome.failed.append(str(error))

"""From a folder or archive that a user has to the layout of a set: copies, never changed or over what is there.

    entries -> surveyed (what is each, what are its pixels) -> chosen (one for each image) -> copied; then missing
    low-quality images are made

What is there stays, so that the same call goes on where it was stopped.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from swinir.atomic import atomic_path
from swinir.image_io.image import list_images, read
from swinir.image_io.reader import ImageError, named
from swinir.testsets.known import known_files, pixel_hash
from swinir.testsets.naming import Role, role_of, set_of
from swinir.testsets.pairs import find_lq, fits, lq_name, write_reduced
from swinir.testsets.sets import BenchmarkSet
from swinir.testsets.sources import entries
from swinir.weights.verify import sha256

MAX_PIXELS = 100_000_000  # of one image; the largest of these sets has four million
Progress = Callable[[str, int, int | None], None]


@dataclass
class Outcome:
    """What a preparation did.

    Attributes:
        copied, there: files made by copying, and found in place.
        made: how many low-quality images were made.
        left_out: reasons, with the files of the source they hold for.
        failed: files that could not be read or written, a line each.
    """

    copied: set[Path] = field(default_factory=set)
    there: set[Path] = field(default_factory=set)
    made: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def leave_out(self, label: PurePosixPath, reason: str) -> None:
        """Note a file of the source that was not taken; archives may hold names that no terminal should see."""
        self.left_out.setdefault(reason, []).append(named(Path(label)))


@dataclass(frozen=True)
class _Image:
    """An image of the source that may be one of the set: its number there, what it is, what it holds."""

    number: int
    label: PurePosixPath
    role: Role
    sha256: str
    pixels: str
    size: tuple[int, int]
    known: bool = False

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """What makes it the better of two with the same name: known pixels, no loss, more of the picture."""
        return self.known, self.label.suffix.lower() not in (".jpg", ".jpeg"), self.size[0] * self.size[1]


def prepare(
    row: BenchmarkSet,
    source: Path | None,
    root: Path,
    *,
    scales: Sequence[int] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Outcome:
    """Lay out a set under a folder of sets, and make the low-quality images that are missing.

    Args:
        source: folder or archive to copy from; None only makes low-quality images.
        scales: to make low-quality images for; the set's own without it.
        progress: called with what is done, how many, and of how many.

    Raises:
        ValueError, FileNotFoundError: for a source that cannot be read, or that has nothing of the set.
        OSError: when the folder cannot be written.
    """
    outcome = Outcome()
    if source is not None:
        images = _surveyed(row, source, outcome, progress)
        targets = _targets(row, root, images, outcome)
        if not targets:
            raise ValueError(f"{source} holds no images of {row.name}{_reasons(outcome)}")
        _copy(source, targets, outcome, progress)
    if row.scales:
        _make_low_quality(row, root, row.scales if scales is None else scales, outcome, progress)
    return outcome


def _reasons(outcome: Outcome) -> str:
    return "".join(f"; {len(files)} files are left out: {reason}" for reason, files in outcome.left_out.items())


def _surveyed(row: BenchmarkSet, source: Path, outcome: Outcome, progress: Progress) -> list[_Image]:
    """The images of a source that can be the set's, under the set's own names."""
    known = {file.pixels: file for file in known_files().get(row.name, ())}
    stems = {stem.lower(): stem for stem in row.stems}
    found, strangers = [], []
    for number, entry in enumerate(entries(source)):
        progress("look at", number + 1, None)
        role = role_of(entry.label) if row.reference else Role("gt", entry.label.stem)
        owner = set_of(entry.label)
        if owner is not None and owner is not row:
            outcome.leave_out(entry.label, f"in a folder of {owner.name}")
        elif role.kind == "other" or (role.kind == "lq" and role.scale not in row.scales):
            outcome.leave_out(entry.label, role.reason or "a low-quality image of a scale that is not measured here")
        elif entry.path is None:
            outcome.leave_out(entry.label, entry.reason)
        elif row.names and role.name.lower() not in stems:  # not decoded: BSDS and DIV2K have hundreds of others
            outcome.leave_out(entry.label, f"no picture of {row.name} has its name")
        else:
            try:
                image = _looked_at(number, entry.label, role, entry.path)
            except (ImageError, OSError) as error:
                reason = str(error).removeprefix(f"{named(entry.path)}: ")
                outcome.failed.append(f"{named(Path(entry.label))}: {reason}")
                continue
            if file := known.get(image.pixels):
                kind = role_of(PurePosixPath(file.file)) if row.reference else Role("gt", file.stem)
                found.append(replace(image, role=kind, known=True))
            elif not stems or role.name.lower() in stems:
                found.append(replace(image, role=replace(role, name=stems.get(role.name.lower(), role.name))))
            else:
                strangers.append(image)
    return found + _of_another_naming(row, found, strangers, outcome)


def _looked_at(number: int, label: PurePosixPath, role: Role, path: Path) -> _Image:
    pixels = read(path, max_pixels=MAX_PIXELS)
    return _Image(number, label, role, sha256(path), pixel_hash(pixels), (pixels.shape[0], pixels.shape[1]))


def _of_another_naming(
    row: BenchmarkSet, found: list[_Image], strangers: list[_Image], outcome: Outcome
) -> list[_Image]:
    """Images with neither known names nor known pixels: taken if, with the others, they make up a whole set."""
    truths = {image.role.name for image in found if image.role.kind == "gt"}
    if len(truths | {image.role.name for image in strangers}) == row.images:
        return strangers
    for image in strangers:
        outcome.leave_out(image.label, f"no picture of {row.name} has its name or its pixels")
    return []


def _targets(row: BenchmarkSet, root: Path, images: list[_Image], outcome: Outcome) -> dict[int, tuple[Path, _Image]]:
    """Where each image of the source goes that is taken, by its number."""
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
                outcome.leave_out(image.label, "of another size than its ground truth reduced")
            else:
                low_quality.append(image)
    for (name, scale), image in _best(low_quality, outcome).items():
        target = row.lq_folder(root, scale) / lq_name(name, scale)
        targets[image.number] = (target.with_suffix(image.label.suffix.lower()), image)
    return targets


def _best(images: Iterable[_Image], outcome: Outcome) -> dict[tuple[str, int], _Image]:
    """One image for each name and scale."""
    chosen: dict[tuple[str, int], _Image] = {}
    for image in images:
        key = image.role.name, image.role.scale
        rival = chosen.setdefault(key, image)
        if rival is not image:
            chosen[key] = better = max(rival, image, key=lambda i: i.rank)
            outcome.leave_out((rival if better is image else image).label, "another file of the same name is taken")
    return chosen


def _size(path: Path) -> tuple[int, int]:
    try:
        height, width = read(path, max_pixels=MAX_PIXELS).shape[:2]
    except ImageError:
        return 0, 0
    return height, width


def _copy(source: Path, targets: dict[int, tuple[Path, _Image]], outcome: Outcome, progress: Progress) -> None:
    done = 0
    for number, entry in enumerate(entries(source)):
        if number not in targets or entry.path is None:
            continue
        target, image = targets[number]
        done += 1
        progress("copy", done, len(targets))
        there = next((p for p in (target, *_siblings(target)) if p.exists()), None)
        if there is not None:
            if _same(there, image):
                outcome.there.add(there)
            else:
                outcome.leave_out(entry.label, f"{target.parent} has another picture of its name, which stays")
            continue
        if sha256(entry.path) != image.sha256:
            outcome.failed.append(f"{named(Path(entry.label))}: changed while it was copied; run the command again")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(entry.path, temporary)
        outcome.copied.add(target)


def _siblings(target: Path) -> list[Path]:
    """The same picture in another format."""
    return [p for p in list_images(target.parent) if p.stem == target.stem] if target.parent.is_dir() else []


def _same(path: Path, image: _Image) -> bool:
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
        raise FileNotFoundError(f"no images in {folder}; name a folder or archive that has {row.name}")
    jobs = [(image, scale) for scale in scales for image in images]
    for done, (image, scale) in enumerate(jobs, 1):
        progress("reduce", done, len(jobs))
        lq_folder = row.lq_folder(root, scale)
        if path := find_lq(lq_folder, image.stem, scale):
            outcome.there |= {path} - outcome.copied
            continue
        try:
            os.makedirs(lq_folder, exist_ok=True)
            outcome.made += write_reduced(image, lq_folder / lq_name(image.stem, scale), scale)
        except ValueError as error:
            outcome.failed.append(str(error))

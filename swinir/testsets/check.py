"""Check of the files of a set: images against known hashes, pairs against the benchmark's reduction.

presence_of -> each ground truth (check_images), then its low-quality images -> findings -> SetReport
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from swinir.image_io.image import list_images, read
from swinir.image_io.reader import ImageError, named
from swinir.testsets.check_images import Finding, Image, ImageChecker, below, compression, read_error
from swinir.testsets.diagnose import describe, diagnose
from swinir.testsets.pairs import find_lq, fits
from swinir.testsets.prepare import MAX_PIXELS
from swinir.testsets.sets import BenchmarkSet, Presence, known_files, pixel_hash, presence_of


@dataclass(frozen=True)
class SetReport:
    """Findings about a set, and the number of its images that have a known hash."""

    presence: Presence
    findings: tuple[Finding, ...]
    verified: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are faults."""
        return tuple(f for f in self.findings if f.level == "fault")

    @property
    def verdict(self) -> str:
        """The state of the set in one line."""
        presence = self.presence
        if presence.state == "missing":
            return f"missing; {presence.set.source}; terms: {presence.set.terms}"
        if self.faults:
            files = {f.file for f in self.faults if f.file}
            where = f"faults in {len(files)} file{'s' * (len(files) > 1)}" if files else "see below"
            return f"{presence.state}; {where}"
        known = f"{self.verified} as known by hash" if self.verified else "no hashes known"
        line = f"ok: {len(presence.images)} images, {known}"
        if presence.set.scales:
            scales = " ".join(f"X{scale}" for scale in presence.complete_scales)
            line += f"; {scales} by MATLAB's bicubic" if scales else "; no low-quality images yet"
        return line


def check_set(row: BenchmarkSet, root: Path, progress: Callable[[Path], None] = lambda path: None) -> SetReport:
    """Check every file of a set below a folder of sets.

    Args:
        progress: called with the path of each ground truth before its check.

    Raises:
        OSError: for a folder that cannot be listed.
    """
    presence = presence_of(row, root)
    checker = ImageChecker(row, root)
    findings = [*_image_count(presence), *_low_quality_counts(presence, root)]
    for path in presence.images:
        progress(path)
        try:
            image = read(path, max_pixels=MAX_PIXELS)
        except ImageError as error:
            findings.append(Finding("fault", below(path, root), read_error(error, path), "get the file again"))
            continue
        about = list(checker.check(path, image))
        findings += about
        if any(finding.level == "fault" for finding in about):
            continue  # its pairs would differ for the same reason
        for scale in presence.low_quality:
            lq = find_lq(row.lq_folder(root, scale), path.stem, scale)
            findings += _check_pair(row, root, image, lq, scale) if lq else ()
    return SetReport(presence, tuple(findings), checker.verified)


def _image_count(presence: Presence) -> Iterator[Finding]:
    row, found = presence.set, len(presence.images)
    if 0 < found < row.images:
        missing = sorted(set(row.stems) - {path.stem for path in presence.images}) if row.stems else []
        which = f": {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}" if missing else ""
        text = f"{row.images - found} of {row.images} images are missing{which}"
        way_out = f"averages over the rest can't be compared; swinir data prepare {row.name} SOURCE adds them"
        yield Finding("fault", "", text, way_out)
    if found > row.images:
        way_out = f"every image in {presence.folder} is measured; remove the others"
        yield Finding("fault", "", f"{found - row.images} images too many", way_out)


def _low_quality_counts(presence: Presence, root: Path) -> Iterator[Finding]:
    row, found = presence.set, len(presence.images)
    for scale, files in presence.low_quality.items() if found else ():
        folder = row.lq_folder(root, scale)
        if len(files) < found:
            text = f"{found - len(files)} of {found} low-quality images are missing"
            way_out = "SOURCE adds them" if row.pairs else "makes them"
            yield Finding("fault", below(folder, root), text, f"swinir data prepare {row.name} {way_out}")
        if others := set(list_images(folder)) - set(files):
            names = ", ".join(sorted(named(Path(path.name)) for path in others)[:3])
            text = f"{len(others)} files belong to no ground truth ({names}); they are not used"
            yield Finding("note", below(folder, root), text)


def _check_pair(row: BenchmarkSet, root: Path, gt: Image, path: Path, scale: int) -> Iterator[Finding]:
    """Compare a low-quality image with its ground truth."""
    file = below(path, root)
    again = f"get it from {row.source}" if row.pairs else f"remove it; swinir data prepare {row.name} makes it again"
    try:
        lq = read(path, max_pixels=MAX_PIXELS)
    except ImageError as error:
        yield Finding("fault", file, read_error(error, path), again)
        return
    name = path.relative_to(root / row.name).with_suffix("").as_posix()
    if any(k.pixels == pixel_hash(lq) for k in known_files().get(row.name, ()) if k.file.rsplit(".", 1)[0] == name):
        return
    if row.pairs:
        yield Finding("fault", file, "its pixels are not those of the known file", again)
        return
    if lq.shape[2] != gt.shape[2]:
        if gt.shape[2] == 3:
            yield Finding("fault", file, "the low-quality image is gray, the ground truth in colors", again)
            return
        if (lq != lq[..., :1]).any():
            yield Finding("fault", file, "the ground truth is gray, the low-quality image in colors", again)
            return
        lq = lq[..., :1]
        yield Finding("note", file, "a gray image saved with three channels")
    if not fits(gt.shape, lq.shape, scale):
        yield Finding("fault", file, _wrong_size(gt, lq, scale), again)
        return
    found = diagnose(gt, lq, scale)
    if found.rounding_only:
        text = f"is {found.made_by[0]}: {found.share:.1%} of its values differ by up to {found.levels} levels"
        yield Finding("note", file, text)
    elif not found.exact:
        compressed = "" if found.made_by else compression(path, lq)
        yield Finding("fault", file, describe(found) + (f"; {compressed}" if compressed else ""), again)
    if lq.shape[0] != gt.shape[0] // scale or lq.shape[1] != gt.shape[1] // scale:
        text = "made of a ground truth that was cropped to a smaller multiple; the tester crops it as well"
        yield Finding("note", file, text)


def _wrong_size(gt: Image, lq: Image, scale: int) -> str:
    (height, width), (h, w) = gt.shape[:2], lq.shape[:2]
    text = f"{w}x{h} pixels, where {width}x{height} at scale {scale} makes {width // scale}x{height // scale}"
    if (h, w) == (height, width):
        return f"{text}; it is not reduced, or was enlarged again"
    if (h, w) == (-(-height // scale), -(-width // scale)):
        return f"{text}; it was reduced without cropping the ground truth first"
    other = next((s for s in range(2, 17) if s != scale and fits(gt.shape, lq.shape, s)), None)
    if other and abs(height / h - other) < 0.1:
        return f"{text}; its scale is {other}"
    if fits(gt.shape, (w, h), scale):
        return f"{text}; it is turned"
    return text

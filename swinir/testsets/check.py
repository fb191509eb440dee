"""Whether what stands of a set is right: files against their known hashes, pairs against the benchmark's reduction.

take_stock -> every ground truth, then its low-quality images -> findings -> SetReport
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from swinir.degradations.estimate import pixel_jpeg_quality
from swinir.image_io.image import list_images, read
from swinir.image_io.reader import ImageError, named
from swinir.testsets.diagnose import INVERSE, ORDERS, TURNS, describe, diagnose
from swinir.testsets.inventory import Presence, take_stock
from swinir.testsets.known import KnownFile, known_files, known_images, pixel_hash
from swinir.testsets.lumas import LUMAS, MATLABS
from swinir.testsets.pairs import find_lq, fits
from swinir.testsets.prepare import MAX_PIXELS
from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet
from swinir.weights.verify import sha256

Image = np.ndarray
Level = Literal["fault", "note"]


@dataclass(frozen=True)
class Finding:
    """Something about a set or a file of it.

    Attributes:
        level: "fault" if numbers measured on it can't be compared with published ones, else "note".
        file: below the folder of sets; "" for the set as a whole.
        text: what was found.
        way_out: what to do.
    """

    level: Level
    file: str
    text: str
    way_out: str = ""


@dataclass(frozen=True)
class SetReport:
    """What was found of a set."""

    presence: Presence
    findings: tuple[Finding, ...]
    verified: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that are faults."""
        return tuple(f for f in self.findings if f.level == "fault")

    @property
    def verdict(self) -> str:
        """The set in a line."""
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
    """Look at every file of a set under a folder of sets.

    Args:
        progress: called with each ground truth before it is looked at.

    Raises:
        OSError: for a folder that cannot be listed.
    """
    presence = take_stock(row, root)
    checker = _Checker(row, root)
    findings = list(checker.of_the_whole(presence))
    for path in presence.images:
        progress(path)
        try:
            image = read(path, max_pixels=MAX_PIXELS)
        except ImageError as error:
            findings.append(Finding("fault", checker.below(path), _reason(error, path), "get the file again"))
            continue
        about = list(checker.of_image(path, image))
        findings += about
        if any(finding.level == "fault" for finding in about):
            continue  # its pairs would be blamed for it
        for scale in presence.low_quality:
            lq = find_lq(row.lq_folder(root, scale), path.stem, scale)
            findings += checker.of_pair(path, image, lq, scale) if lq else ()
    return SetReport(presence, tuple(findings), checker.verified)


def _reason(error: ImageError, path: Path) -> str:
    return str(error).removeprefix(f"{named(path)}: ")


class _Checker:
    """The checks of one set; remembers pixels, to find duplicates."""

    def __init__(self, row: BenchmarkSet, root: Path) -> None:
        self.row = row
        self.root = root
        self.by_pixels = {file.pixels: file for file in known_images(row.name)}
        self.by_stem = {file.stem.lower(): file for file in known_images(row.name)}
        self.known_pairs = {file.file.rsplit(".", 1)[0]: file.pixels for file in known_files().get(row.name, ())}
        self.seen: dict[str, str] = {}
        self.verified = 0

    def below(self, path: Path) -> str:
        return named(path.relative_to(self.root))

    def of_the_whole(self, presence: Presence) -> Iterator[Finding]:
        """What is missing, and what is too much."""
        row = self.row
        found = len(presence.images)
        if 0 < found < row.images:
            lacking = sorted(set(row.stems) - {path.stem for path in presence.images}) if row.stems else []
            which = f": {', '.join(lacking[:8])}{', ...' if len(lacking) > 8 else ''}" if lacking else ""
            yield Finding(
                "fault",
                "",
                f"{row.images - found} of {row.images} images are missing{which}",
                f"averages over the rest can't be compared; swinir data prepare {row.name} SOURCE adds them",
            )
        if found > row.images:
            yield Finding(
                "fault",
                "",
                f"{found - row.images} images too many",
                f"every image in {presence.folder} is measured; take others out",
            )
        for scale, files in presence.low_quality.items():
            folder = self.below(row.lq_folder(self.root, scale))
            if found and len(files) < found:
                yield Finding(
                    "fault",
                    folder,
                    f"{found - len(files)} of {found} low-quality images are missing",
                    f"swinir data prepare {row.name} makes them",
                )
            others = set(list_images(row.lq_folder(self.root, scale))) - set(files)
            if found and others:
                names = ", ".join(sorted(named(Path(path.name)) for path in others)[:3])
                yield Finding(
                    "note", folder, f"{len(others)} files belong to no ground truth ({names}); they are not used"
                )

    # An image by itself.

    def of_image(self, path: Path, image: Image) -> Iterator[Finding]:
        """A ground truth, or an image of a set without references."""
        file = self.below(path)
        digest = pixel_hash(image)
        if digest in self.seen:
            yield Finding("fault", file, f"the same picture as {self.seen[digest]}", "take one of them out")
        self.seen.setdefault(digest, file)
        if self.by_pixels:
            yield from self._against_known(path, image, digest)
        else:
            yield from self._unknown(path, image)

    def _against_known(self, path: Path, image: Image, digest: str) -> Iterator[Finding]:
        file = self.below(path)
        if digest in self.by_pixels:
            self.verified += 1
            known = self.by_pixels[digest]
            if known.stem.lower() != path.stem.lower():
                yield Finding("note", file, f"is {known.stem} by its pixels, under another name")
            return
        known_by_name = self.by_stem.get(path.stem.lower())
        if known_by_name and sha256(path) == known_by_name.sha256:  # a JPEG that this decoder sees otherwise
            self.verified += 1
            return
        for found, how in self._undone(image):
            if found in self.by_pixels:
                level: Level = "note" if how.startswith("a grey") else "fault"
                ways = "harmless: the tester reads the same values" if level == "note" else "get the file again"
                yield Finding(level, file, how, ways)
                self.verified += level == "note"
                return
        if known_by_name is None:
            yield Finding(
                "fault", file, "no picture of this set by its name or pixels", "take it out, or get the set again"
            )
        else:
            yield from self._unlike(path, image, known_by_name)

    @staticmethod
    def _undone(image: Image) -> Iterator[tuple[str, str]]:
        """Hashes that the image would have without one of the usual mistakes."""
        if image.shape[2] == 3:
            if (image == image[..., :1]).all():
                yield pixel_hash(image[..., :1]), "a grey picture saved with three channels"
            for order in ORDERS:
                name = "".join("RGB"[order.index(c)] for c in range(3))
                yield pixel_hash(image[..., order]), f"has its channels in the order {name}"
        for turn in TURNS:
            yield pixel_hash(TURNS[INVERSE.get(turn, turn)](image)), f"is {turn}"

    def _unlike(self, path: Path, image: Image, known: KnownFile) -> Iterator[Finding]:
        """Why an image is not the known one of its name."""
        file, get = self.below(path), f"get it from {self.row.source}"
        height, width, channels = image.shape
        colorless = channels == 3 and bool((image == image[..., :1]).all())
        if (width, height) != (known.width, known.height):
            yield Finding(
                "fault",
                file,
                f"{width}x{height} pixels, where the set has {known.width}x{known.height}",
                _uncropped(image, known),
            )
        if known.channels == 1 and channels == 3 and not colorless:
            yield from self._color_for_gray(file, image)
        elif known.channels == 3 and (channels == 1 or colorless):
            yield Finding("fault", file, "grey where the set has colors", get)
        elif known.channels == 1 and (maker := self._luma_of(path, image)):
            yield Finding("fault", file, f"made of the color picture by {maker}, where the set has {MATLABS}", get)
        elif (width, height) == (known.width, known.height):
            if not known.lossless:
                yield Finding("note", file, "another file than the known JPEG; another decoder or a copy of it")
            else:
                compressed = _compression(path, image)
                text = "its pixels are not those of the known file" + (f": {compressed}" if compressed else "")
                yield Finding("fault", file, text, get)

    def _color_for_gray(self, file: str, image: Image) -> Iterator[Finding]:
        makers = [name for name, way in LUMAS.items() if pixel_hash(way(image)) in self.by_pixels]
        way_out = f"{makers[0]} makes the set's picture of it" if makers else f"get it from {self.row.source}"
        yield Finding("fault", file, "colors where the set is grey", way_out)

    def _luma_of(self, path: Path, image: Image) -> str:
        """By which formula a grey image was made of its original, where that set is there; "" if by none."""
        if not self.row.luma_of:
            return ""
        original = BENCHMARK_SETS[self.row.luma_of]
        stems = dict(zip(sorted(self.row.stems), sorted(original.stems), strict=True))
        folder, stem = original.gt_folder(self.root), stems.get(path.stem, "")
        partner = next((p for p in list_images(folder) if p.stem == stem), None) if folder.is_dir() else None
        if partner is None:
            return ""
        colors = read(partner, max_pixels=MAX_PIXELS)
        grey = image[..., :1]
        return next((name for name, way in LUMAS.items() if np.array_equal(way(colors), grey)), "")

    def _unknown(self, path: Path, image: Image) -> Iterator[Finding]:
        """An image of a set whose hashes are not known: by what all its images have in common."""
        row, file, get = self.row, self.below(path), f"get it from {self.row.source}"
        height, width, channels = image.shape
        if row.names and path.stem not in row.names:
            yield Finding("note", file, "no picture of the set has this name; whether it is one is not known here")
        if (width, height) in row.crops:
            text = (
                f"a crop of {width}x{height}; figures measured on whole pictures can't be compared with those on crops"
            )
            yield Finding("note", file, text)
        elif row.sizes and (width, height) not in row.sizes and (height, width) not in row.sizes:
            w, h = row.sizes[0]
            yield Finding("fault", file, f"{width}x{height} pixels, where the set has {w}x{h}", get)
        if row.gray and channels == 3 and (image != image[..., :1]).any():
            yield Finding("fault", file, "colors where the set is grey", get)
        if not row.gray and channels == 1:
            yield Finding("fault", file, "grey where the set has colors", get)
        if not row.from_jpeg and (compressed := _compression(path, image)):
            # Some photographs had been JPEG files before they came into a set.
            level: Level = "fault" if _is_jpeg(path) else "note"
            yield Finding(level, file, compressed, get)

    # A pair.

    def of_pair(self, gt_path: Path, gt: Image, path: Path, scale: int) -> Iterator[Finding]:
        """A low-quality image beside its ground truth."""
        row, file = self.row, self.below(path)
        again = f"move it away; swinir data prepare {row.name} makes it anew"
        try:
            lq = read(path, max_pixels=MAX_PIXELS)
        except ImageError as error:
            yield Finding("fault", file, _reason(error, path), again)
            return
        if self.known_pairs.get(f"LR_bicubic/X{scale}/{gt_path.stem}x{scale}") == pixel_hash(lq):
            return  # right by itself, whatever the ground truth is
        if lq.shape[2] != gt.shape[2]:
            one, three = (
                ("low-quality image", "ground truth") if lq.shape[2] == 1 else ("ground truth", "low-quality image")
            )
            if gt.shape[2] == 3 or (lq != lq[..., :1]).any():
                yield Finding("fault", file, f"the {one} is grey, the {three} in colors", again)
                return
            lq = lq[..., :1]
            yield Finding("note", file, "a grey picture saved with three channels")
        if not fits(gt.shape, lq.shape, scale):
            yield Finding("fault", file, _wrong_size(gt, lq, scale), again)
            return
        found = diagnose(gt, lq, scale)
        if not found.exact:
            if found.rounding_only:
                text = f"is {found.made_by[0]}: {found.share:.1%} of its values differ by up to {found.levels} levels"
                yield Finding("note", file, text)
            else:
                compressed = "" if found.made_by else _compression(path, lq)
                yield Finding("fault", file, describe(found) + (f"; {compressed}" if compressed else ""), again)
        if lq.shape[0] != gt.shape[0] // scale or lq.shape[1] != gt.shape[1] // scale:
            yield Finding(
                "note", file, "made of a ground truth cropped further than its scale asks; the tester crops it, too"
            )


def _uncropped(image: Image, known: KnownFile) -> str:
    if image.shape[0] <= known.height and image.shape[1] <= known.width:
        return "perhaps cropped to a multiple of a scale; the tester does that itself: get the whole picture"
    return "get the file again"


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _compression(path: Path, image: Image) -> str:
    """That a picture went through JPEG, by its format or its pixels; "" if it did not."""
    quality = pixel_jpeg_quality(image)
    at = f" at quality {quality:.0f}" if quality is not None else ""
    if _is_jpeg(path):
        return f"a JPEG file{at}, where the set is without loss"
    return f"was compressed by JPEG{at}" if quality is not None else ""


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

"""Check of single images of a set: by their known hashes, or else by properties that all images of the set share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from swinir.degradations.estimate_jpeg import pixel_jpeg_quality
from swinir.image_io.image import list_images, read
from swinir.image_io.reader import ImageError, named
from swinir.testsets.conversions import GRAY_CONVERSIONS, MATLAB_GRAY
from swinir.testsets.diagnose import INVERSE, ORDERS, TURNS
from swinir.testsets.prepare import MAX_PIXELS
from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet, KnownFile, known_images, pixel_hash
from swinir.weights.verify import sha256

Image = np.ndarray
Level = Literal["fault", "note"]


@dataclass(frozen=True)
class Finding:
    """A finding about a set or one of its files.

    Attributes:
        level: "fault" if numbers measured on the file can't be compared with published ones, else "note".
        file: path below the folder of sets; "" for the set as a whole.
        text: the finding.
        way_out: advice.
    """

    level: Level
    file: str
    text: str
    way_out: str = ""


class ImageChecker:
    """Checks the images of one set; it remembers their hashes to find duplicates, and counts the known ones."""

    def __init__(self, row: BenchmarkSet, root: Path) -> None:
        self.row = row
        self.root = root
        self.by_pixels = {file.pixels: file for file in known_images(row.name)}
        self.by_stem = {file.stem.lower(): file for file in known_images(row.name)}
        self.seen: dict[str, str] = {}
        self.verified = 0
        self._get = f"get it from {row.source}"

    def check(self, path: Path, image: Image) -> Iterator[Finding]:
        """Check a ground truth, or an image of a set without references."""
        file = below(path, self.root)
        digest = pixel_hash(image)
        if digest in self.seen:
            yield Finding("fault", file, f"the same image as {self.seen[digest]}", "remove one of them")
        self.seen.setdefault(digest, file)
        if self.by_pixels:
            yield from self._known(path, image, digest)
        else:
            yield from self._unknown(path, image)

    def _known(self, path: Path, image: Image, digest: str) -> Iterator[Finding]:
        """Compare with the known hashes of the set."""
        file, same_name = below(path, self.root), self.by_stem.get(path.stem.lower())
        if known := self.by_pixels.get(digest):
            self.verified += 1
            if known.stem.lower() != path.stem.lower():
                yield Finding("note", file, f"is {known.stem} by its pixels, under another name")
            return
        if same_name and sha256(path) == same_name.sha256:  # a JPEG that this decoder reads differently
            self.verified += 1
            return
        change = next((change for found, change in _without_changes(image) if found in self.by_pixels), "")
        if change.startswith("a gray"):
            self.verified += 1
            yield Finding("note", file, change, "harmless: the tester reads the same values")
        elif change:
            yield Finding("fault", file, change, "get the file again")
        elif same_name:
            yield from self._unlike(path, image, same_name)
        else:
            text = "no image of this set by its name or pixels"
            yield Finding("fault", file, text, "remove it, or get the set again")

    def _unlike(self, path: Path, image: Image, known: KnownFile) -> Iterator[Finding]:
        """Describe the difference between an image and the known one of its name."""
        file = below(path, self.root)
        height, width, channels = image.shape
        same_size = (width, height) == (known.width, known.height)
        colorless = channels == 1 or bool((image == image[..., :1]).all())
        if not same_size:
            text = f"{width}x{height} pixels, where the set has {known.width}x{known.height}"
            cropped = height <= known.height and width <= known.width
            advice = "perhaps cropped to a multiple of a scale, which the tester does itself: get the whole image"
            yield Finding("fault", file, text, advice if cropped else "get the file again")
        if known.channels == 1 and not colorless:
            names = [name for name, convert in GRAY_CONVERSIONS.items() if pixel_hash(convert(image)) in self.by_pixels]
            advice = f"{names[0]} gives the set's image" if names else self._get
            yield Finding("fault", file, "colors where the set is gray", advice)
        elif known.channels == 3 and colorless:
            yield Finding("fault", file, "gray where the set has colors", self._get)
        elif known.channels == 1 and (name := self._gray_conversion(path, image)):
            text = f"made of the color image by {name}, where the set has {MATLAB_GRAY}"
            yield Finding("fault", file, text, self._get)
        elif same_size and not known.lossless:
            yield Finding("note", file, "another file than the known JPEG; another decoder or a copy of it")
        elif same_size:
            compressed = compression(path, image)
            text = "its pixels are not those of the known file" + (f": {compressed}" if compressed else "")
            yield Finding("fault", file, text, self._get)

    def _gray_conversion(self, path: Path, image: Image) -> str:
        """Find the conversion that made a gray image of its color original, if that is there; "" otherwise."""
        if not self.row.luma_of:
            return ""
        original = BENCHMARK_SETS[self.row.luma_of]
        stems = dict(zip(sorted(self.row.stems), sorted(original.stems), strict=True))
        folder, stem = original.gt_folder(self.root), stems.get(path.stem, "")
        partner = next((p for p in list_images(folder) if p.stem == stem), None) if folder.is_dir() else None
        if partner is None:
            return ""
        colors = read(partner, max_pixels=MAX_PIXELS)
        gray = image[..., :1]
        return next((name for name, way in GRAY_CONVERSIONS.items() if np.array_equal(way(colors), gray)), "")

    def _unknown(self, path: Path, image: Image) -> Iterator[Finding]:
        """Compare with the names, sizes and channels that all images of the set have."""
        row, file = self.row, below(path, self.root)
        height, width, channels = image.shape
        if row.names and path.stem not in row.names:
            yield Finding("note", file, "no image of the set has this name; its pixels are not known")
        if (width, height) in row.crops:
            text = f"a crop of {width}x{height}; figures measured on whole images can't be compared with those on crops"
            yield Finding("note", file, text)
        elif row.sizes and (width, height) not in row.sizes and (height, width) not in row.sizes:
            w, h = row.sizes[0]
            yield Finding("fault", file, f"{width}x{height} pixels, where the set has {w}x{h}", self._get)
        if row.gray and channels == 3 and (image != image[..., :1]).any():
            yield Finding("fault", file, "colors where the set is gray", self._get)
        if not row.gray and channels == 1:
            yield Finding("fault", file, "gray where the set has colors", self._get)
        if not row.from_jpeg and (compressed := compression(path, image)):
            # Some photographs had been JPEG files before they became part of a set.
            yield Finding("fault" if _is_jpeg(path) else "note", file, compressed, self._get)


def _without_changes(image: Image) -> Iterator[tuple[str, str]]:
    """Hashes of the image with a frequent change undone, and the change."""
    if image.shape[2] == 3:
        if (image == image[..., :1]).all():
            yield pixel_hash(image[..., :1]), "a gray image saved with three channels"
        for order in ORDERS:
            name = "".join("RGB"[order.index(c)] for c in range(3))
            yield pixel_hash(image[..., order]), f"has its channels in the order {name}"
    for turn in TURNS:
        yield pixel_hash(TURNS[INVERSE.get(turn, turn)](image)), f"is {turn}"


def below(path: Path, root: Path) -> str:
    """A path below the folder of sets, as text for a terminal."""
    return named(path.relative_to(root))


def read_error(error: ImageError, path: Path) -> str:
    """The message of an error without the path that it begins with."""
    return str(error).removeprefix(f"{named(path)}: ")


def compression(path: Path, image: Image) -> str:
    """Describe JPEG compression by the format or the pixels of an image; "" if there is none."""
    quality = pixel_jpeg_quality(image)
    at = f" at quality {quality:.0f}" if quality is not None else ""
    if _is_jpeg(path):
        return f"a JPEG file{at}, where the set is lossless"
    return f"was compressed by JPEG{at}" if quality is not None else ""


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")

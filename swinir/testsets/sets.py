"""The benchmark sets: a row each in `sets.toml`, their known files in `files.csv`, and their state in a folder.

Sets circulate as BMP, PNG and TIFF. A hash of the file identifies a copy; a hash of the decoded pixels also identifies
a copy that was saved again without loss.
"""

import csv
import difflib
import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from swinir.image_io.image import list_images
from swinir.testsets.pairs import find_lq

DATA = resources.files("swinir.testsets")


@dataclass(frozen=True)
class BenchmarkSet:
    """A benchmark set.

    Attributes:
        name: as in the paper, and of its folder.
        images: number of ground-truth images, or of low-quality ones in a set without references.
        gray: True for images of one channel.
        scales: of super-resolution; empty for sets of the other tasks.
        pairs: folders of a set of low-quality and ground-truth images of one size.
        reference: False for a set without ground-truth images.
        tasks: measured on it in the paper.
        metrics: that the paper reports.
        source: author, year, and where to get it.
        terms: of use, as far as stated.
        overlap: images shared with other sets.
        names: stems of its images, if `files.csv` does not list them.
        sizes: (width, height) of all its images, in either orientation, if their hashes are not known.
        crops: (width, height) of a cropped variant that other publications measured on.
        from_jpeg: True for images that were JPEG files before they became a set.
        luma_of: the color set whose images, sorted by name, give its images by MATLAB's `rgb2gray`.
        aliases: other names of folders and archives.
    """

    name: str
    images: int
    gray: bool = False
    scales: tuple[int, ...] = ()
    pairs: tuple[str, ...] = ()
    reference: bool = True
    tasks: str = ""
    metrics: str = "PSNR"
    source: str = ""
    terms: str = "none stated"
    overlap: str = ""
    names: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    crops: tuple[tuple[int, int], ...] = ()
    from_jpeg: bool = False
    luma_of: str = ""
    aliases: tuple[str, ...] = ()

    def gt_folder(self, root: Path) -> Path:
        """Folder of the ground-truth images below a folder of sets: that of `pairs`, NAME/HR, or NAME without HR."""
        if self.pairs:
            return root / self.name / self.pairs[1]
        folder = root / self.name / "HR"
        return folder if folder.is_dir() else root / self.name

    def lq_folder(self, root: Path, scale: int) -> Path:
        """Folder of the low-quality images of a scale, 1 for pairs."""
        return root / self.name / (self.pairs[0] if self.pairs else f"LR_bicubic/X{scale}")

    @property
    def lq_scales(self) -> tuple[int, ...]:
        """Scales of the low-quality images that are files of the set."""
        return (1,) if self.pairs else self.scales

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of its images without suffix; empty if they are not known."""
        return self.names or tuple(file.stem for file in known_images(self.name))

    def is_called(self, name: str) -> bool:
        """Compare with the set's name and aliases, letters and digits only."""
        return _plain(name) in {_plain(self.name), *map(_plain, self.aliases)}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _read_sets() -> dict[str, BenchmarkSet]:
    sets = {}
    for row in tomllib.loads(DATA.joinpath("sets.toml").read_text(encoding="utf-8"))["set"]:
        if numbered := row.pop("numbered", None):
            pattern, first, last = numbered
            row["names"] = [pattern % n for n in range(first, last + 1)]
        for name in ("sizes", "crops"):
            row[name] = map(tuple, row.get(name, ()))
        lists = ("scales", "pairs", "names", "sizes", "crops", "aliases")
        sets[row["name"]] = BenchmarkSet(**row | {name: tuple(row.get(name, ())) for name in lists})
    return sets


BENCHMARK_SETS = _read_sets()


def find_set(name: str) -> BenchmarkSet:
    """Find a set by its name or an alias, in any case.

    Raises:
        ValueError: for an unknown name; the message suggests the nearest.
    """
    sets = BENCHMARK_SETS.values()
    for row in sets:
        if row.is_called(name):
            return row
    near = difflib.get_close_matches(_plain(name), [_plain(row.name) for row in sets], n=1)
    meant = next((f"; did you mean {row.name}?" for row in sets if [_plain(row.name)] == near), "")
    raise ValueError(f"unknown test set {name!r}{meant or '; choose one of ' + ', '.join(BENCHMARK_SETS)}")


@dataclass(frozen=True)
class KnownFile:
    """A file of a set, as first published or as the released program brings it.

    Attributes:
        set: name of the set.
        file: path below the set's folder, with slashes.
        bytes, sha256: of the file.
        width, height, channels: of its image.
        pixels: `pixel_hash` of its image.
    """

    set: str
    file: str
    bytes: int
    sha256: str
    width: int
    height: int
    channels: int
    pixels: str

    @property
    def stem(self) -> str:
        """Name without folders and suffix."""
        return PurePosixPath(self.file).stem

    @property
    def ground_truth(self) -> bool:
        """False for the low-quality files of a set."""
        return not self.file.startswith(("LR_", "noisy/"))

    @property
    def lossless(self) -> bool:
        """False for JPEG files, which decoders read with small differences."""
        return PurePosixPath(self.file).suffix.lower() not in (".jpg", ".jpeg")


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 of an (H, W, 1) or (H, W, 3) RGB uint8 image and its shape."""
    height, width, channels = image.shape
    digest = hashlib.sha256(f"{height}x{width}x{channels}\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


@cache
def known_files() -> dict[str, tuple[KnownFile, ...]]:
    """Known files by set; a set that is absent has none."""
    table: dict[str, list[KnownFile]] = {}
    for row in csv.DictReader(DATA.joinpath("files.csv").read_text(encoding="utf-8").splitlines()):
        fields: dict[str, Any] = dict(row)
        known = KnownFile(**fields | {name: int(row[name]) for name in ("bytes", "width", "height", "channels")})
        table.setdefault(known.set, []).append(known)
    return {name: tuple(files) for name, files in table.items()}


def known_images(name: str) -> tuple[KnownFile, ...]:
    """The known ground truths of a set, or its images if it has no references."""
    return tuple(file for file in known_files().get(name, ()) if file.ground_truth)


@dataclass(frozen=True)
class Presence:
    """State of a set below a folder of sets, by the names of its files.

    Attributes:
        set: the set.
        folder: of its images, which may not exist.
        images: ground truths, or images of a set without references.
        low_quality: low-quality images by scale, for each scale that has a folder.
    """

    set: BenchmarkSet
    folder: Path
    images: tuple[Path, ...]
    low_quality: dict[int, tuple[Path, ...]]

    @property
    def state(self) -> str:
        """Any of "missing", "present", "incomplete (n of m)", and "too many (n of m)"."""
        found, expected = len(self.images), self.set.images
        if found == expected:
            return "present"
        return "missing" if not found else f"{'incomplete' if found < expected else 'too many'} ({found} of {expected})"

    @property
    def complete_scales(self) -> tuple[int, ...]:
        """Scales at which every ground truth has its low-quality image."""
        return tuple(scale for scale, files in self.low_quality.items() if len(files) == len(self.images) > 0)


def presence_of(row: BenchmarkSet, root: Path) -> Presence:
    """List the files of a set below a folder of sets.

    Raises:
        OSError: for a folder that cannot be listed.
    """
    folder = row.gt_folder(root)
    images = tuple(list_images(folder)) if folder.is_dir() else ()
    low_quality = {}
    for scale in row.lq_scales:
        lq_folder = row.lq_folder(root, scale)
        if lq_folder.is_dir():
            partners = (find_lq(lq_folder, image.stem, scale) for image in images)
            low_quality[scale] = tuple(path for path in partners if path)
    return Presence(row, folder, images, low_quality)

"""The files of the sets that are known by their hashes: `files.csv` as a table, and the hash of pixels.

Sets circulate as BMP, PNG and TIFF. The hash of a file tells a copy; the hash of its decoded pixels also tells a copy
that was saved again without loss.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np


@dataclass(frozen=True)
class KnownFile:
    """One file of a set, as first published or as the released program brings it.

    Attributes:
        set: name of the set.
        file: path below the set's folder, with slashes.
        bytes, sha256: of the file.
        width, height, channels: of its picture.
        pixels: `pixel_hash` of it.
        ground_truth: whether it is one, or (of a set without references) the set's own image.
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
        """False for the low-quality files of a super-resolution set."""
        return not self.file.startswith("LR_")

    @property
    def lossless(self) -> bool:
        """Whether every decoder gives the same pixels."""
        return PurePosixPath(self.file).suffix.lower() not in (".jpg", ".jpeg")


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 of an (H, W, 1) or (H, W, 3) RGB uint8 image, its shape included."""
    height, width, channels = image.shape
    digest = hashlib.sha256(f"{height}x{width}x{channels}\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


@cache
def known_files() -> dict[str, tuple[KnownFile, ...]]:
    """Files by set; sets whose files are not known have none."""
    table: dict[str, list[KnownFile]] = {}
    with Path(__file__).with_name("files.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            known = KnownFile(
                row["set"],
                row["file"],
                int(row["bytes"]),
                row["sha256"],
                int(row["width"]),
                int(row["height"]),
                int(row["channels"]),
                row["pixels"],
            )
            table.setdefault(known.set, []).append(known)
    return {name: tuple(rows) for name, rows in table.items()}


def known_images(name: str) -> tuple[KnownFile, ...]:
    """The known ground truths of a set, or its images where it has no references."""
    return tuple(file for file in known_files().get(name, ()) if file.ground_truth)

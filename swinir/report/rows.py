"""The rows of a report: what `results.jsonl` says about each picture, where its files are, its metrics.

Lines come from a file and may say anything; those that are no records are counted and passed over.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swinir.image_io.color import luma
from swinir.image_io.image import list_images, to_rgb
from swinir.image_io.picture import from_unit, to_unit
from swinir.image_io.reader import named, read_picture
from swinir.metrics.full_reference import psnr, ssim
from swinir.photos.manifest import RECORDS, Result

STATUSES = ("restored", "unchanged", "skipped", "failed")
SSIM_NEEDS = 11  # pixels a side


@dataclass(frozen=True)
class Scores:
    """A result against its reference, on 8 bits and without leaving out a border; SSIM of 11x11 pixels and more."""

    psnr: float
    ssim: float | None
    psnr_y: float
    ssim_y: float | None


@dataclass(frozen=True)
class Entry:
    """A picture of the report.

    Attributes:
        result: the last finished record about it.
        source, target: where its files are now; they need not be there.
        gt: the reference of the same stem, None without.
    """

    result: Result
    source: Path
    target: Path
    gt: Path | None = None


def read_results(path: Path) -> tuple[list[Result], int]:
    """The last finished record about each output, in the order of the first ones, and the number of other lines.

    Args:
        path: a file as `swinir restore` writes it, or the folder that holds `results.jsonl`.

    Raises:
        FileNotFoundError, ValueError: when there is no such file, or no record in it.
    """
    if path.is_dir():
        path = path / RECORDS
    if not path.is_file():
        raise FileNotFoundError(f"{named(path)} is not there; `swinir restore` writes {RECORDS} beside its results")
    last: dict[str, Result] = {}
    strange = 0
    for line in path.read_bytes().splitlines():
        try:
            result = _result(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError):  # torn, or of another program
            strange += bool(line.strip())
            continue
        if result is not None:
            last[result.output] = result
    if not last:
        raise ValueError(f"no finished picture in {named(path)}; give the {RECORDS} that `swinir restore` wrote")
    return list(last.values()), strange


def _result(fields: dict[str, Any]) -> Result | None:
    """The record of a line; None of a picture that was only begun."""
    if fields["status"] == "begun":
        return None
    if fields["status"] not in STATUSES:
        raise ValueError(f"unknown status {fields['status']!r}")
    required = {name: _FIELDS[name](fields[name]) for name in ("input", "output", "status")}
    return Result(**required | {name: read(fields[name]) for name, read in _FIELDS.items() if name in fields})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, value))


def _experts(value: Any) -> tuple[tuple[str, str], ...]:
    return tuple((_text(name), _text(digest)) for name, digest in value)


def _side(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 0 < value < 2**31):
        raise TypeError(f"a number of pixels expected, got {value!r}")
    return value


def _seconds(value: Any) -> float | None:
    if value is not None and (type(value) not in (int, float) or not 0 <= value < math.inf):
        raise TypeError(f"seconds expected, got {value!r}")
    return value


def _measured(value: Any) -> float | None:
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 255):
        raise TypeError(f"a level from 0 to 255 expected, got {value!r}")
    return value


def _tile(value: Any) -> int | str | None:
    return value if value is None or type(value) is int else _text(value)


_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("input", "output", "status", "error", "input_sha256", "settings", "precision"), _text),
    **dict.fromkeys(("width", "height", "output_width", "output_height"), _side),
    **dict.fromkeys(("notes", "findings"), _texts),
    **dict.fromkeys(("noise_level", "jpeg_quality"), _measured),
    "experts": _experts,
    "tile": _tile,
    "seconds": _seconds,
}


# Files


def find_files(results: list[Result], folder: Path, gt: Path | None = None) -> list[Entry]:
    """Where the pictures of records are that lie in a folder, and their references.

    Records name files as the user did, from the folder that was current. That is most often one above the records.

    Raises:
        FileNotFoundError, NotADirectoryError: for a folder of references that is absent or a file.
    """
    references: dict[str, Path] = {}
    for path in reversed(list_images(gt)) if gt is not None else ():
        references[path.stem] = path  # of two the first
    entries = []
    for result in results:
        source, target = Path(result.input), Path(result.output)
        tails = [Path(*target.parts[first:]) for first in range(1, len(target.parts))]  # a folder that was renamed
        entries.append(
            Entry(
                result,
                _first_file(_seen_from(source, folder)),
                _first_file([*_seen_from(target, folder), *(folder / tail for tail in tails)]),
                references.get(source.stem) or references.get(target.stem),
            )
        )
    return entries


def _seen_from(path: Path, folder: Path) -> list[Path]:
    above = folder.absolute()
    return [path, *(place / path for place in (above, *above.parents))]


def _first_file(candidates: list[Path]) -> Path:
    """The first that is a file, else the first. Names come from a file, and may be none that the system takes."""
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def has_changed(entry: Entry) -> bool:
    """Whether an input that is there is another than the one that was restored."""
    if not entry.result.input_sha256 or not os.path.isfile(entry.source):
        return False
    with entry.source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() != entry.result.input_sha256


# References


def score(entry: Entry) -> Scores | None:
    """A result against its reference; None without one.

    Raises:
        ValueError: for a reference of another size and files that cannot be read, in one line that names them.
    """
    if entry.gt is None or entry.result.status == "failed":
        return None
    restored, gt = (to_rgb(to_8_bits(read_picture(path).pixels)) for path in (entry.target, entry.gt))
    height, width = restored.shape[:2]
    if restored.shape != gt.shape:
        raise ValueError(f"the reference {named(entry.gt)} is {gt.shape[1]}x{gt.shape[0]}, the result {width}x{height}")
    restored_y, gt_y = luma(restored), luma(gt)
    large = min(height, width) >= SSIM_NEEDS
    return Scores(
        psnr(restored, gt),
        ssim(restored, gt) if large else None,
        psnr(restored_y, gt_y),
        ssim(restored_y, gt_y) if large else None,
    )


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """uint8, uint16, or float32 in [0, 1], of any shape, as uint8."""
    return array if array.dtype == np.uint8 else from_unit(to_unit(array), np.uint8)

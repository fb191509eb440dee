"""Records of `swinir restore` for its report: the last of each output, the files they name, and their scores."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swinir.image_io.color import luma
from swinir.image_io.image import list_images, to_rgb
from swinir.image_io.picture import from_unit, to_unit
from swinir.image_io.reader import named, read_picture
from swinir.metrics.full_reference import psnr, ssim
from swinir.photos.manifest import DONE, RECORDS, Result, read_rows
from swinir.weights.verify import sha256

SSIM_NEEDS = 11  # pixels a side


@dataclass(frozen=True)
class Scores:
    """Metrics of an output against its reference, on 8 bits without a crop; SSIM needs at least 11x11 pixels."""

    psnr: float
    ssim: float | None
    psnr_y: float
    ssim_y: float | None


@dataclass(frozen=True)
class Entry:
    """An image of the report.

    Attributes:
        result: its last finished record.
        name: its path below the folder that all inputs share.
        source, target: where input and output are now, if they still exist.
        gt: the reference of the same stem, if there is one.
        scores: of the output against the reference, once `with_scores` computed them.
        remark: why there are no scores in spite of a reference.
    """

    result: Result
    name: str
    source: Path
    target: Path
    gt: Path | None = None
    scores: Scores | None = None
    remark: str = ""


def read_results(path: Path) -> tuple[list[Result], int]:
    """Read the last finished record of each output, in the order of the first ones, and count the invalid lines.

    A failed attempt does not hide an output that was made before: it becomes a note in its record.

    Args:
        path: a file that `swinir restore` wrote, or the folder that holds `results.jsonl`.

    Raises:
        FileNotFoundError, ValueError: for a file that does not exist, or holds no finished record.
    """
    if path.is_dir():
        path = path / RECORDS
    if not path.is_file():
        raise FileNotFoundError(f"file not found: {named(path)}; `swinir restore` writes {RECORDS} beside its outputs")
    rows, invalid, _ = read_rows(path)
    last: dict[str, Result] = {}
    for row in rows:
        made = last.get(row.output)
        if row.status == "failed" and made is not None and made.status in DONE:  # what was made is still there
            last[row.output] = replace(made, notes=(*made.notes, f"A later attempt failed: {row.error}"))
        elif row.status != "begun":
            last[row.output] = row
    if not last:
        raise ValueError(f"no finished image in {named(path)}; give the {RECORDS} that `swinir restore` wrote")
    return list(last.values()), invalid


def find_files(results: list[Result], folder: Path, gt: Path | None = None) -> list[Entry]:
    """Find the inputs, outputs and references of records in a folder.

    Records name files relative to the folder that was current; that is most often one above the records.

    Raises:
        FileNotFoundError, NotADirectoryError: for a folder of references that does not exist or is a file.
    """
    references: dict[str, Path] = {}
    for path in list_images(gt) if gt is not None else ():
        references.setdefault(path.stem, path)
    try:
        common = os.path.commonpath([os.path.dirname(result.input) for result in results])
    except ValueError:  # absolute and relative paths
        common = ""
    entries = []
    for result in results:
        source, target = Path(result.input), Path(result.output)
        tails = [Path(*target.parts[first:]) for first in range(1, len(target.parts))]  # the folder was renamed
        entries.append(
            Entry(
                result,
                named(Path(os.path.relpath(source, common) if common else source)),
                _first_file(_candidates(source, folder)),
                _first_file([*_candidates(target, folder), *(folder / tail for tail in tails)]),
                references.get(source.stem) or references.get(target.stem),
            )
        )
    return entries


def _candidates(path: Path, folder: Path) -> list[Path]:
    absolute = folder.absolute()
    return [path, *(above / path for above in (absolute, *absolute.parents))]


def _first_file(candidates: list[Path]) -> Path:
    # os.path: a name from a record may be one that the system refuses, such as one that is too long.
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def has_changed(entry: Entry) -> bool:
    """Tell if the input exists and differs from the one that was restored."""
    if not entry.result.input_sha256 or not os.path.isfile(entry.source):
        return False
    return sha256(entry.source) != entry.result.input_sha256


def with_scores(entry: Entry) -> Entry:
    """Measure an output against its reference; entries without either stay as they are."""
    if entry.gt is None or entry.result.status not in DONE or not os.path.isfile(entry.target):
        return entry
    try:
        return replace(entry, scores=_scores(entry.target, entry.gt))
    except (ValueError, OSError, MemoryError) as error:
        return replace(entry, remark=f"Not compared: {error or 'not enough memory'}.")


def _scores(target: Path, reference: Path) -> Scores:
    restored, gt = (to_rgb(to_8_bits(read_picture(path).pixels)) for path in (target, reference))
    height, width = restored.shape[:2]
    if restored.shape != gt.shape:
        raise ValueError(
            f"the reference {named(reference)} is {gt.shape[1]}x{gt.shape[0]}, the output {width}x{height}"
        )
    restored_y, gt_y = luma(restored), luma(gt)
    large = min(height, width) >= SSIM_NEEDS
    return Scores(
        psnr(restored, gt),
        ssim(restored, gt) if large else None,
        psnr(restored_y, gt_y),
        ssim(restored_y, gt_y) if large else None,
    )


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """Convert uint8, uint16, or float32 in [0, 1], of any shape, to uint8."""
    return array if array.dtype == np.uint8 else from_unit(to_unit(array), np.uint8)

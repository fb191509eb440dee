"""HTML page about a folder of restored images: counts, a table, each image before and after under a slider."""

import base64
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from swinir.image_io.image import to_rgb
from swinir.image_io.picture import Picture
from swinir.image_io.reader import ImageError, named, read_picture
from swinir.photos.loaded_models import short_name
from swinir.photos.manifest import DONE
from swinir.report.html import Cell, SortableTable, breakable, number_cell, visible, write_page
from swinir.report.restore_records import Entry, find_files, has_changed, read_results, to_8_bits, with_scores

MAX_SIDE = 1600
LIMIT = 100
QUALITY = 95  # of the JPEG files in the page, with colors at full resolution: the page is for looking at details
METRICS = (  # title, attribute of Scores, decimals, unit
    ("PSNR", "psnr", 2, " dB"), ("SSIM", "ssim", 4, ""), ("PSNR Y", "psnr_y", 2, " dB"), ("SSIM Y", "ssim_y", 4, "")
)  # fmt: skip
COLUMNS = (
    ("Image", ""), ("Status", ""), ("Before", "number"), ("After", "number"), ("Models", "names"),
    ("Seconds", "number"), ("Noise", "number"), ("JPEG", "number"), *((title, "number") for title, *_ in METRICS),
)  # fmt: skip

Track = Callable[[Sequence[int], str], Iterable[int]]


@dataclass(frozen=True)
class Written:
    """Numbers of images with a figure on the page, of figures that lack a file, and of rows in the table."""

    shown: int
    incomplete: int
    listed: int


@dataclass(frozen=True)
class InlineJpeg:
    """A JPEG file as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Figure:
    """An image before and after: the sides that could be read, reasons for the others, and text about it."""

    anchor: str
    name: str
    caption: Sequence[str]
    sides: Mapping[str, InlineJpeg]
    missing: Mapping[str, str]
    details: Sequence[str]


def write_report(
    path: Path,
    records: Path,
    *,
    gt: Path | None = None,
    max_side: int = MAX_SIDE,
    limit: int = LIMIT,
    track: Track = lambda numbers, _label: numbers,
) -> Written:
    """Write the page about the images that `swinir restore` recorded; one of them is in memory at a time.

    Args:
        path: of the page.
        records: `results.jsonl`, or the folder that holds it.
        gt: folder of references; outputs of the same stem are measured against them.
        max_side: longest side of images on the page, in pixels.
        limit: number of images that are shown; the table has all.
        track: wraps the numbers of images that a stage with that label goes through, to show progress.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: for invalid records, references or numbers.
        OSError: if the page cannot be written.
    """
    if max_side < 1:
        raise ValueError(f"--max-side must be at least 1 pixel, got {max_side}")
    if limit < 0:
        raise ValueError(f"--limit must be 0 or more images, got {limit}")
    results, invalid = read_results(records)
    folder = records if records.is_dir() else records.parent
    entries = find_files(results, folder, gt)
    if gt is not None:
        entries = [with_scores(entries[i]) for i in track(range(len(entries)), "measuring")]
    finished = [i for i, entry in enumerate(entries) if entry.result.status in DONE]
    anchors = {i: f"image{number}" for number, i in enumerate(finished[:limit], 1)}
    incomplete = []

    def figures() -> Iterator[Figure]:
        for i in track(list(anchors), "showing"):
            figure = _figure(entries[i], anchors[i], max_side)
            if figure.missing:
                incomplete.append(figure.name)
            yield figure

    write_page(
        path,
        "report/templates/restore.html",
        title=f"SwinIR report: {named(Path(folder.absolute().name))}",
        entries=entries,
        invalid=invalid,
        tiles=_tiles(entries),
        models=Counter((_model_name(n), d) for r in results for n, d in dict.fromkeys(r.experts)),
        settings=Counter((r.settings, r.precision, r.tile, r.strength) for r in results if r.status in DONE),
        table=SortableTable("Table of all images", COLUMNS, [_row(e, anchors.get(i)) for i, e in enumerate(entries)]),
        figures=figures(),
        shown=len(anchors),
        finished=len(finished),
        quality=QUALITY,
        has_gt=gt is not None,
    )
    return Written(len(anchors), len(incomplete), len(entries))


def _tiles(entries: Sequence[Entry]) -> list[tuple[str, str, bool]]:
    """(title, value, is it bad) of the figures at the top."""
    count = Counter(entry.result.status for entry in entries)
    seconds = sum(entry.result.seconds or 0 for entry in entries)
    tiles = [("Restored", str(count["restored"]), False)]
    tiles += [(s.capitalize(), str(count[s]), False) for s in ("unchanged", "skipped") if count[s]]
    tiles += [("Failed", str(count["failed"]), count["failed"] > 0), ("Computing time", _duration(seconds), False)]
    for title, name, digits, unit in METRICS:
        scores = [getattr(entry.scores, name) for entry in entries if entry.scores]
        values = [value for value in scores if value is not None]
        if values:
            mean = number_cell(sum(values) / len(values), digits).text
            tiles.append((f"{title}, mean of {len(values)}", mean + unit, False))
    return tiles


def _row(entry: Entry, anchor: str | None) -> tuple[str, list[Cell]]:
    result, models, name = entry.result, _models_text(entry), visible(entry.name)
    scores = vars(entry.scores) if entry.scores else {}
    return result.status, [
        Cell(Markup('<a href="#{}">{}</a>').format(anchor, name) if anchor else name, entry.name),
        Cell(result.status, result.status),
        _size_cell(result.width, result.height),
        _size_cell(result.output_width, result.output_height),
        Cell(breakable(models), models or None),
        number_cell(result.seconds, 2),
        number_cell(result.noise_level, 1),
        number_cell(result.jpeg_quality, 0),
        *(number_cell(scores.get(name), digits) for _, name, digits, _ in METRICS),
    ]


def _figure(entry: Entry, anchor: str, max_side: int) -> Figure:
    missing: dict[str, str] = {}
    pictures: dict[str, Picture] = {}
    for side, path in (("before", entry.source), ("after", entry.target)):
        picture = _read(path)
        if isinstance(picture, str):
            missing[side] = picture
        else:
            pictures[side] = picture
    remarks = [entry.remark] if entry.remark else []
    if "before" in pictures and has_changed(entry):
        remarks.append("The input has changed since it was restored.")
    sides = {}
    if pictures:
        height, width = (pictures.get("after") or pictures["before"]).pixels.shape[:2]
        size = fitted_size(width, height, max_side)
        if size != (width, height):
            remarks.append(f"Shown at {_size_text(*size)} of {_size_text(width, height)} pixels.")
        for side, picture in pictures.items():
            try:
                sides[side] = inline_jpeg(picture, size)
            except (ValueError, OSError, MemoryError) as error:
                missing[side] = str(error) or "not enough memory"
    details = [*entry.result.findings, *entry.result.notes, f"Written to {named(Path(entry.result.output))}"]
    return Figure(anchor, entry.name, [_caption(entry), *remarks], sides, missing, details)


def _caption(entry: Entry) -> str:
    result = entry.result
    sizes = _size_text(result.width, result.height), _size_text(result.output_width, result.output_height)
    facts = [
        " → ".join(sizes),
        _models_text(entry) or ("unchanged" if result.status == "unchanged" else ""),
        "" if result.seconds is None else _duration(result.seconds),
        f"{number_cell(entry.scores.psnr, 2).text} dB" if entry.scores else "",
    ]
    return " · ".join(fact for fact in facts if fact)


def _read(path: Path) -> Picture | str:
    """Read an image, or say why that fails."""
    if not os.path.lexists(path):
        return f"{named(path)} does not exist; it was moved or removed."
    try:
        return read_picture(path)
    except (ImageError, MemoryError) as error:
        return str(error) or f"{named(path)}: not enough memory"


def fitted_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Width and height of an image whose longest side is limited."""
    factor = min(1.0, max_side / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def inline_jpeg(picture: Picture, size: tuple[int, int]) -> InlineJpeg:
    """Encode a picture as `jpeg_bytes` does, as a data URI."""
    return InlineJpeg("data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(picture, size)).decode(), *size)


def jpeg_bytes(picture: Picture, size: tuple[int, int]) -> bytes:
    """Encode a picture at a (width, height), by antialiased bicubic interpolation, on white where it is transparent."""
    image = Image.fromarray(to_rgb(to_8_bits(picture.pixels)))
    if picture.alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=Image.fromarray(to_8_bits(picture.alpha)))
        image = white
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    icc = picture.metadata.icc
    fits = icc is not None and icc[16:20] == b"RGB " and picture.pixels.shape[2] == 3
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, subsampling=0, icc_profile=icc if fits else None)
    return data.getvalue()


def _models_text(entry: Entry) -> str:
    """The names of an image's models, in the order of their passes."""
    return ", ".join(_model_name(name) for name, _ in entry.result.experts)


def _model_name(name: str) -> str:
    try:
        return short_name(name)
    except OSError:  # a name from a record may be longer than the system allows
        return name


def _size_text(width: int | None, height: int | None) -> str:
    return f"{width}×{height}" if width and height else ""


def _size_cell(width: int | None, height: int | None) -> Cell:
    return Cell(_size_text(width, height), width * height if width and height else None)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

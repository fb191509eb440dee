"""What `swinir compare` measured, as text, Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.bench.compare_networks import METRICS, Comparison, ModelRow
from swinir.inference.external import MACS_SIDE

ABSENT = "-"
_OWN = {field.name for field in fields(ModelRow)}


@dataclass(frozen=True)
class _Column:
    """A column of numbers; `higher` is whether more is better, None where no row is the best."""

    title: str
    value: Callable[[ModelRow], float | None]
    text: Callable[[float], str]
    higher: bool | None = None


def as_text(comparison: Comparison) -> str:
    """The table for a terminal, a line for each network."""
    columns = _columns(comparison)
    lines = [["network", *(column.title for column in columns)]]
    lines += [[row.model, *(_cells(row, columns) if row.status == "ok" else [])] for row in comparison.models]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(columns) + 1)]

    def aligned(line: list[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=False))
        return "  ".join([line[0].ljust(widths[0]), *numbers])

    rows = [
        aligned(line) + (f"  failed: {row.error}" if row.status != "ok" else "")
        for row, line in zip(comparison.models, lines[1:], strict=True)
    ]
    return "\n".join([aligned(lines[0]), *rows])


def as_markdown(comparison: Comparison, facts: Mapping[str, Any]) -> str:
    """The table with the best of each column in bold, and the notes."""
    columns = _columns(comparison)
    best = {column.title: _best(column, comparison.models) for column in columns}
    lines = ["| network | " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for row in comparison.models:
        if row.status != "ok":
            lines.append(f"| {_escaped(row.model)} | failed: {_escaped(row.error or '')} |" + " |" * (len(columns) - 1))
            continue
        cells = _cells(row, columns)
        bold = [
            f"**{cell}**" if cell == best[column.title] else cell for cell, column in zip(cells, columns, strict=True)
        ]
        lines.append(f"| {_escaped(row.model)} | " + " | ".join(bold) + " |")
    return "\n".join([*lines, "", *(_escaped(note) for note in notes(comparison, facts)), ""])


def write_markdown(path: Path, comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """Write `as_markdown`."""
    _write(path, as_markdown(comparison, facts))


def write_csv(path: Path, comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """A line for each network, with all digits; the facts of the run stand in columns of their own."""
    text = io.StringIO()
    # A network's own precision and tile stand for those that were asked for.
    rows = [_flat(row) | {k: v for k, v in facts.items() if k not in _OWN} for row in comparison.models]
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue())


def write_json(path: Path, comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """Facts, notes, networks and images as one object; an infinite PSNR becomes the string "inf".

    What `swinir compare` gives as facts: set, task, scale, noise, jpeg, tiles, precision, and versions and processor as
    `swinir.environment.machine`. Networks and images have the attributes of `ModelRow` and `ImageRow` in
    `swinir.bench.compare_networks`.
    """
    content = dict(facts) | {
        "notes": notes(comparison, facts),
        "macs_side": MACS_SIDE,
        "memory_image": comparison.largest or None,
        "unread": comparison.unread,
        "models": [asdict(row) for row in comparison.models],
        "images": [asdict(row) for row in comparison.images],
    }
    _write(path, json.dumps(_strict(content), indent=2, allow_nan=False) + "\n")


def notes(comparison: Comparison, facts: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and under which conditions each network ran; a sentence each."""
    good = [row for row in comparison.models if row.status == "ok"]
    if not good:
        return []
    images = len({row.image for row in comparison.images})
    found = [
        f"Means over {images} image{'s' * (images != 1)}; s/MP: seconds for a megapixel of output, the median over "
        "images, on which the networks took turns; GMACs: convolutions and matrix products for "
        f"{MACS_SIDE}x{MACS_SIDE} low-quality pixels."
    ]
    if comparison.largest:
        found.append(f"MB: memory at most beside weights and input, each network alone, on {comparison.largest}.")
    found.append(f"Extended by mirroring: {_grouped(good, lambda row: row.padding or ABSENT)}.")
    overlap = f", overlapping by {facts['tile_overlap']} ({facts['tile_blend']})" if facts.get("tile") else ""
    found.append(f"Tiles: {_grouped(good, lambda row: str(row.tile) if row.tile else 'whole images')}{overlap}.")
    found.append(f"Precision: {_grouped(good, lambda row: row.precision or ABSENT)}.")
    found += _missing(comparison, images)
    if "niqe" in comparison.metrics:
        found.append("NIQE: of this package's photographs; not comparable with numbers published elsewhere.")
    found += [f"Left out: {reason}." for reason in comparison.unread.values()]
    return found


def _missing(comparison: Comparison, images: int) -> list[str]:
    found = []
    for name in comparison.metrics:
        have = len({row.image for row in comparison.images if row.metrics[name] is not None})
        if have < images:
            found.append(f"{METRICS[name].title}: of {have} of the {images} images; the others are too small.")
    return found


def _grouped(rows: Sequence[ModelRow], value: Callable[[ModelRow], str]) -> str:
    """`value` alone where all rows agree, else each value with its networks."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(value(row), []).append(row.model)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in groups.items())


def _columns(comparison: Comparison) -> list[_Column]:
    """Size, quality, time and memory, as far as any network has them."""
    quality = [
        _Column(METRICS[name].title, _quality(name), f"{{:.{METRICS[name].digits}f}}".format, METRICS[name].higher)
        for name in comparison.metrics
    ]
    columns = [
        _Column("parameters", lambda row: row.parameters, lambda v: f"{v:,.0f}"),
        _Column("GMACs", lambda row: None if not row.macs else row.macs / 1e9, "{:,.1f}".format),
        *quality,
        _Column("s/MP", lambda row: row.seconds_per_megapixel, "{:.3g}".format, False),
        _Column("MB", lambda row: row.peak_mb, "{:,.0f}".format, False),
    ]
    return [column for column in columns if any(column.value(row) is not None for row in comparison.models)]


def _quality(name: str) -> Callable[[ModelRow], float | None]:
    return lambda row: row.metrics.get(name)


def _cells(row: ModelRow, columns: Sequence[_Column]) -> list[str]:
    values = [column.value(row) for column in columns]
    return [ABSENT if v is None else column.text(v) for v, column in zip(values, columns, strict=True)]


def _best(column: _Column, rows: Sequence[ModelRow]) -> str | None:
    """The best cell of a column of quality, where there is something to choose from; time and memory speak for all."""
    values = [v for row in rows if (v := column.value(row)) is not None]
    if column.higher is None or len(values) < 2 or column.title in ("s/MP", "MB"):
        return None
    return column.text(max(values) if column.higher else min(values))


def _flat(row: ModelRow) -> dict[str, Any]:
    values = asdict(row)
    return values | values.pop("metrics")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

"""Results of `swinir compare` as a text table, Markdown, CSV and JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.bench.compare_networks import METRICS, Comparison, ModelRow
from swinir.inference.external import MACS_SIDE
from swinir.report.text_table import TextTable, csv_text
from swinir.strict_json import json_text

ABSENT = "-"


@dataclass(frozen=True)
class _Column:
    """A column of numbers.

    Attributes:
        higher: True if higher values are better, False if lower ones are; None for a column without a best value.
    """

    title: str
    value: Callable[[ModelRow], float | None]
    text: Callable[[float], str]
    higher: bool | None = None


def comparison_table(comparison: Comparison, *, mark_best: bool = False) -> TextTable:
    """A row for each network: size, quality, time and memory, and the reason of a failure.

    Args:
        mark_best: put the best values of each metric between asterisks, as Markdown's bold.
    """
    columns = _columns(comparison)
    best = [_best(column, comparison.models) if mark_best else None for column in columns]
    failed = any(row.status != "ok" for row in comparison.models)
    rows = []
    for row in comparison.models:
        if row.status != "ok":
            rows.append([row.model, *("" for _ in columns), f"failed: {row.error}"])
            continue
        cells = [ABSENT if (v := column.value(row)) is None else column.text(v) for column in columns]
        marked = [f"**{cell}**" if cell == top else cell for cell, top in zip(cells, best, strict=True)]
        rows.append([row.model, *marked, *([""] if failed else [])])
    titles = ["network", *(column.title for column in columns), *(["error"] if failed else [])]
    return TextTable(titles, rows, right=range(1, len(columns) + 1))


def as_markdown(comparison: Comparison, facts: Mapping[str, Any]) -> str:
    """The table with the best of each column in bold, and the notes."""
    lines = [note.replace("|", "\\|") for note in notes(comparison, facts)]
    return "\n".join([comparison_table(comparison, mark_best=True).markdown(), *lines, ""])


def write_markdown(path: Path, comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """Write `as_markdown`."""
    _write(path, as_markdown(comparison, facts))


def write_csv(path: Path, comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """Write a line for each network with all digits, followed by the facts of the run."""
    own = {field.name for field in fields(ModelRow)}  # a network's own precision and tile, not the requested ones
    records = []
    for row in comparison.models:
        values = asdict(row)
        records.append(values | values.pop("metrics") | {k: v for k, v in facts.items() if k not in own})
    _write(path, csv_text(records))


def write_json(path: Path, comparison: Comparison, facts: Mapping[str, Any]) -> None:
    """Write facts, notes, networks and images as one object; an infinite PSNR becomes the string "inf".

    `swinir compare` gives as facts: set, task, scale, noise, jpeg, tiles, precision, and versions and processor as
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
    _write(path, json_text(content))


def notes(comparison: Comparison, facts: Mapping[str, Any]) -> list[str]:
    """Sentences that explain the numbers and the conditions under which each network ran."""
    rows = [row for row in comparison.models if row.status == "ok"]
    if not rows:
        return []
    images = len({row.image for row in comparison.images})
    sentences = [
        f"Means over {images} image{'s' * (images != 1)}; s/MP: seconds per megapixel of output, the median over "
        "images, on which the networks took turns; GMACs: convolutions and matrix products for a low-quality image of "
        f"{MACS_SIDE}x{MACS_SIDE} pixels."
    ]
    if any(row.macs_720p for row in rows):
        sentences.append(
            "720p: GMACs for an output of 1280x720 pixels, with normalisation and pooling, as fvcore counts."
        )
    if comparison.largest:
        sentences.append(f"MB: peak memory beside weights and input, each network alone, on {comparison.largest}.")
    overlap = f", overlapping by {facts['tile_overlap']} ({facts['tile_blend']})" if facts.get("tile") else ""
    sentences.append(f"Extended by mirroring: {_grouped(rows, lambda row: row.padding or ABSENT)}.")
    sentences.append(f"Tiles: {_grouped(rows, lambda row: str(row.tile) if row.tile else 'whole images')}{overlap}.")
    sentences.append(f"Precision: {_grouped(rows, lambda row: row.precision or ABSENT)}.")
    for name in comparison.metrics:
        measured = len({row.image for row in comparison.images if row.metrics[name] is not None})
        if measured < images:
            sentences.append(f"{METRICS[name].title}: of {measured} of the {images} images; the others are too small.")
    if "niqe_private" in comparison.metrics:
        source = facts.get("niqe_parameters") or "this package"
        sentences.append(f"NIQE (private): with the parameters of {source}; not comparable with published numbers.")
    return [*sentences, *(f"Left out: {reason}." for reason in comparison.unread.values())]


def _grouped(rows: Sequence[ModelRow], value: Callable[[ModelRow], str]) -> str:
    """The value alone if all rows agree, else each value with its networks."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(value(row), []).append(row.model)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{text} ({', '.join(names)})" for text, names in groups.items())


def _columns(comparison: Comparison) -> list[_Column]:
    """Size, quality, time and memory, without the columns that no network has a value for."""

    def quality(name: str) -> _Column:
        metric = METRICS[name]
        return _Column(metric.title, lambda row: row.metrics.get(name), f"{{:.{metric.digits}f}}".format, metric.higher)

    columns = [
        _Column("parameters", lambda row: row.parameters, "{:,.0f}".format),
        _Column("GMACs", lambda row: None if not row.macs else row.macs / 1e9, "{:,.1f}".format),
        _Column("720p", lambda row: None if not row.macs_720p else row.macs_720p / 1e9, "{:,.1f}".format),
        *map(quality, comparison.metrics),
        _Column("s/MP", lambda row: row.seconds_per_megapixel, "{:.3g}".format),
        _Column("MB", lambda row: row.peak_mb, "{:,.0f}".format),
    ]
    return [column for column in columns if any(column.value(row) is not None for row in comparison.models)]


def _best(column: _Column, rows: Sequence[ModelRow]) -> str | None:
    """The text of the best value of a metric that at least two networks have."""
    values = [v for row in rows if (v := column.value(row)) is not None]
    if column.higher is None or len(values) < 2:
        return None
    return column.text(max(values) if column.higher else min(values))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

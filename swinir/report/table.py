"""The table of a report: a row for each picture, a column for each fact, and what each cell is sorted by."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

from swinir.photos.restore_photo import describe
from swinir.report.rows import Entry, Scores


@dataclass(frozen=True)
class Row:
    """An entry as the page tells it.

    Attributes:
        name: short, and told apart from the others.
        anchor: of its pictures, empty without.
        remark: why there are no scores, though there is a reference.
    """

    entry: Entry
    name: str
    anchor: str = ""
    scores: Scores | None = None
    remark: str = ""


def escaped(value: str) -> str:
    """Anything as the text of an element or the value of an attribute; unprintable characters become visible."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in value))


def size_text(width: int | None, height: int | None) -> str:
    """Of a picture in pixels; empty for one that is not known."""
    return f"{width}×{height}" if width and height else ""


def experts_text(row: Row) -> str:
    """The experts of a picture, in their order."""
    return ", ".join(expert_text(name) for name, _ in row.entry.result.experts)


def expert_text(name: str) -> str:
    """What to call weights."""
    try:
        return describe(name)
    except OSError:  # longer than a file's name can be
        return name


@dataclass(frozen=True)
class _Cell:
    """What a cell says, and what it is sorted by: None where there is nothing."""

    text: str = ""
    value: str | float | None = None


@dataclass(frozen=True)
class _Column:
    title: str
    is_number: bool
    cell: Callable[[Row], _Cell]


def _words(text: str) -> _Cell:
    return _Cell(escaped(text), text or None)


def number_cell(value: float | None, digits: int) -> _Cell:
    """A number with so many decimals."""
    if value is None:
        return _Cell()
    return _Cell("∞" if value == math.inf else f"{value:.{digits}f}", value)


def _pixels(width: int | None, height: int | None) -> _Cell:
    return _Cell(size_text(width, height), width * height if width and height else None)


def _score(name: str, digits: int) -> Callable[[Row], _Cell]:
    return lambda row: _Cell() if row.scores is None else number_cell(getattr(row.scores, name), digits)


def _name_cell(row: Row) -> _Cell:
    name = escaped(row.name)
    return _Cell(f'<a href="#{row.anchor}">{name}</a>' if row.anchor else name, row.name)


def _experts_cell(row: Row) -> _Cell:
    cell = _words(experts_text(row))
    return replace(cell, text=cell.text.replace("_", "_<wbr>"))  # where their long names may be broken


_COLUMNS = (
    _Column("Picture", False, _name_cell),
    _Column("Status", False, lambda row: _words(row.entry.result.status)),
    _Column("Before", True, lambda row: _pixels(row.entry.result.width, row.entry.result.height)),
    _Column("After", True, lambda row: _pixels(row.entry.result.output_width, row.entry.result.output_height)),
    _Column("Experts", False, _experts_cell),
    _Column("Seconds", True, lambda row: number_cell(row.entry.result.seconds, 2)),
    _Column("Noise", True, lambda row: number_cell(row.entry.result.noise_level, 1)),
    _Column("JPEG", True, lambda row: number_cell(row.entry.result.jpeg_quality, 0)),
    _Column("PSNR", True, _score("psnr", 2)),
    _Column("SSIM", True, _score("ssim", 4)),
    _Column("PSNR Y", True, _score("psnr_y", 2)),
    _Column("SSIM Y", True, _score("ssim_y", 4)),
)


def table(rows: Sequence[Row]) -> str:
    """All pictures; columns without any value are left out."""
    cells = {column: [column.cell(row) for row in rows] for column in _COLUMNS}
    columns = [column for column in _COLUMNS if any(cell.value is not None for cell in cells[column])]
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_class(column)}><button type="button">{column.title}</button></th>'
        for column in columns
    )
    lines = []
    for number, row in enumerate(rows):
        line = "".join(_td(column, cells[column][number]) for column in columns)
        lines.append(f'<tr class="{row.entry.result.status}">{line}</tr>\n')
    return f"""<section>
<h2>All pictures</h2>
<div class="wide" tabindex="0" role="region" aria-label="Table of all pictures">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{"".join(lines)}</tbody>
</table>
</div>
</section>
"""


def _td(column: _Column, cell: _Cell) -> str:
    if cell.value is None:
        return f"<td{_class(column)}></td>"
    value = "Infinity" if cell.value == math.inf else str(cell.value)
    return f'<td{_class(column)} data-value="{escaped(value)}">{cell.text}</td>'


def _class(column: _Column) -> str:
    return ' class="number"' if column.is_number else ""

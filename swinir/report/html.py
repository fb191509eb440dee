"""HTML pages from jinja2 templates; each page is one file that needs nothing else.

Text from records and file names is untrusted. Three measures keep it from acting: templates escape every value,
unprintable characters are shown as escape sequences, and a policy in the page lets a browser run and load only the
script and the style sheets that are written into it.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from swinir.atomic import atomic_path
from swinir.version import __version__

SCRIPT = "report/templates/page.js"
STYLE = "report/templates/page.css"


def write_page(path: Path, template: str, *, styles: tuple[str, ...] = (), **values: Any) -> None:
    """Write a page atomically, piece by piece: what an iterator among the values yields need not fit into memory.

    Args:
        path: of the page.
        template: name below `swinir/`; the template extends "report/templates/base.html".
        styles: style sheets below `swinir/` that follow the one of all pages.
        values: the names that the template uses.
    """
    sheets = [_source(name) for name in (STYLE, *styles)]
    script = _source(SCRIPT)
    policy = f"default-src 'none'; img-src data:; style-src {' '.join(map(_hash, sheets))}; script-src {_hash(script)}"
    frame = {"policy": policy, "sheets": sheets, "script": script, "version": __version__}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(ENVIRONMENT.get_template(template).generate(**frame, **values))


@dataclass(frozen=True)
class Cell:
    """A cell of a sortable table.

    Attributes:
        text: content; `Markup` is written as it is.
        value: sort key; None for an empty cell, which stays last.
    """

    text: str = ""
    value: str | float | None = None

    @property
    def key(self) -> str:
        """The sort key as the page's script reads it."""
        return "Infinity" if self.value == math.inf else str(self.value)


@dataclass(frozen=True)
class SortableTable:
    """A table that the page's script sorts by a click on a column's title.

    Attributes:
        label: for screen readers.
        columns: (title, class) of each column; the class "number" sorts by number and aligns to the right.
        rows: (class, cells) of each row.
    """

    label: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[Cell]]]

    @property
    def filled(self) -> list[int]:
        """Indices of the columns with any value; the page leaves the others out."""
        return [i for i in range(len(self.columns)) if any(cells[i].value is not None for _, cells in self.rows)]


def number_cell(value: float | None, digits: int) -> Cell:
    """A cell with a number of that many decimals; empty for None."""
    if value is None:
        return Cell()
    return Cell("∞" if value == math.inf else f"{value:.{digits}f}", value)


def visible(value: Any) -> Any:
    """Text with unprintable characters as escape sequences; anything else, and markup, as it is."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)


def breakable(text: str) -> Markup:
    """Escaped text that a browser may wrap after an underscore; a filter for long names of models."""
    return Markup(escape(visible(text)).replace("_", Markup("_<wbr>")))


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 image, 2 images."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


ENVIRONMENT = Environment(
    loader=PackageLoader("swinir", "."),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=visible,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {"breakable": breakable, "counted": counted}


def _source(name: str) -> Markup:
    """A script or style sheet of the package, as it is written into a page."""
    assert ENVIRONMENT.loader is not None
    return Markup(ENVIRONMENT.loader.get_source(ENVIRONMENT, name)[0])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

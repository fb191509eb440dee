"""Tables as text: laid out by rich for a terminal, as Markdown; records as CSV and JSON.

rich takes longer to import than most commands take to start: it is imported where a table is printed.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

UNLIMITED = 1 << 20  # columns: text that is not for a terminal is never wrapped


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text.

    Attributes:
        titles: of the columns; empty for a table without a header.
        rows: cells from left to right, in plain text.
        right: indices of the columns that are aligned to the right.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()

    def text(self) -> str:
        """Lines with columns two spaces apart, the same whatever the terminal: for pipes, files and logs."""
        from rich.console import Console

        lines = io.StringIO()
        console = Console(
            file=lines,
            width=UNLIMITED,
            color_system=None,
            force_terminal=False,
            force_interactive=False,
            legacy_windows=False,
        )
        console.print(self.rich())
        return "\n".join(line.rstrip() for line in lines.getvalue().splitlines())

    def rich(self) -> "Table":
        """The table as rich prints it: a bold header, cells wrapped where the terminal is narrow."""
        from rich.table import Table
        from rich.text import Text

        right = set(self.right)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(self.titles))
        for index in range(len(self.titles or next(iter(self.rows), ()))):
            title = Text(self.titles[index]) if self.titles else ""
            justify: Literal["right", "left"] = "right" if index in right else "left"
            # The first column holds names, which people copy: the others are wrapped first.
            table.add_column(title, justify=justify, overflow="fold", no_wrap=index == 0)
        for row in self.rows:
            table.add_row(*map(Text, row))  # Text: brackets in a cell are no markup
        return table

    def markdown(self) -> str:
        """A Markdown table, which ends with a line feed."""
        right = set(self.right)
        rule = "".join("---:|" if index in right else "---|" for index in range(len(self.titles)))
        return "\n".join([_pipes(self.titles), f"|{rule}", *map(_pipes, self.rows), ""])


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV with a header; each name gets a column, in the order of first appearance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for record in records for name in record)))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()

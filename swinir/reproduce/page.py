"""HTML page of the measured tables: verdicts, plots of the distances, and the tables in the paper's layout."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from swinir.report.html import Cell, SortableTable, breakable, write_page
from swinir.report.text_table import TextTable
from swinir.reproduce.plot import PlotRow, distance_plot
from swinir.reproduce.published import METHOD, SOURCES, Table, figures, notes
from swinir.reproduce.results import Result
from swinir.reproduce.summary import (
    Summary,
    cost_table,
    figures_text,
    grid,
    measured_levels,
    missing_table,
    third_party_text,
)
from swinir.reproduce.verdict import LEGEND

PLOT_TITLE = f"PSNR minus the published PSNR of {METHOD} in dB; the band is the tolerance"
ZOOM = 0.1  # dB: cells that are all within this distance of the published figures get their own plot
BAD = ("differs", "failed")


@dataclass(frozen=True)
class Section:
    """One table on the page; `plots` are addresses with the whole image in them."""

    table: Table
    plots: list[str]
    verdicts: SortableTable
    layouts: list[tuple[str, SortableTable]]
    costs: TextTable
    notes: list[str]


def write_tables_page(path: Path, summary: Summary) -> None:
    """Write a page that contains everything it shows."""
    counts = {**summary.counts(), "missing": summary.lacking}
    shown = [kind for kind, number in counts.items() if number or kind in ("reproduced", *BAD)]
    write_page(
        path,
        "reproduce/templates/tables.html",
        styles=("reproduce/templates/tables.css",),
        title=f"Reproduction: {summary.name}",
        summary=summary,
        tiles=[(kind.capitalize(), counts[kind], bool(counts[kind]) and kind in BAD) for kind in shown],
        missing=missing_table(summary),
        sections=[_section(summary, table) for table in summary.tables],
        plot_title=PLOT_TITLE,
        legend=LEGEND,
        sources=[f"{name}: {text}" for name, text in SOURCES.items()],
        machine=[f"{name}: {value}" for name, value in summary.machine.items()],
    )


def _section(summary: Summary, table: Table) -> Section:
    results = summary.of(table)
    plots = [
        base64.b64encode(distance_plot(rows, summary.tolerance.psnr, PLOT_TITLE)).decode()
        for rows in _near_and_far(_plot_rows(table, results))
    ]
    return Section(
        table,
        [f"data:image/svg+xml;base64,{plot}" for plot in plots],
        _verdicts(table, results),
        [
            (f"{table.level_text(level)} in the paper's layout", _layout(table, level, results))
            for level in measured_levels(table, results)
        ],
        cost_table(summary.costs(table)),
        [f"{note.text}." for note in notes(table)],
    )


def _plot_rows(table: Table, results: Sequence[Result]) -> list[PlotRow]:
    """A row for each published cell that was measured, with the other published figures of the same set."""
    metric = table.metrics[0]
    rows: dict[tuple[int, int, str, bool], PlotRow] = {}
    for result in results:
        if result.published is None or not math.isfinite(result.ours[metric]):
            continue
        known, zero = result.published, result.published.values[metric]
        key = (known.level, table.sets.index(known.set), known.data, known.plus)
        if key not in rows:
            data = f" {known.data}{'+' if known.plus else ''}" if len(table.data) > 1 else ""
            rows[key] = PlotRow(f"{table.level_text(known.level)}{data} {known.set}")
            for other in figures(table):
                if other.method != METHOD and (other.level, other.set) == (known.level, known.set):
                    rows[key].points.append(("baseline", other.values[metric] - zero))
            rows[key].points.extend(("third party", other.values[metric] - zero) for other in result.third_party)
        rows[key].points.append((result.verdict.kind, result.ours[metric] - zero))
    return [rows[key] for key in sorted(rows)]


def _near_and_far(rows: Sequence[PlotRow]) -> Iterator[list[PlotRow]]:
    """Split rows into those whose measured points are within `ZOOM`, without their distant points, and the others."""
    near, far = [], []
    for row in rows:
        if all(abs(distance) <= ZOOM for kind, distance in row.points if kind in LEGEND):
            near.append(PlotRow(row.label, [point for point in row.points if abs(point[1]) <= ZOOM]))
        else:
            far.append(row)
    return filter(None, (near, far))


def _verdicts(table: Table, results: Sequence[Result]) -> SortableTable:
    columns = [
        ("Weights", ""), ("Level", "number"), ("Set", "set"), ("Measured", "number"), ("Published", "number"),
        ("Others", ""), ("Difference", "number"), ("Verdict", ""), ("Why", "why"),
    ]  # fmt: skip
    first, rows = table.metrics[0], []
    for result in results:
        cell, verdict = result.cell, result.verdict
        published = result.published.values if result.published else {}
        others = third_party_text(result)
        kind = Markup('<span class="kind {}">{}</span>').format(verdict.kind.replace(" ", "-"), verdict.kind)
        cells = (
            Cell(breakable(cell.label), cell.label),
            Cell(cell.level_text, cell.level),
            Cell(cell.set.name, cell.set.name),
            Cell(figures_text(table, result.ours), result.ours[first]),
            Cell(figures_text(table, published), published.get(first)),
            Cell(others, others or None),
            Cell(figures_text(table, verdict.differences, sign=True), verdict.differences.get(first)),
            Cell(kind, verdict.kind),
            Cell(verdict.text, verdict.text or None),
        )
        rows.append(("", cells))
    return SortableTable("Verdicts", columns, rows)


def _layout(table: Table, level: int, results: Sequence[Result]) -> SortableTable:
    rows = []
    for row in grid(table, level, results):
        texts = [row.cells.get(name, "") for name in table.sets]
        scores = [Cell(text, float(text.split("/")[0]) if text else None) for text in texts]
        head = (Cell(breakable(row.label), row.label), Cell(row.data, row.data))
        rows.append((row.kind.replace(" ", "-"), (*head, *scores)))
    columns = [("Method", ""), ("Trained on", ""), *((name, "number") for name in table.sets)]
    return SortableTable("The table in the paper's layout", columns, rows)

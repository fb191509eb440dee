"""Everything that one command measured, written as Markdown, CSV and JSON.

Result, Failure, Missing -> Summary -> write_summary
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.report.text_table import TextTable, csv_text
from swinir.reproduce.plan import Missing
from swinir.reproduce.published import METHOD, PUBLISHED, SOURCES, Figures, Table, figures, notes
from swinir.reproduce.results import LIGHTWEIGHT, CostRow, Failure, Result, count_costs, figures_text
from swinir.reproduce.verdict import LEGEND, Tolerance
from swinir.strict_json import json_text


@dataclass(frozen=True)
class Summary:
    """Everything that one command measured.

    Attributes:
        name: name of the command, for titles and files.
        tolerance: tolerance of the verdicts.
        machine: versions and hardware.
        lacking: number of cells that lack weights or images.
    """

    name: str
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    missing: tuple[Missing, ...]
    tolerance: Tolerance
    machine: Mapping[str, str]
    lacking: int = 0

    def of(self, table: Table) -> list[Result]:
        """Results of one table."""
        return [result for result in self.results if result.cell.table == table]

    def costs(self, table: Table) -> list[CostRow]:
        """Parameters and multiply-adds, if they were published for the table and it was measured."""
        results = self.of(table)
        return count_costs(results) if results and table.task == LIGHTWEIGHT else []

    def counts(self) -> Counter[str]:
        """Number of cells by verdict, in the legend's order, and of failed cells."""
        found: Counter[str] = Counter(dict.fromkeys(LEGEND, 0))
        found.update(result.verdict.kind for result in self.results)
        found["failed"] = len(self.failures)
        return found

    def __str__(self) -> str:
        """Counts as text: 3 reproduced, 1 differs."""
        counts = {**self.counts(), "missing": self.lacking}
        return ", ".join(f"{number} {kind}" for kind, number in counts.items() if number) or "nothing measured"


@dataclass(frozen=True)
class GridRow:
    """A row of a table in the paper's layout; `cells` are a method's figures by set.

    Attributes:
        kind: "baseline", "published", "third party" or "ours".
    """

    label: str
    data: str
    kind: str
    cells: Mapping[str, str]


def grid(table: Table, level: int, results: Sequence[Result]) -> list[GridRow]:
    """One level of a table in the paper's layout: other methods, SwinIR as published, by third parties, and ours."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in figures(table):
        if row.level == level:
            lines.setdefault((_label(row), row.data, _kind(row)), {})[row.set] = figures_text(table, row.values)
    for result in results:
        if result.cell.level == level:
            data = result.cell.weights.data or "unknown"
            cells = lines.setdefault((result.cell.label, data, "ours"), {})
            cells[result.cell.set.name] = figures_text(table, result.ours)
    order = ("baseline", "published", "third party", "ours")
    rows = [GridRow(label, data, kind, cells) for (label, data, kind), cells in lines.items()]
    return sorted(rows, key=lambda row: order.index(row.kind))


def _kind(row: Figures) -> str:
    if row.method != METHOD:
        return "baseline"
    return "published" if row.source in PUBLISHED else "third party"


def _label(row: Figures) -> str:
    label = f"{row.method}{'+' if row.plus else ''}"
    return label if row.source in PUBLISHED else f"{label} by {row.source}"


def measured_levels(table: Table, results: Sequence[Result]) -> list[int]:
    """Levels of a table that were measured."""
    return [level for level in table.levels if any(result.cell.level == level for result in results)]


def third_party_text(result: Result) -> str:
    """Figures of third parties, with their sources."""
    return ", ".join(f"{figures_text(result.cell.table, row.values)} ({row.source})" for row in result.third_party)


def verdict_text(result: Result) -> str:
    """Kind and reason of a verdict."""
    verdict = result.verdict
    return f"{verdict.kind}: {verdict.text}" if verdict.text else verdict.kind


def verdict_table(results: Sequence[Result]) -> TextTable:
    """Measured and published figures of each cell, with the verdict."""
    rows = [
        (
            result.cell.label,
            result.cell.level_text,
            result.cell.set.name,
            figures_text(result.cell.table, result.ours),
            figures_text(result.cell.table, result.published.values) if result.published else "",
            third_party_text(result),
            figures_text(result.cell.table, result.verdict.differences, sign=True),
            verdict_text(result),
        )
        for result in results
    ]
    return TextTable(("weights", "level", "set", "measured", "published", "others", "difference", "verdict"), rows)


def missing_table(summary: Summary) -> TextTable:
    """Missing weights and images, with the commands that get them."""
    rows = [(missing.what, missing.remedy, str(missing.cells)) for missing in summary.missing]
    return TextTable(("missing", "command", "cells"), rows)


def cost_table(rows: Sequence[CostRow]) -> TextTable:
    """Parameters and multiply-adds, as counted and as published."""
    titles = (
        "network", "parameters", "counted as in the paper", "published", "multiply-adds, 1280x720",
        "counted as in the paper", "published", "verdict",
    )  # fmt: skip
    cells = [
        (
            row.name,
            f"{row.parameters:,}",
            f"{row.parameters_as_published:,}",
            f"{row.published_k:g}K" if row.published_k is not None else "",
            f"{row.macs / 1e9:.1f}G",
            f"{row.macs_as_published / 1e9:.1f}G" if row.macs_as_published is not None else "",
            f"{row.published_g:g}G" if row.published_g is not None else "",
            row.verdict,
        )
        for row in rows
    ]
    return TextTable(titles, cells, right=range(1, 7))


def write_summary(folder: Path, summary: Summary) -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.json; return their paths."""
    metrics = list(dict.fromkeys(metric for table in summary.tables for metric in table.metrics))
    texts = {
        "md": "\n".join(_markdown(summary)),
        "csv": csv_text([_record(result, metrics) for result in summary.results]),
        "json": json_text(_content(summary)),
    }
    written = []
    for suffix, text in texts.items():
        path = folder / f"{summary.name}.{suffix}"
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _markdown(summary: Summary) -> Iterator[str]:
    yield f"# {summary.name}: measured and published figures\n"
    yield f"{summary}. Tolerance: {summary.tolerance}.\n"
    for table in summary.tables:
        yield from _markdown_section(summary, table)
    if summary.missing:
        missing = missing_table(summary)
        rows = [(what, f"`{command}`", cells) for what, command, cells in missing.rows]
        yield from ("## Missing\n", TextTable(missing.titles, rows).markdown())
    if summary.failures:
        failed = [(f.cell.label, f.cell.level_text, f.cell.set.name, f.error) for f in summary.failures]
        yield from ("## Failed\n", TextTable(("weights", "level", "set", "error"), failed).markdown())
    for title, items in (("Verdicts", LEGEND), ("Sources", SOURCES), ("Machine", summary.machine)):
        yield f"## {title}\n"
        yield "".join(f"- {name}: {text}\n" for name, text in items.items())


def _markdown_section(summary: Summary, table: Table) -> Iterator[str]:
    results = summary.of(table)
    yield f"## {table.title}\n"
    if not results:
        yield "Not measured.\n"
        return
    yield f"{table.measure}.\n"
    yield verdict_table(results).markdown()
    for level in measured_levels(table, results):
        yield f"### {table.level_text(level)} in the paper's layout\n"
        rows = [
            (
                f"**{row.label}**" if row.kind == "ours" else row.label,
                row.data,
                *(row.cells.get(s, "") for s in table.sets),
            )
            for row in grid(table, level, results)
        ]
        yield TextTable(("method", "trained on", *table.sets), rows).markdown()
    if costs := summary.costs(table):
        yield from ("### Parameters and multiply-adds\n", cost_table(costs).markdown())
    yield "".join(f"- {note.text}.\n" for note in notes(table))


def _record(result: Result, metrics: Sequence[str]) -> dict[str, Any]:
    """A cell for CSV and JSON; each metric has a column for ours, the published value and the difference."""
    cell, facts, values = result.cell, result.measured.facts, result.published.values if result.published else {}
    record: dict[str, Any] = {
        "table": cell.table.name,
        "weights": cell.weights.name,
        "trained_on": cell.weights.data,
        "level": cell.level_text,
        "self_ensemble": cell.plus,
        "set": cell.set.name,
        "images": len(result.measured.rows),
    }
    for metric in metrics:
        record[metric] = result.ours.get(metric)
        record[f"{metric}_published"] = values.get(metric)
        record[f"{metric}_difference"] = result.verdict.differences.get(metric)
    return record | {
        "source": result.published.source if result.published else "",
        "others": third_party_text(result),
        "verdict": result.verdict.kind,
        "why": result.verdict.text,
        "parameters": result.measured.parameters,
        "checkpoint": facts["checkpoint"],
        "checkpoint_sha256": facts["checkpoint_sha256"],
        "precision": facts["precision"],
        "device": facts["device"],
        "file": cell.file.as_posix(),
    }


def _content(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.name,
        "tolerance": asdict(summary.tolerance),
        "verdicts": dict(summary.counts()),
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "metrics": table.metrics,
                "cells": [_record(result, table.metrics) for result in summary.of(table)],
                "costs": [asdict(row) for row in summary.costs(table)],
                "notes": [note.text for note in notes(table)],
            }
            for table in summary.tables
        ],
        "lacking": summary.lacking,
        "missing": [asdict(missing) for missing in summary.missing],
        "failed": [{"file": failure.cell.file.as_posix(), "error": failure.error} for failure in summary.failures],
        "legend": LEGEND,
        "sources": SOURCES,
        "machine": dict(summary.machine),
    }

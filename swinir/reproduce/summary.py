"""What was measured as a whole, and its forms: lines for a terminal, Markdown, CSV, JSON.

Result, Failure, Missing -> Summary -> write_summary
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.evaluation.results import strict
from swinir.reproduce.plan import Missing
from swinir.reproduce.published import METHOD, PUBLISHED, SOURCES, Figures, Table, figures, notes
from swinir.reproduce.results import LIGHTWEIGHT, CostRow, Failure, Result, count_costs, spelled_one
from swinir.reproduce.verdict import LEGEND, Tolerance


@dataclass(frozen=True)
class Summary:
    """All that one command measured.

    Attributes:
        name: of the command, for titles and files.
        tolerance: of the verdicts.
        machine: versions and hardware.
        lacking: how many cells lack weights or images.
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
        """The results of one table."""
        return [result for result in self.results if result.cell.table == table]

    def costs(self, table: Table) -> list[CostRow]:
        """Parameters and multiply-adds, for the table that has them."""
        return count_costs(self.of(table)) if table.task == LIGHTWEIGHT else []

    def kinds(self) -> Counter[str]:
        """How many cells have which verdict, in the legend's order, and how many failed."""
        found: Counter[str] = Counter(dict.fromkeys(LEGEND, 0))
        found.update(result.verdict.kind for result in self.results)
        found["failed"] = len(self.failures)
        return found


@dataclass(frozen=True)
class GridRow:
    """A line of a table in the paper's shape: a method's figures, or ours, for each set that has them.

    Attributes:
        kind: "baseline", "published", "third party" or "ours".
    """

    label: str
    data: str
    kind: str
    cells: Mapping[str, str]


def spelled(table: Table, values: Mapping[str, float], *, sign: bool = False) -> str:
    """The figures of a cell, as the table orders and rounds them."""
    return "/".join(spelled_one(m, values[m], sign=sign) for m in table.metrics if m in values)


def grid(table: Table, level: int, results: Sequence[Result]) -> list[GridRow]:
    """One level of a table in the paper's shape: other methods, SwinIR as published, as others found it, and ours."""
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in figures(table):
        if row.level == level:
            lines.setdefault((_label(row), row.data, _kind(row)), {})[row.set] = spelled(table, row.values)
    for result in results:
        if result.cell.level == level:
            data = result.cell.weights.data or "unknown"
            cells = lines.setdefault((result.cell.label, data, "ours"), {})
            cells[result.cell.set.name] = spelled(table, result.ours)
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


def levels(table: Table, results: Sequence[Result]) -> list[int]:
    """The levels of a table that were measured."""
    return [level for level in table.levels if any(result.cell.level == level for result in results)]


def others_text(result: Result) -> str:
    """What third parties found."""
    return ", ".join(f"{spelled(result.cell.table, row.values)} ({row.source})" for row in result.third_party)


def verdict_text(result: Result) -> str:
    """Kind and reason in one sentence."""
    verdict = result.verdict
    return f"{verdict.kind}: {verdict.text}" if verdict.text else verdict.kind


def counted(summary: Summary) -> str:
    """3 reproduced, 1 differs."""
    counts = {**summary.kinds(), "missing": summary.lacking}
    found = [f"{number} {kind}" for kind, number in counts.items() if number]
    return ", ".join(found) or "nothing measured"


def write_summary(folder: Path, summary: Summary) -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.json; returns their paths."""
    texts = {"md": _markdown(summary), "csv": _csv(summary), "json": _json(summary)}
    written = []
    for suffix, text in texts.items():
        path = folder / f"{summary.name}.{suffix}"
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _markdown(summary: Summary) -> str:
    parts = [f"# {summary.name}: measured beside published\n", f"{counted(summary)}. Tolerance: {summary.tolerance}.\n"]
    for table in summary.tables:
        parts += _markdown_table(summary, table)
    if summary.missing:
        rows = [(m.what, f"`{m.remedy}`", str(m.cells)) for m in summary.missing]
        parts += ["## Missing\n", _pipes(("what", "how to get it", "cells"), rows)]
    if summary.failures:
        failed = [(f.cell.label, f.cell.set.name, f.cell.level_text, f.error) for f in summary.failures]
        parts += ["## Failed\n", _pipes(("weights", "set", "level", "why"), failed)]
    parts += ["## Verdicts\n", "\n".join(f"- {kind}: {text}" for kind, text in LEGEND.items()) + "\n"]
    parts += ["## Sources\n", "\n".join(f"- {name}: {text}" for name, text in SOURCES.items()) + "\n"]
    parts += ["## Machine\n", "\n".join(f"- {name}: {value}" for name, value in summary.machine.items()) + "\n"]
    return "\n".join(parts)


def _markdown_table(summary: Summary, table: Table) -> Iterator[str]:
    results = summary.of(table)
    yield f"## {table.title}\n"
    yield f"{table.measure}.\n"
    if results:
        head = ("weights", "level", "set", "measured", "published", "others", "difference", "verdict")
        yield _pipes(head, [_verdict_row(result) for result in results])
    else:
        yield "Nothing of it was measured.\n"
    for level in levels(table, results):
        yield f"### {table.level_text(level)} in the paper's shape\n"
        rows = [
            (
                f"**{row.label}**" if row.kind == "ours" else row.label,
                row.data,
                *(row.cells.get(s, "") for s in table.sets),
            )
            for row in grid(table, level, results)
        ]
        yield _pipes(("method", "trained on", *table.sets), rows)
    if costs := summary.costs(table):
        yield "### Parameters and multiply-adds\n"
        yield _pipes(COST_HEAD, [cost_cells(row) for row in costs])
    if known := notes(table):
        yield "".join(f"- {note.text}.\n" for note in known)


COST_HEAD = (
    "network", "parameters", "in the paper's way", "published", "multiply-adds, 1280x720", "in the paper's way",
    "published", "verdict",
)  # fmt: skip


def cost_cells(row: CostRow) -> tuple[str, ...]:
    """A row of the table of costs, for people."""
    return (
        row.name,
        f"{row.parameters:,}",
        f"{row.parameters_as_published:,}",
        f"{row.published_k:g}K" if row.published_k is not None else "",
        f"{row.macs / 1e9:.1f}G",
        f"{row.macs_as_published / 1e9:.1f}G" if row.macs_as_published is not None else "",
        f"{row.published_g:g}G" if row.published_g is not None else "",
        row.verdict,
    )


def _verdict_row(result: Result) -> tuple[str, ...]:
    cell = result.cell
    return (
        cell.label,
        cell.level_text,
        cell.set.name,
        spelled(cell.table, result.ours),
        spelled(cell.table, result.published.values) if result.published else "",
        others_text(result),
        spelled(cell.table, result.verdict.differences, sign=True),
        verdict_text(result),
    )


def _pipes(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    return "".join([line(head), "|---" * len(head) + "|\n", *map(line, rows)])


def _csv(summary: Summary) -> str:
    """One line for each cell; metrics have a column each for ours, published and the difference."""
    metrics = dict.fromkeys(metric for table in summary.tables for metric in table.metrics)
    lines = [_facts(result, tuple(metrics)) for result in summary.results]
    text = io.StringIO()
    fields = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(text, fieldnames=fields)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _facts(result: Result, metrics: Sequence[str]) -> dict[str, Any]:
    cell, facts, values = result.cell, result.measured.facts, result.published.values if result.published else {}
    line: dict[str, Any] = {
        "table": cell.table.name,
        "weights": cell.weights.name,
        "trained_on": cell.weights.data,
        "level": cell.level_text,
        "self_ensemble": cell.plus,
        "set": cell.set.name,
        "images": len(result.measured.rows),
    }
    for metric in metrics:
        line[metric] = result.ours.get(metric)
        line[f"{metric}_published"] = values.get(metric)
        line[f"{metric}_difference"] = result.verdict.differences.get(metric)
    return line | {
        "source": result.published.source if result.published else "",
        "others": others_text(result),
        "verdict": result.verdict.kind,
        "why": result.verdict.text,
        "parameters": result.measured.parameters,
        "checkpoint": facts["checkpoint"],
        "checkpoint_sha256": facts["checkpoint_sha256"],
        "precision": facts["precision"],
        "device": facts["device"],
        "file": cell.file.as_posix(),
    }


def _json(summary: Summary) -> str:
    content = {
        "name": summary.name,
        "tolerance": asdict(summary.tolerance),
        "verdicts": dict(summary.kinds()),
        "tables": [
            {
                "name": table.name,
                "title": table.title,
                "metrics": table.metrics,
                "cells": [_facts(result, table.metrics) for result in summary.of(table)],
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
    return json.dumps(strict(content), indent=2, allow_nan=False) + "\n"

"""One HTML page about what was measured: verdicts, distances as plots, tables in the paper's shape."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from swinir.atomic import atomic_path
from swinir.report.frame import foot, head
from swinir.report.table import escaped
from swinir.reproduce.plot import Line, Point, distance_plot, mark
from swinir.reproduce.published import METHOD, SOURCES, Table, figures, notes
from swinir.reproduce.results import Result
from swinir.reproduce.summary import COST_HEAD, Summary, cost_cells, grid, levels, others_text, spelled
from swinir.reproduce.verdict import LEGEND

PLOT_TITLE = f"PSNR minus that of {METHOD} as published, in dB; the band is the tolerance"
ZOOM = 0.1  # dB: cells whose figures are within this distance of the published ones get a plot of their own
KEY = {
    "baseline": "other methods, as published",
    "third party": "the released weights, measured by others",
    "ours": "measured here",
}


def write_page(path: Path, summary: Summary) -> None:
    """Write a page that holds all it needs and asks no network."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head(f"Reproduction: {summary.name}", styles=("swinir.reproduce",)))
        file.writelines(_summary(summary))
        for table in summary.tables:
            file.writelines(_table(summary, table))
        file.writelines(_end(summary))
        file.write(foot())


def _summary(summary: Summary) -> Iterator[str]:
    counts = {**summary.kinds(), "missing": summary.lacking}
    yield '<section>\n<dl class="facts">\n'
    for kind, number in counts.items():
        if number or kind in ("reproduced", "differs", "failed"):
            bad = ' class="bad"' if number and kind in ("differs", "failed") else ""
            yield f"<div{bad}><dt>{kind.capitalize()}</dt><dd>{number}</dd></div>\n"
    yield "</dl>\n"
    yield f'<p class="soft">Cells of the tables by verdict. Tolerance: {escaped(str(summary.tolerance))}.</p>\n'
    if summary.failures:
        yield '<section class="failed">\n<h2>Failed</h2>\n<ul class="lists">\n'
        for failure in summary.failures:
            cell = failure.cell
            what = f"{cell.label} on {cell.set.name}, {cell.level_text}"
            yield f"<li><b>{escaped(what)}</b><br><span>{escaped(failure.error)}</span></li>\n"
        yield "</ul>\n</section>\n"
    if summary.missing:
        yield "<details><summary>What is missing, and how to get it</summary>\n"
        rows = [(m.what, m.remedy, str(m.cells)) for m in summary.missing]
        yield f"{_static('missing', ('What', 'Command', 'Cells that wait for it'), rows)}</details>\n"
    yield "</section>\n"


def _table(summary: Summary, table: Table) -> Iterator[str]:
    results = summary.of(table)
    yield f'<section id="{table.name}">\n<h2>{escaped(table.title)}</h2>\n'
    if not results:
        yield '<p class="soft">Nothing of it was measured.</p>\n</section>\n'
        return
    if lines := _lines(table, results):
        plots = "".join(distance_plot(some, summary.tolerance.psnr, PLOT_TITLE) for some in _near_and_far(lines))
        yield f'<div class="wide card" tabindex="0" role="region" aria-label="Plots">\n{plots}{_key(lines)}</div>\n'
    yield _verdicts(table, results)
    for level in levels(table, results):
        yield f"<details><summary>{table.level_text(level)} in the paper's shape: {escaped(table.measure)}</summary>\n"
        yield f"{_shape(table, level, results)}</details>\n"
    if costs := summary.costs(table):
        yield "<details><summary>Parameters and multiply-adds, counted whole and in the paper's way</summary>\n"
        titles = [title[0].upper() + title[1:] for title in COST_HEAD]
        yield f"{_static('costs', titles, [cost_cells(row) for row in costs])}</details>\n"
    if known := notes(table):
        yield "<h3>Known about the published figures</h3>\n"
        yield _list([f"{note.text}." for note in known])
    yield "</section>\n"


def _lines(table: Table, results: Sequence[Result]) -> list[Line]:
    """A line of the plot for each published cell that was measured, with all that was published beside it."""
    metric = table.metrics[0]
    lines: dict[tuple[int, str, str, bool], Line] = {}
    for result in results:
        if result.published is None or not math.isfinite(result.ours[metric]):
            continue
        row, zero = result.published, result.published.values[metric]
        key = (row.level, row.set, row.data, row.plus)
        if key not in lines:
            several = f" {row.data}{'+' if row.plus else ''}" if len(table.data) > 1 else ""
            lines[key] = Line(f"{table.level_text(row.level)}{several} {row.set}")
            for other in figures(table):
                if other.method != METHOD and (other.level, other.set) == (row.level, row.set):
                    lines[key].points.append(Point(other.method, other.values[metric] - zero, "baseline"))
            for other in result.third_party:
                lines[key].points.append(Point(f"{other.source}", other.values[metric] - zero, "third party"))
        lines[key].points.append(Point(result.cell.label, result.ours[metric] - zero, "ours", result.verdict.kind))
    return [lines[key] for key in sorted(lines, key=lambda k: (k[0], table.sets.index(k[1]), k[2], k[3]))]


def _near_and_far(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """The lines whose figures of ours are all near the published one, without what is far from it; and the others."""

    def is_near(line: Line) -> bool:
        return all(abs(point.distance) <= ZOOM for point in line.points if point.kind == "ours")

    near = [line for line in lines if is_near(line)]
    if near:
        yield [Line(line.label, [point for point in line.points if abs(point.distance) <= ZOOM]) for line in near]
    if far := [line for line in lines if not is_near(line)]:
        yield far


def _key(lines: Sequence[Line]) -> str:
    """What the marks mean; ours have a color for each verdict."""
    found = {(point.kind, point.verdict) for line in lines for point in line.points}
    wanted = [(kind, verdict) for kind in KEY for verdict in ("", *LEGEND) if (kind, verdict) in found]
    items = "".join(
        f'<span><svg class="plot-key" viewBox="0 0 16 16" aria-hidden="true"><g class="plot">'
        f"{mark(Point('', 0, kind, verdict), 8, 8)}</g></svg>{KEY[kind]}{': ' if verdict else ''}{verdict}</span>"
        for kind, verdict in wanted
    )
    return f'<p class="key">{items}</p>\n'


def _verdicts(table: Table, results: Sequence[Result]) -> str:
    heads: tuple[tuple[str, str], ...] = (
        ("Weights", ""), ("Level", "number"), ("Set", ""), ("Measured", "number"), ("Published", "number"),
        ("Others", ""), ("Difference", "number"), ("Verdict", ""), ("Why", ""),
    )  # fmt: skip
    empty = {
        "Others": not any(result.third_party for result in results),
        "Why": not any(result.verdict.text for result in results),
    }
    heads = tuple((name, kind) for name, kind in heads if not empty.get(name))
    shown = [name for name, _ in heads]
    first = table.metrics[0]
    lines = []
    for result in results:
        cell, verdict = result.cell, result.verdict
        values = result.published.values if result.published else {}
        cells: dict[str, tuple[str, str | float | None, str]] = {
            "Weights": (_breakable(cell.label), cell.label, ""),
            "Level": (cell.level_text, cell.level, "number"),
            "Set": (escaped(cell.set.name), cell.set.name, "set"),
            "Measured": (spelled(table, result.ours), result.ours[first], "number"),
            "Published": (spelled(table, values), values.get(first), "number"),
            "Others": (escaped(others_text(result)), others_text(result) or None, ""),
            "Difference": (
                spelled(table, verdict.differences, sign=True), verdict.differences.get(first), "number",
            ),
            "Verdict": (
                f'<span class="kind {verdict.kind.replace(" ", "-")}">{verdict.kind}</span>', verdict.kind, "",
            ),
            "Why": (escaped(verdict.text), verdict.text or None, "why"),
        }  # fmt: skip
        lines.append("".join(_td(*cells[name]) for name in shown))
    head = "".join(
        f'<th scope="col" aria-sort="none"{_class(kind)}><button type="button">{name}</button></th>'
        for name, kind in heads
    )
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return (
        f'<p class="soft">{escaped(table.measure)}.</p>\n'
        f'<div class="wide" tabindex="0" role="region" aria-label="Verdicts">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _breakable(name: str) -> str:
    """Text with names that may be broken at their underscores."""
    return escaped(name).replace("_", "_<wbr>")


def _td(text: str, value: str | float | None, kind: str) -> str:
    data = "" if value is None else f' data-value="{escaped(str(value))}"'
    return f"<td{_class(kind)}{data}>{text}</td>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _shape(table: Table, level: int, results: Sequence[Result]) -> str:
    head = '<th scope="col">Method</th><th scope="col">Trained on</th>'
    head += "".join(f'<th scope="col" class="number">{escaped(name)}</th>' for name in table.sets)
    lines = []
    for row in grid(table, level, results):
        cells = "".join(f'<td class="number">{escaped(row.cells.get(name, ""))}</td>' for name in table.sets)
        lines.append(
            f'<tr class="{row.kind.replace(" ", "-")}"><td>{_breakable(row.label)}</td><td>{escaped(row.data)}</td>'
            f"{cells}</tr>\n"
        )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="The table in the paper\'s shape">\n'
        f'<table class="shape">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{"".join(lines)}</tbody>\n</table>\n</div>\n'
    )


def _static(label: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that needs no sorting."""
    heads = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_breakable(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(label)}">\n<table class="static">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _list(lines: Sequence[str]) -> str:
    return '<ul class="lists">\n' + "".join(f"<li>{escaped(line)}</li>\n" for line in lines) + "</ul>\n"


def _end(summary: Summary) -> Iterator[str]:
    yield '<section>\n<h2>What the verdicts mean</h2>\n<dl class="legend">\n'
    for kind, text in LEGEND.items():
        yield f'<dt><span class="kind {kind.replace(" ", "-")}">{kind}</span></dt><dd>{escaped(text)}</dd>\n'
    yield "</dl>\n<h3>Sources</h3>\n"
    yield _list([f"{name}: {text}" for name, text in SOURCES.items()])
    yield "<h3>Machine</h3>\n"
    yield _list([f"{name}: {value}" for name, value in summary.machine.items()])
    yield "</section>\n"

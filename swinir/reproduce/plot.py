"""How far from the published PSNR: a plot as an SVG element that takes its colors from the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from swinir.report.table import escaped

RIGHT, TOP, LINE, BOTTOM = 24, 8, 22, 48  # pixels of the drawing
WIDTH = 960
LETTER = 7.5  # pixels, on the average
TICKS = 8
SHAPES = {"baseline": "circle", "third party": "square", "ours": "diamond"}


@dataclass(frozen=True)
class Point:
    """A figure on a line of the plot.

    Attributes:
        label: what it is, shown when it is pointed at.
        distance: from the published PSNR, in dB.
        kind: a key of `SHAPES`.
        verdict: of ours, for its color.
    """

    label: str
    distance: float
    kind: str
    verdict: str = ""


@dataclass(frozen=True)
class Line:
    """One published cell and what stands beside it."""

    label: str
    points: list[Point] = field(default_factory=list)


def distance_plot(lines: Sequence[Line], tolerance: float, title: str) -> str:
    """A line for each cell, the published PSNR of SwinIR at 0, a band for the tolerance in dB, and the points."""
    low, high, step = axis([p.distance for line in lines for p in line.points] + [-2 * tolerance, 2 * tolerance])
    height = TOP + LINE * len(lines) + BOTTOM
    bottom = height - BOTTOM
    left = round(24 + LETTER * max((len(line.label) for line in lines), default=0))

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (WIDTH - left - RIGHT), 1)

    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escaped(title)}">',
        f'<rect class="band" x="{x(-tolerance)}" y="{TOP}" width="{x(tolerance) - x(-tolerance):.1f}" '
        f'height="{bottom - TOP}"></rect>',
    ]
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        parts.append(f'<line class="grid" x1="{x(value)}" x2="{x(value)}" y1="{TOP}" y2="{bottom}"></line>')
        text = "0" if abs(value) < step / 2 else f"{value:+.{_digits(step)}f}"
        parts.append(f'<text class="tick" x="{x(value)}" y="{bottom + 16}">{text}</text>')
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{bottom}"></line>')
    parts.append(f'<text class="tick" x="{(left + WIDTH - RIGHT) / 2}" y="{height - 8}">{escaped(title)}</text>')
    for number, line in enumerate(lines):
        y = TOP + LINE * (number + 0.5)
        parts.append(f'<line class="row" x1="{left}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"></line>')
        parts.append(f'<text class="name" x="{left - 10}" y="{y + 4}">{escaped(line.label)}</text>')
        for point in sorted(line.points, key=lambda p: list(SHAPES).index(p.kind)):
            parts.append(mark(point, x(point.distance), y))
    return "\n".join([*parts, "</svg>\n"])


def axis(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest tick, highest tick and step for finite values and 0: steps of 1, 2 or 5 times a power of ten."""
    low, high = min((0.0, *values)), max((0.0, *values))
    raw = max(high - low, 1e-6) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step, step


def _digits(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def mark(point: Point, x: float, y: float) -> str:
    """The point's shape around a place of the drawing."""
    kind = point.kind.replace(" ", "-") + (f" {point.verdict.replace(' ', '-')}" if point.verdict else "")
    about = f"<title>{escaped(point.label)}: {point.distance:+.3f} dB</title>" if point.label else ""
    if SHAPES[point.kind] == "circle":
        return f'<circle class="{kind}" cx="{x}" cy="{y}" r="4">{about}</circle>'
    if SHAPES[point.kind] == "square":
        return f'<rect class="{kind}" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8">{about}</rect>'
    return f'<path class="{kind}" d="M{x - 7:.1f} {y}L{x} {y - 7}L{x + 7:.1f} {y}L{x} {y + 7}Z">{about}</path>'

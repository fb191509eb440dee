"""Plots: distances of measured PSNRs from the published ones, and measured and published curves of a study."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinir.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The same file for the same data, text as text, and no formulas in names.
SETTINGS: Any = {"svg.hashsalt": "swinir", "svg.fonttype": "none", "text.parse_math": False}


@dataclass(frozen=True)
class Mark:
    """Style of a kind of points: matplotlib's marker, face color and edge color, and the entry of the legend."""

    marker: str
    face: str
    edge: str
    label: str


MARKS = {
    "baseline": Mark("o", "#9a9a95", "none", "other methods, as published"),
    "third party": Mark("s", "white", "black", "released weights, measured by others"),
    "reproduced": Mark("D", "#19703a", "white", "measured here: reproduced"),
    "explained": Mark("D", "#c98500", "white", "measured here: explained"),
    "differs": Mark("D", "#c21f1f", "white", "measured here: differs"),
}
OTHER = Mark("D", "#0b5cad", "white", "measured here: other verdicts")


@dataclass(frozen=True)
class PlotRow:
    """One published cell; `points` are distances from its PSNR in dB, by key of `MARKS` or verdict."""

    label: str
    points: list[tuple[str, float]] = field(default_factory=list)


def distance_plot(rows: Sequence[PlotRow], tolerance: float, title: str) -> bytes:
    """Draw a line for each cell, with the published PSNR at 0 and a band for the tolerance in dB, as an SVG file."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9.6, 1.3 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-tolerance, tolerance, color="#19703a", alpha=0.18, linewidth=0)
        axes.axvline(0, color="black", linewidth=1)
        drawn: dict[Mark, tuple[list[float], list[int]]] = {mark: ([], []) for mark in (*MARKS.values(), OTHER)}
        for place, row in enumerate(rows):
            for kind, distance in row.points:
                xs, ys = drawn[MARKS.get(kind, OTHER)]
                xs.append(distance)
                ys.append(place)
        for mark, (xs, ys) in drawn.items():
            if xs:
                axes.scatter(xs, ys, marker=mark.marker, c=mark.face, edgecolors=mark.edge, label=mark.label, zorder=3)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -2 * tolerance), max(high, 2 * tolerance))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}" if abs(value) > 1e-9 else "0")
        axes.grid(axis="y", linestyle=":")
        axes.grid(axis="x", alpha=0.4)
        axes.set_xlabel(title)
        if any(xs for xs, _ in drawn.values()):
            figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


X = float | str
Curve = Sequence[tuple[X, float, float]]  # x, PSNR in dB, and half the length of its error bar
MAX_TICKS = 7  # with at most so many points, each has a tick
COLORS = ("tab:blue", "tab:orange")


def plot_study(
    path: Path,
    title: str,
    axis: str,
    measured: Mapping[str, Curve],
    published: Mapping[str, Curve],
    *,
    settings: tuple[str, str],
    equal_spans: bool = True,
) -> None:
    """Draw two panels, measured and published, with a curve for each network.

    Points whose x is text are not joined. Error bars of length 0 are left out.

    Args:
        path: .png, .svg or .pdf file, written atomically.
        title: title of the figure.
        axis: title of the x axes.
        measured, published: curves by the network's name.
        settings: conditions of each panel, shown above its legend.
        equal_spans: give both panels the same length for a decibel, so that neither exaggerates.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        figure.suptitle(title)
        panels = figure.subplots(1, 2)
        contents = zip(panels, ("measured", "published"), (measured, published), settings, strict=True)
        for axes, heading, curves, setting in contents:
            _draw(axes, curves)
            axes.set(title=heading, xlabel=axis, ylabel="PSNR on Y in dB")
            axes.grid(alpha=0.3)
            legend = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "title_fontsize": 8, "fontsize": 9}
            axes.legend(title="\n".join(textwrap.wrap(setting, 66)), ncols=len(curves), **legend)
        if equal_spans:
            widest = max(high - low for low, high in (axes.get_ylim() for axes in panels))
            for axes in panels:
                middle = sum(axes.get_ylim()) / 2
                axes.set_ylim(middle - widest / 2, middle + widest / 2)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=110)


def _draw(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        xs, psnr, error = zip(*curve, strict=True)
        is_text = any(isinstance(x, str) for x in xs)
        bars: Any = error if any(error) else None
        axes.errorbar(xs, psnr, yerr=bars, fmt="o" if is_text else "o-", capsize=4, color=color, label=name)
        if is_text:
            axes.margins(x=0.2, y=0.15)
        else:
            axes.xaxis.set_major_formatter("{x:,g}")
            if len(xs) <= MAX_TICKS:
                axes.set_xticks(xs)

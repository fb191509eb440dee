"""A study of the paper as a picture: the runs made here beside the published curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinir.atomic import atomic_path
from swinir.report.speed import check_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

X = float | str
Curve = Sequence[tuple[X, float, float]]  # x, PSNR in dB, and half the length of its error bar
MAX_TICKS = 7  # points that all get a tick of their own
COLORS = ("tab:blue", "tab:orange")


def plot_study(
    path: Path,
    title: str,
    axis: str,
    here: Mapping[str, Curve],
    published: Mapping[str, Curve],
    *,
    settings: tuple[str, str],
    equal_spans: bool = True,
) -> None:
    """Draw two panels, ours and the published one, a curve for each network.

    Points whose x are words are not joined by lines. Error bars of length 0 are left out.

    Args:
        path: .png, .svg or .pdf, written atomically.
        title: above both.
        axis: what x is.
        here, published: curves by the network's name.
        settings: what each panel was measured with; they head the legends.
        equal_spans: a decibel is as long in one panel as in the other, so that neither exaggerates.

    Raises:
        ValueError: as `check_plot`.
    """
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(1, 2)
    for axes, heading, curves, setting in zip(panels, ("here", "published"), (here, published), settings, strict=True):
        _draw(axes, curves)
        axes.set_title(heading)
        axes.set_xlabel(axis)
        axes.set_ylabel("PSNR on Y in dB")
        axes.grid(alpha=0.3)
        legend = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "title_fontsize": 8, "fontsize": 9}
        axes.legend(title=_wrapped(setting), ncols=len(curves), **legend)
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
        words = any(isinstance(x, str) for x in xs)
        bars: Any = error if any(error) else None
        axes.errorbar(xs, psnr, yerr=bars, fmt="o" if words else "o-", capsize=4, color=color, label=name)
        if words:
            axes.margins(x=0.2, y=0.15)
        else:
            axes.xaxis.set_major_formatter("{x:,g}")
            if len(xs) <= MAX_TICKS:
                axes.set_xticks(xs)


def _wrapped(text: str, width: int = 66) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))

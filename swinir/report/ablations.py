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
COLORS = ("tab:blue", "tab:orange")


def plot_study(
    path: Path,
    title: str,
    axis: str,
    here: Mapping[str, Curve],
    published: Mapping[str, Curve],
    *,
    settings: tuple[str, str],
) -> None:
    """Draw two panels, ours and the published one, each with its own scale of PSNR, a curve for each network.

    Points whose x are words become bars. Error bars of length 0 are left out.

    Args:
        path: .png, .svg or .pdf, written atomically.
        title: above both.
        axis: what x is.
        here, published: curves by the network's name.
        settings: what each panel was measured with, one line each; wrapped, they head its legend.

    Raises:
        ValueError, ImportError: as `check_plot`.
    """
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, heading, curves, setting in zip(
        figure.subplots(1, 2), ("here", "published"), (here, published), settings, strict=True
    ):
        _draw(axes, curves)
        axes.set_title(heading)
        axes.set_xlabel(axis)
        axes.set_ylabel("PSNR on Y in dB")
        axes.grid(alpha=0.3)
        axes.legend(
            title=_wrapped(setting), title_fontsize=8, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.15)
        )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=110)


def _draw(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        xs, psnr, error = zip(*curve, strict=True)
        bars: Any = error if any(error) else None
        if any(isinstance(x, str) for x in xs):
            axes.bar(xs, psnr, yerr=bars, capsize=4, color=color, width=0.5, label=name)
            low, high = min(p - e for p, e in zip(psnr, error, strict=True)), max(psnr) + max(error)
            axes.set_ylim(low - 0.5 * (high - low), high + 0.15 * (high - low))  # what differs, not what is equal
        else:
            axes.errorbar(xs, psnr, yerr=bars, marker="o", capsize=3, color=color, label=name)


def _wrapped(text: str, width: int = 66) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))

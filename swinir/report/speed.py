"""What `swinir bench` measured, as JSON and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.bench.timing import Row

FORMATS = (".png", ".svg", ".pdf")


def write_speed(path: Path, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write facts and rows as one JSON object; an infinite PSNR becomes the string "inf".

    What `swinir bench` gives as facts:
        network: name, parameters, scale, the file with the weights (null: random ones), and all options as `config`.
        machine: versions, device, cpu, cores, threads, and the load when it began; see `swinir.environment.machine`.
        matrix_gflops: 1e9 operations a second that matrix products reach, for each precision.
        repeats: number of rounds.
        complete: false when it was interrupted.
    Then rows: an object for each variant and size, with the attributes of `swinir.bench.timing.Row`.
    """
    content = facts | {"rows": [{k: "inf" if v == math.inf else v for k, v in asdict(row).items()} for row in rows]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def check_plot(path: Path) -> None:
    """Refuse a file name whose suffix is no plot format, with a ValueError."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a plot's file must end in one of {', '.join(FORMATS)}, got {path.name!r}")


def plot_speed(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw seconds per megapixel and peak memory against the number of pixels, a line for each variant.

    Raises:
        ValueError: as `check_plot`.
    """
    check_plot(path)
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    measured = [row for row in rows if row.seconds is not None]
    sizes = {_megapixels(row): f"{row.height}x{row.width}" for row in measured}
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    time, memory = figure.subplots(1, 2)

    def draw(axes: Axes, label: str) -> None:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(list(sizes), list(sizes.values()), rotation=30)
        axes.set_xlabel("low-quality image in pixels")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)

    for name in dict.fromkeys(row.variant for row in measured):
        mine = sorted((row for row in measured if row.variant == name), key=_megapixels)
        low, median, high = zip(*(_per_megapixel(row) for row in mine), strict=True)
        below = [b - a for a, b in zip(low, median, strict=True)]
        above = [b - a for a, b in zip(median, high, strict=True)]
        time.errorbar([_megapixels(row) for row in mine], median, (below, above), marker="o", capsize=3, label=name)
        peaks = [(_megapixels(row), row.peak_mb) for row in mine if row.peak_mb is not None]
        memory.plot([x for x, _ in peaks], [mb for _, mb in peaks], marker="o", label=name)
    draw(time, "seconds per megapixel of output (median, quartiles)")
    draw(memory, "peak memory beside the weights in MB")
    time.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _megapixels(row: Row) -> float:
    return row.batch * row.height * row.width / 1e6


def _per_megapixel(row: Row) -> tuple[float, ...]:
    assert row.seconds is not None
    return tuple(value / row.megapixels for value in row.seconds)

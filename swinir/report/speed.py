"""Results of `swinir bench` as JSON and as a plot."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from swinir.atomic import atomic_path
from swinir.bench.timing import VariantRow
from swinir.strict_json import json_text

FORMATS = (".png", ".svg", ".pdf")


def write_speed(path: Path, facts: dict[str, Any], rows: Sequence[VariantRow]) -> None:
    """Write facts and rows as one JSON object; an infinite PSNR becomes the string "inf".

    `swinir bench` gives as facts:
        network: name, parameters, scale, file of the weights (null for random ones), and all options as `config`.
        machine: versions, device, cpu, cores, threads, and the load at the start; see `swinir.environment.machine`.
        matrix_gflops: 1e9 operations per second that matrix products reach, for each precision.
        repeats: number of rounds.
        complete: false for an interrupted run.
    `rows` holds an object for each variant and size, with the attributes of `swinir.bench.timing.VariantRow`.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(facts | {"rows": [asdict(row) for row in rows]}), encoding="utf-8")


def check_plot(path: Path) -> None:
    """Refuse a file name whose suffix is no plot format, with a ValueError."""
    if path.suffix not in FORMATS:
        raise ValueError(f"a plot's file must end in one of {', '.join(FORMATS)}, got {path.name!r}")


def plot_speed(path: Path, title: str, rows: Sequence[VariantRow]) -> None:
    """Plot seconds per megapixel and peak memory over the number of pixels, a line for each variant.

    Raises:
        ValueError: as `check_plot`.
    """
    check_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    measured = sorted((row for row in rows if row.seconds is not None), key=_megapixels)
    sizes = {_megapixels(row): f"{row.height}x{row.width}" for row in measured}
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    figure.suptitle(title)
    time, memory = figure.subplots(1, 2)
    for name in dict.fromkeys(row.variant for row in rows if row.seconds is not None):
        mine = [row for row in measured if row.variant == name]
        low, median, high = np.array([row.seconds for row in mine]).T / [row.megapixels for row in mine]
        errors = (median - low, high - median)
        time.errorbar([_megapixels(row) for row in mine], median, errors, marker="o", capsize=3, label=name)
        peaks = [(_megapixels(row), row.peak_mb) for row in mine if row.peak_mb is not None]
        memory.plot([x for x, _ in peaks], [mb for _, mb in peaks], marker="o", label=name)
    time.set_ylabel("seconds per megapixel of output (median, quartiles)")
    memory.set_ylabel("peak memory beside the weights in MB")
    for axes in (time, memory):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(list(sizes), list(sizes.values()), rotation=30)
        axes.set_xlabel("low-quality image in pixels")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    time.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def _megapixels(row: VariantRow) -> float:
    return row.batch * row.height * row.width / 1e6

"""The results of a benchmark: one row for each image, their means, and both as JSON and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from swinir.atomic import atomic_path
from swinir.environment import environment
from swinir.evaluation.protocol import Protocol
from swinir.models.optimized import resolve_precision
from swinir.strict_json import json_text

METRICS = ("psnr", "ssim", "psnrb", "psnr_y", "ssim_y", "psnrb_y")


@dataclass(frozen=True)
class Row:
    """The result of one image. Metrics that a task does not compute, or that failed, are None."""

    image: str
    status: str  # "ok" or "failed"
    error: str = ""
    width: int | None = None
    height: int | None = None
    psnr: float | None = None
    ssim: float | None = None
    psnrb: float | None = None
    psnr_y: float | None = None
    ssim_y: float | None = None
    psnrb_y: float | None = None
    seconds: float | None = None
    output: str | None = None


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Mean of every metric over the rows that have it."""
    columns = {m: [v for r in rows if (v := getattr(r, m)) is not None] for m in METRICS}
    return {m: sum(values) / len(values) for m, values in columns.items() if values}


def run_facts(
    protocol: Protocol, device: torch.device, *, checkpoint: Path, digest: str, key: str, engine: str, complete: bool
) -> dict[str, Any]:
    """The settings, weights, versions and hardware that the numbers of a run depend on.

    Args:
        checkpoint: the weights file.
        digest: SHA-256 of the file.
        key: the entry of the file that holds the weights.
        engine: name and version of the library that ran the network.
        complete: True if every image was reached.
    """
    return {
        **protocol.facts(),
        "compile": protocol.options.compile,
        "precision": resolve_precision(protocol.options.precision, device),
        "complete": complete,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": digest,
        "checkpoint_key": key,
        "engine": engine,
        **environment(device),
    }


def write_json(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Write the facts of the run, one object per image, and the means."""
    content = facts | {"images": [asdict(r) for r in rows], "means": means(rows)}
    _write_text(path, json_text(content))


def write_csv(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Write one line per image and a last one with the means; the facts of the run are further columns."""
    text = io.StringIO()
    fields = list(Row.__dataclass_fields__)
    writer = csv.DictWriter(text, fieldnames=[*fields, *facts])
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row) | facts)
    writer.writerow({"image": "mean"} | means(rows) | facts)
    _write_text(path, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

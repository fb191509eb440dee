"""Cells as if they had been measured: the figures are given, no network runs."""

from pathlib import Path

from swinir.evaluate import METRICS, Row
from swinir.network import NetworkConfig
from swinir.reproduce.measure import Measured
from swinir.reproduce.plan import Cell, Weights
from swinir.reproduce.published import TABLES
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.zoo import find

RELEASED_HASH = "2032ebf8f401dd3ce2fae5f3852117cb72101ec6ed8358faa64c2a3fa09ed4ac"  # classical x2, DF2K


def cell(table, name, level, *, data=None, plus=False, weights=None, of="DIV2K"):
    table = TABLES[table]
    data = data or table.data[0]
    entry = None
    if weights is None:
        entry = find(f"{table.task}_{table.level_text(level)}_{of if of in table.data else table.data[0]}")
        weights = Weights(entry.alias, Path(entry.file), table.task, level, entry.parts.data, entry)
    return Cell(table, weights, level, data, plus, BENCHMARK_SETS[name])


def measured(cell, values, *, published_network=True, alternatives=None, images=None, sha256=None, failed=(), **facts):
    """Every image has the figures given, so that they are the means."""
    metrics = {metric: values.get(metric) for metric in METRICS}
    number = cell.set.images if images is None else images
    rows = [Row(f"image{i}", "ok", width=8, height=8, **metrics) for i in range(number - len(failed))]
    rows += [Row(name, "failed", f"{name}: unreadable") for name in failed]
    entry = cell.weights.entry
    network = get_task(cell.table.task).network_for(cell.level if cell.is_sr else 1)
    if not published_network:
        network = NetworkConfig.from_dict(network.to_dict() | {"embed_dim": 30, "depths": (2,), "num_heads": (2,)})
    known = {
        "checkpoint": cell.weights.path.name,
        "checkpoint_sha256": sha256 or (entry.sha256 if entry and entry.sha256 else "0" * 64),
        "precision": "fp32",
        "tile": None,
        "device": "cpu",
        "network": network.to_dict(),
    }
    return Measured(
        cell,
        tuple(rows),
        known | facts,
        11_900_199 if published_network else 289_225,
        published_network,
        alternatives or {},
    )

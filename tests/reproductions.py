"""Cells with given figures, tiny weights and tiny sets, for the tests of `swinir reproduce`."""

from dataclasses import replace
from pathlib import Path

import torch
from pictures import smooth

from swinir.degradations.resize import imresize
from swinir.evaluation.results import METRICS, Row
from swinir.image_io.image import write
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.reproduce.measure import Measured
from swinir.reproduce.plan import Cell, Weights
from swinir.reproduce.published import TABLES, published
from swinir.reproduce.results import conclude
from swinir.reproduce.verdict import Tolerance
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.weights.checkpoint import write_checkpoint
from swinir.weights.verify import sha256 as digest
from swinir.weights.zoo import find

TOLERANCE = Tolerance()
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
    """A measured cell whose images all have the given figures, without running a network."""
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


def tiny_network(task, scale=1, **options):
    """The task's architecture with two layers."""
    wanted = get_task(task).network_for(scale, img_size=get_task(task).network.window_size)
    small = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "num_feat": 4}
    return NetworkConfig.from_dict(wanted.to_dict() | small | options)


def write_weights(path, *, task="lightweight_sr", scale=None, seed=0, config=None):
    """Random weights of a tiny network; the file does not say its task."""
    scale = scale or get_task(task).scales[0]
    config = config or tiny_network(task, scale)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = SwinIR(config).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, state, config)
    return path


def write_released(folder, entries):
    """Files of tiny networks with the released files' names and layout; entries with lengths and hashes of these."""
    states, written = {}, []
    for entry in entries:
        parts = entry.parts
        config = tiny_network(parts.task, parts.level if parts.kind == "x" else 1)
        if config not in states:
            states[config] = SwinIR(config).state_dict()
        file = folder / entry.file
        torch.save({entry.params_key: states[config]}, file)
        known = {"bytes": file.stat().st_size, "sha256": digest(file)} if entry.sha256 else {}
        written.append(replace(entry, parameters=sum(t.numel() for t in states[config].values()), **known))
    return tuple(written)


def write_sets(root, *names, side=24, images=None):
    """Sets with all their images, tiny ones, and low-quality ones by MATLAB's bicubic where they have scales."""
    for name in names:
        row = BENCHMARK_SETS[name]
        gt = root / name / "HR" if row.scales else root / name
        for folder in (gt, *(row.lq_folder(root, scale) for scale in row.scales)):
            folder.mkdir(parents=True)
        for number in range(images or row.images):
            image = smooth(side, side + 2 * number, seed=number)
            write(gt / f"{number:03}.png", image[:, :, :1] if row.gray else image)
            for scale in row.scales:
                height, width = (n // scale * scale for n in image.shape[:2])
                small = imresize(image[:height, :width], 1 / scale)
                write(row.lq_folder(root, scale) / f"{number:03}x{scale}.png", small)
    return root


def result(*args, psnr=0.0, published_network=True, **options):
    one = cell(*args, **options)
    values = {m: v + (psnr if m.startswith("psnr") else 0) for m, v in published(one.table, one.place).values.items()}
    return conclude(measured(one, values, published_network=published_network), TOLERANCE)

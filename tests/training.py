"""Small trainings: images, configurations, and the files of a run."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import torch

from swinir.image_io.image import write
from swinir.train.config import TrainConfig
from swinir.train.distributed import Processes
from swinir.train.trainer import Trainer

CPU = torch.device("cpu")
SMALL = {"embed_dim": 12, "depths": [2], "num_heads": [2]}
NAMES = ("a.png", "b.png", "c.png", "d.png", "sub/e.png")
TIMES = ("images_per_second", "iterations_per_second", "waiting_for_data")  # in rows; they differ between runs


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    """Waves and a checkerboard, (H, W, 3) uint8, different for each seed."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width][:, :, :, None]
    period, phase = rng.uniform(3, 9, (2, 3)), rng.uniform(0, 6, 3)
    waves = 127 + 60 * np.sin(xx / period[0] + phase) + 60 * np.cos(yy / period[1])
    return (waves + 20 * ((xx // 7 + yy // 5) % 2)).clip(0, 255).astype(np.uint8)


def write_images(folder: Path) -> Path:
    """Five training images of different sizes, one of them in a subfolder."""
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        write(folder / name, smooth_image(50 + 3 * i, 64 - i, i))
    return folder


def configuration(images: Path | str, **options) -> TrainConfig:
    """Twelve steps of a small x2 network; options replace whole entries, except in `data` and `schedule`."""
    data = {"train": images, "patch": 16, "batch": 2, "holdout": 1} | options.pop("data", {})
    schedule = {"iterations": 12} | options.pop("schedule", {})
    values = {
        "name": "small",
        "task": "lightweight_sr",
        "scale": 2,
        "network": SMALL,
        "optimizer": {"lr": 2e-3},
        "ema": 0.9,
        "log_every": 4,
        "validate_every": 6,
        "save_every": 1000,
        "seed": 3,
    }
    return TrainConfig.model_validate(values | {"data": data, "schedule": schedule} | options)


def cpu_trainer(config: TrainConfig, run: Path, **options) -> Trainer:
    """A trainer in one process on the CPU, where two runs are equal to the last bit."""
    return Trainer(config, run, processes=Processes(CPU), **options)


def train(config: TrainConfig, run: Path) -> Trainer:
    """A run to the end."""
    trainer = cpu_trainer(config, run)
    assert trainer.fit()
    return trainer


def rows(run: Path) -> list[dict]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(run: Path) -> list[dict]:
    """The rows without times."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(run)]


def same(one, other) -> bool:
    """Compare two states, or parts of them: the same types, and tensors of the same dtypes, shapes and bits."""
    if isinstance(one, torch.Tensor):
        views = [tensor.detach().contiguous() for tensor in (one, other)]
        views = [view.view(torch.uint8) if view.dim() else view for view in views]  # NaN equals itself in bits
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*views)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def last_state(run: Path) -> dict:
    """The content of a run's newest state."""
    path = max((run / "states").glob("step-*.pt"))
    return torch.load(path, weights_only=True)["content"]


def assert_same_ending(run: Path, other: Path) -> None:
    """The network, averages, moments, best score, rows and weights files of two runs are the same."""
    ours, theirs = last_state(run), last_state(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert same(ours[name], theirs[name]), name
    assert timeless(run) == timeless(other)
    for path in other.glob("*.pth"):
        digests = [hashlib.sha256((folder / path.name).read_bytes()).hexdigest() for folder in (run, other)]
        assert digests[0] == digests[1], path.name


def difference(network, other) -> float:
    """The largest difference between the parameters of two networks."""
    others = dict(other.named_parameters())
    with torch.no_grad():
        return max((p.double() - others[n].double()).abs().max().item() for n, p in network.named_parameters())


def header(path: Path) -> dict[str, str]:
    """A configuration's opening comment by label, each on one line; the title under ""."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    fields, label = {"": ""}, ""
    for line in comment:
        match = re.match(r"# ([A-Z0-9][A-Za-z0-9 ]{0,9}):\s+(.*)", line)
        if match:
            label = match[1]
            fields[label] = match[2]
        else:
            fields[label] = f"{fields[label]} {line[1:].strip()}".strip()
    return fields

"""Trainings of a study: skipped when finished, resumed when interrupted, and read as scores."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinir.reproduce.ablations import Point, Study, X
from swinir.train.config import TrainConfig
from swinir.train.distributed import Processes
from swinir.train.initialize import build_network
from swinir.train.logger import Log
from swinir.train.trainer import Trainer

# Keys that change the duration of a run or its records, but not what it learns.
INCIDENTAL = ("data.cache", "data.workers", "tensorboard", "save_every", "log_every", "keep")
MAX_NAMED = 3  # differing keys listed in one message


@dataclass(frozen=True)
class Score:
    """Validation of a run after `steps` steps: means over the images, with averaged weights.

    PSNR in dB and SSIM on Y; `x` in the unit of the study's axis.
    """

    model: str
    x: X
    seed: int
    psnr_y: float
    ssim_y: float
    steps: int
    parameters: int
    run: str


def is_done(config: TrainConfig, folder: Path) -> bool:
    """Return true if a run's folder holds its final weights and its last validation.

    Raises:
        ValueError: as `check_same`.
    """
    check_same(config, folder)
    return (folder / f"{config.name}.pth").is_file() and config.schedule.iterations in _validations(folder)


def check_same(config: TrainConfig, folder: Path) -> None:
    """Refuse a folder whose run had another configuration.

    Raises:
        ValueError: naming the keys that differ.
    """
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is damaged; remove {folder} to train this run again") from error
    before, now = _flat(stored), _flat(config.model_dump(mode="json"))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and key not in INCIDENTAL]
    if changed:
        named = ", ".join(f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in changed[:MAX_NAMED])
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise ValueError(
            f"{folder} was trained with another configuration: {named}{more}; "
            "choose another folder with -o, or remove this one"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def train_run(config: TrainConfig, folder: Path, processes: Processes, *, log: Log, stop: Callable[[], bool]) -> bool:
    """Train a run to its end, from its newest state if it has one; False when `stop` ended it early."""
    trainer = Trainer(config, folder, processes=processes, log=log)
    trainer.resume()
    return trainer.fit(stop=stop)


def collect(study: Study, points: Sequence[Point], folder: Path) -> list[Score]:
    """Scores of the finished runs below a folder: one for each point, for a convergence one for each validation."""
    scores = []
    for point in points:
        run = folder / point.config.name
        if not is_done(point.config, run):
            continue
        rows = _validations(run)
        steps = sorted(rows) if study.vary is None else [point.config.schedule.iterations]
        parameters = count_parameters(point.config)
        for step in steps:
            x = step if point.x is None else point.x
            psnr, ssim = rows[step]["psnr_y"], rows[step]["ssim_y"]
            scores.append(Score(point.model, x, point.seed, psnr, ssim, step, parameters, run.name))
    return scores


def count_parameters(config: TrainConfig) -> int:
    """Number of trained parameters of a run's network."""
    return sum(p.numel() for p in build_network(config).parameters() if p.requires_grad)


def _validations(folder: Path) -> dict[int, dict[str, Any]]:
    """Validation rows of a run, by step."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row for row in rows if "psnr_y" in row}

"""Results of the joint experiment: scores, parameters, steps and seconds, as plain values and as a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swinir.report.text_table import TextTable
from swinir.reproduce.joint_plan import KINDS, JointExperiment

FOLDERS = ("train", "train_lq", "validate_gt", "validate_lq", "cache")  # keys of `DataConfig` that name local folders


def summarize(
    experiment: JointExperiment, seeds: Sequence[int], untreated: Mapping[str, float], folder: Path
) -> dict[str, Any]:
    """Collect what `run_experiment` left in a folder.

    Args:
        untreated: score of each task's input, by the task's name.
    """
    tasks = []
    for task in experiment.tasks:
        scores = {
            kind: {
                str(seed): _score(folder / f"seed{seed}" / f"{kind}_{task.name}.json", task.metric) for seed in seeds
            }
            for kind in KINDS
        }
        row = {"name": task.name, "benchmark": task.benchmark, "metric": task.metric}
        tasks.append(row | {"untreated": untreated[task.name], "scores": scores})
    configuration = experiment.model_dump(mode="json")
    for name in FOLDERS:
        configuration["training"]["data"].pop(name, None)
    return {
        "steps_of_each_task": experiment.share,
        "parameters": {kind: experiment.parameters(kind) for kind in KINDS},
        "seconds": {kind: {str(seed): _seconds(folder / f"seed{seed}" / kind) for seed in seeds} for kind in KINDS},
        "seeds": list(seeds),
        "tasks": tasks,
        "experiment": configuration,
    }


def _score(path: Path, metric: str) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["means"][metric])


def _seconds(folder: Path) -> float:
    """Duration of the steps of all trainings below a folder, from the speeds in their logs."""
    total = 0.0
    for path in folder.rglob("metrics.jsonl"):
        batch = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["data"]["batch"]
        last = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "images_per_second" in row:
                total += (row["step"] - last) * batch / row["images_per_second"]
                last = row["step"]
    return round(total, 1)


def joint_table(results: Mapping[str, Any]) -> TextTable:
    """Table of the results: means over the seeds, and ± half the range where there are several seeds."""
    rows = []
    for task in results["tasks"]:
        metric = {"psnr_y": "PSNR on Y", "psnr": "PSNR"}[task["metric"]]
        scores = [_mean_and_half_range(list(task["scores"][kind].values())) for kind in KINDS]
        rows.append((task["name"], f"{task['benchmark']}, {metric}", f"{task['untreated']:.2f}", *scores))
    count, share = len(results["tasks"]), results["steps_of_each_task"]
    seconds = [sum(by_seed.values()) / len(by_seed) for by_seed in map(results["seconds"].__getitem__, KINDS)]
    rows += [
        ("parameters", "", "", *(f"{results['parameters'][kind]:,}" for kind in KINDS)),
        ("steps", "", "", f"{count * share:,}", f"{count} x {share:,}", f"{count} x {share:,}"),
        ("seconds of training", "", "", *(f"{mean:,.0f}" for mean in seconds)),
    ]
    return TextTable(("task", "set", "untreated", "joint", "experts", "narrow experts"), rows, right=(2, 3, 4, 5))


def _mean_and_half_range(scores: Sequence[float]) -> str:
    mean, half = sum(scores) / len(scores), (max(scores) - min(scores)) / 2
    return f"{mean:.2f}" + (f" ± {half:.2f}" if len(scores) > 1 else "")

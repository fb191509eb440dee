"""Results of the joint experiment: scores, parameters, steps and seconds, as plain values and as a Markdown table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swinir.reproduce.joint_plan import KINDS, JointExperiment

FOLDERS = ("train", "train_lq", "validate_gt", "validate_lq", "cache")  # keys of `DataConfig` that name local folders
TITLES = {"joint": "joint", "experts": "experts", "narrow": "narrow experts"}


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


def markdown(results: Mapping[str, Any]) -> str:
    """Markdown table of the results: means over the seeds, and ± half the range where there are several seeds."""
    lines = [
        "| task | set | untreated | " + " | ".join(TITLES.values()) + " |",
        "|---|---|---:|" + "---:|" * len(KINDS),
    ]
    for task in results["tasks"]:
        metric = {"psnr_y": "PSNR on Y", "psnr": "PSNR"}[task["metric"]]
        cells = " | ".join(_mean_and_half_range(list(task["scores"][kind].values())) for kind in KINDS)
        lines.append(f"| {task['name']} | {task['benchmark']}, {metric} | {task['untreated']:.2f} | {cells} |")
    count, share = len(results["tasks"]), results["steps_of_each_task"]
    seconds = [sum(by_seed.values()) / len(by_seed) for by_seed in map(results["seconds"].get, KINDS)]
    lines += [
        "| parameters | | | " + " | ".join(f"{results['parameters'][kind]:,}" for kind in KINDS) + " |",
        f"| steps | | | {count * share:,} | {count} x {share:,} | {count} x {share:,} |",
        "| seconds of training | | | " + " | ".join(f"{mean:,.0f}" for mean in seconds) + " |",
    ]
    return "\n".join(lines) + "\n"


def _mean_and_half_range(scores: Sequence[float]) -> str:
    mean, half = sum(scores) / len(scores), (max(scores) - min(scores)) / 2
    return f"{mean:.2f}" + (f" ± {half:.2f}" if len(scores) > 1 else "")

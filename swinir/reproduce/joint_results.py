"""Results of the joint experiment: a row for each seed, kind of network and task, and their table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.report.text_table import TextTable
from swinir.reproduce.joint_plan import KINDS, JointExperiment
from swinir.train.multitask_config import TaskConfig

TITLES = {
    "joint": "joint",
    "adapters": "joint + adapters",
    "groups": "joint + shared adapters",
    "experts": "experts",
    "narrow": "narrow experts",
}
NEAR = 0.05  # dB


def result_row(
    experiment: JointExperiment, task: TaskConfig, kind: str, seed: int, scores: Mapping[str, float]
) -> dict[str, Any]:
    """Return the row of a measured network."""
    metric = experiment.metric(task)
    return {
        "seed": seed,
        "kind": kind,
        "task": task.name,
        "benchmark": experiment.experiment.benchmarks[task.name],
        "metric": metric,
        "score": round(scores[metric], 4),
        "parameters": experiment.count(kind),
        "steps_of_each_task": experiment.share,
    }


def seconds_of(folder: Path) -> float:
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


def write_results(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write results.jsonl and table.md."""
    texts = {
        "results.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "table.md": joint_table(rows).markdown() + "\n",
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def joint_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    """Table of rows: means over the seeds, and ± half the range where there are several; "" where none is finished."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["task"], row["kind"]), []).append(row)
    tasks = {row["task"]: row for row in rows}
    lines = []
    for name, task in tasks.items():
        metric = {"psnr_y": "PSNR on Y", "psnr": "PSNR"}[task["metric"]]
        scores = [_mean_and_half_range([row["score"] for row in found.get((name, kind), [])]) for kind in KINDS]
        lines.append((name, f"{task['benchmark']}, {metric}", f"{task['untreated']:.2f}", *scores))
    near, facts = [], {}
    for kind in KINDS:
        pairs = [
            (_mean(found[name, kind]), _mean(found[name, "experts"]))
            for name in tasks
            if (name, kind) in found and (name, "experts") in found
        ]
        near.append(f"{sum(ours >= experts - NEAR for ours, experts in pairs)} of {len(pairs)}" if pairs else "")
        facts[kind] = next((row for row in rows if row["kind"] == kind), None)
    lines += [
        (f"at most {NEAR} dB below the experts", "", "", *near),
        ("parameters", "", "", *(f"{fact['parameters']:,}" if fact else "" for fact in facts.values())),
        ("seconds of training", "", "", *(_seconds(rows, kind) for kind in KINDS)),
    ]
    titles = ("task", "set", "untreated", *(TITLES[kind] for kind in KINDS))
    return TextTable(titles, lines, right=range(2, len(titles)))


def _mean(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row["score"] for row in rows)) / len(rows)


def _seconds(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    by_seed = {row["seed"]: row["seconds"] for row in rows if row["kind"] == kind}
    return f"{sum(by_seed.values()) / len(by_seed):,.0f}" if by_seed else ""


def _mean_and_half_range(scores: Sequence[float]) -> str:
    if not scores:
        return ""
    mean, half = sum(scores) / len(scores), (max(scores) - min(scores)) / 2
    return f"{mean:.2f}" + (f" ± {half:.2f}" if len(scores) > 1 else "")

"""Trainings and measurements of the joint experiment. Finished ones are kept; interrupted ones resume.

JointExperiment, JointRun -> run_experiment -> results
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path
from swinir.environment import environment
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol, check_network
from swinir.evaluation.results import Row, means, write_json
from swinir.evaluation.samples import Sample, find_set
from swinir.inference.external import Bicubic
from swinir.reproduce.joint_plan import KINDS, JointExperiment, JointTask
from swinir.reproduce.joint_results import joint_table, summarize
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.train.distributed import Processes
from swinir.train.images import Wrap
from swinir.train.logger import write_facts
from swinir.train.multitask import joint_trainer
from swinir.train.trainer import Trainer
from swinir.weights.checkpoint import load_model
from swinir.weights.verify import sha256


@dataclass(frozen=True)
class JointRun:
    """Folders, processes and callbacks of one run.

    Attributes:
        folder: folder of trainings and results, created if absent.
        testsets: folder of the benchmark sets.
        log: called with each training's name and every row of its `metrics.jsonl`.
        say: called with a line about the current step.
        progress: wraps the list of images while they are loaded.
        stop: returns true to stop with all states saved.
        limit: measure only the first `limit` images of each set.
    """

    folder: Path
    testsets: Path
    processes: Processes
    log: Callable[[str, dict[str, Any]], None] = lambda name, row: None
    say: Callable[[str], None] = lambda text: None
    progress: Wrap = lambda items: items
    stop: Callable[[], bool] = lambda: False
    limit: int | None = None


def run_experiment(experiment: JointExperiment, run: JointRun) -> dict[str, Any] | None:
    """Train and measure whatever is not finished, seed by seed; `results.json` is written after each seed.

    Returns:
        The results as `summarize` gives them; None when `run.stop` ended the run early.

    Raises:
        ValueError, OSError: for unusable data or sets, before any training, and for a folder of another experiment.
    """
    samples = {task.name: benchmark_samples(task, run.testsets)[: run.limit] for task in experiment.tasks}
    untreated = {task.name: measure_input(task, samples[task.name]) for task in experiment.tasks}
    if run.processes.rank == 0:
        claim(experiment, run.folder)
    results = None
    for count, seed in enumerate(experiment.seeds, start=1):
        folder = run.folder / f"seed{seed}"
        if not (train_joint(experiment, seed, folder, run) and train_experts(experiment, seed, folder, run)):
            return None
        for kind in KINDS:
            for task in experiment.tasks:
                if not measure(task, kind, folder, samples[task.name], run):
                    return None
        results = summarize(experiment, experiment.seeds[:count], untreated, run.folder)
        results |= {"limit": run.limit, **environment(run.processes.device)}
        if run.processes.rank == 0:
            write_facts(run.folder / "results.json", results)
            with atomic_path(run.folder / "table.md") as temporary:
                temporary.write_text(joint_table(results).markdown(), encoding="utf-8")
    return results


def claim(experiment: JointExperiment, folder: Path) -> None:
    """Write `experiment.json` into a folder, or raise ValueError if another experiment uses it. Seeds may be added."""
    path, ours = folder / "experiment.json", experiment.model_dump(mode="json")
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in ours if key != "seeds" and ours[key] != theirs.get(key)]
        if differing:
            raise ValueError(f"{folder} holds another experiment ({', '.join(differing)} differ); choose another -o")
    folder.mkdir(parents=True, exist_ok=True)
    write_facts(path, ours)


def benchmark_samples(task: JointTask, testsets: Path) -> list[Sample]:
    """Images that a task is measured on.

    Raises:
        ValueError, OSError: for a missing or incomplete set, and one without references.
    """
    benchmark = BENCHMARK_SETS[task.benchmark]
    samples = find_set(make_protocol(task), benchmark, testsets)
    if any(sample.gt is None for sample in samples):
        raise ValueError(f"{task.task} on {benchmark.name} has no references to measure by; choose another benchmark")
    problems = [sample.problem for sample in samples if sample.problem]
    if problems:
        raise ValueError(problems[0])
    if len(samples) != benchmark.images:
        folder = benchmark.gt_folder(testsets)
        raise ValueError(f"{folder} holds {len(samples)} images, {benchmark.name} has {benchmark.images}")
    return samples


def make_protocol(task: JointTask) -> Protocol:
    """Settings with which the tester measures a task."""
    return Protocol(get_task(task.task), scale=task.scale, noise=task.noise, jpeg=task.jpeg)


def train_joint(experiment: JointExperiment, seed: int, folder: Path, run: JointRun) -> bool:
    """Train the joint network of a seed to its end; False when stopped before."""
    configs = experiment.experts("joint", seed)
    if all(weights_path(folder, "joint", name).exists() for name in configs):
        return True
    return _fit(joint_trainer, configs, folder / "joint", run)


def train_experts(experiment: JointExperiment, seed: int, folder: Path, run: JointRun) -> bool:
    """Train the experts of a seed, full-size and narrow, to their end; False when stopped before."""
    return all(
        weights_path(folder, kind, name).exists() or _fit(Trainer, config, folder / kind / name, run)
        for kind in ("experts", "narrow")
        for name, config in experiment.experts(kind, seed).items()
    )


def _fit(make_trainer: Callable[..., Trainer], configuration: Any, folder: Path, run: JointRun) -> bool:
    name = folder.relative_to(run.folder).as_posix()
    trainer = make_trainer(
        configuration, folder, processes=run.processes, log=lambda row: run.log(name, row), progress=run.progress
    )
    if trainer.resume():
        run.say(f"{folder}: resuming at step {trainer.step}")
    return trainer.fit(stop=run.stop)


def weights_path(folder: Path, kind: str, task: str) -> Path:
    """Path of a task's finished weights in the folder of a seed."""
    return folder / "joint" / f"joint_{task}.pth" if kind == "joint" else folder / kind / task / f"{task}.pth"


def measure_input(task: JointTask, samples: Sequence[Sample]) -> float:
    """Score of a task's input without restoration: noisy, compressed, or enlarged by MATLAB's bicubic."""
    protocol = make_protocol(task)
    rows = [
        _whole(row, task) for row in evaluate(Bicubic(1 if protocol.task.gray else 3, task.scale), samples, protocol)
    ]
    return means(rows)[task.metric]


def measure(task: JointTask, kind: str, folder: Path, samples: Sequence[Sample], run: JointRun) -> bool:
    """Measure finished weights unless a result of the same weights exists; False when stopped before the end."""
    weights, path = weights_path(folder, kind, task.name), folder / f"{kind}_{task.name}.json"
    depends_on = {"checkpoint_sha256": sha256(weights), "limit": run.limit}
    if path.exists() and depends_on.items() <= json.loads(path.read_text(encoding="utf-8")).items():
        return True
    processes, protocol = run.processes, make_protocol(task)
    if processes.any(run.stop()):
        return False
    model = load_model(weights, device=processes.device)
    check_network(model.config, protocol, weights.name, stated=task.task)
    run.say(f"measuring {path.stem} of {folder.name} on {task.benchmark}")
    rows = []
    for row in evaluate(model, samples[processes.rank :: processes.count], protocol):
        rows.append(_whole(row, task))
        if processes.count == 1 and run.stop():  # several processes would wait for one another
            return False
    rows = processes.gather(rows)
    if processes.rank == 0:
        write_json(path, rows, {"task": task.task, **depends_on, **environment(processes.device)})
    processes.wait()
    return True


def _whole(row: Row, task: JointTask) -> Row:
    if row.status == "failed":
        raise ValueError(f"{task.benchmark}: {row.image}: {row.error}")
    return row

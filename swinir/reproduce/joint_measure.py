"""Trainings and measurements of the joint experiment. Finished ones are kept; interrupted ones resume.

JointExperiment, JointRun -> run_experiment -> results.jsonl, table.md
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinir.environment import environment
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol, check_network
from swinir.evaluation.results import Row, means, write_json
from swinir.evaluation.samples import Sample, find_set
from swinir.inference.external import Bicubic
from swinir.reproduce.joint_plan import ORDER, JointExperiment, Training
from swinir.reproduce.joint_results import result_row, seconds_of, write_results
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import TrainConfig
from swinir.train.distributed import Processes
from swinir.train.images import Wrap
from swinir.train.logger import Log, write_facts
from swinir.train.multitask import trainers
from swinir.train.multitask_config import TaskConfig
from swinir.weights.checkpoint import find_checkpoint, load_model
from swinir.weights.verify import sha256


@dataclass(frozen=True)
class JointRun:
    """Folders, processes and callbacks of one run.

    Attributes:
        folder: folder of trainings and results, created if absent.
        testsets: folder of the benchmark sets.
        log: called with each training's folder and every row of its `metrics.jsonl`.
        say: called with a line about the current step.
        progress: wraps the list of images while they are loaded.
        stop: returns true to stop with all states saved.
        limit: measure only the first `limit` images of each set.
    """

    folder: Path
    testsets: Path
    processes: Processes
    log: Callable[[Path, dict[str, Any]], None] = lambda folder, row: None
    say: Callable[[str], None] = lambda text: None
    progress: Wrap = lambda items: items
    stop: Callable[[], bool] = lambda: False
    limit: int | None = None


def run_experiment(experiment: JointExperiment, run: JointRun) -> list[dict[str, Any]] | None:
    """Train and measure whatever is not finished, seed by seed; results are written after each kind of training.

    Returns:
        The rows of `results.jsonl`; None when `run.stop` ended the run early.

    Raises:
        ValueError, OSError: for unusable data or sets, before any training, and for a folder of another experiment.
    """
    samples = {task.name: benchmark_samples(experiment, task, run.testsets)[: run.limit] for task in experiment.tasks}
    untreated = {task.name: measure_input(experiment, task, samples[task.name]) for task in experiment.tasks}
    if run.processes.rank == 0:
        claim(experiment, run.folder)
    rows: list[dict[str, Any]] = []
    for seed in experiment.experiment.seeds:
        folder = run.folder / f"seed{seed}"
        for kind in ORDER:
            trainings = list(experiment.trainings(kind, seed, folder))
            if not all(train(training, run) for training in trainings):
                return None
            seconds = sum(seconds_of(training.folder) for training in trainings)
            for task in experiment.tasks:
                scores = measure(experiment, task, kind, folder, samples[task.name], run)
                if scores is None:
                    return None
                facts = {"untreated": untreated[task.name], "seconds": seconds, "limit": run.limit}
                rows.append(result_row(experiment, task, kind, seed, scores) | facts)
            if run.processes.rank == 0:
                write_results(run.folder, rows)
    return rows


def claim(experiment: JointExperiment, folder: Path) -> None:
    """Write `experiment.json` into a folder, or raise ValueError if another experiment uses it. Seeds may be added."""
    path, ours = folder / "experiment.json", experiment.model_dump(mode="json")
    del ours["experiment"]["seeds"]
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in ours if ours[key] != theirs.get(key)]
        if differing:
            raise ValueError(f"{folder} holds another experiment ({', '.join(differing)} differ); choose another -o")
    folder.mkdir(parents=True, exist_ok=True)
    write_facts(path, ours)


def benchmark_samples(experiment: JointExperiment, task: TaskConfig, testsets: Path) -> list[Sample]:
    """Images that a task is measured on.

    Raises:
        ValueError, OSError: for a missing or incomplete set, and one without references.
    """
    benchmark = BENCHMARK_SETS[experiment.experiment.benchmarks[task.name]]
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


def make_protocol(task: TaskConfig) -> Protocol:
    """Settings with which the tester measures a task."""
    assert isinstance(task.scale, int)
    return Protocol(get_task(task.task), scale=task.scale, noise=task.noise, jpeg=task.jpeg)


def train(training: Training, run: JointRun) -> bool:
    """Finish a training; False when stopped before its end."""
    config, folder = training.config, training.folder
    if isinstance(config, TrainConfig) and (folder / f"{config.name}.pth").exists():
        return True

    def log(where: Path, _: TrainConfig) -> Log:
        return lambda row: run.log(where, row)

    for trainer in trainers(config, folder, processes=run.processes, log=log, progress=run.progress):
        if trainer.resume():
            run.say(f"{trainer.run}: resuming at step {trainer.step}")
        if not trainer.fit(stop=run.stop):
            return False
    return True


def measure_input(experiment: JointExperiment, task: TaskConfig, samples: Sequence[Sample]) -> float:
    """Score of a task's input without restoration: noisy, compressed, or enlarged by MATLAB's bicubic."""
    protocol = make_protocol(task)
    bicubic = Bicubic(1 if protocol.task.gray else 3, protocol.scale)
    return means([_whole(row) for row in evaluate(bicubic, samples, protocol)])[experiment.metric(task)]


def measure(
    experiment: JointExperiment,
    task: TaskConfig,
    kind: str,
    folder: Path,
    samples: Sequence[Sample],
    run: JointRun,
) -> dict[str, float] | None:
    """Return mean scores of finished weights, measured unless a record of the same weights exists; None when stopped.

    Args:
        folder: of the seed.
    """
    name, path = experiment.weights_name(kind, task.name), folder / f"{kind}_{task.name}.json"
    depends_on = {"checkpoint_sha256": sha256(find_checkpoint(folder / name)), "limit": run.limit}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if depends_on.items() <= record.items():
            means_found: dict[str, float] = record["means"]
            return means_found
    processes, protocol = run.processes, make_protocol(task)
    if processes.any(run.stop()):
        return None
    model = load_model(folder / name, device=processes.device)
    check_network(model.config, protocol, name, stated=task.task)
    run.say(f"measuring {path.stem} of {folder.name}")
    rows = []
    for row in evaluate(model, samples[processes.rank :: processes.count], protocol):
        rows.append(_whole(row))
        if processes.count == 1 and run.stop():  # several processes would wait for one another
            return None
    rows = processes.gather(rows)
    if processes.rank == 0:
        write_json(path, rows, {"task": task.task, **depends_on, **environment(processes.device)})
    processes.wait()
    return means(rows)


def _whole(row: Row) -> Row:
    if row.status == "failed":
        raise ValueError(f"{row.image}: {row.error}")
    return row

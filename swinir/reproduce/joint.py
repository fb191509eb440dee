"""One expert for each task, SwinIR's way, against one network for all of them, IPT's way.

Three times the same tasks, on the same patches in the same order, each task for the same number of steps:

    joint     one body for all tasks, a head and a tail for each; the steps of all experts together
    experts   a network of that size for each task: equal steps, more parameters
    narrow    a narrower network for each task: equal steps, and together as many parameters as the joint one
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from swinir.atomic import atomic_path
from swinir.environment import environment
from swinir.evaluation.evaluate import (
    Protocol,
    Sample,
    check_network,
    evaluate,
    find_set,
    means,
    write_json,
)
from swinir.inference.restore import Runnable
from swinir.models.complexity import count_parameters
from swinir.models.multitask import count_joint_parameters
from swinir.models.swinir import NetworkConfig
from swinir.reproduce.untreated import Untreated
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import LossConfig, NotNegative, Positive, Quality, Section, Share, TrainConfig, explain
from swinir.train.distributed import Processes
from swinir.train.images import Wrap
from swinir.train.logger import Log, write_facts
from swinir.train.multitask import JointTrainer, joint_config
from swinir.train.trainer import Trainer
from swinir.weights.checkpoint import load_model, sha256

KINDS = ("joint", "experts", "narrow")
FOLDERS = ("train", "train_lq", "validate_gt", "validate_lq", "cache")  # of `DataConfig`


class JointTask(Section):
    """One of the tasks.

    Attributes:
        name: in folders and tables.
        task, scale, noise, jpeg: the expert, as `swinir train` and `swinir test` take it.
        loss: that of its steps.
        benchmark: the set that it is measured on, of `swinir.testsets`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    task: str
    scale: Positive = 1
    noise: Positive = 15
    jpeg: Quality = 40
    loss: LossConfig = LossConfig()
    benchmark: str


class JointExperiment(Section):
    """The comparison. Unknown keys are refused.

    Attributes:
        steps: of the joint network; every expert gets its share.
        seeds: the comparison is made once for each.
        training: what all trainings have in common, in the terms of `swinir train`, without tasks and iterations.
        narrow: options in which the narrow experts' network differs.
        tolerance: how far their parameters together may be from the joint network's, as a share of these.
        tasks: in the order of their turns.
    """

    steps: Positive
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (0,)
    training: dict[str, Any]
    narrow: dict[str, Any]
    tolerance: Share = 0.02
    tasks: Annotated[tuple[JointTask, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks need names of their own, got {', '.join(names)}")
        if self.steps % len(names):
            raise ValueError(f"steps must be a multiple of the {len(names)} tasks, got {self.steps}")
        for task in self.tasks:
            if task.benchmark not in BENCHMARK_SETS:
                raise ValueError(f"unknown benchmark {task.benchmark!r}; choose one of {', '.join(BENCHMARK_SETS)}")
        experts = self.experts("experts", self.seeds[0])
        if self.share % experts[names[0]].log_every:
            raise ValueError(
                f"training.log_every must divide the {self.share} steps of a task, got {experts[names[0]].log_every}"
            )
        joint_config(experts)
        joint, narrow = self.parameters("joint"), self.parameters("narrow")
        if abs(narrow - joint) > self.tolerance * joint:
            raise ValueError(
                f"the narrow experts have {narrow:,} parameters together, the joint network {joint:,}: more than "
                f"{self.tolerance:.1%} apart; change narrow.embed_dim or narrow.mlp_ratio"
            )
        return self

    @property
    def share(self) -> int:
        """Steps of each task."""
        return self.steps // len(self.tasks)

    def experts(self, kind: str, seed: int) -> dict[str, TrainConfig]:
        """How the expert of each task is trained, by the task's name; of kind "narrow" or full size.

        Raises:
            ValueError: for what a training cannot be, with the task.
        """
        return {task.name: self._expert(task, kind, seed) for task in self.tasks}

    def _expert(self, task: JointTask, kind: str, seed: int) -> TrainConfig:
        shared = dict(self.training)
        schedule = shared.pop("schedule", {}) | {"iterations": self.share}
        network = shared.pop("network", {}) | (self.narrow if kind == "narrow" else {})
        own = task.model_dump(exclude={"name", "benchmark"})
        given = [key for key in ("name", "seed", *own) if key in shared]
        if given:
            raise ValueError(f"training.{given[0]} is decided by [[tasks]] and seeds; leave it out")
        values = shared | own | {"name": task.name, "seed": seed, "schedule": schedule, "network": network}
        try:
            return TrainConfig.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"the training of {task.name}: {explain(error, TrainConfig)}") from error

    def networks(self, kind: str) -> dict[str, NetworkConfig]:
        """The network of each task."""
        return {name: config.network_config() for name, config in self.experts(kind, self.seeds[0]).items()}

    def parameters(self, kind: str) -> int:
        """Of all tasks together."""
        networks = self.networks(kind)
        return count_joint_parameters(networks) if kind == "joint" else sum(map(count_parameters, networks.values()))


@dataclass(frozen=True)
class Setting:
    """Where things are, and who is told what.

    Attributes:
        run: the folder for trainings and results, made if absent.
        testsets: the folder of the benchmark sets.
        log: called with each training's name and every row of its `metrics.jsonl`.
        say: called with what is going on, in a line.
        progress: wraps the list of images while they are loaded.
        stop: whether to leave, with all states saved.
        limit: measure on the first so many images of each set only.
    """

    run: Path
    testsets: Path
    processes: Processes
    log: Callable[[str, dict[str, Any]], None] = lambda name, row: None
    say: Callable[[str], None] = lambda text: None
    progress: Wrap = lambda items: items
    stop: Callable[[], bool] = lambda: False
    limit: int | None = None


def compare(experiment: JointExperiment, setting: Setting) -> dict[str, Any] | None:
    """Train and measure everything that is not there yet; seed after seed, with `results.json` after each.

    Returns:
        The results: see `summary`; None when `setting.stop` asked to leave before the end.

    Raises:
        ValueError, OSError: for data or sets that cannot be used, before any training, and a folder of another
            experiment.
    """
    samples = {task.name: benchmark_samples(task, setting.testsets)[: setting.limit] for task in experiment.tasks}
    networks = experiment.networks("experts")
    untreated = {t.name: measure_untreated(t, networks[t.name], samples[t.name]) for t in experiment.tasks}
    if setting.processes.rank == 0:
        claim(experiment, setting.run)
    results = None
    for count, seed in enumerate(experiment.seeds, start=1):
        folder = setting.run / f"seed{seed}"
        if not (train_joint(experiment, seed, folder, setting) and train_experts(experiment, seed, folder, setting)):
            return None
        for kind in KINDS:
            for task in experiment.tasks:
                if not measure_expert(task, kind, folder, samples[task.name], setting):
                    return None
        results = summary(experiment, experiment.seeds[:count], untreated, setting.run)
        results |= {"limit": setting.limit, **environment(setting.processes.device)}
        if setting.processes.rank == 0:
            write_facts(setting.run / "results.json", results)
            with atomic_path(setting.run / "table.md") as temporary:
                temporary.write_text(table(results), encoding="utf-8")
    return results


def claim(experiment: JointExperiment, run: Path) -> None:
    """Make the folder this experiment's; a ValueError when it is another's. Seeds may be added."""
    path, ours = run / "experiment.json", experiment.model_dump(mode="json")
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in ours if key != "seeds" and ours[key] != theirs.get(key)]
        if differing:
            raise ValueError(f"{run} holds another experiment ({', '.join(differing)} differ); choose another -o")
    run.mkdir(parents=True, exist_ok=True)
    write_facts(path, ours)


def benchmark_samples(task: JointTask, testsets: Path) -> list[Sample]:
    """The images that a task is measured on.

    Raises:
        ValueError, OSError: for a set that is not there, or not whole.
    """
    protocol, row = protocol_of(task), BENCHMARK_SETS[task.benchmark]
    samples = find_set(protocol, row, testsets)
    if any(sample.gt is None for sample in samples):
        raise ValueError(f"{task.task} on {row.name} has no references to measure by; choose another benchmark")
    problems = [sample.problem for sample in samples if sample.problem]
    if problems:
        raise ValueError(problems[0])
    if len(samples) != row.images:
        raise ValueError(f"{row.gt_folder(testsets)} holds {len(samples)} images, {row.name} has {row.images}")
    return samples


def protocol_of(task: JointTask) -> Protocol:
    """As the tester would measure it."""
    return Protocol(get_task(task.task), scale=task.scale, noise=task.noise, jpeg=task.jpeg)


def train_joint(experiment: JointExperiment, seed: int, folder: Path, setting: Setting) -> bool:
    """Train the joint network of a seed, or go on with it; False when asked to stop before its end."""
    configs = experiment.experts("joint", seed)
    if all(weights_path(folder, "joint", name).exists() for name in configs):
        return True
    run = folder / "joint"
    return _fit(
        JointTrainer(configs, run, processes=setting.processes, log=_named(setting, run), progress=setting.progress),
        setting,
    )


def train_experts(experiment: JointExperiment, seed: int, folder: Path, setting: Setting) -> bool:
    """Train the experts of a seed, of both sizes, or go on with them; False when asked to stop before the end."""
    for kind in ("experts", "narrow"):
        for name, config in experiment.experts(kind, seed).items():
            run = folder / kind / name
            if weights_path(folder, kind, name).exists():
                continue
            log = _named(setting, run)
            if not _fit(Trainer(config, run, processes=setting.processes, log=log, progress=setting.progress), setting):
                return False
    return True


def _fit(trainer: Trainer, setting: Setting) -> bool:
    if trainer.resume():
        setting.say(f"{trainer.run}: going on at step {trainer.step}")
    return trainer.fit(stop=setting.stop)


def _named(setting: Setting, run: Path) -> Log:
    name = run.relative_to(setting.run).as_posix()
    return lambda row: setting.log(name, row)


def weights_path(folder: Path, kind: str, task: str) -> Path:
    """Where the finished expert of a task lies in the folder of a seed."""
    return folder / "joint" / f"joint_{task}.pth" if kind == "joint" else folder / kind / task / f"{task}.pth"


def measure_expert(task: JointTask, kind: str, folder: Path, samples: Sequence[Sample], setting: Setting) -> bool:
    """Measure a finished expert unless its file says that it was; False when asked to stop before the end."""
    weights = weights_path(folder, kind, task.name)
    path = folder / f"{kind}_{task.name}.json"
    facts = {"checkpoint_sha256": sha256(weights), "limit": setting.limit}
    if path.exists() and facts.items() <= json.loads(path.read_text(encoding="utf-8")).items():
        return True
    if max(setting.processes.mean([setting.stop()])) > 0:
        return False
    model = load_model(weights, device=setting.processes.device)
    check_network(model.config, protocol_of(task), weights.name, stated=task.task)
    return _measure(model, task, samples, path, facts, setting)


def measure_untreated(task: JointTask, network: NetworkConfig, samples: Sequence[Sample]) -> dict[str, float]:
    """The mean metrics of a task's input."""
    rows = list(evaluate(Untreated(network), samples, protocol_of(task)))
    failed = [row for row in rows if row.status == "failed"]
    if failed:
        raise ValueError(f"{failed[0].image}: {failed[0].error}")
    return means(rows)


def _measure(
    model: Runnable,
    task: JointTask,
    samples: Sequence[Sample],
    path: Path,
    facts: Mapping[str, Any],
    setting: Setting,
) -> bool:
    processes, protocol = setting.processes, protocol_of(task)
    setting.say(f"measuring {path.stem} of {path.parent.name} on {task.benchmark}")
    rows = []
    for row in evaluate(model, samples[processes.rank :: processes.count], protocol):
        if row.status == "failed":
            raise ValueError(f"{task.benchmark}: {row.image}: {row.error}")
        rows.append(row)
        if processes.count == 1 and setting.stop():  # several would wait for one another
            return False
    rows = processes.gather(rows)
    if processes.rank == 0:
        write_json(path, rows, {"task": task.task, **facts, **environment(processes.device)})
    processes.wait()
    return True


def summary(
    experiment: JointExperiment, seeds: Sequence[int], untreated: Mapping[str, Mapping[str, float]], run: Path
) -> dict[str, Any]:
    """Plain values: the tasks with the score that the paper gives, parameters, steps, seconds, and scores by seed."""
    tasks = []
    for task in experiment.tasks:
        metric = "psnr_y" if task.scale > 1 else "psnr"
        scores = {
            kind: {str(seed): _score(run / f"seed{seed}" / f"{kind}_{task.name}.json", metric) for seed in seeds}
            for kind in KINDS
        }
        tasks.append(
            {
                "name": task.name,
                "benchmark": task.benchmark,
                "metric": metric,
                "untreated": untreated[task.name][metric],
                "scores": scores,
            }
        )
    return {
        "steps_of_each_task": experiment.share,
        "parameters": {kind: experiment.parameters(kind) for kind in KINDS},
        "seconds": {kind: {str(seed): _seconds(run / f"seed{seed}" / kind) for seed in seeds} for kind in KINDS},
        "seeds": list(seeds),
        "tasks": tasks,
        "experiment": _without_folders(experiment),
    }


def _without_folders(experiment: JointExperiment) -> dict[str, Any]:
    """What is the same on every machine."""
    values = experiment.model_dump(mode="json")
    values["training"]["data"] = {k: v for k, v in values["training"]["data"].items() if k not in FOLDERS}
    return values


def _score(path: Path, metric: str) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["means"][metric])


def _seconds(folder: Path) -> float:
    """Time of the steps of all trainings below a folder, by the rows that they left."""
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


TITLES = {"joint": "joint", "experts": "experts", "narrow": "narrow experts"}


def table(results: Mapping[str, Any]) -> str:
    """The results in Markdown: the mean over the seeds, and behind ± half the range where there are several."""
    lines = [
        "| task | set | untreated | " + " | ".join(TITLES.values()) + " |",
        "|---|---|---:|" + "---:|" * len(KINDS),
    ]
    for task in results["tasks"]:
        metric = {"psnr_y": "PSNR on Y", "psnr": "PSNR"}[task["metric"]]
        cells = [_cell(list(task["scores"][kind].values())) for kind in KINDS]
        lines.append(
            f"| {task['name']} | {task['benchmark']}, {metric} | {task['untreated']:.2f} | {' | '.join(cells)} |"
        )
    parameters, seconds = results["parameters"], results["seconds"]
    lines.append("| parameters | | | " + " | ".join(f"{parameters[kind]:,}" for kind in KINDS) + " |")
    count = len(results["tasks"])
    share = results["steps_of_each_task"]
    lines.append(f"| steps | | | {count * share:,} | {count} x {share:,} | {count} x {share:,} |")
    times = [sum(seconds[kind].values()) / len(seconds[kind]) for kind in KINDS]
    lines.append("| seconds of training | | | " + " | ".join(f"{time:,.0f}" for time in times) + " |")
    return "\n".join(lines) + "\n"


def _cell(scores: Sequence[float]) -> str:
    mean, half = sum(scores) / len(scores), (max(scores) - min(scores)) / 2
    return f"{mean:.2f}" + (f" ± {half:.2f}" if len(scores) > 1 else "")

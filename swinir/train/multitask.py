"""Joint training of one network for several tasks, which take turns: step s trains task s modulo their number."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from swinir.models.multitask import JointSwinIR
from swinir.train.config import TrainConfig
from swinir.train.dataset import Batch, TaskStream
from swinir.train.distributed import Processes
from swinir.train.images import Source, Wrap
from swinir.train.initialize import write_weights
from swinir.train.logger import Log
from swinir.train.losses import Objective
from swinir.train.optimizer import Optimization, StepResult
from swinir.train.trainer import Trainer

OWN = ("name", "task", "scale", "noise", "jpeg", "network", "degradation", "loss")  # options that tasks may differ in


def joint_config(configs: Mapping[str, TrainConfig]) -> TrainConfig:
    """Return the configuration of a joint training: the first task's, for as many steps as all tasks together.

    Warm-up and milestones are stretched likewise, so that each task's turns have the learning rates of a training for
    that task alone.

    Raises:
        ValueError: when two tasks differ in an option of the whole training, or ask for something unsupported.
    """
    (first_name, first), *others = configs.items()
    for name, config in others:
        for field in (f for f in TrainConfig.model_fields if f not in OWN):
            if getattr(config, field) != getattr(first, field):
                raise ValueError(f"tasks of a joint training need the same {field}; {first_name} and {name} differ")
    if first.init.weights or first.init.discriminator:
        raise ValueError("a joint training starts from random weights; leave out [init]")
    if any(config.loss.adversarial for config in configs.values()):
        raise ValueError("a joint training has no discriminator; leave out [loss.adversarial]")
    if any(config.network_name != "swinir" for config in configs.values()):
        raise ValueError("a joint training needs SwinIR; leave out network.name")
    count, schedule = len(configs), first.schedule
    stretched = schedule.model_copy(
        update={
            "iterations": count * schedule.iterations,
            "warmup": count * schedule.warmup,
            "milestones": tuple(count * milestone for milestone in schedule.milestones),
        }
    )
    data = first.data.model_copy(update={"validate_gt": None, "validate_lq": None})
    return first.model_copy(update={"name": "joint", "schedule": stretched, "data": data})


class JointStream:
    """Batches of several tasks in turn.

    The n-th batch of a task is the n-th batch of a training for that task alone: the same patches in the same order.
    No image is used for validation. Every task has its own workers, none by default.
    """

    def __init__(self, configs: Mapping[str, TrainConfig], processes: Processes) -> None:
        data = next(iter(configs.values())).data  # the same for all tasks
        own = {"data": data.model_copy(update={"workers": data.workers or 0})}
        self.batch = data.batch
        self.streams = {name: TaskStream(task.model_copy(update=own), processes) for name, task in configs.items()}
        self.held_out: list[Source] = []
        self.facts: dict[str, Any] = {}

    def load(self, progress: Wrap = lambda items: items) -> None:
        """Load the images of all tasks."""
        for stream in self.streams.values():
            stream.load(progress)
        facts = {name: stream.facts for name, stream in self.streams.items()}
        hashes = "".join(fact["index_sha256"] for fact in facts.values())
        self.facts = {"tasks": facts, "index_sha256": hashlib.sha256(hashes.encode()).hexdigest()}

    def batches(self, step: int, drawn: int) -> Iterator[Batch]:
        """Yield batches without end, beginning with that of a step."""
        count = len(self.streams)
        turns = [(step - place + count - 1) // count for place in range(count)]  # batches that each task has had
        streams = [
            stream.batches(turn, turn * self.batch) for stream, turn in zip(self.streams.values(), turns, strict=True)
        ]
        while True:
            yield next(streams[step % count])
            step += 1


class JointStep:
    """Training step of a joint network: each step trains the body, and the head and tail of one task."""

    def __init__(self, config: TrainConfig, configs: Mapping[str, TrainConfig], processes: Processes) -> None:
        self.configs, self.names = dict(configs), list(configs)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)
            network = JointSwinIR({name: task.network_config() for name, task in configs.items()})
        self.optimization: Optimization[JointSwinIR] = Optimization(network, config, processes)
        self.forwards = {name: network.expert(name) for name in configs}
        self.objectives = {
            name: Objective(task.loss, task.network_config().in_chans, processes.device)
            for name, task in configs.items()
        }
        self.init: dict[str, Any] = {}
        tasks = {name: task.model_dump(mode="json") for name, task in configs.items()}
        self.configuration = config.model_dump(mode="json") | {"tasks": tasks}

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on the batch of a step, counted from 0, with the loss of the task whose turn it is."""
        name = self.names[step % len(self.names)]
        result = self.optimization.step(batch, step, forward=self.forwards[name], objective=self.objectives[name])
        return StepResult(result.loss, {f"loss_{name}": result.loss}, result.grad_norm, result.lr)

    def write(self, run: Path, step: int) -> None:
        """Write joint_TASK.pth for each task, an ordinary SwinIR with a copy of the body."""
        network = self.optimization.averaged()
        for name, config in self.configs.items():
            write_weights(run / f"joint_{name}.pth", network.expert(name), config, step)


def joint_trainer(
    configs: Mapping[str, TrainConfig],
    run: Path,
    *,
    processes: Processes,
    log: Log = lambda row: None,
    progress: Wrap = lambda items: items,
) -> Trainer:
    """Return the trainer of a joint network. There is no validation during the training.

    Args:
        configs: training of each task alone, by the task's name, in the order of their turns.
        run, processes, log, progress: as for a `Trainer`.

    Raises:
        ValueError, OSError: as for a `Trainer`, and for trainings that cannot be joined.
    """
    config = joint_config(configs)
    return Trainer(
        config,
        run,
        stream=JointStream(configs, processes),
        train_step=JointStep(config, configs, processes),
        processes=processes,
        log=log,
        progress=progress,
    )

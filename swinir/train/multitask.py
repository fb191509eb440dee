"""Training of one network for several tasks, which take turns: step s is the turn of task s modulo their number."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinir.models.multitask import JointSwinIR
from swinir.train.config import TrainConfig
from swinir.train.dataset import batches, load_samples
from swinir.train.distributed import Processes
from swinir.train.images import Wrap, find_sources, first_images, split_holdout
from swinir.train.initialize import with_weights, write_weights
from swinir.train.logger import Log
from swinir.train.objective import Objective
from swinir.train.optimizer import Optimization, StepResult
from swinir.train.trainer import Trainer, describe_data
from swinir.train.validation import Validation

OWN = ("name", "task", "scale", "noise", "jpeg", "network", "degradation", "loss")  # what may differ among the tasks


def joint_config(configs: Mapping[str, TrainConfig]) -> TrainConfig:
    """How the joint network is trained: as the first task's expert, for as many steps as all experts together.

    Warm-up and milestones are stretched likewise, so that each task's turns see the learning rates of its expert.

    Raises:
        ValueError: when two tasks differ in what belongs to the whole training, or ask for what it does not do.
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
        raise ValueError("a joint training is one of SwinIR; leave out network.name")
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


class JointTrainer(Trainer):
    """One run of a joint network; it leaves what a `Trainer` leaves, and at the end joint_TASK.pth for each task.

    A task's turn number n takes the samples that step n of its expert takes, so both see the same patches in the same
    order. There is no validation on the way.

    Args:
        configs: the training of each task's expert, by the task's name, in the order of their turns.
        run, processes, log, progress: as a `Trainer` takes them.

    Raises:
        ValueError, OSError: as of a `Trainer`, and for trainings that cannot be joined.
    """

    def __init__(
        self,
        configs: Mapping[str, TrainConfig],
        run: Path,
        *,
        processes: Processes | None = None,
        log: Log = lambda row: None,
        progress: Wrap = lambda items: items,
    ) -> None:
        self.tasks = dict(configs)
        self.names = list(configs)
        super().__init__(joint_config(configs), run, processes=processes, log=log, progress=progress)

    def turn(self, step: int) -> str:
        """The task of a step."""
        return self.names[step % len(self.names)]

    def export_path(self, task: str) -> Path:
        """Where a task's expert goes, an ordinary SwinIR with a copy of the body."""
        return self.run / f"joint_{task}.pth"

    def _load_data(self, progress: Wrap) -> None:
        data = self.config.data
        self.validation = Validation(self.config, [])
        self.task_samples, facts = {}, {}
        for name, config in self.tasks.items():
            sources = first_images(find_sources(data.train, data.train_lq, config.scale), data.images)
            train, held = split_holdout(sources, data.holdout)
            for first in (True, False) if data.cache else (True,):  # the first process decodes, the others find it
                if not data.cache or first == self.first:
                    self.task_samples[name] = load_samples(config, train, progress=progress)
                self.processes.wait()
            facts[name] = describe_data(self.task_samples[name].images, held)
        hashes = "".join(fact["index_sha256"] for fact in facts.values())
        self.data_facts = {"tasks": facts, "index_sha256": hashlib.sha256(hashes.encode()).hexdigest()}

    def _build(self) -> tuple[Optimization[Any], dict[str, Any]]:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.config.seed)
            network = JointSwinIR({name: config.network_config() for name, config in self.tasks.items()})
        optimization = Optimization(network, self.config, self.processes)
        self._forwards = {
            name: torch.compile(network.expert(name)) if self.config.compile else network.expert(name)
            for name in self.names
        }
        self._objectives = {
            name: Objective(config.loss, config.network_config().in_chans, self.processes.device)
            for name, config in self.tasks.items()
        }
        return optimization, {}

    def _configuration(self) -> dict[str, Any]:
        tasks = {name: config.model_dump(mode="json") for name, config in self.tasks.items()}
        return super()._configuration() | {"tasks": tasks}

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The parts of the batches, step after step, each of the task whose turn it is."""
        parts, data = self.optimization.parts(), self.config.data
        streams = {}
        for place, name in enumerate(self.names):
            turns = (self.step - place + len(self.names) - 1) // len(self.names)  # that it had before this step
            streams[name] = batches(
                self.task_samples[name],
                first=turns * data.batch,
                batch=data.batch,
                parts=parts,
                workers=data.workers or 0,
            )
        step = self.step
        while True:
            for _ in parts:
                yield next(streams[self.turn(step)])
            step += 1

    def _train_on(self, batch: list[tuple[Tensor, Tensor]]) -> StepResult:
        name = self.turn(self.step)
        result = self.optimization.step(
            batch, self.step, forward=self._forwards[name], objective=self._objectives[name]
        )
        return StepResult(result.loss, {f"loss_{name}": result.loss}, result.grad_norm, result.lr)

    def _finish(self) -> None:
        network: JointSwinIR = with_weights(self.optimization.network, self.optimization.ema.averages)
        for name, config in self.tasks.items():
            write_weights(self.export_path(name), network.expert(name), config, self.step)

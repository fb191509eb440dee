"""Configuration of the joint experiment: one expert for each task (SwinIR) against one network for all tasks (IPT).

The same tasks are trained three times, on the same patches in the same order and for the same number of steps each:

    joint     one body for all tasks, a head and a tail for each; as many steps as all experts together
    experts   a network with a body of that size for each task: equal steps, more parameters
    narrow    a narrower network for each task: equal steps, together as many parameters as the joint network
"""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from swinir.models.complexity import count_parameters
from swinir.models.multitask import count_joint_parameters
from swinir.models.swinir import NetworkConfig
from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import LossConfig, NotNegative, Positive, Quality, Section, Share, TrainConfig, explain
from swinir.train.multitask import joint_config

KINDS = ("joint", "experts", "narrow")


class JointTask(Section):
    """One of the tasks.

    Attributes:
        name: name in folders and tables.
        task, scale, noise, jpeg: as in `swinir train` and `swinir test`.
        loss: loss of its steps.
        benchmark: set that it is measured on, a name of `swinir.testsets`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    task: str
    scale: Positive = 1
    noise: Positive = 15
    jpeg: Quality = 40
    loss: LossConfig = LossConfig()
    benchmark: str

    @property
    def metric(self) -> str:
        """Metric that the paper reports for the task."""
        return "psnr_y" if self.scale > 1 else "psnr"


class JointExperiment(Section):
    """The whole experiment. Unknown keys are refused.

    Attributes:
        steps: steps of the joint network; each expert gets an equal share.
        seeds: the experiment is repeated for each seed.
        training: options of `swinir train` that all trainings share, without tasks and iterations.
        narrow: network options of the narrow experts that differ.
        tolerance: allowed difference between the narrow experts' parameters together and the joint network's, as a
            share of the latter.
        tasks: the tasks, in the order of their turns.
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
            raise ValueError(f"each task needs its own name, got {', '.join(names)}")
        if self.steps % len(names):
            raise ValueError(f"steps must be a multiple of the {len(names)} tasks, got {self.steps}")
        for task in self.tasks:
            if task.benchmark not in BENCHMARK_SETS:
                raise ValueError(f"unknown benchmark {task.benchmark!r}; choose one of {', '.join(BENCHMARK_SETS)}")
        experts = self.experts("experts", self.seeds[0])
        log_every = experts[names[0]].log_every
        if self.share % log_every:
            raise ValueError(f"training.log_every must divide the {self.share} steps of a task, got {log_every}")
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
        """Number of steps of each task."""
        return self.steps // len(self.tasks)

    def experts(self, kind: str, seed: int) -> dict[str, TrainConfig]:
        """Training configuration of each task's expert, by the task's name; narrow for the kind "narrow".

        Raises:
            ValueError: for an invalid configuration, naming the task.
        """
        return {task.name: self._expert(task, kind, seed) for task in self.tasks}

    def _expert(self, task: JointTask, kind: str, seed: int) -> TrainConfig:
        shared = dict(self.training)
        schedule = shared.pop("schedule", {}) | {"iterations": self.share}
        network = shared.pop("network", {}) | (self.narrow if kind == "narrow" else {})
        own = task.model_dump(exclude={"name", "benchmark"})
        given = [key for key in ("name", "seed", *own) if key in shared]
        if given:
            raise ValueError(f"training.{given[0]} is set by [[tasks]] and seeds; leave it out")
        values = shared | own | {"name": task.name, "seed": seed, "schedule": schedule, "network": network}
        try:
            return TrainConfig.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"the training of {task.name}: {explain(error, TrainConfig)}") from error

    def networks(self, kind: str) -> dict[str, NetworkConfig]:
        """Network of each task, by the task's name."""
        return {name: config.network_config() for name, config in self.experts(kind, self.seeds[0]).items()}

    def parameters(self, kind: str) -> int:
        """Number of parameters of all tasks together."""
        networks = self.networks(kind)
        return count_joint_parameters(networks) if kind == "joint" else sum(map(count_parameters, networks.values()))

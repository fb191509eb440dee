"""Plan of the joint experiment: one network for all tasks (IPT), with adapters, and one expert for each task (SwinIR).

The same tasks are trained five times, on the same patches and for the same number of steps each:

    joint     one body for all tasks, a head and a tail for each; as many steps as all experts together
    adapters  such a body after a part of the steps, then an adapter for each task, which gets the other steps
    groups    the same body, then adapters that similar tasks share
    experts   a network with a body of that size for each task: more parameters
    narrow    a narrower network for each task: together as many parameters as the body with an adapter for each task
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from swinir.models.complexity import count_parameters
from swinir.testsets import BENCHMARK_SETS
from swinir.train.config import NotNegative, Section, Share, TrainConfig
from swinir.train.multitask_config import AdapterConfig, MultiTaskConfig, TaskConfig, changed
from swinir.weights.multitask import MAX_RANK

BODY = "body"  # run whose file adapters are added to
KINDS = ("joint", "adapters", "groups", "experts", "narrow")
ORDER = ("adapters", "groups", "experts", "joint", "narrow")  # of the trainings: the most informative first


class Comparison(Section):
    """Options of the comparison, in [experiment].

    Attributes:
        seeds: the trainings are repeated for each seed.
        benchmarks: set that each task is measured on, by its name: a name of `swinir.testsets`.
        rank: of the adapters for one task each; shared ones have the rank of [adapters].
        narrow: network options of the narrow experts that differ.
        tolerance: allowed difference between the narrow experts' parameters together and those of the joint network
            with an adapter for each task, as a share of the latter.
    """

    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (0,)
    benchmarks: dict[str, str]
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)]
    narrow: dict[str, Any]
    tolerance: Share = 0.02


@dataclass(frozen=True)
class Training:
    """A training of the experiment and its folder."""

    folder: Path
    config: TrainConfig | MultiTaskConfig


class JointExperiment(MultiTaskConfig):
    """The whole experiment: a training for several tasks, with [experiment]. Unknown keys are refused."""

    adapters: AdapterConfig
    experiment: Comparison

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        names, comparison = [task.name for task in self.tasks], self.experiment
        if self.weights:
            raise ValueError("the experiment trains the body itself; leave weights out")
        if sorted(comparison.benchmarks) != sorted(names):
            raise ValueError(f"experiment.benchmarks needs a set for each task, {', '.join(names)}")
        for benchmark in comparison.benchmarks.values():
            if benchmark not in BENCHMARK_SETS:
                raise ValueError(f"unknown benchmark {benchmark!r}; choose one of {', '.join(BENCHMARK_SETS)}")
        for task in self.tasks:
            if isinstance(task.scale, tuple):
                raise ValueError(f"the experiment needs one scale a task, got {list(task.scale)} for {task.name}")
        log_every = self.experts()[names[0]].log_every
        if any(steps % log_every for steps in self.steps):
            raise ValueError(
                f"training.log_every must divide the steps of a task, {self.steps[0]} of the body and {self.steps[1]} "
                f"of its adapter, got {log_every}"
            )
        if "seed" in self.training:
            raise ValueError("training.seed is set by experiment.seeds; leave it out")
        adapted, narrow = self.count("adapters"), self.count("narrow")
        if abs(narrow - adapted) > comparison.tolerance * adapted:
            raise ValueError(
                f"the narrow experts have {narrow:,} parameters together, the joint network with its adapters "
                f"{adapted:,}: more than {comparison.tolerance:.1%} apart; change experiment.narrow.embed_dim or "
                "mlp_ratio"
            )
        return self

    @property
    def steps(self) -> tuple[int, int]:
        """Number of steps of each task with the body, and with its adapter."""
        name = self.tasks[0].name
        body, adapter = self.experts()[name], self.experts(self.adapters.training)[name]
        return body.schedule.iterations, adapter.schedule.iterations

    @property
    def share(self) -> int:
        """Number of steps of each task."""
        return sum(self.steps)

    def trainings(self, kind: str, seed: int, folder: Path) -> Iterator[Training]:
        """Yield the trainings of a kind in their order; `folder` is that of the seed."""
        if kind in ("experts", "narrow"):
            changes = self._whole(seed) | ({"network": self.experiment.narrow} if kind == "narrow" else {})
            for name, config in self.experts(changes).items():
                yield Training(folder / kind / name, config)
            return
        if kind == "joint":
            yield Training(folder / kind, self._multi(kind, self._whole(seed)))
            return
        rank = self.experiment.rank
        adapters = self.adapters if kind == "groups" else self.adapters.model_copy(update={"rank": rank, "groups": {}})
        body = folder / BODY
        yield Training(body, self._multi(BODY, {"seed": seed}))
        options = {"adapters": adapters, "weights": body / f"{BODY}.pth"}
        yield Training(folder / kind, self._multi(kind, {"seed": seed}, **options))

    def _whole(self, seed: int) -> dict[str, Any]:
        """Changes of a training that has all steps: milestones are stretched."""
        schedule = self.experts()[self.tasks[0].name].schedule
        milestones = [milestone * self.share // schedule.iterations for milestone in schedule.milestones]
        return {"seed": seed, "schedule": {"iterations": self.share, "milestones": milestones}}

    def _multi(self, name: str, changes: dict[str, Any], **options: Any) -> MultiTaskConfig:
        return MultiTaskConfig(name=name, training=changed(self.training, changes), tasks=self.tasks, **options)

    def count(self, kind: str) -> int:
        """Number of parameters of all tasks together."""
        configs = [training.config for training in self.trainings(kind, 0, Path())]
        if isinstance(configs[-1], MultiTaskConfig):
            return configs[-1].parameters()
        return sum(count_parameters(config.network_config()) for config in configs if isinstance(config, TrainConfig))

    def weights_name(self, kind: str, task: str) -> str:
        """Name of a task's finished weights in the folder of a seed: a file, or FILE:TASK."""
        return f"{kind}/{task}/{task}.pth" if kind in ("experts", "narrow") else f"{kind}/{kind}.pth:{task}"

    def metric(self, task: TaskConfig) -> str:
        """Metric that the paper reports for a task."""
        return "psnr_y" if task.scale != 1 else "psnr"

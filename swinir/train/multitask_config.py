"""Configuration of a training for several tasks: one body for all, then adapters of it, one after another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from swinir.models.multitask import check_bodies, count_joint_parameters
from swinir.train.config import (
    LossConfig,
    Positive,
    Quality,
    Scale,
    Section,
    TrainConfig,
    check_values,
    explain,
    read_values,
)
from swinir.weights.multitask import MAX_RANK, NAME

BODY = "joint"  # name of the training of the body
OWN = ("name", "task", "scale", "noise", "jpeg", "network", "degradation", "loss")  # options that tasks may differ in
TaskName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]


class TaskConfig(Section):
    """One of the tasks.

    Attributes:
        name: name in the file, as in FILE:NAME, and in tables.
        task, scale, noise, jpeg: as in `swinir train` and `swinir test`.
        loss: loss of its steps.
    """

    name: TaskName
    task: str
    scale: Positive | tuple[Scale, Scale] = 1
    noise: Positive = 15
    jpeg: Quality = 40
    loss: LossConfig = LossConfig()


class AdapterConfig(Section):
    """Adapters of the finished body. Head and tail of a task are trained on with its adapter.

    Attributes:
        rank: rank of the change of each linear layer and convolution, 4 to 16 as a rule.
        groups: tasks that share an adapter and are trained in turn, by the adapter's name. Every other task has one of
            its own.
        training: options that differ from those of the body's training, such as the learning rate.
    """

    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] = 8
    groups: dict[TaskName, tuple[str, ...]] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One training: of the body, or of an adapter.

    Attributes:
        name: "joint", or that of the adapter.
        tasks: training of each of its tasks alone, by the task's name, in the order of their turns.
        rank: of the adapter; 0 trains the body.
    """

    name: str
    tasks: dict[str, TrainConfig]
    rank: int = 0


class MultiTaskConfig(Section):
    """A training for several tasks. Unknown keys are refused.

    Attributes:
        name: name of the run, its folder and its file.
        weights: file of an earlier run, to whose body adapters are added; without one the body is trained first.
        training: options of `swinir train` that all tasks share; iterations are those of each task.
        adapters: none if left out.
        tasks: in the order of their turns.
        experiment: for `swinir reproduce joint`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]
    weights: Path | None = None
    training: dict[str, Any]
    adapters: AdapterConfig | None = None
    tasks: Annotated[tuple[TaskConfig, ...], Field(min_length=1)]
    experiment: Any = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"each task needs its own name, got {', '.join(names)}")
        if self.weights and not self.adapters:
            raise ValueError("weights are those of a finished body, which needs [adapters]; leave one of them out")
        grouped = [name for group in self._groups().values() for name in group]
        if sorted(grouped) != sorted(names):
            wrong = [name for name in grouped if name not in names or grouped.count(name) > 1]
            raise ValueError(f"adapters.groups must name each task once at most, got {', '.join(wrong)}")
        for stage in self.stages():
            joint_config(stage)
        check_bodies({name: config.network_config() for name, config in self.experts().items()})
        return self

    def _groups(self) -> dict[str, tuple[str, ...]]:
        """Tasks of each adapter, in the order of the tasks."""
        groups = self.adapters.groups if self.adapters else {}
        shared = {name for group in groups.values() for name in group}
        return groups | {task.name: (task.name,) for task in self.tasks if task.name not in shared}

    def stages(self) -> list[Stage]:
        """The trainings, each of which starts from the one before.

        Raises:
            ValueError: for an invalid configuration, naming the task.
        """
        stages = [] if self.weights else [Stage(BODY, self.experts())]
        if self.adapters:
            experts = self.experts(self.adapters.training)
            for name, tasks in self._groups().items():
                stages.append(Stage(name, {task: experts[task] for task in tasks}, self.adapters.rank))
        return stages

    def experts(self, changes: Mapping[str, Any] | None = None) -> dict[str, TrainConfig]:
        """Training of each task alone, with some options changed, by the task's name."""
        return {task.name: self._expert(task, changed(self.training, changes or {})) for task in self.tasks}

    def _expert(self, task: TaskConfig, shared: dict[str, Any]) -> TrainConfig:
        own = task.model_dump(include=set(TaskConfig.model_fields))
        if given := [key for key in own if key in shared]:
            raise ValueError(f"training.{given[0]} is set by [[tasks]]; leave it out")
        try:
            return TrainConfig.model_validate(shared | own)
        except ValidationError as error:
            raise ValueError(f"the training of {task.name}: {explain(error, TrainConfig)}") from error

    def parameters(self) -> int:
        """Number of parameters of the whole file."""
        networks = {name: config.network_config() for name, config in self.experts().items()}
        ranks = tuple(self.adapters.rank for _ in self._groups()) if self.adapters else ()
        return count_joint_parameters(networks, ranks)


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> TrainConfig | MultiTaskConfig:
    """Read the configuration of a training for one task, or for several, which has [[tasks]].

    Raises:
        ValueError, FileNotFoundError: as `read_config`.
    """
    values = read_values(path, list(overrides))
    if "tasks" in values:
        return check_values(path, values, MultiTaskConfig)
    return check_values(path, values, TrainConfig)


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with changes, section by section."""
    merged = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = changed(merged[key], value) if nested else value
    return merged


def joint_config(stage: Stage) -> TrainConfig:
    """Return the configuration of a stage: the first task's, for as many steps as all its tasks together.

    Warm-up and milestones are stretched likewise, so that each task's turns have the learning rates of a training for
    that task alone.

    Raises:
        ValueError: when two tasks differ in an option of the whole training, or ask for something unsupported.
    """
    (first_name, first), *others = stage.tasks.items()
    for name, config in others:
        for field in (f for f in TrainConfig.model_fields if f not in OWN):
            if getattr(config, field) != getattr(first, field):
                raise ValueError(f"tasks of a joint training need the same {field}; {first_name} and {name} differ")
    if first.init.weights or first.init.discriminator:
        raise ValueError("a joint training takes no [init] of its own; leave it out, and name a file as weights")
    if any(config.loss.adversarial for config in stage.tasks.values()):
        raise ValueError("a joint training has no discriminator; leave out [loss.adversarial]")
    if any(config.network_name != "swinir" for config in stage.tasks.values()):
        raise ValueError("a joint training needs SwinIR; leave out network.name")
    number, schedule = len(stage.tasks), first.schedule
    stretched = schedule.model_copy(
        update={
            "iterations": number * schedule.iterations,
            "warmup": number * schedule.warmup,
            "milestones": tuple(number * milestone for milestone in schedule.milestones),
        }
    )
    data = first.data.model_copy(update={"validate_gt": None, "validate_lq": None})
    return first.model_copy(update={"name": stage.name, "schedule": stretched, "data": data})

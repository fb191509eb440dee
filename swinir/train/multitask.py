"""Training of one network for several tasks, which take turns: step s of a stage trains task s modulo their number."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinir.models.multitask import JointSwinIR
from swinir.train.config import TrainConfig
from swinir.train.dataset import Batch, TaskStream
from swinir.train.distributed import Processes
from swinir.train.images import Source, Wrap
from swinir.train.logger import Log
from swinir.train.losses import Objective
from swinir.train.multitask_config import MultiTaskConfig, Stage, joint_config
from swinir.train.optimizer import Optimization, StepResult
from swinir.train.trainer import Trainer
from swinir.weights.checkpoint import read_joint, sha256, write_joint
from swinir.weights.multitask import JointWeights


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
    """Training step of a stage: each step trains the body, or an adapter of it, and the head and tail of one task.

    Args:
        stage: tasks, and the rank of the adapter.
        file: written at the end. A stage of an adapter adds to the content of `start`.
        start: file with the body that adapters are for; None for a stage that trains the body.
        processes: the processes of the run.

    Raises:
        ValueError: for a file that cannot be read, or that has another body.
    """

    def __init__(self, stage: Stage, file: Path, start: Path | None, processes: Processes) -> None:
        self.stage, self.file = stage, file
        config = joint_config(stage)
        self.names = list(stage.tasks)
        self.start = read_joint(start) if start else None
        self.init = {"weights": start.name, "sha256": sha256(start)} if start else {}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)
            network = JointSwinIR({name: task.network_config() for name, task in stage.tasks.items()})
            if self.start:
                _copy(network.body(), self.start.body, f"{start} has another body")
                for name in self.names:
                    if name in self.start.ends:
                        _copy(network.ends(name), self.start.ends[name], f"{start} has another head or tail of {name}")
                network.adapt(stage.rank)
        self.optimization: Optimization[JointSwinIR] = Optimization(network, config, processes)
        self.forwards = {name: network.expert(name) for name in stage.tasks}
        self.objectives = {
            name: Objective(task.loss, task.network_config().in_chans, processes.device)
            for name, task in stage.tasks.items()
        }
        self.configuration = stage_configuration(stage)

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on the batch of a step, counted from 0, with the loss of the task whose turn it is."""
        name = self.names[step % len(self.names)]
        result = self.optimization.step(batch, step, forward=self.forwards[name], objective=self.objectives[name])
        return StepResult(result.loss, {f"loss_{name}": result.loss}, result.grad_norm, result.lr)

    def write(self, run: Path, step: int) -> None:
        """Write the file with what the stage has trained."""
        stage, network = self.stage, self.optimization.averaged()
        old = self.start or JointWeights({}, _tensors(network.body()), {}, {})
        adapter = stage.name if stage.rank else None
        facts = old.facts | {
            name: {
                "task": task.task,
                "network": task.network_config().to_dict(),
                "step": step // len(self.names),
                "adapter": adapter,
            }
            for name, task in stage.tasks.items()
        }
        adapters = old.adapters | ({adapter: _tensors(network.adapter())} if adapter else {})
        used = {fact["adapter"] for fact in facts.values()}
        write_joint(
            self.file,
            JointWeights(
                facts,
                old.body,
                old.ends | {name: _tensors(network.ends(name)) for name in self.names},
                {name: factors for name, factors in adapters.items() if name in used},
            ),
        )


def _copy(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor], refusal: str) -> None:
    """Copy weights into a network's parameters; a ValueError where names or shapes differ."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in table.items()} for table in (parameters, state)]
    differing = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"{refusal}: {name} is {shapes[1].get(name)}, the configuration's {shapes[0].get(name)}; "
            "make training.network that of the file"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def _tensors(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu() for name, parameter in parameters.items()}


def stage_configuration(stage: Stage) -> dict[str, Any]:
    """Return everything that decides a stage, for its config.json."""
    tasks = {name: task.model_dump(mode="json") for name, task in stage.tasks.items()}
    return joint_config(stage).model_dump(mode="json") | {"tasks": tasks, "rank": stage.rank}


def trainers(
    config: TrainConfig | MultiTaskConfig,
    folder: Path,
    *,
    processes: Processes,
    log: Callable[[Path, TrainConfig], Log] = lambda folder, config: lambda row: None,
    progress: Wrap = lambda items: items,
) -> Iterator[Trainer]:
    """Yield the trainer of a training for one task, or of each unfinished stage of one for several.

    A stage has a folder of its own in `folder`, and adds to the one file NAME.pth, so that the next one starts from it.
    There is no validation during the training of several tasks.

    Args:
        log: returns the function that takes the rows of `metrics.jsonl`, by folder and configuration of a trainer.
        processes, progress: as for a `Trainer`.

    Raises:
        ValueError, OSError: as for a `Trainer`, and for a file to start from that does not fit.
    """
    if isinstance(config, TrainConfig):
        yield Trainer(config, folder, processes=processes, log=log(folder, config), progress=progress)
        return
    file = folder / f"{config.name}.pth"
    for stage in config.stages():
        own, whole = folder / stage.name, joint_config(stage)
        if _finished(stage, file, own):
            continue
        start = (file if file.exists() else config.weights) if stage.rank else None
        yield Trainer(
            whole,
            own,
            stream=JointStream(stage.tasks, processes),
            train_step=JointStep(stage, file, start, processes),
            processes=processes,
            log=log(own, whole),
            progress=progress,
        )


def _finished(stage: Stage, file: Path, folder: Path) -> bool:
    """Return true if the file holds what a stage has trained with its present configuration."""
    configuration = folder / "config.json"
    if not (file.exists() and configuration.exists()):
        return False
    facts = read_joint(file).facts
    held = all(name in facts and facts[name]["adapter"] == stage.name for name in stage.tasks) or not stage.rank
    return held and json.loads(configuration.read_text(encoding="utf-8")) == stage_configuration(stage)

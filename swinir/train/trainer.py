"""The training loop: steps, validation, and states from which a run resumes exactly.

Stream -> batches -> TrainStep -> Journal, Validation, StateStore -> NAME.pth, in the released layout
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from swinir.atomic import atomic_path
from swinir.evaluation.results import means
from swinir.inference.arrays import restore_array
from swinir.inference.forward import Restorer
from swinir.locks import FolderLock
from swinir.train.checkpoints import StateStore
from swinir.train.config import TrainConfig
from swinir.train.dataset import Batch, Stream, TaskStream
from swinir.train.distributed import Processes
from swinir.train.images import Wrap
from swinir.train.initialize import (
    build_network,
    start_adversary_from,
    start_from,
    write_adversary,
    write_weights,
)
from swinir.train.logger import Journal, Log, Pace, add_facts, run_facts, train_log, write_facts
from swinir.train.optimizer import NotFiniteError, Optimization, StepResult
from swinir.train.validation import Validation

logger = logging.getLogger(__name__)

SHOWN = 4  # validation images shown in TensorBoard


class TrainStep(Protocol):
    """Training on one batch, and the network that is trained.

    Attributes:
        optimization: the network with its optimizer, which states hold.
        init: facts about the initial weights, for run.json.
        configuration: everything that decides the training, for config.json.
    """

    optimization: Optimization[Any]
    init: dict[str, Any]
    configuration: dict[str, Any]

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on the batch of a step, counted from 0."""

    def write(self, run: Path, step: int) -> None:
        """Write the final weights into the run's folder."""


class TaskStep:
    """Training step of a network for one task.

    Raises:
        ValueError, OSError: for initial weights that cannot be read or do not fit.
    """

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config, self.configuration = config, config.model_dump(mode="json")
        network = build_network(config)
        init = start_from(network, config.init)
        self.optimization: Optimization[Any] = Optimization(network, config, processes)
        self.init = init | start_adversary_from(self.optimization.objective.adversary, config.init)

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Train on the batch of a step, counted from 0."""
        return self.optimization.step(batch, step)

    def write(self, run: Path, step: int) -> None:
        """Write NAME.pth with the averaged weights, and NAME_discriminator.pth if there is a discriminator."""
        name, adversary = self.config.name, self.optimization.objective.adversary
        write_weights(run / f"{name}.pth", self.optimization.averaged(), self.config, step)
        if adversary:
            write_adversary(run / f"{name}_discriminator.pth", adversary, step)


class Trainer:
    """A training run in a folder.

    The folder gets `config.json` (the complete configuration), `run.json` (versions, data and initial weights of every
    start), `metrics.jsonl`, `train.log`, `states/`, NAME_best.pth at every better validation, and the final weights.

    Args:
        config: schedule, intervals and validation; by default also the data and the network.
        run: the folder, created if absent.
        stream: source of the batches; by default that of the configuration's task.
        train_step: what is done with a batch; by default the configuration's network is trained on it.
        processes: the processes of the run; the first one writes the files.
        log: called with every row that is written to `metrics.jsonl`.
        progress: wraps the list of images while they are loaded.

    Raises:
        ValueError, OSError: for unusable data, with the files, and for initial weights that do not fit.
        BusyError: (an OSError) when another process trains in the folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        *,
        stream: Stream | None = None,
        train_step: TrainStep | None = None,
        processes: Processes | None = None,
        log: Log = lambda row: None,
        progress: Wrap = lambda items: items,
    ) -> None:
        self.config, self.run, self._log = config, run, log
        self.processes = processes or Processes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.first = self.processes.rank == 0
        if config.data.batch % (config.accumulate * self.processes.count):
            raise ValueError(
                f"data.batch must be a multiple of accumulate times processes, got {config.data.batch} "
                f"for {config.accumulate} times {self.processes.count}"
            )
        self.stream = stream or TaskStream(config, self.processes)
        self.validation = Validation(config, self.stream.held_out)
        self.validation.check()
        self._lock = FolderLock(run)  # held until `fit` or the process ends
        if self.first and run.is_dir():
            self._lock.hold()  # before images are loaded, which can take minutes
        self.stream.load(progress)
        self.train_step = train_step or TaskStep(config, self.processes)
        self.optimization = self.train_step.optimization
        self.states = StateStore(run / "states", keep=config.keep)
        self.step = 0
        self.drawn = 0  # samples
        self.best: float | None = None
        self._results: list[StepResult] = []  # since the last row
        self.pace = Pace()  # of this start, without validation
        self._saved_at: int | None = None  # step of the newest state of this run
        if self.first and not self._lock.held:
            run.mkdir(parents=True, exist_ok=True)
            self._lock.hold()

    @property
    def weights_path(self) -> Path:
        """Path of the final weights of a training for one task."""
        return self.run / f"{self.config.name}.pth"

    def fit(self, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the last iteration.

        Returns:
            False when `stop` ended the run early, with its state saved.

        Raises:
            NotFiniteError: when a loss or gradient is not finite; the batch is saved in the folder.
            OSError: when the folder cannot be written to.
        """
        device = self.processes.device
        journal = Journal(self.run, log=self._log, tensorboard=self.config.tensorboard) if self.first else None
        try:
            if journal:
                journal.forget_after(self.step)
                self._archive_later()
                write_facts(self.run / "config.json", self.train_step.configuration)
                facts = run_facts(device, self.processes.count, self.stream.facts, self.train_step.init)
                add_facts(self.run / "run.json", {"step": self.step, **facts})
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                finished = self._loop(journal, stop)
            if finished and self.first:
                self.train_step.write(self.run, self.step)
            self.processes.wait()
            return finished
        finally:
            if journal:
                journal.close()
            self._lock.close()

    def _loop(self, journal: Journal | None, stop: Callable[[], bool]) -> bool:
        config = self.config
        self.optimization.network.train()
        if self.step and self._saved_at is None:
            self._save()  # the state was chosen by the user: make it the newest one of this run
        recent = self.pace = Pace()
        batches = self.stream.batches(self.step, self.drawn)
        while self.step < config.schedule.iterations:
            if self.processes.any(stop()):
                if self._saved_at != self.step:
                    self._save()
                return False
            asked = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - asked
            self._results.append(self.train_on(batch))
            for pace in {recent, self.pace}:
                pace.count(waited)
            if self.step % config.log_every == 0:
                if journal:
                    journal.write(self._row(recent))
                self._results, recent = [], Pace()
            better = False
            if self.step % config.validate_every == 0 and self.validation.samples:
                pause = time.monotonic()
                better = self._validate(journal)
                for pace in {recent, self.pace}:
                    pace.leave_out(time.monotonic() - pause)
            if better or self.step % config.save_every == 0 or self.step == config.schedule.iterations:
                self._save(best=better)
        return True

    def train_on(self, batch: Batch) -> StepResult:
        """Train on the next batch.

        Raises:
            NotFiniteError: when the loss or the gradient is not finite; the batch is saved in the folder.
        """
        try:
            result = self.train_step(batch, self.step)
        except NotFiniteError as error:
            path = self.run / f"not_finite_step{self.step:08d}_process{self.processes.rank}.pt"
            parts = [{"lq": lq.cpu(), "gt": gt.cpu()} for lq, gt in error.batch]
            with atomic_path(path) as temporary:
                torch.save({"step": self.step, "drawn": self.drawn, "parts": parts}, temporary)
            raise NotFiniteError(f"step {self.step}: {error}; the batch is in {path}", error.batch) from error
        self.step += 1
        self.drawn += self.config.data.batch
        return result

    def _row(self, pace: Pace) -> dict[str, Any]:
        """Row of metrics.jsonl for the steps since the last one."""
        results = self._results
        losses = {"loss": np.mean([r.loss for r in results])}
        names = {name: None for r in results for name in r.parts}  # a dict keeps their order
        losses |= {name: np.mean([r.parts[name] for r in results if name in r.parts]) for name in names}
        norms = [r.grad_norm for r in results if math.isfinite(r.grad_norm)]  # fp16 skips steps that overflow
        return {
            "step": self.step,
            **{name: float(value) for name, value in losses.items()},
            "grad_norm": float(np.mean(norms)) if norms else None,
            "lr": results[-1].lr,
            "images_per_second": round(pace.row()["iterations_per_second"] * self.config.data.batch, 2),
            **pace.row(),
        }

    def averaged(self) -> Restorer:
        """Return a network with the averaged weights, in eval mode."""
        network: Restorer = self.optimization.averaged()
        return network

    def validate(self) -> dict[str, float]:
        """Return the mean metrics of the averaged weights over the validation images, by the tester's `evaluate`."""
        rows = self.validation.run(self.averaged(), self.processes)
        for row in rows:
            if row.error and self.first:
                logger.warning("validation of %s failed: %s", row.image, row.error)
        return means(rows)

    def _validate(self, journal: Journal | None) -> bool:
        """Validate and record the result; returns true if it is the best so far."""
        metrics = self.validate()
        score = metrics.get("psnr_y", metrics.get("psnr"))
        better = score is not None and (self.best is None or score > self.best)
        if better:
            self.best = score
        if journal:
            journal.write({"step": self.step, **metrics})
            if journal.shows_images:
                self._show(journal)
            if better:
                write_weights(self._best_path, self.averaged(), self.config, self.step)
        return better

    def _show(self, journal: Journal) -> None:
        network = self.averaged()
        for sample in self.validation.samples[:SHOWN]:
            with contextlib.suppress(ValueError, OSError):  # the validation has logged a warning
                lq, _ = self.validation.load(sample, self.validation.protocol)
                journal.show(sample.name, restore_array(network, lq), self.step)

    @property
    def _best_path(self) -> Path:
        return self.run / f"{self.config.name}_best.pth"

    def _save(self, *, best: bool = False) -> None:
        if self.first:
            self.states.save(self.state(), self.step, best=best)
        self._saved_at = self.step

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs; all random draws follow from the seed, the step and `drawn`."""
        return {
            "config": self.config.model_dump_json(),
            "step": self.step,
            "seed": self.config.seed,
            "drawn": self.drawn,
            "data": self.stream.facts["index_sha256"],
            "best": self.best,
            "results": [asdict(result) for result in self._results],
            "optimization": self.optimization.state(),
        }

    def resume(self, path: Path | None = None) -> Path | None:
        """Resume from a state, by default from this run's newest undamaged one.

        Returns:
            The state's path; None if there is no state.

        Raises:
            ValueError: when the state is damaged, or belongs to another network or another seed.
            OSError: when it cannot be read.
        """
        if path is None:
            # The first process chooses, because the others might see the folder or a read error differently.
            with train_log(self.run):
                latest = self.states.load_latest() if self.first else None
            path = self.processes.share(latest[2] if latest else None)
            if path is None:
                return None
        self._load_state(self.states.load(path, map_location=self.processes.device), path)
        self._saved_at = self.step if path in self.states.paths() else None
        self.processes.wait()  # no process writes before all have read
        return path

    def _archive_later(self) -> None:
        """Archive states and best weights newer than the step that the run resumes from."""
        self.states.archive_after(self.step)
        if self.states.best() is None:
            self.best = None  # the best state was among those archived
            if self._best_path.exists() and self.states.abandoned.is_dir():
                self._best_path.replace(self.states.abandoned / self._best_path.name)

    def _load_state(self, content: dict[str, Any], path: Path) -> None:
        try:
            step, seed, drawn, best = (content[name] for name in ("step", "seed", "drawn", "best"))
            stored = TrainConfig.model_validate_json(content["config"])
            if stored.network_config() != self.config.network_config() or stored.network != self.config.network:
                raise ValueError("the state belongs to another network")
            if seed != self.config.seed:
                raise ValueError(f"the state has seed {seed}, the configuration {self.config.seed}")
            results = [StepResult(**result) for result in content["results"]]
            if content["data"] != self.stream.facts["index_sha256"] and self.first:
                logger.warning("%s: the training images differ from those of the steps before", path)
            self.optimization.load_state(content["optimization"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path}: not a training state of this version; start again with --fresh") from error
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: {reason}; choose another --run folder, or --fresh") from error
        self.step, self.drawn, self.best = step, drawn, best
        self._results = results

"""The training loop: steps, validation, and states from which a run goes on exactly.

config -> images -> samples -> batches -> Optimization.step -> journal, validation, states
                                                            -> NAME.pth, in the released layout
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.atomic import atomic_path
from swinir.evaluation.evaluate import means, to_tensor, to_uint8
from swinir.inference.forward import Restorer
from swinir.inference.restore import restore
from swinir.train.checkpoints import StateStore
from swinir.train.config import TrainConfig
from swinir.train.dataset import batches, load_samples
from swinir.train.distributed import Processes
from swinir.train.images import Source, TrainingImage, Wrap, find_sources, first_images, index_hash, split_holdout
from swinir.train.initialize import (
    build_network,
    start_adversary_from,
    start_from,
    with_weights,
    write_adversary,
    write_weights,
)
from swinir.train.logger import Journal, Log, add_facts, run_facts, train_log, write_facts
from swinir.train.optimizer import NotFiniteError, Optimization, StepResult
from swinir.train.validation import Validation

logger = logging.getLogger(__name__)

SHOWN = 4  # validation images on the board


class Trainer:
    """One run in a folder.

    The folder gets `config.json` (the configuration, complete), `run.json` (versions, data, initial weights, of every
    start), `metrics.jsonl`, `train.log`, `states/`, NAME_best.pth at every better validation, and at the end NAME.pth,
    with NAME_discriminator.pth where there is one.

    Args:
        config: what to train.
        run: the folder, made if absent.
        processes: what this process is one of; the first writes the files.
        log: called with every row that also goes to `metrics.jsonl`.
        progress: wraps the list of images while they are loaded.

    Raises:
        ValueError, OSError: for data that cannot be trained on, named, and initial weights that do not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        *,
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
        self._load_data(progress)
        self.optimization, self.init = self._build()
        self.states = StateStore(run / "states", keep=config.keep)
        self.step = 0
        self.drawn = 0  # samples
        self.best: float | None = None
        self._results: list[StepResult] = []  # since the last row
        self._saved_at: int | None = None  # the newest state's step, where that is of this run's line

    def _load_data(self, progress: Wrap) -> None:
        config, data = self.config, self.config.data
        sources = first_images(find_sources(data.train, data.train_lq, config.scale), data.images)
        train, held = split_holdout(sources, data.holdout)
        self.validation = Validation(config, held)
        self.validation.check()
        # With a cache, the first process decodes and the others find its work.
        for rank in range(2 if data.cache else 1):
            if not data.cache or (self.processes.rank > 0) == (rank > 0):
                self.samples = load_samples(config, train, progress=progress)
            self.processes.wait()
        self.data_facts = describe_data(self.samples.images, held)

    def _build(self) -> tuple[Optimization[Any], dict[str, Any]]:
        """The network with its optimizer, and the facts about the weights that it starts from."""
        config = self.config
        network = build_network(config)
        init = start_from(network, config.init)
        optimization = Optimization(network, config, self.processes)
        return optimization, init | start_adversary_from(optimization.objective.adversary, config.init)

    @property
    def network(self) -> Restorer:
        """The network in training."""
        network: Restorer = self.optimization.network
        return network

    @property
    def weights_path(self) -> Path:
        """Where the finished weights go."""
        return self.run / f"{self.config.name}.pth"

    def fit(self, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the last iteration; returns False when `stop` asked to leave before, with the state saved.

        Raises:
            NotFiniteError: when a loss or gradient is not finite; the batch is kept in the folder.
            OSError: when the folder cannot be written to.
        """
        device = self.processes.device
        journal = Journal(self.run, log=self._log, tensorboard=self.config.tensorboard) if self.first else None
        try:
            if journal:
                journal.forget_after(self.step)
                self._settle()
                write_facts(self.run / "config.json", self._configuration())
                facts = run_facts(device, self.processes.count, self.data_facts, self.init)
                add_facts(self.run / "run.json", {"step": self.step, **facts})
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                finished = self._loop(journal, stop)
            if finished and self.first:
                self._finish()
            self.processes.wait()
            return finished
        finally:
            if journal:
                journal.close()

    def _configuration(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def _finish(self) -> None:
        """Write the weights that the run ends with."""
        write_weights(self.weights_path, self.averaged(), self.config, self.step)
        adversary = self.optimization.objective.adversary
        if adversary:
            write_adversary(self.run / f"{self.config.name}_discriminator.pth", adversary, self.step)

    def _loop(self, journal: Journal | None, stop: Callable[[], bool]) -> bool:
        config = self.config
        self.optimization.network.train()
        if self.step and self._saved_at is None:
            self._save()  # a state that was chosen: from here on it is the one to go on from
        waited, since = 0.0, time.monotonic()
        stream = self._batches()
        parts = self.optimization.parts()
        while self.step < config.schedule.iterations:
            if max(self.processes.mean([stop()])) > 0:
                if self._saved_at != self.step:
                    self._save()
                return False
            asked = time.monotonic()
            batch = [next(stream) for _ in parts]
            waited += time.monotonic() - asked
            self._results.append(self._step(batch))
            if self.step % config.log_every == 0:
                seconds = time.monotonic() - since
                if journal:
                    journal.write(self._row(self._results, seconds, waited))
                self._results, waited, since = [], 0.0, time.monotonic()
            better = False
            if self.step % config.validate_every == 0 and self.validation.samples:
                pause = time.monotonic()
                better = self._validate(journal)
                since += time.monotonic() - pause
            if better or self.step % config.save_every == 0 or self.step == config.schedule.iterations:
                self._save(best=better)
        return True

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.config.data
        workers = data.workers
        if workers is None:
            workers = min(8, torch.get_num_threads()) if self.processes.device.type == "cuda" else 0
        parts = self.optimization.parts()
        return batches(self.samples, first=self.drawn, batch=data.batch, parts=parts, workers=workers)

    def _step(self, batch: list[tuple[Tensor, Tensor]]) -> StepResult:
        try:
            result = self._train_on(batch)
        except NotFiniteError as error:
            path = self.run / f"not_finite_step{self.step:08d}_process{self.processes.rank}.pt"
            content = [{"lq": lq.cpu(), "gt": gt.cpu()} for lq, gt in error.batches]
            with atomic_path(path) as temporary:
                torch.save({"step": self.step, "drawn": self.drawn, "parts": content}, temporary)
            raise NotFiniteError(f"step {self.step}: {error}; the batch is in {path}", error.batches) from error
        self.step += 1
        self.drawn += self.config.data.batch
        return result

    def _train_on(self, batch: list[tuple[Tensor, Tensor]]) -> StepResult:
        return self.optimization.step(batch, self.step)

    def _row(self, results: list[StepResult], seconds: float, waited: float) -> dict[str, Any]:
        means = {"loss": np.mean([r.loss for r in results])}
        names = {name: None for r in results for name in r.parts}  # in their order
        means |= {name: np.mean([r.parts[name] for r in results if name in r.parts]) for name in names}
        norms = [r.grad_norm for r in results if math.isfinite(r.grad_norm)]  # fp16 skips steps that overflow
        return {
            "step": self.step,
            **{name: float(value) for name, value in means.items()},
            "grad_norm": float(np.mean(norms)) if norms else None,
            "lr": results[-1].lr,
            "images_per_second": round(len(results) * self.config.data.batch / seconds, 2),
            "waiting_for_data": round(waited / seconds, 4),
        }

    def averaged(self) -> Restorer:
        """A network with the averaged weights, in eval mode."""
        return with_weights(self.network, self.optimization.ema.averages)

    def validate(self) -> dict[str, float]:
        """Mean metrics of the averaged weights over the validation images, by the tester's `evaluate`."""
        rows = self.validation.run(self.averaged(), self.processes)
        for row in rows:
            if row.error and self.first:
                logger.warning("validation of %s failed: %s", row.image, row.error)
        return means(rows)

    def _validate(self, journal: Journal | None) -> bool:
        """Validate, note the result, and say whether it is the best so far."""
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
                path = self.run / f"{self.config.name}_best.pth"
                write_weights(path, self.averaged(), self.config, self.step)
        return better

    def _show(self, journal: Journal) -> None:
        network = self.averaged()
        for sample in self.validation.samples[:SHOWN]:
            with contextlib.suppress(ValueError, OSError):  # warned of by the validation itself
                lq, _ = self.validation.load(sample, self.validation.protocol)
                journal.show(sample.name, to_uint8(restore(network, to_tensor(lq))), self.step)

    def _save(self, *, best: bool = False) -> None:
        if self.first:
            self.states.save(self.state(), self.step, best=best)
        self._saved_at = self.step

    def state(self) -> dict[str, Any]:
        """Everything that the run goes on from; all random draws follow from the seed, the step and `drawn`."""
        return {
            "config": self.config.model_dump_json(),
            "step": self.step,
            "seed": self.config.seed,
            "drawn": self.drawn,
            "data": self.data_facts["index_sha256"],
            "best": self.best,
            "results": [asdict(result) for result in self._results],
            "optimization": self.optimization.state(),
        }

    def resume(self, path: Path | None = None) -> Path | None:
        """Go on from a state, the newest whole one of this run without a path; returns which, None if there is none.

        Raises:
            ValueError: when the state is damaged, of another network or another seed.
            OSError: when it cannot be read.
        """
        if path is None:
            # One process chooses: the others might meet a folder, or a fault, that it did not.
            with train_log(self.run):
                latest = self.states.load_latest() if self.first else None
            path = self.processes.share(latest[2] if latest else None)
            if path is None:
                return None
        self._take(self.states.load(path, map_location=self.processes.device), path)
        self._saved_at = self.step if path in self.states.paths() else None
        self.processes.wait()  # nobody writes before all have read
        return path

    def _settle(self) -> None:
        """Leave what lies beyond the step that the run goes on from."""
        self.states.discard_after(self.step)
        weights = self.run / f"{self.config.name}_best.pth"
        if self.states.best() is None:
            self.best = None  # its place was taken by one that has just been abandoned
            if weights.exists() and self.states.abandoned.is_dir():
                weights.replace(self.states.abandoned / weights.name)

    def _take(self, content: dict[str, Any], path: Path) -> None:
        try:
            step, seed, drawn, best = (content[name] for name in ("step", "seed", "drawn", "best"))
            stored = TrainConfig.model_validate_json(content["config"])
            if stored.network_config() != self.config.network_config() or stored.network != self.config.network:
                raise ValueError("the state belongs to another network")
            if seed != self.config.seed:
                raise ValueError(f"the state has seed {seed}, the configuration {self.config.seed}")
            results = [StepResult(**result) for result in content["results"]]
            if content["data"] != self.data_facts["index_sha256"] and self.first:
                logger.warning("%s: the training images are not those that it was trained on so far", path)
            self.optimization.load_state(content["optimization"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path}: not a training state of this version; start again with --fresh") from error
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: {reason}; choose another --run folder, or --fresh") from error
        self.step, self.drawn, self.best = step, drawn, best
        self._results = results


def describe_data(images: Sequence[TrainingImage], held: Sequence[Source]) -> dict[str, Any]:
    """What `run.json` says of the images to train on, and of those held out."""
    return {
        "images": len(images),
        "megapixels": round(sum(image.width * image.height for image in images) / 1e6, 3),
        "index_sha256": index_hash(images),
        "held_out": [source.name for source in held],
    }

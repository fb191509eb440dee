"""A worker: an actor that holds models and restores images as `restore_files` does."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from swinir.cluster.storage import Copies
from swinir.inference.device import choose_device
from swinir.inference.memory import free_memory
from swinir.photos.batch import MEMORY_SHARE, Batch, Clock, Item, Policy, reason
from swinir.photos.jobs import Job, Output
from swinir.photos.loaded_models import BUDGET_SHARE, LoadedModels, load_by
from swinir.photos.manifest import RECORDS, OutputError, Records, Result, raise_output_errors
from swinir.photos.restore_photo import Treatment


@dataclass(frozen=True)
class Work:
    """The options of a run, for its workers.

    Attributes:
        folder: of outputs; None if they go to a URL.
        current: folder that relative paths refer to, if the machine has it.
        device, backend: as `choose_device` and `load_by` take them.
        threads: of each worker on the CPU; None is its share of the machine.
        beside: number of workers on a machine, which share its memory.
    """

    treatment: Treatment
    naming: Output
    policy: Policy
    folder: Path | None
    current: Path
    device: str | None = None
    backend: str | None = None
    threads: int | None = None
    beside: int = 1


class SharedRecords(Records):
    """The records as a worker sees them. Copies stand in them under their URLs.

    Args:
        keeper: handle of the `Keeper`.
    """

    def __init__(self, folder: Path, keeper: Any, copies: Copies) -> None:
        self.path, self.ignored = folder / RECORDS, 0
        self.keeper, self.copies = keeper, copies

    def refresh(self) -> None:
        """Do nothing: `last` asks for the newest lines."""

    def last(self, output: str) -> tuple[Result | None, Result | None]:
        """Return the last record of an output that was made, and that of a later attempt."""
        return ray.get(self.keeper.last.remote(self.copies.name(output)))

    def add(self, *results: Result) -> None:
        """Have records appended; they are on the disk when this returns."""
        name = self.copies.name
        for row in results:
            row = replace(row, input=name(row.input), output=name(row.output), error=self.copies.rename(row.error))
            ray.get(self.keeper.add.remote(row))


class WorkerBatch(Batch):
    """The stages of a run, with copies of files behind URLs."""

    def __init__(self, work: Work, models: LoadedModels, copies: Copies, keeper: Any) -> None:
        share = MEMORY_SHARE / work.beside * free_memory(torch.device("cpu"))
        policy = replace(work.policy, memory_limit=share)
        super().__init__(work.folder or copies.folder, work.treatment, models, work.naming, policy)
        self.copies, self.shared = copies, SharedRecords(self.folder, keeper, copies)

    def load_records(self) -> SharedRecords:
        """Return the records that the keeper has."""
        return self.shared

    def read(self, job: Job) -> Item | None:
        """Fetch and read an image, and its output if there is one."""
        try:
            self.copies.fetch(job.source, required=True)
            self.copies.fetch(job.target, required=False)
        except Exception as error:  # storages have errors of many kinds
            url = self.copies.name(job.source)
            message = str(error) if isinstance(error, FileNotFoundError) else f"{url}: {reason(error)}"
            return Item(job, Result(str(job.source), str(job.target), "failed", message))
        return super().read(job)

    def write(self, item: Item) -> Result:
        """Write the output, and send it."""
        result = super().write(item)
        if result.status == "failed":
            return result
        url = self.copies.name(item.job.target)
        try:
            with raise_output_errors(Path(url)):
                self.copies.send(item.job.target)
        except OutputError:
            raise
        except Exception as error:
            return replace(result, status="failed", error=f"{url}: {reason(error)}")
        return result

    def record(self, result: Result) -> Result:
        """Record an image and delete its copies; the keeper is also told of those that are skipped."""
        if result.status == "skipped":
            self.records.add(result)
        super().record(result)
        if result.status != "begun":
            self.copies.drop(Path(result.input), Path(result.output))
        return result


class Worker:
    """An actor that restores images as long as the keeper gives it any.

    Args:
        keeper: handle of the `Keeper`.
        number: of this worker.
    """

    def __init__(self, work: Work, keeper: Any, number: int) -> None:
        if work.current.is_dir():
            os.chdir(work.current)
        torch.set_num_threads(work.threads or 1)
        self.work, self.keeper, self.number = work, keeper, number
        self.batch: WorkerBatch | None = None

    def restore(self, suspect: bool) -> str:
        """Restore images until the keeper has none.

        Args:
            suspect: restore one image whose worker died.

        Returns:
            The reason why this machine cannot write or start its models; else "".
        """
        try:
            batch = self.batch = self.batch or self._open()
            for _ in batch.run(self._jobs(batch.copies, suspect), Clock()):
                pass
        except (OutputError, OSError, ValueError) as error:
            return reason(getattr(error, "cause", error))  # of the keeper's
        return ""

    def _jobs(self, copies: Copies, suspect: bool) -> Iterator[Job]:
        while pair := ray.get(self.keeper.take.remote(self.number, suspect)):
            yield copies.job(*pair)

    def _open(self) -> WorkerBatch:
        device = choose_device(self.work.device)
        precision = self.work.treatment.run.precision
        models = LoadedModels(
            device,
            BUDGET_SHARE / self.work.beside * free_memory(device),
            load_by(self.work.backend, device, precision),
            self.work.treatment.run,
        )
        batch = WorkerBatch(self.work, models, Copies(self.work.policy.max_pixels), self.keeper)
        batch.open()
        return batch

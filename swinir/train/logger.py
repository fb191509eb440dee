"""Records of a run: metrics, log, facts about versions and data, and optionally TensorBoard's event files."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swinir.atomic import atomic_path
from swinir.environment import commit, environment

Log = Callable[[dict[str, Any]], None]


class Journal:
    """Writer of `metrics.jsonl`, `train.log` and, with `tensorboard`, event files in a run's folder.

    Raises:
        ValueError: when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, log: Log = lambda row: None, tensorboard: bool = False) -> None:
        self.folder, self._log = folder, log
        self._board = _board(folder) if tensorboard else None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.log").touch()
        self._files = ExitStack()
        self._files.enter_context(train_log(folder))

    def write(self, row: dict[str, Any]) -> None:
        """Append a row to `metrics.jsonl` and pass it to `log`."""
        self._log(row)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["step"])

    def show(self, name: str, image: np.ndarray, step: int) -> None:
        """Add an (H, W, C) uint8 image to TensorBoard, if it is used."""
        if self._board:
            self._board.add_image(name, image, step, dataformats="HWC")

    @property
    def shows_images(self) -> bool:
        return self._board is not None

    def forget_after(self, step: int) -> None:
        """Remove the rows of later steps, which will be written again, and an incomplete last row."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                kept.append(f"{line}\n")
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def close(self) -> None:
        """Close the files."""
        self._files.close()
        if self._board:
            self._board.close()


class Pace:
    """Speed of a training since this object was made, and the share of the time that it waited for data."""

    def __init__(self) -> None:
        self.iterations, self.waited, self._since = 0, 0.0, time.monotonic()

    def count(self, waited: float) -> None:
        """Count an iteration that waited for its batch for some seconds."""
        self.iterations += 1
        self.waited += waited

    def leave_out(self, seconds: float) -> None:
        """Leave out the seconds of other work, such as validation."""
        self._since += seconds

    def row(self) -> dict[str, float]:
        """Return iterations a second and the share of waiting, as columns of `metrics.jsonl`."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {
            "iterations_per_second": round(self.iterations / seconds, 3),
            "waiting_for_data": round(self.waited / seconds, 4),
        }


@contextmanager
def train_log(folder: Path) -> Iterator[None]:
    """Append the package's log messages within the block to the folder's `train.log`."""
    handler = logging.FileHandler(folder / "train.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("swinir").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("swinir").removeHandler(handler)
        handler.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard = true needs TensorBoard; install it with: pip install 'swinir-toolkit[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))


def run_facts(device: torch.device, processes: int, data: dict[str, Any], init: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `run.json`: versions, commit, device, processes, data and initial weights."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        **environment(device),
        "processes": processes,
        "data": data,
        "init": init,
    }


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write plain values as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def add_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write plain values as JSON, with the file's former content under "earlier", oldest first."""
    earlier: list[Any] = []
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no file yet, or an unreadable one
        former = json.loads(path.read_text(encoding="utf-8"))
        earlier = [*former.get("earlier", []), {name: fact for name, fact in former.items() if name != "earlier"}]
    write_facts(path, {**facts, "earlier": earlier})

"""Steps of a report on a GPU, each under its own time limit: `bash scripts/gpu_report.sh SECONDS`.

    ceilings -> tests -> correctness -> speed -> compiled -> tuning -> rates -> training, for the time that is left

Every step is a process that writes rows to `results.jsonl` and text to `log.txt` while it runs. Weights and the newest
training state are copied beside them every few seconds. A cut at any moment therefore leaves what was measured.
The folder holds at most 8 files of at most 16 MiB.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from swinir.atomic import atomic_path

ROOT = Path(__file__).parents[2]
MEASURE, PAGE = (Path(__file__).with_name(name) for name in ("measure.py", "page.py"))
CARRIED = ROOT / "gpu_carry"
RECIPE = ROOT / "configs/lightweight_sr/small_x2_h100.toml"
REHEARSED = ROOT / "configs/debug/tiny.toml"

MAX_FILES, MAX_BYTES = 8, 16 * 2**20  # that may be in the folder
STATE_PARTS = 2  # files that a large state is divided into, at most
RESERVE = 0.025  # share of the seconds kept for the last copies
GRACE = 0.015  # share of the seconds between asking a step to stop and killing it
LEAST = 0.01  # share of the seconds without which a step is not begun
COPY_EVERY = 20.0  # seconds
START_UP = 25.0  # seconds that a training takes to load images and compile, estimated
MARGIN = 0.9  # share of the measured rate that the schedule is made for
VALIDATIONS = 6
REHEARSED_STEPS = 12
UNMEASURED = 15.0  # steps per second if no rate was measured, estimated


@dataclass(frozen=True)
class Step:
    """A process of the report.

    Attributes:
        share: of all seconds, at most; None for all that are left.
        command: makes the words of the command from the seconds it may take; None if there is nothing to run.
    """

    name: str
    share: float | None
    command: Callable[[float], Sequence[str | Path] | None]


@dataclass(frozen=True)
class Folder:
    """The files of a report, and the folder of the training run."""

    out: Path
    run: Path

    @property
    def results(self) -> Path:
        return self.out / "results.jsonl"

    @property
    def log(self) -> Path:
        return self.out / "log.txt"

    def note(self, **row: Any) -> None:
        """Append a row."""
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def collect(self) -> None:
        """Copy the weights, the newest state and the records of the training beside the results; shorten the log."""
        if self.log.exists() and self.log.stat().st_size > MAX_BYTES // 2:
            end = self.log.read_bytes()[-MAX_BYTES // 4 :]
            self.log.write_bytes(end)  # in place: a process that appends to the file goes on
        if not self.run.is_dir():
            return
        for path in sorted(self.run.glob("*.pth")):
            self._copy(path, path.name)
        newest = max(self.run.glob("states/step-*.pt"), default=None)
        if newest is not None and not (self.out / f"{newest.name}.0").exists():
            parts = -(-newest.stat().st_size // MAX_BYTES)
            for old in self.out.glob("step-*.pt*"):
                if not old.name.startswith(newest.name):
                    old.unlink()
            if parts == 1:
                self._copy(newest, newest.name)
            elif parts <= STATE_PARTS:  # `cat NAME.* > NAME` restores it
                data = newest.read_bytes()
                for i in range(parts):
                    self._write(f"{newest.name}.{i}", data[i * MAX_BYTES : (i + 1) * MAX_BYTES])
        records = [path for path in sorted(self.run.iterdir()) if path.suffix in (".json", ".jsonl", ".log")]
        records += sorted(self.run.parent.glob("*.json"))
        with atomic_path(self.out / "run.tar.gz") as temporary, tarfile.open(temporary, "w:gz") as archive:
            for path in records:
                archive.add(path, path.name)

    def _copy(self, path: Path, name: str) -> None:
        copy = self.out / name
        about = path.stat()
        known = copy.stat() if copy.exists() else None
        if about.st_size > MAX_BYTES or (known and known.st_mtime >= about.st_mtime and known.st_size == about.st_size):
            return
        self._write(name, path.read_bytes())

    def _write(self, name: str, data: bytes) -> None:
        with atomic_path(self.out / name) as temporary:
            temporary.write_bytes(data)


def allowance(step: Step, total: float, left: float) -> float:
    """Return the seconds that a step may take: its share, and no more than is left before the reserve."""
    rest = max(0.0, left - RESERVE * total)
    return rest if step.share is None else min(step.share * total, rest)


Words = list[str | Path]
Execute = Callable[[Sequence[str | Path], float, float], int | None]


def run_steps(
    steps: Sequence[Step],
    folder: Folder,
    total: float,
    execute: Execute,
    *,
    used: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Run the steps one after the other; a step that fails or takes too long does not stop the next.

    Args:
        total: seconds for everything.
        execute: takes a command, the seconds it may take and those of its grace, and returns the exit code, or None if
            it was stopped.
        used: seconds of `total` that are gone already.
        clock: seconds.
    """
    end = clock() + total - used
    for step in steps:
        seconds = allowance(step, total, end - clock())
        began = clock()
        command = None
        if seconds < LEAST * total:
            status = "no time"
        elif (command := step.command(seconds - GRACE * total)) is None:
            status = "not available"
        else:
            tell(f"{step.name}: at most {seconds:.0f} s")
            status = _status(execute(command, seconds, GRACE * total))
        took = clock() - began
        folder.note(kind="step", step=step.name, status=status, seconds=round(took, 2), limit=round(seconds, 2))
        folder.collect()
        tell(f"{step.name}: {status}, {took:.0f} s")


def _status(code: int | None) -> str:
    return {0: "ok", None: "stopped"}.get(code, f"failed with exit code {code}")


def execute(folder: Folder) -> Execute:
    """Return a function that runs a command in a group of processes of its own, which ends with it."""

    def run(command: Sequence[str | Path], seconds: float, grace: float) -> int | None:
        end = time.monotonic() + seconds
        with folder.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0
            )
        try:
            code = _wait(process, end - grace, folder.collect)
            if code is None:
                os.killpg(process.pid, signal.SIGTERM)
                _wait(process, end, lambda: None)
            return code
        finally:
            _kill(process)

    return run


def _wait(process: "subprocess.Popen[bytes]", end: float, collect: Callable[[], None]) -> int | None:
    """Wait until the process ends or the clock says `end`; collect files meanwhile."""
    while (left := end - time.monotonic()) > 0:
        try:
            return process.wait(min(COPY_EVERY, left))
        except subprocess.TimeoutExpired:
            collect()
    return process.poll()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@dataclass(frozen=True)
class Plan:
    """The steps on one device.

    Attributes:
        tiny: rehearse with very small networks and images.
    """

    folder: Folder
    device: str
    tiny: bool

    def steps(self) -> list[Step]:
        """List the steps in their order, those first that others depend on."""
        shares = {"ceilings": 0.05, "tests": 0.13, "correctness": 0.08, "speed": 0.08}
        shares |= {"fused": 0.05, "compiled": 0.06, "tuning": 0.05}
        commands = {name: self._measure(name) for name in shares} | {"rates": self._rates}
        shares["rates"] = 0.12
        if self.tiny:  # starting a process takes most of the time
            shares = dict.fromkeys(shares, 0.25)
        return [*(Step(name, shares[name], commands[name]) for name in shares), Step("training", None, self._training)]

    def _measure(self, name: str) -> Callable[[float], Words | None]:
        words: Words = [sys.executable, MEASURE, name, "--device", self.device, "--rows", self.folder.results]
        return lambda seconds: [*words, *(["--tiny"] if self.tiny else [])]

    @property
    def _recipe(self) -> Path:
        return REHEARSED if self.tiny else RECIPE

    @property
    def _data(self) -> list[str]:
        """Options that name the carried images."""
        if self.tiny:
            return []
        named = {
            "data.train": CARRIED / "images",
            "data.cache": self.folder.run.with_name("cache"),  # decoded once for all trainings of the report
            "data.validate_gt": CARRIED / "Set5/HR",
            "data.validate_lq": CARRIED / "Set5/LR_bicubic/X2",
        }
        return [word for key, path in named.items() for word in ("--set", f"{key}={path}")]

    @property
    def _can_train(self) -> bool:
        return self._recipe.exists() and (self.tiny or (CARRIED / "images").is_dir())

    def _rates(self, seconds: float) -> Words | None:
        if not self._can_train:
            return None
        script, file = ROOT / "scripts/measure_training.py", self.folder.run.with_name("rates.json")
        how = (
            ["--steps", "2", "--variants", "eager"] if self.tiny else ["--steps", "30", "--variants", "eager,compiled"]
        )
        words: Words = [sys.executable, script, "--config", self._recipe, *self._data, "--device", self.device]
        return [*words, *how, "--json", file]

    def _training(self, seconds: float) -> Words | None:
        """Train for the seconds; the schedule ends with them if the measured rate holds."""
        if not self._can_train:
            return None
        rates = self.folder.run.with_name("rates.json")
        rate, compiled = fastest(rates)
        if rates.exists():
            self.folder.note(kind="training", **json.loads(rates.read_text(encoding="utf-8")))
        done = self._steps_done()
        more = REHEARSED_STEPS if self.tiny else max(VALIDATIONS, int(MARGIN * rate * (seconds - START_UP)))
        settings = {
            "schedule.iterations": done + more,
            "compile": str(compiled).lower(),
            "validate_every": max(1, more // VALIDATIONS),
            "save_every": max(1, more // (2 * VALIDATIONS)),
            "log_every": max(1, more // 60),
            "keep": 1,
        }
        words: Words = [sys.executable, "-m", "swinir", "train", "--config", self._recipe, *self._data]
        words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return [*words, "--run", self.folder.run, "--device", self.device]

    def _steps_done(self) -> int:
        """Count the steps of the training so far; a state that an earlier report left is put into the run's folder."""
        states = self.folder.run / "states"
        carried = max(CARRIED.glob("step-*.pt"), default=None)
        if carried is not None and not self.tiny and not any(states.glob("step-*.pt")):
            states.mkdir(parents=True, exist_ok=True)
            shutil.copy(carried, states)
        newest = max(states.glob("step-*.pt"), default=None)
        return 0 if newest is None else int(newest.name.split("-")[1])


def fastest(rates: Path) -> tuple[float, bool]:
    """Return steps per second of the faster way to train, and true if it is the compiled one."""
    try:
        found = json.loads(rates.read_text(encoding="utf-8"))
        batch = found["config"]["data"]["batch"]
        ways = [name for name in ("eager", "compiled") if name in found]
        speeds = {name: found[name]["trainer_images_per_second"]["median"] / batch for name in ways}
        best = max(speeds, key=lambda name: speeds[name])
    except (OSError, ValueError, KeyError, TypeError):
        return UNMEASURED, False
    return speeds[best], best == "compiled"


def report(
    seconds: Annotated[float, typer.Argument(min=1, help="Time for everything.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results.")] = None,
    device: Annotated[str, typer.Option("--device", help="cuda, cuda:1, or cpu for a rehearsal.")] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="Rehearse with very small networks and images.")] = False,
    used: Annotated[float, typer.Option("--used", help="Seconds that are gone already.")] = 0.0,
) -> None:
    """Measure everything that needs a GPU, then train for the rest of the time."""
    place = ROOT / "gpu_report" / ("rehearsal" if tiny else "")
    folder = Folder((out or place).resolve(), place / "work/run")
    for path in (folder.out, folder.run.parent):
        path.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    steps, tell = Plan(folder, device, tiny).steps(), partial(print, flush=True)
    try:
        run_steps(steps, folder, seconds, execute(folder), used=used, tell=tell)
    finally:
        folder.collect()
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, PAGE, "--show", folder.results], check=False, timeout=0.5 * RESERVE * seconds)


app = typer.Typer(add_completion=False)
app.command()(report)

if __name__ == "__main__":
    app()

"""Ten models in one process and in ten, one body with ten adapters, and one model for all levels.

Run it by `python scripts/measure_deployment.py`. Ten checkpoints with the network of a bundled denoiser, or of the
paper's (`--full-size`), and random weights stand for ten levels. Requests draw a level each. The forms of deployment
take turns, so that other work on the machine slows all of them alike; compare their ratios. Measured for each: bytes
on disk; seconds from the start of the processes until all models are loaded; main memory, where pages that processes
share count once (PSS); images a second.
"""

import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir`

import torch  # isort: skip

from swinir.atomic import atomic_path
from swinir.environment import machine
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore
from swinir.models.multitask import JointSwinIR
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.photos.loaded_models import LoadedModels
from swinir.tasks import TASKS
from swinir.weights.checkpoint import load_model, write_checkpoint, write_joint
from swinir.weights.multitask import JointWeights, split_name

LEVELS = 10
RANK = 4  # of the adapters
TINY = "color_dn_noise0-55_tiny"
CPU = torch.device("cpu")
app = typer.Typer(add_completion=False)


def serve(door: Connection, names: Sequence[str], budget: float, side: int) -> None:
    """Load models, then restore an image by each model that is asked for; the work of one process."""
    models = LoadedModels(CPU, budget)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    for name in names:
        models.get(name)
    door.send("ready")
    while name := door.recv():
        restore(models.get(name), image, RunOptions())
        door.send(name)


@dataclass
class Form:
    """A way to deploy: the models of each process, and the one that serves each level.

    Attributes:
        budget: bytes for the models of each process.
        rates: images a second in each turn.
    """

    label: str
    processes: list[list[str]]
    serving: list[str]
    budget: float = math.inf
    doors: dict[str, Connection] = field(default_factory=dict)
    running: list[Any] = field(default_factory=list)
    load_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)

    def start(self, side: int) -> None:
        """Start the processes at once, and wait until all models are loaded."""
        context, started = get_context("spawn"), time.perf_counter()
        doors = []
        for names in self.processes:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, names, self.budget, side), daemon=True)
            process.start()
            self.running.append(process)
            self.doors |= dict.fromkeys(names, ours)
            doors.append(ours)
        for door in doors:
            door.recv()
        self.load_seconds = time.perf_counter() - started

    def turn(self, levels: Sequence[int]) -> None:
        """Serve a request for each level: processes side by side, each one image after another."""
        started = time.perf_counter()
        queues: dict[int, tuple[Connection, list[str]]] = {}
        for level in levels:
            name = self.serving[level]
            queues.setdefault(id(self.doors[name]), (self.doors[name], []))[1].append(name)
        for door, names in queues.values():
            for name in names:
                door.send(name)
        for door, names in queues.values():
            for _ in names:
                door.recv()
        self.rates.append(len(levels) / (time.perf_counter() - started))

    def memory(self) -> int:
        """Main memory in bytes."""
        kilobytes = 0
        for process in self.running:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return 1024 * kilobytes

    def disk(self) -> int:
        """Bytes of the checkpoints."""
        return sum(path.stat().st_size for path in {split_name(name)[0] for names in self.processes for name in names})

    def end(self) -> None:
        """End the processes."""
        for door in set(self.doors.values()):
            door.send("")
        for process in self.running:
            process.join()


def write_models(folder: Path, network: NetworkConfig) -> list[str]:
    """Write a checkpoint of random weights for each level, and return the paths."""
    paths = []
    for level in range(LEVELS):
        torch.manual_seed(level)
        paths.append(str(folder / f"level{level}.pth"))
        write_checkpoint(Path(paths[-1]), SwinIR(network).state_dict(), network)
    return paths


def write_adapters(path: Path, network: NetworkConfig) -> list[str]:
    """Write a file of one body with an adapter, a head and a tail for each level, and return the names of its tasks."""
    tasks = [f"level{level}" for level in range(LEVELS)]
    joint = JointSwinIR(dict.fromkeys(tasks, network))
    body, ends = joint.body(), {task: joint.ends(task) for task in tasks}
    joint.adapt(RANK)
    factors = {task: {name: torch.randn_like(p) / 100 for name, p in joint.adapter().items()} for task in tasks}
    facts = {task: {"task": "color_dn", "network": network.to_dict(), "step": 0, "adapter": task} for task in tasks}
    write_joint(path, JointWeights(facts, dict(body), {task: dict(ends[task]) for task in tasks}, factors))
    return [f"{path}:{task}" for task in tasks]


@app.command()
def run(
    full_size: Annotated[bool, typer.Option("--full-size", help="The paper's network, SwinIR-M.")] = False,
    side: Annotated[int, typer.Option("--side", min=8, help="Of the images, in pixels.")] = 128,
    images: Annotated[int, typer.Option("--images", min=1, help="In each turn.")] = 20,
    turns: Annotated[int, typer.Option("--turns", min=1)] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Measure the forms of deployment, and print a table."""
    network = TASKS["color_dn"].network if full_size else load_model(TINY, "cpu").config
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        names = write_models(Path(name), network)
        adapted = write_adapters(Path(name) / "joint.pth", network)
        two = 2.6 * 4 * sum(p.numel() for p in SwinIR(network).parameters()) * 2  # a little more than two models take
        forms = [
            Form("ten models, one process", [names], names),
            Form("ten models, one process, budget for two", [names], names, two),
            Form("ten models, ten processes", [[one] for one in names], names),
            Form("one body with ten adapters, one process", [adapted], adapted),
            Form("one model for all levels", [names[:1]], names[:1] * LEVELS),
        ]
        for form in forms:
            form.start(side)
        for turn in range(turns + 1):
            levels = [draw.randrange(LEVELS) for _ in range(images)]
            for form in forms if turn % 2 else reversed(forms):
                form.turn(levels)
        rows = [
            {
                "form": form.label, "disk_mb": form.disk() / 1e6, "memory_mb": form.memory() / 1e6,
                "load_seconds": form.load_seconds, "images_per_second": statistics.median(form.rates[1:]),
                "ratio": statistics.median(a / b for a, b in zip(form.rates[1:], forms[0].rates[1:], strict=True)),
            }
            for form in forms
        ]  # fmt: skip
        for form in forms:
            form.end()
    typer.echo("| form | disk, MB | main memory, MB | start, s | images/s | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row['disk_mb']:.1f} | {row['memory_mb']:.0f} | {row['load_seconds']:.1f}"
        typer.echo(f"| {row['form']} | {numbers} | {row['images_per_second']:.2f} | {row['ratio']:.2f} |")
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            content = {"machine": machine(CPU), "side": side, "images": images, "turns": turns, "rows": rows}
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()

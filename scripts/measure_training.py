"""Measure training: `python scripts/measure_training.py --config configs/lightweight_sr/tiny_x2.toml --steps 20`.

The script measures the loader, the trainer, and a plain loop to compare the trainer with. The steps of the last two
alternate, so that other load slows both. It prints medians and quartiles of wall-clock time and of CPU time.

With `--variants eager,compiled` it measures the trainer alone, without and with `compile = true`, one after the other;
the file of `--json` is written after each, with an entry of the variant's name.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir train`

import torch  # isort: skip
from torch import Tensor

from swinir.bench.peak_memory import peak_bytes
from swinir.environment import machine
from swinir.train.config import TrainConfig, load_config
from swinir.train.dataset import Batch, to_unit
from swinir.train.distributed import Processes
from swinir.train.initialize import build_network
from swinir.train.logger import write_facts
from swinir.train.losses import Objective
from swinir.train.optimizer import AUTOCAST, compile_layers
from swinir.train.trainer import TaskStep, Trainer

LOADER_BATCHES = 10  # batches of one timing
VARIANTS = ("eager", "compiled")
MEMORY_STEPS = 3  # steps of a memory measurement; Adam's moments are allocated by the first


class Plain:
    """Minimal training of a network: forward, loss, backward and Adam as configured, on one batch on the device."""

    def __init__(self, config: TrainConfig, device: torch.device, parts: Batch) -> None:
        self.config, self.device = config, device
        dtype = torch.float64 if config.precision == "fp64" else torch.float32
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        units = [[to_unit(x, device, dtype) for x in part] for part in parts]
        self.parts = [(lq.contiguous(memory_format=layout), gt) for lq, gt in units]
        network = build_network(config).to(device, dtype).to(memory_format=layout).train()
        self.forward: Callable[[Tensor], Tensor] = compile_layers(network) if config.compile else network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.optimizer.lr, betas=config.optimizer.betas)
        self.objective = Objective(config.loss, config.network_config().in_chans, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def step(self) -> None:
        """Train on the batch once more."""
        kind, adversary = AUTOCAST.get(self.config.precision), self.objective.adversary
        self.optimizer.zero_grad()
        if adversary:
            adversary.optimizer.zero_grad()
        for lq, gt in self.parts:
            with torch.autocast(self.device.type, kind, enabled=kind is not None):
                restored = self.forward(lq)
            self.scaler.scale(self.objective(restored, gt)[0]).backward()
            if adversary:
                adversary.discriminator_loss(restored, gt).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if adversary:
            adversary.optimizer.step()


def make_trainer(config: TrainConfig, device: torch.device, folder: str) -> tuple[Trainer, Callable[[], Batch]]:
    """Return a trainer at its first step and a function that loads the next batch.

    The folder is written to only when a step fails.
    """
    trainer = Trainer(config, Path(folder), processes=Processes(device))
    trainer.optimization.network.train()
    batches = trainer.stream.batches(0, 0)
    return trainer, lambda: next(batches)


def clock(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Return the seconds of wall-clock time and of CPU time that `count` calls take, with the device's work."""
    settle = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    settle()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    settle()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_speed(
    config: TrainConfig, device: torch.device, *, steps: int, block: int, warmup: int, loader_only: bool
) -> dict[str, dict[str, float]]:
    """Return quartiles of samples and images per second, and of the trainer's overhead over the plain loop."""
    batch = config.data.batch
    with TemporaryDirectory() as folder:
        trainer, load = make_trainer(config, device, folder)
        clock(load, warmup)
        loader = [clock(load, LOADER_BATCHES) for _ in range(steps)]
        found = {"loader_samples_per_second": [batch * LOADER_BATCHES / wall for wall, _ in loader]}
        if device.type == "cpu" and not config.data.workers:
            found["loader_samples_per_cpu_second"] = [batch * LOADER_BATCHES / cpu for _, cpu in loader]
        if not loader_only:
            works = (lambda: trainer.train_on(load()), Plain(config, device, load()).step)
            for work in works:
                clock(work, warmup)
            pairs = [[clock(work, block) for work in works] for _ in range(steps)]
            found["trainer_images_per_second"] = [batch * block / a[0] for a, _ in pairs]
            found["plain_images_per_second"] = [batch * block / b[0] for _, b in pairs]
            found["overhead_percent"] = [100 * (a[0] / b[0] - 1) for a, b in pairs]
            found["overhead_cpu_percent"] = [100 * (a[1] / b[1] - 1) for a, b in pairs]
    return quartiles(found)


def quartiles(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the three quartiles of each list by name."""
    threes = {name: np.percentile(values, [25, 50, 75]).round(3).tolist() for name, values in found.items()}
    return {name: dict(zip(("low", "median", "high"), three, strict=True)) for name, three in threes.items()}


def measure_variant(
    config: TrainConfig, device: torch.device, *, steps: int, block: int, warmup: int
) -> dict[str, dict[str, float]]:
    """Return quartiles of the trainer's images and steps per second, the share of time that it waits for data, the
    seconds of the first step with its compilation and, on a CUDA device, the peak of allocated MB."""
    with TemporaryDirectory() as folder:
        trainer, load = make_trainer(config, device, folder)

        def train() -> None:
            trainer.train_on(load())

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        first, _ = clock(train, 1)
        clock(train, warmup)
        waits, walls = [], []
        for _ in range(steps):
            batches: list[Batch] = []
            wait, _ = clock(lambda: batches.append(load()), block)  # noqa: B023, called at once
            work, _ = clock(lambda: trainer.train_on(batches.pop(0)), block)  # noqa: B023
            waits.append(wait)
            walls.append(wait + work)
    found = {"trainer_images_per_second": [config.data.batch * block / wall for wall in walls]}
    found["trainer_steps_per_second"] = [block / wall for wall in walls]
    found["waiting_for_data"] = [wait / wall for wait, wall in zip(waits, walls, strict=True)]
    found["first_step_seconds"] = [first]
    if device.type == "cuda":
        found["peak_mb"] = [torch.cuda.max_memory_allocated(device) / 1e6]
    return quartiles(found)


def show(found: dict[str, Any]) -> None:
    """Print the measured numbers of a dictionary."""
    for name, value in found.items():
        if isinstance(value, dict) and "median" in value:
            typer.echo(f"{name:30} {value['median']:10.3f}   ({value['low']:.3f} to {value['high']:.3f})")
        elif name.endswith("_mb"):
            typer.echo(f"{name:30} {value or 'unknown':>10}")


def peak_memory(config: TrainConfig, device: torch.device, plain: bool) -> float | None:
    """Return the peak memory in MB of network, optimizer and some steps; to be called in a process of its own.

    On the CPU it is the growth of the process, with the compiler's memory; None where the system does not report it.
    """
    with TemporaryDirectory() as folder:
        trainer, load = make_trainer(config, device, folder)
        batch = load()
        del trainer.optimization, trainer.train_step

        def train() -> None:
            if plain:
                clock(Plain(config, device, batch).step, MEMORY_STEPS)
            else:
                trainer.train_step = TaskStep(config, trainer.processes)
                trainer.train_step.optimization.network.train()
                clock(lambda: trainer.train_on(load()), MEMORY_STEPS)

        peak = peak_bytes(train, device)
    return None if peak is None else round(peak / 1e6, 1)


def facts(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Return facts that the numbers depend on."""
    return {
        **machine(device),
        "config": config.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in build_network(config).parameters()),
    }


def measure(
    config: Annotated[Path, typer.Option("--config", help="TOML file, see configs/.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Number of timings.")] = 10,
    block: Annotated[int, typer.Option("--block", min=1, help="Steps of one timing; more for a fast device.")] = 1,
    warmup: Annotated[int, typer.Option("--warmup", min=1, help="Steps before the first timing.")] = 3,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    loader_only: Annotated[bool, typer.Option("--loader-only", help="Measure the loader alone.")] = False,
    variants: Annotated[
        str, typer.Option("--variants", help="Measure the trainer alone in these ways: eager,compiled.")
    ] = "",
    json_: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Measure the loader, the trainer, and a plain loop of the same network."""
    try:
        loaded = load_config(config, set_ or [])
        chosen = variants.split(",") if variants else []
        if unknown := set(chosen) - set(VARIANTS):
            raise ValueError(f"--variants takes {' and '.join(VARIANTS)}, got {', '.join(sorted(unknown))}")
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        found: dict[str, Any] = facts(loaded, where)
        for name in chosen:
            varied = loaded.model_copy(update={"compile": name == "compiled"})
            found[name] = measure_variant(varied, where, steps=steps, block=block, warmup=warmup)
            typer.echo(name)
            show(found[name])
            if json_:
                write_facts(json_, found)
        if chosen:
            return
        found |= measure_speed(loaded, where, steps=steps, block=block, warmup=warmup, loader_only=loader_only)
        for name in () if loader_only else ("trainer", "plain"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found[f"{name}_peak_mb"] = pool.submit(peak_memory, loaded, where, name == "plain").result()
        if json_:
            write_facts(json_, found)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{loaded.name}: {found['parameters']:,} parameters, batch {loaded.data.batch}")
    typer.echo(f"{found['cpu']}, {found['device']}, {found['threads']} threads, torch {found['torch']}")
    show(found)


app = typer.Typer(add_completion=False)
app.command()(measure)

if __name__ == "__main__":
    app()

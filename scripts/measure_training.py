"""Measure training: `python scripts/measure_training.py --config configs/lightweight_sr/tiny_x2.toml --steps 20`.

The loader alone, the trainer, and the plain loop that the trainer is held against. Steps of the two take turns, so
that a busy machine slows both. Medians and quartiles are given, of the time on the clock and of that on the CPU.
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
from swinir.train.dataset import to_unit
from swinir.train.distributed import Processes
from swinir.train.initialize import build_network
from swinir.train.logger import write_facts
from swinir.train.objective import Objective
from swinir.train.optimizer import AUTOCAST, Optimization
from swinir.train.trainer import Trainer

LOADER_BATCHES = 10  # of one timing
MEMORY_STEPS = 3  # Adam's moments are there from the first on
Batch = list[tuple[Tensor, Tensor]]  # low quality and ground truth of each part


class Plain:
    """The least that trains a network: forward, loss, backward and Adam as configured, on one batch on the device."""

    def __init__(self, config: TrainConfig, device: torch.device, parts: Batch) -> None:
        self.config, self.device = config, device
        dtype = torch.float64 if config.precision == "fp64" else torch.float32
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        units = [[to_unit(x, device, dtype) for x in part] for part in parts]
        self.parts = [(lq.contiguous(memory_format=layout), gt) for lq, gt in units]
        network = build_network(config).to(device, dtype).to(memory_format=layout).train()
        self.forward: Callable[[Tensor], Tensor] = torch.compile(network) if config.compile else network
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
    """A trainer at its first step, and what gives it the next batch; only a failure writes into the folder."""
    trainer = Trainer(config, Path(folder), processes=Processes(device))
    trainer.network.train()
    stream, parts = trainer._batches(), trainer.optimization.parts()
    return trainer, lambda: [next(stream) for _ in parts]


def clock(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Seconds that `count` calls take, on the clock and of this process's CPU, until the device is done."""
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
    """Quartiles of samples and images a second, and of how much longer the trainer's steps take than the plain ones."""
    batch = config.data.batch
    with TemporaryDirectory() as folder:
        trainer, load = make_trainer(config, device, folder)
        clock(load, warmup)
        loader = [clock(load, LOADER_BATCHES) for _ in range(steps)]
        found = {"loader_samples_per_second": [batch * LOADER_BATCHES / wall for wall, _ in loader]}
        if device.type == "cpu" and not config.data.workers:
            found["loader_samples_per_cpu_second"] = [batch * LOADER_BATCHES / cpu for _, cpu in loader]
        if not loader_only:
            works = (lambda: trainer._step(load()), Plain(config, device, load()).step)
            for work in works:
                clock(work, warmup)
            pairs = [[clock(work, block) for work in works] for _ in range(steps)]
            found["trainer_images_per_second"] = [batch * block / a[0] for a, _ in pairs]
            found["plain_images_per_second"] = [batch * block / b[0] for _, b in pairs]
            found["overhead_percent"] = [100 * (a[0] / b[0] - 1) for a, b in pairs]
            found["overhead_cpu_percent"] = [100 * (a[1] / b[1] - 1) for a, b in pairs]
    quartiles = {name: np.percentile(values, [25, 50, 75]).round(3).tolist() for name, values in found.items()}
    return {name: dict(zip(("low", "median", "high"), three, strict=True)) for name, three in quartiles.items()}


def peak_memory(config: TrainConfig, device: torch.device, plain: bool) -> float | None:
    """MB that network, optimizer and some steps take at most; meant for a process of its own.

    On the CPU what the process grows by, the compiler's own memory included; None where the system does not tell.
    """
    with TemporaryDirectory() as folder:
        trainer, load = make_trainer(config, device, folder)
        batch = load()
        del trainer.optimization

        def train() -> None:
            if plain:
                clock(Plain(config, device, batch).step, MEMORY_STEPS)
            else:
                trainer.optimization = Optimization(build_network(config), config, trainer.processes)
                trainer.network.train()
                clock(lambda: trainer._step(load()), MEMORY_STEPS)

        peak = peak_bytes(train, device)
    return None if peak is None else round(peak / 1e6, 1)


def facts(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        **machine(device),
        "config": config.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in build_network(config).parameters()),
    }


def measure(
    config: Annotated[Path, typer.Option("--config", help="TOML file, see configs/.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Timings of each.")] = 10,
    block: Annotated[int, typer.Option("--block", min=1, help="Steps of one timing; more for a fast device.")] = 1,
    warmup: Annotated[int, typer.Option("--warmup", min=1, help="Steps before the first timing.")] = 3,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    loader_only: Annotated[bool, typer.Option("--loader-only", help="Measure the loader alone.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Measure the loader, the trainer, and a plain loop of the same network."""
    try:
        loaded = load_config(config, set_ or [])
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        found: dict[str, Any] = facts(loaded, where)
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
    for name, value in found.items():
        if isinstance(value, dict) and "median" in value:
            typer.echo(f"{name:30} {value['median']:10.3f}   ({value['low']:.3f} to {value['high']:.3f})")
        elif name.endswith("_mb"):
            typer.echo(f"{name:30} {value or 'unknown':>10}")


if __name__ == "__main__":
    typer.run(measure)

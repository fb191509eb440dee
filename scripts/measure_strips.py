"""Measure the memory of pictures in strips: `python scripts/measure_strips.py --width 20000 --height 20000 --scale 2`.

A picture is made, restored from file to file by a stub that repeats pixels, or by an expert, in a process of its own,
and read back row by row. What is told is the memory that the process takes beside what it had with the network loaded.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir`

import torch  # isort: skip
from torch import Tensor

from swinir.bench.peak_memory import peak_bytes
from swinir.image_io.picture import Metadata
from swinir.image_io.reader import open_rows
from swinir.image_io.spans import in_spans
from swinir.image_io.writer import write_rows
from swinir.inference.forward import Runnable
from swinir.models.swinir import NetworkConfig
from swinir.photos.large import make_plan, repair_rows
from swinir.photos.restore_photo import Experts, Treatment, load_expert

CPU = torch.device("cpu")
BLOCK = 64  # rows
SEED = 1


class Repeat:
    """A stand-in for a network that enlarges by repeating pixels."""

    device, dtype = CPU, torch.float32

    def __init__(self, scale: int) -> None:
        self.config = NetworkConfig(upscale=scale, upsampler="nearest+conv" if scale > 1 else "", embed_dim=60)

    def __call__(self, x: Tensor) -> Tensor:
        scale = self.config.upscale
        return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def blocks(height: int, width: int) -> Iterator[np.ndarray]:
    """Waves with noise, (n, W, 3) uint8."""
    chance = np.random.default_rng(SEED)
    x = np.arange(width)[None, :, None] / 90
    noise = chance.normal(0, 10, (BLOCK, width, 3)).astype(np.float32)
    for top in range(0, height, BLOCK):
        y = np.arange(top, min(top + BLOCK, height))[:, None, None] / 70
        waves = 128 + 80 * np.sin(x + y + np.arange(3))
        yield (waves + np.roll(noise[: len(y)], int(chance.integers(width)), 1)).clip(0, 255).astype(np.uint8)


def work(source: Path, target: Path, expert: str | None, scale: int, strip_mb: float, tile: int | None) -> dict:
    """Restore a file; seconds, peak in bytes, and whether the stub's result is what it should be."""
    network: Runnable = Repeat(scale) if expert is None else load_expert(expert, CPU)
    experts = Experts(CPU, load=lambda name, device: network)
    treatment = Treatment(model="network", tile=tile or "auto")
    network(torch.rand(1, 3, 64, 64))
    seconds = {}

    def run() -> None:
        start = time.perf_counter()
        rows = open_rows(source)
        assert rows is not None
        plan = make_plan(rows, treatment, experts)
        seconds["survey"] = time.perf_counter() - start
        repair_rows(rows, plan, target, treatment, experts, strip_bytes=strip_mb * 1e6)
        seconds["all"] = time.perf_counter() - start
        rows.close()

    return {"peak": peak_bytes(run, CPU), "seconds": seconds}


def check(source: Path, target: Path, scale: int) -> bool:
    """Whether the result is the source with its pixels repeated."""
    before, after = open_rows(source), open_rows(target, max_pixels=2**40)
    assert before is not None
    assert after is not None
    tops = range(0, before.height, BLOCK)
    ends = [min(top + BLOCK, before.height) for top in tops]
    left = in_spans(before.blocks(), [slice(*s) for s in zip(tops, ends, strict=True)], np.concatenate)
    right = in_spans(
        after.blocks(), [slice(a * scale, b * scale) for a, b in zip(tops, ends, strict=True)], np.concatenate
    )
    equal = all(np.array_equal(a.repeat(scale, 0).repeat(scale, 1), b) for a, b in zip(left, right, strict=True))
    before.close()
    after.close()
    return equal


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def measure(
    width: Annotated[int, typer.Option("--width", min=1, help="Of the picture that is made.")] = 20_000,
    height: Annotated[int, typer.Option("--height", min=1)] = 20_000,
    scale: Annotated[int, typer.Option("--scale", min=1, help="By how much the stub enlarges.")] = 1,
    expert: Annotated[str | None, typer.Option("--expert", help="Weights instead of the stub.")] = None,
    format: Annotated[str, typer.Option("--format", help="png or tif.")] = "png",
    strip_mb: Annotated[float, typer.Option("--strip-mb", help="Memory for strips.")] = 2**30 / 1e6,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of tiles; by the memory without.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="For the files; a temporary one without.")] = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Make a picture, restore it in strips, and print the memory and the time that it takes."""
    if child:
        assert folder is not None
        source, target = folder / f"source.{format}", folder / f"target.{format}"
        typer.echo(json.dumps(work(source, target, expert, scale, strip_mb, tile)))
        return
    with TemporaryDirectory(dir=folder) as temporary:
        source, target = (Path(temporary) / f"{name}.{format}" for name in ("source", "target"))
        start = time.perf_counter()
        write_rows(source, blocks(height, width), (height, width, 3), np.dtype(np.uint8), Metadata())
        written = time.perf_counter() - start
        options = {"--scale": scale, "--format": format, "--strip-mb": strip_mb, "--folder": temporary}
        options |= {"--expert": expert, "--tile": tile}
        words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        done = subprocess.run([sys.executable, __file__, "--child", *words], capture_output=True, text=True)
        if done.returncode:
            typer.echo(done.stderr, err=True)
            raise typer.Exit(1)
        found = json.loads(done.stdout)
        peak = f"{found['peak'] / 1e6:.0f}" if found["peak"] is not None else "unknown"
        seconds = found["seconds"]
        sizes = " -> ".join(f"{path.stat().st_size / 1e6:.0f} MB" for path in (source, target))
        typer.echo(
            f"{width}x{height} by {expert or f'a stub x{scale}'}, {format}, {sizes}: "
            f"peak {peak} MB beside the network; "
            f"written in {written:.0f} s, surveyed in {seconds['survey']:.0f} s, restored in {seconds['all']:.0f} s"
        )
        if expert is None:
            equal = check(source, target, scale)
            typer.echo("every pixel is what it should be" if equal else "pixels differ")
            raise typer.Exit(0 if equal else 1)


if __name__ == "__main__":
    app()

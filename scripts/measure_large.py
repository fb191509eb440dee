"""Measure the memory of large images: `python scripts/measure_large.py --width 20000 --height 20000 --scale 2`.

An image is made and restored from file to file, by a stub that repeats pixels or by a model, in a process of its own.
The figures are the peaks of resident and of anonymous memory beyond those of the process with the network loaded:
resident memory includes pages of mapped temporary files, which the system can take away at any time.
"""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir`

import torch  # isort: skip
from torch import Tensor

from swinir.image_io.canvas import Workspace, row_blocks
from swinir.image_io.picture import Picture
from swinir.image_io.reader import read_picture
from swinir.image_io.writer import write_picture
from swinir.inference.forward import Runnable
from swinir.models.swinir import NetworkConfig
from swinir.photos.batch import Policy, restore_files
from swinir.photos.jobs import Job
from swinir.photos.loaded_models import LoadedModels, load_any
from swinir.photos.restore_photo import RUN, Treatment

CPU = torch.device("cpu")
SEED = 1
EVERY = 0.02  # seconds between two looks at the memory


class Repeat:
    """A stub for a network that enlarges by repeating pixels."""

    device, dtype, precision = CPU, torch.float32, "fp32"

    def __init__(self, scale: int) -> None:
        self.config = NetworkConfig(upscale=scale, upsampler="nearest+conv" if scale > 1 else "", embed_dim=60)
        self.exact = self

    def __call__(self, x: Tensor) -> Tensor:
        scale = int(self.config.upscale)
        return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


class OneModel(LoadedModels):
    """A network without a file."""

    def sha256(self, name: str) -> str:
        return ""


class Peak(threading.Thread):
    """Largest resident and anonymous memory of this process, in bytes, beyond that at the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.first = self.most = self._look()
        self.finished = threading.Event()

    def _look(self) -> tuple[int, int]:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        resident, anonymous = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
        return resident, anonymous

    def run(self) -> None:
        while not self.finished.wait(EVERY):
            resident, anonymous = self._look()
            self.most = max(self.most[0], resident), max(self.most[1], anonymous)

    def stop(self) -> tuple[int, int]:
        """Return the two peaks."""
        self.finished.set()
        self.join()
        return self.most[0] - self.first[0], self.most[1] - self.first[1]


def make_image(path: Path, height: int, width: int, workspace: Workspace) -> None:
    """Write waves with noise, (H, W, 3) uint8."""
    chance = np.random.default_rng(SEED)
    pixels = workspace.array((height, width, 3), np.uint8)
    x = np.arange(width)[None, :, None] / 90
    for rows in row_blocks(height, width):
        y = np.arange(rows.start, rows.stop)[:, None, None] / 70
        waves = (128 + 80 * np.sin(x + y + np.arange(3))).astype(np.uint8)
        pixels[rows] = waves + chance.integers(0, 32, waves.shape, np.uint8)
        workspace.release()
    write_picture(path, Picture(pixels))


def work(source: Path, target: Path, model: str | None, scale: int, memory: float, tile: int | None) -> dict:
    """Restore a file; seconds, and peaks of memory in bytes."""
    network: Runnable = Repeat(scale) if model is None else load_any(model, CPU)
    models = OneModel(CPU, load=lambda name, device: network)
    treatment = Treatment(model="network", run=replace(RUN, tile=tile or "auto"))
    network(torch.rand(1, 3, 64, 64))
    start, peak = time.perf_counter(), Peak()
    peak.start()
    (result,) = restore_files(
        [Job(source, target)], target.parent, treatment, models, policy=Policy(max_pixels=2**40, memory_limit=memory)
    )
    resident, anonymous = peak.stop()
    seconds = time.perf_counter() - start
    return {"resident": resident, "anonymous": anonymous, "seconds": seconds, "error": result.error}


def check(source: Path, target: Path, scale: int, workspace: Workspace) -> bool:
    """Tell whether the output is the source with its pixels repeated."""
    before, after = (read_picture(p, max_pixels=2**40, workspace=workspace).pixels for p in (source, target))
    for rows in row_blocks(*before.shape[:2]):
        expected = before[rows].repeat(scale, 0).repeat(scale, 1)
        if not np.array_equal(after[rows.start * scale : rows.stop * scale], expected):
            return False
        workspace.release()
    return True


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def measure(
    width: Annotated[int, typer.Option("--width", min=1, help="Width of the image.")] = 20_000,
    height: Annotated[int, typer.Option("--height", min=1, help="Height of the image.")] = 20_000,
    scale: Annotated[int, typer.Option("--scale", min=1, help="Factor by which the stub enlarges.")] = 1,
    model: Annotated[str | None, typer.Option("--model", help="A model instead of the stub.")] = None,
    format: Annotated[str, typer.Option("--format", help="png or tif.")] = "png",
    memory_mb: Annotated[float, typer.Option("--memory-mb", help="Memory for images, in 1e6 bytes.")] = 500,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of tiles; by free memory without.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="For the files; a temporary one without.")] = None,
    child: Annotated[bool, typer.Option("--child", hidden=True)] = False,
) -> None:
    """Make an image, restore it, and print the memory and the time that it takes."""
    memory = memory_mb * 1e6
    if child:
        assert folder is not None
        source, target = folder / f"source.{format}", folder / f"target.{format}"
        typer.echo(json.dumps(work(source, target, model, scale, memory, tile)))
        return
    with TemporaryDirectory(dir=folder) as temporary:
        source, target = (Path(temporary) / f"{name}.{format}" for name in ("source", "target"))
        workspace = Workspace(temporary, memory)
        make_image(source, height, width, workspace)
        options = {"--scale": scale, "--format": format, "--memory-mb": memory_mb, "--folder": temporary}
        options |= {"--model": model, "--tile": tile}
        words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        done = subprocess.run([sys.executable, __file__, "--child", *words], capture_output=True, text=True)
        if done.returncode:
            typer.echo(done.stderr, err=True)
            raise typer.Exit(1)
        found = json.loads(done.stdout)
        if found["error"]:
            typer.echo(found["error"], err=True)
            raise typer.Exit(1)
        sizes = " -> ".join(f"{path.stat().st_size / 1e6:.0f} MB" for path in (source, target))
        typer.echo(
            f"{width}x{height} by {model or f'a stub x{scale}'}, {format}, {sizes}: beside the network, "
            f"peak {found['resident'] / 1e6:.0f} MB resident, {found['anonymous'] / 1e6:.0f} MB anonymous; "
            f"{found['seconds']:.0f} s"
        )
        if model is None:
            equal = check(source, target, scale, workspace)
            typer.echo("every pixel is as expected" if equal else "pixels differ")
            raise typer.Exit(0 if equal else 1)


if __name__ == "__main__":
    app()

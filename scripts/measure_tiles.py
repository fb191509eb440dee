"""Agreement of tiles with the whole image: `python scripts/measure_tiles.py FOLDER --expert lightweight_sr_x1-4_tiny`.

Each image is restored whole and in tiles. The agreement is the PSNR of the restored values in [0, 1], and after
rounding to 8 bits the share of values that differ and the largest difference in levels. Time is measured in one run
each, in a process where nothing else runs, and so is peak memory beside weights and image; the ratio is that of
processor time, which other work on the machine disturbs less.
"""

import json
import math
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir restore`

import torch  # isort: skip
from torch import Tensor

from swinir.atomic import atomic_path
from swinir.bench.peak_memory import peak_bytes
from swinir.image_io.image import list_images, read, to_gray, to_rgb
from swinir.inference.restore import restore
from swinir.models.optimized import optimize
from swinir.models.swinir import SwinIR
from swinir.weights import zoo
from swinir.weights.checkpoint import load_model


def agreement(whole: Tensor, tiled: Tensor) -> dict[str, float]:
    """PSNR in dB (inf when equal), and of the rounded values the share that differs and the largest difference."""
    error = (whole - tiled).double().square().mean().item()
    levels = ((whole * 255).round() - (tiled * 255).round()).abs()
    return {
        "db": math.inf if error == 0 else -10 * math.log10(error),
        "share": (levels > 0).double().mean().item(),
        "levels": levels.max().item(),
    }


def picture(path: Path, model: SwinIR, side: int | None) -> Tensor:
    """(1, C, H, W) in [0, 1]; with a side, a square of that from the middle, or of the picture mirrored on."""
    image = (to_gray if model.config.in_chans == 1 else to_rgb)(read(path))
    if side is not None:
        missing = [max(0, side - length) for length in image.shape[:2]]
        image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
        top, left = ((length - side) // 2 for length in image.shape[:2])
        image = image[top : top + side, left : left + side]
    return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1) / 255)[None]


def run(
    expert: str, lq: np.ndarray, tile: int | None, overlap: int, threads: int
) -> tuple[np.ndarray, dict[str, float]]:
    """The result; seconds by the clock and of the processor, peak in 1e6 bytes (NaN where the system does not tell)."""
    torch.set_num_threads(threads)
    model = load_model(expert, "cpu")
    image = torch.from_numpy(lq)
    network = optimize(model)
    restore(network, image[..., :64, :64])  # starts threads
    results: list[Tensor] = []
    start, spent = time.perf_counter(), time.process_time()
    peak = peak_bytes(lambda: results.append(restore(network, image, tile=tile, tile_overlap=overlap)), image.device)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    return results[0].numpy(), {"seconds": seconds, "cpu": spent, "mb": math.nan if peak is None else peak / 1e6}


def compare(worker: Executor, expert: str, lq: Tensor, tile: int, overlap: int) -> dict[str, float]:
    """The agreement, and seconds and memory of both ways."""
    found = [
        worker.submit(run, expert, lq.numpy(), side, overlap, torch.get_num_threads()).result() for side in (None, tile)
    ]
    (whole, of_whole), (tiled, of_tiled) = found
    taken = {
        f"{way}_{name}": value
        for way, costs in (("whole", of_whole), ("tiled", of_tiled))
        for name, value in costs.items()
    }
    return agreement(torch.from_numpy(whole), torch.from_numpy(tiled)) | taken


def measure(
    folder: Annotated[Path, typer.Argument(help="Images.")],
    expert: Annotated[
        list[str] | None, typer.Option("--expert", help="Name or file, repeatable; all bundled ones without.")
    ] = None,
    tile: Annotated[int, typer.Option("--tile", help="Side of the tiles.")] = 128,
    tile_overlap: Annotated[int, typer.Option("--tile_overlap", help="By how much tiles overlap.")] = 48,
    side: Annotated[
        int | None, typer.Option("--side", help="Squares of this side; pictures as they are without.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first pictures.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Compare tiles with whole pictures."""
    rows: list[dict[str, Any]] = []
    for name in expert or [entry.alias for entry in zoo.bundled()]:
        model = load_model(name, "cpu")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as worker:
            for path in list_images(folder)[:limit]:
                lq = picture(path, model, side)
                if tile >= max(lq.shape[-2:]) + model.config.window:
                    continue
                row = {"expert": name, "picture": path.name, "size": f"{lq.shape[-1]}x{lq.shape[-2]}"}
                rows.append(row | compare(worker, name, lq, tile, tile_overlap))
        mine = [row for row in rows if row["expert"] == name]
        if mine:
            least = min(row["db"] for row in mine)
            share, levels = max(row["share"] for row in mine), max(row["levels"] for row in mine)
            spent = sum(row["tiled_cpu"] for row in mine) / sum(row["whole_cpu"] for row in mine)
            memory = max(row["tiled_mb"] for row in mine) / max(row["whole_mb"] for row in mine)
            typer.echo(
                f"{name:28} {len(mine):3} pictures  {least:6.1f} dB at least, {share:8.4%} differ at most, "
                f"by {levels:.0f}; "
                f"{spent:.2f} times the time, {memory:.2f} times the memory"
            )
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps(rows, indent=2) + "\n")


app = typer.Typer(add_completion=False)
app.command()(measure)

if __name__ == "__main__":
    app()

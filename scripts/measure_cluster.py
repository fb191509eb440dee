"""Cost of a cluster, and its size: `python scripts/measure_cluster.py throughput`, `... scale`.

`throughput` restores the same images by `restore_files` with one thread, by one worker and by two workers of a local
cluster, in turns; each worker has one thread. Images per second count from the first result to the last, without
the start, which is shown beside; processor time is that of all processes of this command, of Ray also. The ratios are
paired: each is of one round, in which other work on the machine slows all alike; the median is shown.

`scale` measures listing and records for some images, and multiplies for ten million.
"""

import os
import shutil
import statistics
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir restore`

import torch  # isort: skip

from swinir.cluster.keeper import Keeper
from swinir.cluster.plan import stream_pairs
from swinir.image_io.picture import Picture
from swinir.image_io.writer import write_picture
from swinir.photos.batch import Policy, restore_files
from swinir.photos.jobs import Output, plan_jobs
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.manifest import RECORDS, Records, Result, row_text
from swinir.photos.restore_photo import Treatment

WAYS = ("plain", "1 worker", "2 workers")
MANY = 10_000_000

app = typer.Typer(add_completion=False, help=__doc__)


def spent() -> float:
    """Return seconds of processors that this process and its descendants have used."""
    parents, seconds = dict[str, str](), dict[str, float]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            parents[process.name] = fields[1]
            seconds[process.name] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    ours, total = {str(os.getpid())}, 0.0
    while ours:
        total += sum(seconds[process] for process in ours)
        ours = {process for process, parent in parents.items() if parent in ours}
    return total


def speed(results: Iterable[Result]) -> tuple[float, float, float]:
    """Return images per second after the first that came, seconds until then, and processor time for an image.

    Raises:
        RuntimeError: if an image was not restored.
    """
    start, used, times = time.perf_counter(), 0.0, list[float]()
    for result in results:
        if result.status != "restored":
            raise RuntimeError(f"{result.input}: {result.status}, {result.error}")
        if not times:
            used = spent()
        times.append(time.perf_counter() - start)
    # The results of a cluster come in groups: what came with the first was made before.
    first = sum(moment < times[0] + 0.05 for moment in times)
    rest = len(times) - first
    return rest / max(times[-1] - times[0], 1e-9), times[0], (spent() - used) / max(rest, 1)


@app.command()
def throughput(
    images: Annotated[int, typer.Option(help="Number of images.")] = 48,
    side: Annotated[int, typer.Option(help="Pixels along each side.")] = 160,
    model: Annotated[str, typer.Option("-n", "--model")] = "lightweight_sr_x1-4_tiny",
    rounds: int = 3,
) -> None:
    """Images per second by the plain command, by one worker and by two."""
    from swinir.cluster.restore import connected, restore_on_cluster
    from swinir.cluster.worker import Work

    torch.set_num_threads(1)
    treatment, naming, policy = Treatment(model=model), Output(), Policy()
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    starts: dict[str, list[float]] = {way: [] for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as place, connected(workers=2):
        folder = Path(place, "in")
        folder.mkdir()
        draw = np.random.default_rng(0)
        for number in range(images):
            pixels = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
            write_picture(folder / f"{number:04}.png", Picture(pixels))
        for turn in range(rounds):
            for way in WAYS:
                output = Path(place, f"out{turn}")
                shutil.rmtree(output, ignore_errors=True)
                if way == "plain":
                    models = LoadedModels(torch.device("cpu"), options=treatment.run)
                    results = restore_files(
                        plan_jobs([folder], output, naming), output, treatment, models, naming, policy
                    )
                else:
                    work = Work(treatment, naming, policy, output, Path.cwd(), "cpu", threads=1)
                    pairs = stream_pairs([folder], output, naming)
                    results = restore_on_cluster(pairs, work, output, workers=int(way[0]))
                rate, start, cost = speed(results)
                costs[way].append(cost)
                rates[way].append(rate)
                starts[way].append(start)
                typer.echo(
                    f"round {turn + 1}, {way}: {rate:.2f} images/s, {cost:.3f} s, first after {start:.1f} s", err=True
                )
    for way in WAYS:
        typer.echo(
            f"{way}: {compared(rates, way)} images/s; processor time {compared(costs, way)} s for an image; "
            f"first after {statistics.median(starts[way]):.1f} s"
        )


def compared(values: dict[str, list[float]], way: str) -> str:
    """Return the median, and its ratio to that of the plain command with the least and the greatest."""
    ratios = [value / plain for value, plain in zip(values[way], values["plain"], strict=True)]
    ratio = f"{statistics.median(ratios):.3f} of plain, {min(ratios):.3f} to {max(ratios):.3f}"
    return f"{statistics.median(values[way]):.3f} ({ratio})"


def show(what: str, each: float, unit: str) -> None:
    """Print a figure for one image and for ten million."""
    typer.echo(f"{what}: {each:.3g} {unit} for an image, {each * MANY:.3g} {unit} for ten million")


def measure(what: str, count: int, make: Callable[[], Any]) -> None:
    """Print processor time, and in a second run memory, of something that is made for a number of images."""
    start = time.process_time()
    made = make()
    show(f"{what}, processor time", (time.process_time() - start) / count, "s")
    del made
    tracemalloc.start()
    made = make()  # noqa: F841 - held while memory is counted
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    show(f"{what}, memory at most", most / count, "bytes")
    show(f"{what}, memory held", held / count, "bytes")


@app.command()
def scale(
    images: Annotated[int, typer.Option(help="Number of images.")] = 20_000,
    per_folder: Annotated[int, typer.Option(help="Images in each subfolder.")] = 1000,
) -> None:
    """Listing and records."""
    with TemporaryDirectory() as place:
        folder, output = Path(place, "in"), Path(place, "out")
        for number in range(images):
            path = folder / f"{number // per_folder:05}" / f"photograph_{number:08}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

        def stream() -> Iterator[Any]:
            return stream_pairs([folder], output, Output(), recursive=True)

        listed = partial(plan_jobs, [folder], output, Output(), recursive=True)
        measure("list of jobs, as without --ray", images, listed)
        measure("jobs folder by folder, as with --ray", images, lambda: deque(stream(), maxlen=0))
        pairs = list(stream())
        rows = [_row(target) for _, target in pairs]
        for threads in (1, 32):
            keeper, some = Keeper(output / str(threads)), rows[: 50 * threads]
            keeper.exchange(pairs[: len(some)])
            while keeper.take(0):
                pass
            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as workers:
                list(workers.map(keeper.add, some))
            typer.echo(f"records from {threads} workers: {len(some) / (time.perf_counter() - start):.0f} a second")
        records = output / RECORDS
        records.write_text("".join(f"{row_text(row)}\n" for row in rows))
        show("results.jsonl, two lines for an image", 2 * records.stat().st_size / images, "bytes")
        measure("lines of results.jsonl, read at the start", images, lambda: Records(output))


def _row(target: str) -> Result:
    """Return a record of the usual length."""
    return Result(
        target, target, "restored",
        input_sha256="0" * 64, output_sha256="0" * 64, settings="0" * 16,
        width=4000, height=3000, output_width=8000, output_height=6000,
        experts=(("lightweight_sr_x1-4_tiny", "0" * 64),), precision="bf16", engine="torch 2.14.1", tile="auto",
        seconds=12.3456789,
        findings=("Noise: standard deviation 0.6 of 255; no noise is removed.", "JPEG: quality 92 by the tables."),
    )  # fmt: skip


if __name__ == "__main__":
    app()

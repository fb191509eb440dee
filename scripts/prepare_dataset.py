"""Prepare folders of images for training and testing: `python scripts/prepare_dataset.py --help` lists the commands."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from tqdm import tqdm

from swinir.atomic import atomic_path
from swinir.image_io.image import list_images, read, write
from swinir.testsets.pairs import lq_name, write_reduced
from swinir.train.images import find_images, find_sources, load_images
from swinir.weights.verify import sha256

INDEX = "index.csv"
COLUMNS = ("file", "width", "height", "channels", "bytes", "sha256")
T = TypeVar("T")
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default one per core.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def prepare() -> None:
    """Prepare folders of images for training and testing."""


@app.command()
def pairs(
    gt: Annotated[Path, typer.Argument(help="Folder of ground-truth images.")],
    lq: Annotated[Path, typer.Argument(help="Output folder for low-quality images, NAMEx{scale}.png.")],
    scale: Annotated[int, typer.Option("--scale", min=2, help="Scale factor.")],
    workers: Workers = None,
) -> None:
    """Downsample every image by MATLAB's bicubic, cropped to a multiple of the scale. Existing files are kept."""
    try:
        images = list_images(gt)
        lq.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(error)
    jobs = {path: lq / lq_name(path.stem, scale) for path in images}
    results, failed = _run(partial(write_reduced, scale=scale), jobs, workers, "pairs")
    typer.echo(f"{sum(results)} written, {len(results) - sum(results)} already there, {failed} failed")
    if failed or not images:
        raise typer.Exit(1 if images else 2)


@dataclass(frozen=True)
class Cut:
    """Sizes of pieces in pixels of the ground truth; see the options of `cut`."""

    side: int
    step: int
    least: int
    scale: int = 1
    multiple: int = 1

    def starts(self, length: int) -> list[int]:
        """Return where pieces start along an axis of an image: every `step` pixels, and flush with the end."""
        full = length * self.scale
        starts = list(range(0, max(full - self.side, 0) + 1, self.step))
        if full - starts[-1] - self.side >= self.least:
            starts.append(full - self.side)
        return [start // self.scale for start in starts]

    def stem(self, path: Path, number: int) -> str:
        """Return NAME_s001, or NAME_s001x2 for NAMEx2 at scale 2, the name by which training pairs the pieces."""
        suffix = f"x{self.scale}"
        if self.scale == 1 or not path.stem.endswith(suffix):
            suffix = ""
        return f"{path.stem.removesuffix(suffix)}_s{number:03d}{suffix}"


@app.command()
def cut(
    folder: Annotated[Path, typer.Argument(help="Folder of large images; subfolders are searched.")],
    out: Annotated[
        Path, typer.Argument(help="Output folder for the pieces, with the same subfolders: NAME_s001.png, ...")
    ],
    side: Annotated[int, typer.Option("--side", min=8, help="Side of a piece in pixels of the ground truth.")] = 480,
    step: Annotated[
        int, typer.Option("--step", min=1, help="Distance from one piece to the next, at most --side.")
    ] = 240,
    least: Annotated[
        int,
        typer.Option("--least", min=1, help="Smallest rest at an edge, in pixels, for which one more piece is cut."),
    ] = 1,
    scale: Annotated[
        int,
        typer.Option("--scale", min=1, help="Scale of low-quality images; all sizes are divided by it."),
    ] = 1,
    multiple: Annotated[
        int, typer.Option("--multiple", min=1, help="Crop images to a multiple first, to match low-quality images.")
    ] = 1,
    workers: Workers = None,
) -> None:
    """Cut large images into overlapping pieces, which are read faster. Existing pieces are kept.

    Images smaller than a piece are copied whole. For pairs cut both folders with the same --side and --step:
    `cut HR HR_sub --multiple 2` and `cut LR LR_sub --scale 2`. The pieces are pairs again.
    """
    try:
        if step > side:
            raise ValueError(f"--step must not exceed --side, because pixels would be left out, got {step} and {side}")
        if side % scale or step % scale or side % multiple or step % multiple:
            raise ValueError(f"--side and --step must be multiples of the scale, got {side} and {step}")
        images = _images(folder)
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{out} lies in {folder}, so its pieces would be cut again; choose a folder outside")
    except (ValueError, OSError) as error:
        _refuse(error)
    jobs = {path: out / path.relative_to(folder).parent for path in images}
    how = Cut(side, step, least, scale, multiple)
    names = {path: parent / f"{how.stem(path, 1)}.png" for path, parent in jobs.items()}
    results, failed = _run(partial(_cut, how=how), names, workers, "cut")
    made, were_there = (sum(counts) for counts in zip(*results, strict=True)) if results else (0, 0)
    typer.echo(f"{made} pieces written, {were_there} already there, {failed} images failed")
    if failed:
        raise typer.Exit(1)


def _cut(path: Path, first: Path, how: Cut) -> tuple[int, int]:
    """Cut an image; returns the numbers of pieces written and of pieces already there."""
    image = read(path)
    height, width = (length // how.multiple * how.multiple for length in image.shape[:2])
    if not height * width:
        raise ValueError(f"{image.shape[1]}x{image.shape[0]} is smaller than a multiple of {how.multiple}")
    image = image[:height, :width]
    first.parent.mkdir(parents=True, exist_ok=True)
    side, made = how.side // how.scale, 0
    places = [(y, x) for y in how.starts(height) for x in how.starts(width)]
    for number, (y, x) in enumerate(places, 1):
        target = first.with_name(f"{how.stem(path, number)}.png")
        if not target.exists():
            write(target, image[y : y + side, x : x + side])
            made += 1
    return made, len(places) - made


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of images; subfolders are searched.")],
    check: Annotated[bool, typer.Option("--check", help="Compare the folder with its index.")] = False,
    workers: Workers = None,
) -> None:
    """Write FOLDER/index.csv with the size and SHA-256 of every image, or list what has changed since."""
    try:
        images = _images(folder)
        known = _read_index(folder / INDEX) if check else {}
    except (ValueError, OSError) as error:
        _refuse(error)
    files = {path: path.relative_to(folder) for path in images}
    if check:
        hashes, failed = _run(_hash, files, workers, "check")
        findings = list(_compare(known, dict(hashes), {path.as_posix() for path in files.values()}))
        for finding in findings:
            typer.echo(finding)
        typer.echo(f"{len(known)} in the index, {len(findings)} differ, {failed} failed")
        if findings or failed:
            raise typer.Exit(1)
        return
    rows, failed = _run(_describe, files, workers, "index")
    with atomic_path(folder / INDEX) as temporary, _open_csv(temporary, "w") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["file"]))
    typer.echo(f"{folder / INDEX}: {len(rows)} images, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _hash(path: Path, name: Path) -> tuple[str, str]:
    return name.as_posix(), sha256(path)


def _describe(path: Path, name: Path) -> dict[str, str]:
    height, width, channels = read(path).shape
    values = (name.as_posix(), width, height, channels, path.stat().st_size, sha256(path))
    return dict(zip(COLUMNS, map(str, values), strict=True))


def _compare(known: dict[str, str], hashes: dict[str, str], present: set[str]) -> Iterator[str]:
    """Yield a line for each difference; `present` includes files that could not be read."""
    for name in sorted(known.keys() | present):
        if name not in present:
            yield f"missing: {name}"
        elif name not in known:
            yield f"new: {name}"
        elif name in hashes and hashes[name] != known[name]:
            yield f"changed: {name}"


def _read_index(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in the index."""
    if not path.is_file():
        raise FileNotFoundError(f"no index at {path}; write it first, without --check")
    with _open_csv(path, "r") as file:
        rows = list(csv.DictReader(file))
    if any(None in row or None in row.values() or not row.keys() >= set(COLUMNS) for row in rows):
        raise ValueError(f"{path}: not an index; its columns must be {', '.join(COLUMNS)}; write it again")
    return {row["file"]: row["sha256"] for row in rows}


def _open_csv(path: Path, mode: str) -> Any:
    return path.open(
        mode, encoding="utf-8", errors="surrogateescape", newline=""
    )  # for file names that are not valid Unicode


@app.command()
def cache(
    folder: Annotated[Path, typer.Argument(help="Training folder, as in data.train.")],
    out: Annotated[Path, typer.Argument(help="Folder for the decoded images, as in data.cache.")],
    task: Annotated[str, typer.Option("--task", help="Task of the training, such as color_dn.")],
    scale: Annotated[int, typer.Option("--scale", min=1, help="Scale factor of super-resolution.")] = 1,
    lq: Annotated[Path | None, typer.Option("--lq", help="Folder of low-quality images, as in data.train_lq.")] = None,
) -> None:
    """Decode training images into a cache for a training with the task's default degradation."""
    from swinir.tasks import get_task  # imports torch

    try:
        row = get_task(task)
        row.network_for(scale)
        _images(folder)
        sources = find_sources([folder], [lq] if lq else [], scale)
    except (ValueError, OSError) as error:
        _refuse(error)
    bicubic = row.training == "bicubic" and lq is None
    try:
        images = load_images(sources, gray=row.gray, scale=scale, bicubic=bicubic, cache=out, progress=_bar("cache"))
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{out}: {len(images)} images decoded")


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder not found: {folder}; check the path")
    return find_images(folder)


def _refuse(error: Exception) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(2) from error


def _bar(title: str, total: int | None = None) -> Callable[[Iterable[Any]], Any]:
    return partial(tqdm, desc=title, total=total, unit="image", disable=None)


def _run(
    work: Callable[[Path, Path], T], jobs: dict[Path, Path], workers: int | None, title: str
) -> tuple[list[T], int]:
    """Apply `work` to every image and its output; prints the failures and returns the results and their number."""
    makers: dict[Path, Path] = {}
    results, failures = [], []
    for path, target in jobs.items():
        if makers.setdefault(target, path) is not path:
            failures.append(f"{path}: {makers[target].name} beside it has the same output {target}; rename one")
    attempts = [(work, path, target) for target, path in makers.items()]
    count = min(workers or os.cpu_count() or 1, len(attempts))
    try:
        with ExitStack() as stack:
            each: Callable[..., Iterable[tuple[T, str]]] = map
            if count > 1:
                each = stack.enter_context(ProcessPoolExecutor(count, mp_context=get_context("spawn"))).map
            for result, failure in _bar(title, len(attempts))(each(_attempt, attempts)):
                if failure:
                    failures.append(failure)
                else:
                    results.append(result)
    except BrokenProcessPool as error:
        typer.echo("a process died, perhaps for lack of memory; run the same command again with --workers 1", err=True)
        raise typer.Exit(1) from error
    for failure in failures:
        typer.echo(failure, err=True)
    return results, len(failures)


def _attempt(job: tuple[Callable[[Path, Path], Any], Path, Path]) -> tuple[Any, str]:
    """Return the result of a job and an empty string, or None and the error."""
    work, path, target = job
    try:
        return work(path, target), ""
    except (ValueError, OSError) as error:
        return None, str(error) if str(path) in str(error) else f"{path}: {error}"


if __name__ == "__main__":
    app()

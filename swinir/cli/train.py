"""`swinir train`: train from a configuration into a run folder, alone or under torchrun."""

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.signals import asked_to_stop

if TYPE_CHECKING:
    from swinir.train.config import TrainConfig
    from swinir.train.trainer import Trainer


def train(
    config: Annotated[
        str | None, typer.Option("--config", help="Recipe: a TOML file, or a name that --list shows, such as tiny_x2.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes, with results and hardware.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: section.key=value.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder; runs/NAME by default.")] = None,
    resume: Annotated[
        str,
        typer.Option("--resume", help="auto: resume from the newest state in the run folder; or the path of a state."),
    ] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the run folder's states and start again.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check and print configuration and data.")] = False,
) -> None:
    """Train a network from a configuration. A stopped run is resumed by the same command."""
    from swinir.train.config import load_config
    from swinir.train.recipes import find_recipe

    if list_:
        _list_recipes()
        return
    if config is None:
        raise ValueError("no recipe; name one with --config, such as --config tiny_x2; --list lists them")
    loaded = load_config(find_recipe(config), set_ or [])
    folder = run or Path("runs") / loaded.name
    _check_start(resume, fresh)
    if dry_run:
        _describe(loaded)
        return

    from swinir.train.distributed import start_processes
    from swinir.train.optimizer import NotFiniteError
    from swinir.train.trainer import Trainer

    with start_processes(device) as processes:
        first = processes.rank == 0
        level = logging.WARNING if first else logging.ERROR
        logging.basicConfig(format="%(message)s", level=level, stream=sys.stderr)
        trainer = Trainer(
            loaded,
            folder,
            processes=processes,
            log=print_row(loaded.schedule.iterations, loaded.data.batch),
            progress=_progress if first else lambda items: items,
        )
        _start(trainer, resume, fresh)
        try:
            with asked_to_stop() as asked:
                finished = trainer.fit(stop=lambda: bool(asked))
        except NotFiniteError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        if not finished:
            if first:
                typer.echo(f"stopped at step {trainer.step}; the same command resumes from {trainer.states.folder}")
            raise typer.Exit(128 + (asked[0] if asked else signal.SIGTERM))
        if first:
            _finish(trainer)


def _check_start(resume: str, fresh: bool) -> None:
    """Refuse what cannot be started, before the run folder is created."""
    if fresh and resume != "auto":
        raise ValueError(f"--fresh and --resume {resume} exclude each other; give one of them")
    if resume != "auto" and not Path(resume).is_file():
        raise FileNotFoundError(f"--resume {resume}: no such state; they are in the states/ of a run folder")


def _start(trainer: "Trainer", resume: str, fresh: bool) -> None:
    if fresh:
        if trainer.first:
            trainer.states.clear()
        trainer.processes.wait()
        return
    path = trainer.resume(None if resume == "auto" else Path(resume))
    if path and trainer.first:
        typer.echo(f"resuming at step {trainer.step} from {path}")


def _finish(trainer: "Trainer") -> None:
    from swinir.train.initialize import describe_weights

    typer.echo("  ".join([f"{trainer.pace.iterations} iterations", *pace_cells(trainer.pace.row())]))
    facts = describe_weights(trainer.weights_path)
    typer.echo(f"{trainer.weights_path}: {facts['bytes']:,} bytes, SHA-256 {facts['sha256']}")


def pace_cells(row: dict[str, Any]) -> list[str]:
    """Describe the speed of a training and its waiting for data."""
    return [f"{row['iterations_per_second']:.2f} it/s", f"waiting for data {row['waiting_for_data']:.0%}"]


def _list_recipes() -> None:
    from swinir.train.recipes import list_recipes

    for recipe in list_recipes():
        typer.echo(f"{recipe.name}\n  {recipe.title}")
        for title, text in (("expect", recipe.expect), ("hardware", recipe.hardware), ("data", recipe.data)):
            if text:
                typer.echo(f"  {title}: {text}")


def _describe(config: "TrainConfig") -> None:
    """Check the images, and print the complete configuration, the number of parameters and the numbers of images."""
    from swinir.models.phases import enlarged
    from swinir.train.images import check_headers, find_sources, first_images, split_holdout
    from swinir.train.initialize import build_network
    from swinir.train.validation import Validation

    typer.echo(config.model_dump_json(indent=2))
    typer.echo(f"parameters: {sum(p.numel() for p in build_network(config).parameters()):,}")
    sources = first_images(find_sources(config.data.train, config.data.train_lq, config.top_scale), config.data.images)
    train, held = split_holdout(sources, config.data.holdout)
    pixels = check_headers(train, enlarged(config.data.patch, config.top_scale))
    validation = Validation(config, held)
    validation.check()
    typer.echo(
        f"images: {len(train)} to train on ({pixels / 1e6:.1f} megapixels), {len(held)} held out, "
        f"{len(validation.samples)} to validate on"
    )


def _progress(items: Sequence[Any]) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc="loading images", unit="image", disable=None)


def print_row(iterations: int, batch: int) -> Callable[[dict[str, Any]], None]:
    """Return a function that prints rows of metrics."""

    def show(row: dict[str, Any]) -> None:
        cells = [f"step {row['step']}/{iterations}"]
        if "loss" in row:
            speed = row["images_per_second"]
            left = int((iterations - row["step"]) * batch / max(speed, 0.01))
            cells += [f"loss {row['loss']:.5f}", f"lr {row['lr']:.2e}", *pace_cells(row), f"{speed:.1f} images/s"]
            cells.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
        else:
            named = {"psnr": "PSNR", "psnr_y": "PSNR_Y", "ssim": "SSIM", "ssim_y": "SSIM_Y"}
            cells.append("validation")
            cells += [f"{title} {row[name]:.4f}" for name, title in named.items() if name in row]
        typer.echo("  ".join(cells))

    return show

"""`swinir train`: train from a configuration into a run folder, alone or under torchrun."""

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.signals import asked_to_stop

if TYPE_CHECKING:
    from swinir.train.config import TrainConfig
    from swinir.train.distributed import Processes
    from swinir.train.multitask_config import MultiTaskConfig
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
    """Train a network from a configuration, for one task or several. The same command resumes a stopped run."""
    from swinir.train.multitask_config import MultiTaskConfig, load_recipe
    from swinir.train.recipes import find_recipe

    if list_:
        _list_recipes()
        return
    if config is None:
        raise ValueError("no recipe; name one with --config, such as --config tiny_x2; --list lists them")
    loaded = load_recipe(find_recipe(config), set_ or [])
    folder = run or Path("runs") / loaded.name
    _check_start(resume, fresh, several=isinstance(loaded, MultiTaskConfig))
    if dry_run:
        _describe(loaded)
        return

    from swinir.train.distributed import start_processes
    from swinir.train.initialize import describe_weights

    with start_processes(device) as processes:
        first = processes.rank == 0
        level = logging.WARNING if first else logging.ERROR
        logging.basicConfig(format="%(message)s", level=level, stream=sys.stderr)
        path = folder / f"{loaded.name}.pth"
        if fresh and first and isinstance(loaded, MultiTaskConfig):
            path.unlink(missing_ok=True)  # which tells the finished stages
        processes.wait()
        _train(loaded, folder, processes, resume, fresh)
        if first:
            facts = describe_weights(path)
            typer.echo(f"{path}: {facts['bytes']:,} bytes, SHA-256 {facts['sha256']}")


def _train(
    config: "TrainConfig | MultiTaskConfig", folder: Path, processes: "Processes", resume: str, fresh: bool
) -> None:
    """Finish a training, or the stages of one for several tasks.

    Exits with 1 when it diverges, with 130 or 143 when stopped.
    """
    from swinir.train.multitask import trainers
    from swinir.train.optimizer import NotFiniteError

    first = processes.rank == 0
    log, progress = partial(_print_rows, folder), _progress if first else lambda items: items
    for trainer in trainers(config, folder, processes=processes, log=log, progress=progress):
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
            typer.echo("  ".join([f"{trainer.pace.iterations} iterations", *pace_cells(trainer.pace.row())]))


def _print_rows(run: Path, folder: Path, config: "TrainConfig") -> Callable[[dict[str, Any]], None]:
    """Return a function that prints rows of a trainer, after the name of its folder if that is not the run's."""
    title = "" if folder == run else f"{folder.name}  "
    return print_row(config.schedule.iterations, config.data.batch, title)


def _check_start(resume: str, fresh: bool, *, several: bool) -> None:
    """Refuse what cannot be started, before the run folder is created."""
    if several and resume != "auto":
        raise ValueError(f"--resume {resume}: a run of several trainings resumes by itself; leave it out")
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


def _describe(loaded: "TrainConfig | MultiTaskConfig") -> None:
    """Check the images, and print the complete configuration, the number of parameters and the numbers of images."""
    from swinir.models.phases import enlarged
    from swinir.train.images import check_headers, find_sources, first_images, split_holdout
    from swinir.train.initialize import build_network
    from swinir.train.multitask_config import MultiTaskConfig, joint_config
    from swinir.train.validation import Validation

    typer.echo(loaded.model_dump_json(indent=2))
    if isinstance(loaded, MultiTaskConfig):
        config = max(loaded.experts().values(), key=lambda expert: expert.top_scale)  # which needs the largest images
        typer.echo(f"parameters: {loaded.parameters():,}")
        for stage in loaded.stages():
            typer.echo(
                f"{stage.name}: {joint_config(stage).schedule.iterations:,} iterations, {', '.join(stage.tasks)}"
            )
    else:
        config = loaded
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


def print_row(iterations: int, batch: int, title: str = "") -> Callable[[dict[str, Any]], None]:
    """Return a function that prints rows of metrics, after a title."""

    def show(row: dict[str, Any]) -> None:
        cells = [f"{title}step {row['step']}/{iterations}"]
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

"""`swinir reproduce figure3a` to `figure3f`, `table1` and `joint`: experiments that train networks.

Each training has its own folder. Finished trainings are kept; interrupted ones resume with the same command.
"""

import functools
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.options import print_table
from swinir.cli.signals import asked_to_stop
from swinir.reproduce.ablations import SCALES, STUDIES, Study

if TYPE_CHECKING:
    from swinir.reproduce.ablations import Point
    from swinir.train.config import TrainConfig
    from swinir.train.distributed import Processes

Config = Annotated[Path | None, typer.Option("--config", help="TOML file, in place of the one of --scale.")]
Train = Annotated[
    list[Path] | None, typer.Option("--train", help="Folder of training images, in place of the configuration's.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value of the configuration: section.key=value.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")]


def add_to(app: typer.Typer) -> None:
    """Add a command for each study, and `joint`."""
    for study in STUDIES.values():
        app.command(study.name, help=f"Train the networks of {study.title}.")(_ablation_command(study))
    app.command("joint")(joint)


def _ablation_command(study: Study) -> Callable[..., None]:
    def command(
        scale: Annotated[
            str, typer.Option("--scale", help="full (the paper's, GPU weeks), 1h-gpu or cpu; see configs/ablations/.")
        ] = "cpu",
        config: Config = None,
        train: Train = None,
        seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of runs of each point.")] = 1,
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder for runs and results.")] = Path(
            "runs/ablations"
        ),
        set_: Overrides = None,
        device: Device = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
        gather: Annotated[bool, typer.Option("--gather", help="Report finished runs without training.")] = False,
    ) -> None:
        from swinir.reproduce.ablation_runs import count_parameters, is_done
        from swinir.reproduce.ablations import plan_points, runs
        from swinir.train.config import load_config
        from swinir.train.recipes import standard_config

        if scale not in SCALES:  # also with --config: the scale decides the points
            raise ValueError(f"--scale must be one of {', '.join(SCALES)}, got {scale!r}")
        base = load_config(config or standard_config("ablations", scale), _overrides("data.train", train, set_))
        points, folder = plan_points(study, scale, base, seeds), output / scale
        if dry_run:
            for run in runs(points):
                done = "done" if is_done(run, folder / run.name) else "to do"
                typer.echo(f"{done:6}{count_parameters(run):>12,} parameters  {folder / run.name}")
        elif gather or _train(runs(points), folder, device):
            _report(study, scale, base, points, folder)

    return command


def _overrides(key: str, train: list[Path] | None, overrides: list[str] | None) -> list[str]:
    images = [f"{key}={json.dumps([str(folder) for folder in train])}"] if train else []
    return [*(overrides or []), *images]


@contextmanager
def _session(device: str | None) -> Iterator[tuple["Processes", Callable[[], bool], Callable[[], typer.Exit]]]:
    """Processes, a function that says when to stop, and one that reports the stop and makes the exit.

    Exits with 1 when a training diverges.
    """
    from swinir.train.distributed import start_processes
    from swinir.train.optimizer import NotFiniteError

    with start_processes(device) as processes, asked_to_stop() as asked:
        level = logging.WARNING if processes.rank == 0 else logging.ERROR
        logging.basicConfig(format="%(message)s", level=level, stream=sys.stderr)

        def stopped() -> typer.Exit:
            if processes.rank == 0:
                typer.echo("stopped; run the same command to resume")
            return typer.Exit(128 + (asked[0] if asked else signal.SIGTERM))

        try:
            yield processes, lambda: bool(asked), stopped
        except NotFiniteError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error


def _train(configs: "list[TrainConfig]", folder: Path, device: str | None) -> bool:
    """Train what is not finished; return true in the process that reports.

    Exits with 1 when a run diverges, with 130 or 143 when stopped.
    """
    from swinir.cli.train import print_row
    from swinir.reproduce.ablation_runs import check_same, is_done, train_run
    from swinir.train.initialize import build_network

    # Fail before the first hour of work: other configurations, networks that need packages which are not installed.
    for config in configs:
        check_same(config, folder / config.name)
    for config in {config.network_name: config for config in configs}.values():
        build_network(config)
    with _session(device) as (processes, stop, stopped):
        for number, config in enumerate(configs, 1):
            run = folder / config.name
            if is_done(config, run):
                continue
            if processes.rank == 0:
                typer.echo(f"{run} ({number} of {len(configs)})")
            log = print_row(config.schedule.iterations, config.data.batch)
            if not train_run(config, run, processes, log=log, stop=stop):
                raise stopped()
        return processes.rank == 0


def _report(study: Study, scale: str, base: "TrainConfig", points: "list[Point]", folder: Path) -> None:
    from swinir.reproduce.ablation_results import (
        describe_base,
        difference_table,
        plot_results,
        score_table,
        write_results,
    )
    from swinir.reproduce.ablation_runs import collect

    scores = collect(study, points, folder)
    if not scores:
        raise ValueError(f"no run of {study.name} is finished in {folder}; run without --gather")
    typer.echo(f"{study.title}; {describe_base(base)}")
    for table in (score_table(study, scores), difference_table(study, scores)):
        if table.rows:
            typer.echo()
            print_table(table)
    write_results(folder / f"{study.name}.json", study, scale, base, scores)
    plot_results(folder / f"{study.name}.png", study, base, scores)
    typer.echo(f"\nwritten: {folder / study.name}.json and .png")


def joint(
    scale: Annotated[str, typer.Option("--scale", help="full or cpu; see configs/joint/.")] = "full",
    config: Config = None,
    train: Train = None,
    testsets: Annotated[Path, typer.Option("--testsets", help="Folder of the benchmark sets.")] = Path("testsets"),
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of trainings and results.")] = Path("runs/joint"),
    set_: Overrides = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; PyTorch's default.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Measure only the first N images.")] = None,
) -> None:
    """Train one network for all tasks, with adapters, and one for each task, measure them, and print the table.

    The same command resumes an interrupted run. Works under torchrun.
    """
    import torch
    from tqdm import tqdm

    from swinir.reproduce.joint_measure import JointRun, run_experiment
    from swinir.reproduce.joint_plan import JointExperiment
    from swinir.reproduce.joint_results import joint_table
    from swinir.train.config import read_config
    from swinir.train.recipes import standard_config

    changes = _overrides("training.data.train", train, set_)
    experiment = read_config(config or standard_config("joint", scale), JointExperiment, changes)
    if threads:
        torch.set_num_threads(threads)
    with _session(device) as (processes, stop, stopped):
        first = processes.rank == 0
        say: Callable[[str], None] = typer.echo if first else lambda text: None
        bar = functools.partial(tqdm, desc="loading images", unit="image", disable=None if first else True)
        run = JointRun(out, testsets, processes, log=_print_row, say=say, progress=bar, stop=stop, limit=limit)
        results = run_experiment(experiment, run)
        if results is None:
            raise stopped()
        if first:
            typer.echo()
            print_table(joint_table(results))
            typer.echo(f"\nwritten: {out / 'results.jsonl'} and {out / 'table.md'}")


def _print_row(folder: Path, row: dict[str, Any]) -> None:
    cells = [f"{folder} step {row['step']}"]
    if "loss" in row:
        cells += [f"loss {row['loss']:.5f}", f"lr {row['lr']:.2e}", f"{row['images_per_second']:.1f} images/s"]
    cells += [f"{metric} {row[metric]:.4f}" for metric in ("psnr", "psnr_y") if metric in row]
    typer.echo("  ".join(cells))

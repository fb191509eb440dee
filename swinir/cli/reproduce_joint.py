"""`swinir reproduce joint`: one expert for each task against one network for all of them."""

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from swinir.cli.signals import asked_to_stop


def joint(
    scale: Annotated[str, typer.Option("--scale", help="full or cpu: the configuration in configs/joint.")] = "full",
    train: Annotated[list[Path] | None, typer.Option("--train", help="Training images, not those named.")] = None,
    testsets: Annotated[Path, typer.Option("--testsets", help="Folder of the benchmark sets.")] = Path("testsets"),
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of trainings and results.")] = Path("runs/joint"),
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file instead of --scale.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: section.key=value.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; PyTorch's choice without.")] = (
        None
    ),
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Measure on the first N images only.")] = None,
) -> None:
    """Train a joint network and separate experts, measure both, and print the table.

    What was stopped goes on where it was, with the same command. Also under torchrun.
    """
    import torch

    from swinir.reproduce.joint_measure import JointRun, run_experiment
    from swinir.reproduce.joint_plan import JointExperiment
    from swinir.reproduce.joint_results import markdown
    from swinir.train.config import read_config, standard_config
    from swinir.train.distributed import start_processes
    from swinir.train.optimizer import NotFiniteError

    changes = list(set_ or [])
    if train:
        changes.append(f"training.data.train={json.dumps([str(folder) for folder in train])}")
    experiment = read_config(config or standard_config("joint", scale), JointExperiment, changes)
    if threads:
        torch.set_num_threads(threads)
    with start_processes(device) as processes, asked_to_stop() as asked:
        first = processes.rank == 0
        logging.basicConfig(format="%(message)s", level=logging.WARNING if first else logging.ERROR, stream=sys.stderr)
        run = JointRun(
            out,
            testsets,
            processes,
            log=_print_row,
            say=typer.echo if first else lambda text: None,
            progress=_progress if first else lambda items: items,
            stop=lambda: bool(asked),
            limit=limit,
        )
        try:
            results = run_experiment(experiment, run)
        except NotFiniteError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        if results is None:
            if first:
                typer.echo("stopped; the same command goes on")
            raise typer.Exit(128 + (asked[0] if asked else signal.SIGTERM))
        if first:
            typer.echo(f"\n{markdown(results)}\n{out / 'results.json'}")


def _print_row(name: str, row: dict[str, Any]) -> None:
    cells = [f"{name} step {row['step']}"]
    if "loss" in row:
        cells += [f"loss {row['loss']:.5f}", f"lr {row['lr']:.2e}", f"{row['images_per_second']:.1f} images/s"]
    cells += [f"{metric} {row[metric]:.4f}" for metric in ("psnr", "psnr_y") if metric in row]
    typer.echo("  ".join(cells))


def _progress(items: Any) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc="loading images", unit="image", disable=None)

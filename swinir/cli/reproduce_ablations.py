"""`swinir reproduce figure3a` to `figure3f` and `table1`: the paper's ablations, trained at a scale that one can pay.

Every point is an ordinary training run in a folder of its own. What is done is not repeated, what was stopped goes on.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from swinir.reproduce.ablation_runs import Score
    from swinir.reproduce.ablations import Point, Study
    from swinir.train.config import TrainConfig

STUDIES = {
    "figure3a": "Train SwinIR with several numbers of channels: Figure 3 (a).",
    "figure3b": "Train SwinIR with several numbers of RSTBs: Figure 3 (b).",
    "figure3c": "Train SwinIR with several numbers of STLs in an RSTB: Figure 3 (c).",
    "figure3d": "Train SwinIR and RCAN with several patch sizes: Figure 3 (d).",
    "figure3e": "Train SwinIR and RCAN on several shares of the images: Figure 3 (e).",
    "figure3f": "Train SwinIR and RCAN and follow their convergence: Figure 3 (f).",
    "table1": "Train the variants of the RSTB's residual and convolution: Table 1.",
}


def add_to(app: typer.Typer) -> None:
    """Give an app the seven commands."""
    for name, text in STUDIES.items():
        app.command(name, help=text)(_command(name))


def _command(name: str) -> Callable[..., None]:
    def reproduce(
        scale: Annotated[
            str, typer.Option("--scale", help="full (the paper's: GPU weeks), 1h-gpu or cpu; see configs/ablations/.")
        ] = "cpu",
        config: Annotated[
            Path | None, typer.Option("--config", help="Base configuration, in place of the scale's.")
        ] = None,
        train: Annotated[
            list[Path] | None, typer.Option("--train", help="Training images, in place of the configuration's.")
        ] = None,
        seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each point, with seeds 0, 1, ...")] = 1,
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder for runs and results.")] = Path(
            "runs/ablations"
        ),
        set_: Annotated[
            list[str] | None, typer.Option("--set", help="Override a value of all runs: section.key=value.")
        ] = None,
        device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and what is done, stop.")] = False,
        gather: Annotated[bool, typer.Option("--gather", help="Train nothing: results of what is done.")] = False,
    ) -> None:
        from swinir.report.speed import check_plot
        from swinir.reproduce.ablations import STUDIES as ROWS
        from swinir.reproduce.ablations import plan, runs

        study, base = ROWS[name], _base(scale, config, train or [], set_ or [])
        points, folder = plan(study, scale, base, seeds), output / scale
        if dry_run:
            _list(runs(points), folder)
            return
        check_plot(folder / f"{name}.png")
        if gather or _train(runs(points), folder, device):
            _report(study, scale, base, points, folder)

    return reproduce


def _base(scale: str, config: Path | None, train: list[Path], overrides: list[str]) -> "TrainConfig":
    import json

    from swinir.reproduce.ablations import SCALES
    from swinir.train.config import load_config, standard_config

    if scale not in SCALES:  # with a configuration of one's own, too: it says which points a study has
        raise ValueError(f"--scale must be one of {', '.join(SCALES)}, got {scale!r}")
    if train:
        overrides = [*overrides, f"data.train={json.dumps([str(folder) for folder in train])}"]
    return load_config(config or standard_config("ablations", scale), overrides)


def _list(configs: "list[TrainConfig]", folder: Path) -> None:
    from swinir.reproduce.ablation_runs import count_parameters, is_done

    for config in configs:
        done = "done" if is_done(config, folder / config.name) else "to do"
        typer.echo(f"{done:6}{count_parameters(config):>12,} parameters  {folder / config.name}")


def _train(configs: "list[TrainConfig]", folder: Path, device: str | None) -> bool:
    """Train what is not done and say whether this process is to report.

    Exits with 1 where a run failed, with 130 or 143 when asked to stop.
    """
    from swinir.cli.signals import asked_to_stop
    from swinir.cli.train import print_row
    from swinir.reproduce.ablation_runs import check_same, is_done, train_run
    from swinir.train.distributed import start_processes
    from swinir.train.initialize import build_network
    from swinir.train.optimizer import NotFiniteError

    # What is wrong or not installed is said before the first hour of work.
    for config in configs:
        check_same(config, folder / config.name)
    for config in {config.network_name: config for config in configs}.values():
        build_network(config)
    with start_processes(device) as processes, asked_to_stop() as asked:
        for number, config in enumerate(configs, 1):
            run = folder / config.name
            if is_done(config, run):
                continue
            if processes.rank == 0:
                typer.echo(f"{run} ({number} of {len(configs)})")
            log = print_row(config.schedule.iterations, config.data.batch)
            try:
                finished = train_run(config, run, processes, log=log, stop=lambda: bool(asked))
            except NotFiniteError as error:
                typer.echo(f"Error: {run}: {error}", err=True)
                raise typer.Exit(1) from error
            if not finished:
                if processes.rank == 0:
                    typer.echo("stopped; the same command goes on")
                raise typer.Exit(128 + (asked[0] if asked else signal.SIGTERM))
        return processes.rank == 0


def _report(study: "Study", scale: str, base: "TrainConfig", points: "list[Point]", folder: Path) -> None:
    from swinir.reproduce.ablation_runs import collect, describe, plot_results, write_results

    scores = collect(study, points, folder)
    if not scores:
        raise ValueError(f"no run of {study.name} is done in {folder}; train without --gather")
    typer.echo(f"{study.title}; {describe(base)}")
    _print_table(study, scores)
    write_results(folder / f"{study.name}.json", study, scale, base, scores)
    plot_results(folder / f"{study.name}.png", study, base, scores)
    typer.echo(f"\nwrote {folder / study.name}.json and .png")


def _print_table(study: "Study", scores: "list[Score]") -> None:
    from swinir.reproduce.ablation_runs import differences, places, spread
    from swinir.reproduce.ablations import MODELS

    published: dict[Any, float] = {(m, x): psnr for m, rows in study.published.items() for x, psnr in rows}
    typer.echo(f"\n| {study.axis} | network | published | here | deviation | seeds |\n|--|--|--|--|--|--|")
    for model in study.models:
        for x in places(scores, model):
            mean, deviation, seeds = spread(scores, model, x)
            theirs = f"{published[model, x]:.2f}" if (model, x) in published else ""
            scatter = f"{deviation:.3f}" if seeds > 1 else ""
            typer.echo(f"| {x} | {MODELS[model]} | {theirs} | {mean:.3f} | {scatter} | {seeds} |")
    typer.echo("\n| difference | published | here | standard error | seeds | |\n|--|--|--|--|--|--|")
    for d in differences(study, scores):
        theirs = "" if d.published is None else f"{d.published:+.2f}"
        error = "" if d.error is None else f"{d.error:.3f}"
        typer.echo(f"| {d.minuend} - {d.subtrahend} | {theirs} | {d.psnr_y:+.3f} | {error} | {d.seeds} | {d.shows} |")

"""`swinir train`: one configuration, one run folder."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer


def train(
    config: Annotated[Path, typer.Option("--config", help="TOML file, see configs/.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: section.key=value.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run; runs/NAME by default.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again even if the folder holds a state.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the configuration, print it, stop.")] = False,
) -> None:
    """Train a network as a configuration says; a run that was stopped goes on where it was."""
    from swinir.counting import count_parameters
    from swinir.train.config import load_config

    loaded = load_config(config, set_ or [])
    folder = run or Path("runs") / loaded.name
    if dry_run:
        typer.echo(loaded.model_dump_json(indent=2))
        typer.echo(f"parameters: {count_parameters(loaded.network_config()):,}")
        return

    from tqdm import tqdm

    from swinir.train.trainer import Trainer, describe_weights

    def progress(paths: list[Path]) -> Any:
        return tqdm(paths, desc="loading images", unit="image", disable=None)

    log = _print_row(loaded.schedule.iterations, loaded.data.batch)
    trainer = Trainer(loaded, folder, device=device, log=log, progress=progress)
    state = folder / "state.pt"
    if state.exists() and not fresh:
        trainer.resume(state)
        typer.echo(f"going on at step {trainer.step} of {state}")

    asked: list[int] = []

    def ask_to_stop(signum: int, _frame: FrameType | None) -> None:
        asked.append(signum)

    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, ask_to_stop)
    if not trainer.fit(stop=lambda: bool(asked)):
        typer.echo(f"stopped at step {trainer.step}; the same command goes on from {state}")
        raise typer.Exit(128 + asked[0])
    facts = describe_weights(trainer.weights_path)
    typer.echo(f"{trainer.weights_path}: {facts['bytes']:,} bytes, SHA-256 {facts['sha256']}")


def _print_row(iterations: int, batch: int) -> Callable[[dict[str, Any]], None]:
    def show(row: dict[str, Any]) -> None:
        cells = [f"step {row['step']}/{iterations}"]
        if "loss" in row:
            speed = row["images_per_second"]
            left = int((iterations - row["step"]) * batch / max(speed, 0.01))
            cells += [f"loss {row['loss']:.5f}", f"lr {row['lr']:.2e}", f"{speed:.1f} images/s"]
            cells.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
        if "psnr_y" in row:
            cells.append(f"validation PSNR_Y {row['psnr_y']:.3f} dB")
        typer.echo("  ".join(cells))

    return show

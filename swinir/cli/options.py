"""Options and output that several subcommands share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import typer

if TYPE_CHECKING:
    import torch

    from swinir.evaluation.protocol import Protocol
    from swinir.report.text_table import TextTable


def print_table(table: "TextTable") -> None:
    """Print a table, fitted to a terminal; elsewhere as plain text of its natural width."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table.rich())
    else:
        typer.echo(table.text())


def check_parent(file: Path | None) -> None:
    """Raise a FileNotFoundError, before any work, if the folder of an output file does not exist."""
    if file is not None and not file.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"folder not found: {file.absolute().parent}; create it, or write {file.name} elsewhere"
        )


def choose_device(name: str | None) -> "torch.device":
    """Return the device of that name, by default the GPU if there is one; a ValueError if it cannot be used."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}; try --device cpu") from error
    return device


def make_protocol(
    task: str,
    *,
    scale: int,
    noise: int,
    jpeg: int,
    tile: int | None,
    tile_overlap: int,
    tile_blend: str,
    precision: str,
    self_ensemble: bool,
    compile: bool = False,
) -> "Protocol":
    """Build the protocol of a benchmark from options; a ValueError for values that the task does not have."""
    from swinir.evaluation.protocol import Protocol
    from swinir.inference.options import RunOptions
    from swinir.inference.tiling import TileBlend
    from swinir.models.optimized import PRECISIONS
    from swinir.tasks import get_task

    spec = get_task(task)
    spec.network_for(scale)  # raises for a scale that the task does not have
    for option, value, least, most in (("--noise", noise, 0, 255), ("--jpeg", jpeg, 1, 100)):
        if not least <= value <= most:
            raise ValueError(f"{option} must be from {least} to {most}, got {value}")
    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if tile_blend not in get_args(TileBlend):
        raise ValueError(f"--tile_blend must be one of {', '.join(get_args(TileBlend))}, got {tile_blend!r}")
    blend = cast(TileBlend, tile_blend)
    options = RunOptions(tile, tile_overlap, blend, precision, self_ensemble, compile)
    return Protocol(spec, scale, noise, jpeg, options)

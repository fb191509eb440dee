"""Options and output that several subcommands share."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import torch

    from swinir.evaluation.protocol import Protocol
    from swinir.inference.options import RunOptions
    from swinir.report.text_table import TextTable


def print_table(table: "TextTable") -> None:
    """Print a table, fitted to a terminal; elsewhere as plain text of its natural width."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table.rich())
    else:
        typer.echo(table.text())


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current step in one line on a terminal; nothing is shown elsewhere."""
    from tqdm import tqdm

    with tqdm(bar_format="{desc} [{elapsed}]", disable=None, leave=False, dynamic_ncols=True) as bar:
        yield bar.set_description_str


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


def split_words(text: str) -> list[str]:
    """Split a list with commas into its words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def make_protocol(task: str, options: "RunOptions", *, scale: int, noise: int, jpeg: int) -> "Protocol":
    """Build the protocol of a benchmark; a ValueError for levels that the task does not have."""
    from swinir.evaluation.protocol import Protocol
    from swinir.tasks import get_task

    spec = get_task(task)
    spec.network_for(scale)  # raises for a scale that the task does not have
    for option, value, least, most in (("--noise", noise, 0, 255), ("--jpeg", jpeg, 1, 100)):
        if not least <= value <= most:
            raise ValueError(f"{option} must be from {least} to {most}, got {value}")
    return Protocol(spec, scale, noise, jpeg, options)

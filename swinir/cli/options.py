"""Options and output that several subcommands share."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from swinir.evaluation.protocol import Protocol
    from swinir.inference.options import RunOptions
    from swinir.report.text_table import TextTable


class GroupedHelp(TyperCommand):
    """A command whose options are listed under the titles that `rich_help_panel` names, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options without a title, and those under each."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            title = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record := parameter.get_help_record(ctx):
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


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
    """Raise an OSError, before any work, if an output file cannot be written where it is to be."""
    if file is None:
        return
    parent = file.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"folder not found: {parent}; create it, or write {file.name} elsewhere")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; name a file in it")
    _try_writing(parent, file)


def make_folder(folder: Path) -> None:
    """Make a folder for outputs; an OSError if that fails or nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise OSError(f"cannot make the folder {folder}: {reason}; name another") from error
    _try_writing(folder, folder)


def _try_writing(folder: Path, shown: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write {shown}: {error.strerror}; choose another place") from error


def split_words(text: str) -> list[str]:
    """Split a list with commas into its words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def make_protocol(task: str, options: "RunOptions", *, scale: float, noise: int, jpeg: int) -> "Protocol":
    """Build the protocol of a benchmark; a ValueError for levels that the task does not have."""
    from swinir.evaluation.protocol import Protocol
    from swinir.models.phases import whole
    from swinir.tasks import get_task

    spec = get_task(task)
    spec.check_scale(scale)
    for option, value, least, most in (("--noise", noise, 0, 255), ("--jpeg", jpeg, 1, 100)):
        if not least <= value <= most:
            raise ValueError(f"{option} must be from {least} to {most}, got {value}")
    return Protocol(spec, whole(scale), noise, jpeg, options)

"""`swinir zoo`: list, describe, download and verify the released and bundled weights."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.options import print_table
from swinir.report.text_table import TextTable

if TYPE_CHECKING:
    from swinir.weights.zoo import Verdict, ZooEntry

app = typer.Typer(
    help="List, download and verify released and bundled weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NAME_HELP = "Alias, name or file name of weights, as `swinir zoo list` shows them."


@app.command("list")
def list_weights(
    task: Annotated[str | None, typer.Option(help="Show only this task, such as classical_sr.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every field.")] = False,
) -> None:
    """List all weights and show which are on this machine."""
    from swinir.weights.listing import list_models
    from swinir.weights.zoo import find

    models = list_models(task)
    if as_json:
        print(json.dumps([_entry_facts(find(model.name)) for model in models], indent=2))
        return
    titles = ("ALIAS", "TASK", "LEVEL", "DATA", "SIZE", "MB", "STATE")
    rows = []
    for model in models:
        parts = find(model.name).parts
        rows.append(
            (model.name, model.task, model.level, parts.data, parts.size, str(model.megabytes or "-"), model.state)
        )
    print_table(TextTable(titles, rows, right=(5,)))


@app.command()
def info(name: Annotated[str, typer.Argument(help=NAME_HELP)]) -> None:
    """Show all facts about one weights file."""
    from swinir.weights.zoo import find

    facts = _entry_facts(find(name))
    facts["size"] = f"{facts['size']} ({facts.pop('size_word')})"
    rows = [(key.replace("_", " "), "-" if value in (None, "") else str(value)) for key, value in facts.items()]
    print_table(TextTable((), rows))


@app.command()
def download(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help=f"{NAME_HELP} released: all released weights, about 2.7 GB."),
    ],
    folder: Annotated[
        Path | None, typer.Option(help="Folder to write to; model_zoo/swinir or $SWINIR_ZOO by default.")
    ] = None,
) -> None:
    """Download and verify released weights, and print the path of each. $SWINIR_ZOO_MIRROR sets a mirror."""
    from swinir.weights.zoo import RELEASED, DownloadError, default_folder, find
    from swinir.weights.zoo import download as fetch

    chosen = [entry for name in names for entry in (RELEASED if name == "released" else (find(name),))]
    entries = list(dict.fromkeys(chosen))  # an unknown name is refused before any download
    failures: list[DownloadError] = []
    for entry in entries:
        try:
            print(fetch(entry, target=(folder or default_folder()) / entry.file, progress=sys.stderr.isatty()))
        except DownloadError as error:
            failures.append(error)
            print(f"swinir: {error}", file=sys.stderr)
    if failures:
        raise typer.Exit(2 if len(failures) == len(entries) else 1)


@app.command()
def verify(
    path: Annotated[
        Path | None, typer.Argument(help="Weights file or folder; all downloaded and bundled weights by default.")
    ] = None,
) -> None:
    """Verify weights by SHA-256, or by the checksums in the file if no hash is known. Exits 1 if any is bad."""
    verdicts = _verdicts_everywhere() if path is None else _verdicts_at(path)
    rows = [("bad" if not v.ok else "ok", v.how, str(v.path), v.message) for v in verdicts]
    if rows:
        print_table(TextTable((), rows))
    else:
        print("swinir: no weights on this machine yet; see `swinir zoo list`", file=sys.stderr)
    if not all(v.ok for v in verdicts):
        raise typer.Exit(1)


@app.command()
def path(name: Annotated[str, typer.Argument(help=NAME_HELP)]) -> None:
    """Print the path of a bundled or downloaded weights file."""
    from swinir.weights.zoo import locate

    print(locate(name))


def _verdicts_at(path: Path) -> list["Verdict"]:
    from swinir.weights.zoo import SUFFIXES
    from swinir.weights.zoo import verify as check

    if not path.is_dir():
        return [check(path)]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise FileNotFoundError(f"no weights ({', '.join(SUFFIXES)}) in {path}")
    return [check(file) for file in files]


def _verdicts_everywhere() -> list["Verdict"]:
    from swinir.weights.zoo import SUFFIXES, Verdict, bundled, bundled_folder, default_folder
    from swinir.weights.zoo import verify as check

    verdicts = []
    for entry in bundled():
        file = (bundled_folder() or Path()) / entry.file
        verdicts.append(check(file) if file.is_file() else Verdict(file, entry, False, "none", "missing"))
    folder = default_folder()
    if folder.is_dir() and any(file.suffix in SUFFIXES for file in folder.iterdir()):
        verdicts += _verdicts_at(folder)
    return verdicts


def _entry_facts(entry: "ZooEntry") -> dict[str, Any]:
    from swinir.weights.listing import model_row
    from swinir.weights.zoo import SIZE_WORDS

    parts = entry.parts
    return {
        "alias": entry.alias,
        "name": entry.name,
        "file": entry.file,
        "task": parts.task,
        "level": parts.level_text,
        "data": parts.data,
        "patch": parts.patch,
        "window": parts.window,
        "size": parts.size,
        "size_word": SIZE_WORDS[parts.size],
        "objective": parts.objective,
        "parameters": entry.parameters,
        "params_key": entry.params_key,
        "published": entry.published,
        "config": entry.config,
        "trained_on": entry.trained_on,
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        "url": entry.url,
        "bundled": entry.bundled,
        "state": model_row(entry).state,
        "path": str(present) if (present := _local(entry)) else None,
    }


def _local(entry: "ZooEntry") -> Path | None:
    from swinir.weights.zoo import locate

    try:
        return locate(entry.name)
    except FileNotFoundError:
        return None

"""`swinir report`: an HTML page about the images that `swinir restore` processed."""

from pathlib import Path
from typing import Annotated

import typer

from swinir.cli.options import check_parent

DEFAULT_OUTPUT = Path("report.html")
SUFFIXES = (".html", ".htm")


def report(
    records: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="The results.jsonl of swinir restore, or the folder that holds it."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = DEFAULT_OUTPUT,
    gt: Annotated[
        Path | None,
        typer.Option("--gt", help="Folder of reference images: outputs of the same name are measured against them."),
    ] = None,
    max_side: Annotated[
        int, typer.Option("--max-side", help="Longest side of the images on the page, in pixels.")
    ] = 1600,
    limit: Annotated[int, typer.Option("--limit", help="Number of images to show; the table lists all.")] = 100,
) -> None:
    """Show restored images before and after, with a table and all failures, in one self-contained HTML file.

    Image files are searched where the records say, relative to the current folder and to the folders above the records.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must end in .html, got {output.name!r}")
    check_parent(output)
    from tqdm import tqdm

    from swinir.image_io.reader import named
    from swinir.report.restore_page import write_report

    written = write_report(
        output,
        records,
        gt=gt,
        max_side=max_side,
        limit=limit,
        track=lambda numbers, label: tqdm(numbers, label, unit="image", disable=None, leave=False),
    )
    incomplete = f", {written.incomplete} with a missing or unreadable file" if written.incomplete else ""
    size = output.stat().st_size / 1e6
    typer.echo(f"{named(output)}: {written.shown} of {written.listed} images shown{incomplete}; {size:.1f} MB")

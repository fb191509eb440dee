"""`swinir report`: one page about what `swinir restore` did."""

from pathlib import Path
from typing import Annotated

import typer

from swinir.cli.options import check_parent

DEFAULT_OUTPUT = Path("report.html")
SUFFIXES = (".html", ".htm")


def report(
    records: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The results.jsonl of swinir restore, or the folder with it.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the page goes.")] = DEFAULT_OUTPUT,
    gt: Annotated[
        Path | None, typer.Option("--gt", help="Folder of references: results of the same name are measured.")
    ] = None,
    max_side: Annotated[int, typer.Option("--max-side", help="Longest side of pictures on the page.")] = 1600,
    limit: Annotated[int, typer.Option("--limit", help="How many pictures are shown; the table has all.")] = 100,
) -> None:
    """Show restored pictures before and after, with a table and what failed, as one HTML file that needs nothing else.

    Files are looked for where the records say, seen from the current folder and from those above the records.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must end in .html, got {output.name!r}")
    if max_side < 1:
        raise ValueError(f"--max-side must be at least 1, got {max_side}")
    if limit < 0:
        raise ValueError(f"--limit must be 0 or more, got {limit}")
    check_parent(output)
    from tqdm import tqdm

    from swinir.image_io.reader import named
    from swinir.report.page import write_report

    with tqdm(unit="step", disable=None, leave=False) as bar:  # on a terminal

        def move(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        written = write_report(output, records, gt=gt, max_side=max_side, limit=limit, progress=move)
    missing = f", {written.missing} with a file missing or unreadable" if written.missing else ""
    size = output.stat().st_size / 1e6
    typer.echo(f"{named(output)}: {written.shown} of {written.listed} pictures shown{missing}; {size:.1f} MB")

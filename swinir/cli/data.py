"""`swinir data`: list, prepare and check the benchmark sets."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.options import print_table, status_line
from swinir.report.text_table import TextTable

if TYPE_CHECKING:
    from swinir.testsets.check import SetReport
    from swinir.testsets.prepare import Outcome
    from swinir.testsets.sets import BenchmarkSet, Presence

app = typer.Typer(
    help="List, prepare and check test sets. Nothing is downloaded.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Root = Annotated[Path, typer.Option("--testsets", metavar="DIR", help="Folder that holds the sets.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TESTSETS = Path("testsets")
SHOWN_NOTES = 8  # per set; all faults are shown


@app.command("list")
def list_sets(testsets: Root = TESTSETS, as_json: AsJson = False) -> None:
    """List the sets, the tasks they measure, and the images that are present."""
    from swinir.testsets import BENCHMARK_SETS
    from swinir.testsets.sets import presence_of

    stock = [presence_of(row, testsets) for row in BENCHMARK_SETS.values()]
    if as_json:
        print(json.dumps([_set_json(presence) for presence in stock], indent=2))
        return
    titles = ("SET", "IMAGES", "FOR", "STATE", "LOW QUALITY", "TERMS")
    rows = []
    for presence in stock:
        row = presence.set
        rows.append((row.name, str(row.images), row.tasks, presence.state, _scales(presence), row.terms))
    print_table(TextTable(titles, rows, right=(1,)))


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="SET", help="Name of a set, from `swinir data list`.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder, zip or tar archive with its images; without it, only low-quality images are made."
        ),
    ] = None,
    testsets: Root = TESTSETS,
    scale: Annotated[
        list[int] | None, typer.Option("--scale", min=2, help="Scale of the low-quality images to make; repeatable.")
    ] = None,
) -> None:
    """Copy a set from your files into place and make its low-quality images; existing files are kept.

    Images that lie in the set's folder itself, such as testsets/Set14/baboon.png, are moved into its subfolder HR.
    """
    from swinir.testsets import find_set
    from swinir.testsets.prepare import prepare as prepare_set
    from swinir.testsets.sets import presence_of

    row = find_set(name)
    if source is None and not row.scales:
        raise ValueError(f"{row.name} has no low-quality images to make; give the folder or archive that holds the set")
    if scale and not row.scales:
        raise ValueError(f"{row.name} has no scales; omit --scale")
    with status_line() as show:

        def progress(stage: str, done: int, total: int | None) -> None:
            show(f"{stage} {done}" + (f" of {total}" if total else ""))

        outcome = prepare_set(row, source, testsets, scales=scale or None, progress=progress)
    presence = presence_of(row, testsets)
    _print_outcome(outcome)
    moved = f"{outcome.moved} moved into HR, " if outcome.moved else ""
    print(
        f"{row.name}: {moved}{len(outcome.copied)} copied, {outcome.made} low-quality images made, "
        f"{len(outcome.there)} existed; {presence.state} in {presence.folder}"
    )
    if outcome.failed or presence.state != "present":
        raise typer.Exit(1)


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SET...]", help="Names of sets; all by default.")
    ] = None,
    testsets: Root = TESTSETS,
    as_json: AsJson = False,
) -> None:
    """Check every file: hashes, sizes, channels, pairs. Exits 1 for faults and for a named set that is missing."""
    from swinir.testsets import BENCHMARK_SETS, find_set

    rows = [find_set(name) for name in names] if names else list(BENCHMARK_SETS.values())
    if not testsets.is_dir():
        raise FileNotFoundError(f"folder not found: {testsets}; give the folder of the sets by --testsets")
    reports = []
    for row in dict.fromkeys(rows):
        reports.append(_check_with_status(row, testsets))
        if not as_json:
            _print_report(reports[-1])
    if as_json:
        print(json.dumps([_report_json(report) for report in reports], indent=2))
    if any(report.faults or (names and report.presence.state == "missing") for report in reports):
        raise typer.Exit(1)


def _check_with_status(row: "BenchmarkSet", testsets: Path) -> "SetReport":
    from swinir.image_io.reader import named
    from swinir.testsets.check import check_set

    with status_line() as show:
        return check_set(row, testsets, lambda path: show(named(path)))


def _print_report(report: "SetReport") -> None:
    name = report.presence.set.name
    print(f"{name}: {report.verdict}")
    notes = [finding for finding in report.findings if finding.level == "note"]
    for finding in [*report.faults, *notes[:SHOWN_NOTES]]:
        where = f"{finding.file}: " if finding.file else ""
        way_out = f"; {finding.way_out}" if finding.way_out else ""
        print(f"  {finding.level}: {where}{finding.text}{way_out}")
    if len(notes) > SHOWN_NOTES:
        print(f"  and {len(notes) - SHOWN_NOTES} more notes; --json shows all")


def _print_outcome(outcome: "Outcome") -> None:
    for reason, files in outcome.left_out.items():
        some = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
        print(f"not used, {reason}: {len(files)} ({some})")
    for line in outcome.failed:
        print(line, file=sys.stderr)


def _scales(presence: "Presence") -> str:
    if not presence.set.scales:
        return "-"
    found = len(presence.images)
    texts = [
        f"X{scale}" if len(files) == found else f"X{scale} ({len(files)} of {found})"
        for scale, files in presence.low_quality.items()
        if files
    ]
    return " ".join(texts) or "none"


def _set_json(presence: "Presence") -> dict[str, Any]:
    row = presence.set
    facts = asdict(row) | {"names": list(row.stems)}
    return facts | {
        "state": presence.state,
        "folder": str(presence.folder),
        "found": len(presence.images),
        "low_quality": {str(scale): len(files) for scale, files in presence.low_quality.items()},
    }


def _report_json(report: "SetReport") -> dict[str, Any]:
    return {
        "set": report.presence.set.name,
        "state": report.presence.state,
        "verdict": report.verdict,
        "verified": report.verified,
        "low_quality": list(report.presence.complete_scales),
        "findings": [asdict(finding) for finding in report.findings],
    }

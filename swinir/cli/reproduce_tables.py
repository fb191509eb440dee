"""`swinir reproduce table2` to `table6`, `color_jpeg`, `div2k` and `all`: cells measured, each with a verdict."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinir.atomic import NO_ROOM
from swinir.cli.options import print_table
from swinir.inference.device import choose_device
from swinir.reproduce.published import TABLES, Table, notes
from swinir.weights.zoo import TASK_IN_NAME

if TYPE_CHECKING:
    from swinir.inference.options import RunOptions
    from swinir.reproduce.measure import Bench
    from swinir.reproduce.plan import CellPlan, Wanted
    from swinir.reproduce.results import Result
    from swinir.reproduce.summary import Summary
    from swinir.reproduce.verdict import Tolerance

OUTPUT = Path("results/reproduce")
TESTSETS = Path("testsets")
LEVEL_OPTION = {"x": "--scales", "noise": "--noise", "jpeg": "--jpeg"}
RULES = """Each cell is kept as a JSON file in the output folder. The same command resumes an interrupted run, and
measures a cell again if its weights, images or settings have changed. NAME.html, NAME.md, NAME.csv and NAME.json
summarize the cells of the command.

Exit codes: 0 when all requested cells were measured; 1 when some failed, or lack weights or images (the commands that
get them are listed first; --sets and the like request fewer cells); 2 for wrong usage, or when no cell can be
measured."""


def add_to(app: typer.Typer) -> None:
    """Add a command for each table, and one for all tables."""
    for table in TABLES.values():
        flag, levels = LEVEL_OPTION[TASK_IN_NAME[table.task][1]], ",".join(map(str, table.levels))
        text = f"Measure {table.title[0].lower()}{table.title[1:]}.\n\n{RULES}"
        app.command(table.name, help=text)(_command(table.name, (table,), flag, levels))
    text = f"Measure all tables: {', '.join(TABLES)}.\n\n{RULES}"
    app.command("all", help=text)(_command("all", tuple(TABLES.values()), "--levels", "2,25,40 and so on"))


def _command(name: str, tables: tuple[Table, ...], flag: str, known: str) -> Callable[..., None]:
    some = ",".join(tables[0].sets[:2])

    def command(
        weights: Annotated[
            list[str] | None,
            typer.Option(
                "--weights",
                help="released, bundled, a name that `swinir zoo list` shows, a file, or a folder of files; can be "
                "given several times. Default: released.",
            ),
        ] = None,
        sets: Annotated[str, typer.Option("--sets", help=f"Measure only these sets, such as {some}.")] = "",
        levels: Annotated[str, typer.Option(flag, help=f"Measure only these levels, of {known}.")] = "",
        self_ensemble: Annotated[
            bool, typer.Option("--self-ensemble", help='Repeat each cell with self-ensemble (the paper\'s "+").')
        ] = False,
        testsets: Annotated[Path, typer.Option("--testsets", help="Folder of the benchmark sets.")] = TESTSETS,
        device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; default: a GPU.")] = None,
        precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "fp32",
        tile: Annotated[
            int | None, typer.Option("--tile", help="Tile side in low-quality pixels; default: whole images.")
        ] = None,
        tile_overlap: Annotated[int, typer.Option("--tile-overlap", "--tile_overlap", help="Overlap of tiles.")] = 32,
        psnr_tolerance: Annotated[
            float, typer.Option("--psnr-tolerance", help="Allowed difference of PSNR and PSNR-B in dB.")
        ] = 0.02,
        ssim_tolerance: Annotated[float, typer.Option("--ssim-tolerance", help="Allowed difference of SSIM.")] = 0.001,
        alternatives: Annotated[
            bool,
            typer.Option(
                "--alternatives/--no-alternatives",
                help="Repeat a cell that differs in other ways, to find the reason.",
            ),
        ] = True,
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder of cells and summaries.")] = OUTPUT,
    ) -> None:
        from swinir.reproduce.measure import Bench
        from swinir.reproduce.plan import Wanted
        from swinir.reproduce.verdict import Tolerance

        tolerance = Tolerance(psnr_tolerance, ssim_tolerance)
        wanted = Wanted(tables, _split(sets), _numbers(flag, levels), self_ensemble)
        options = _options(precision, tile, tile_overlap)
        planned = _plan(wanted, weights or ["released"], testsets)
        if output.exists() and not output.is_dir():
            raise NotADirectoryError(f"--output must be a folder, and {output} is a file")
        bench = Bench(testsets, output, choose_device(device), options, notice=_notice)
        try:
            summary = _measure(name, tables, planned, bench, tolerance, alternatives=alternatives)
        except OSError as error:
            if error.errno in NO_ROOM:
                error.strerror = f"{error.strerror}; make room, and the same command resumes"
            raise
        if planned.missing or summary.failures or any(result.measured.failed for result in summary.results):
            raise typer.Exit(1)

    return command


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    for word in _split(text):
        if not word.isdecimal():
            raise ValueError(f"{flag} takes numbers separated by commas, got {word!r}")
    return tuple(map(int, _split(text)))


def _options(precision: str, tile: int | None, overlap: int) -> "RunOptions":
    from dataclasses import replace

    from swinir.evaluation.protocol import RELEASED
    from swinir.models.optimized import PRECISIONS

    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    least = 56  # a multiple of both windows, 7 and 8
    if tile is not None and tile < least:
        raise ValueError(f"--tile must be at least {least}, got {tile}")
    most = None if tile is None else tile - 8  # a tile is rounded down to whole windows
    if overlap < 0 or (most is not None and overlap > most):
        raise ValueError(f"--tile-overlap must be from 0 to {most or 'the tile'}, got {overlap}")
    return replace(RELEASED, precision=precision, tile=tile, tile_overlap=overlap)


def _notice(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _plan(wanted: "Wanted", given: Sequence[str], testsets: Path) -> "CellPlan":
    """Plan the cells and list what is missing.

    Raises:
        FileNotFoundError, ValueError: if no cell can be measured.
    """
    from swinir.reproduce.plan import find_weights, plan_cells

    planned = plan_cells(wanted, find_weights(given), testsets)
    for missing in planned.missing:
        cells = f"{missing.cells} cell{'' if missing.cells == 1 else 's'}"
        typer.echo(f"missing: {missing.what}, for {cells}; get it by: {missing.remedy}", err=True)
    if not planned.cells:
        if planned.missing:
            raise FileNotFoundError("no cell can be measured without the missing files")
        tasks = ", ".join(dict.fromkeys(table.task for table in wanted.tables))
        raise ValueError(
            f"none of the weights ({', '.join(given)}) is for these cells of {tasks}; "
            "try --weights released, or see `swinir zoo list`"
        )
    measured = {cell.table.name for cell in planned.cells}
    left_out = [table.name for table in wanted.tables if table.name not in measured]
    if left_out:
        _notice(f"no cell of {', '.join(left_out)} can be measured: no weights or no images for it")
    return planned


def _measure(
    name: str,
    tables: tuple[Table, ...],
    planned: "CellPlan",
    bench: "Bench",
    tolerance: "Tolerance",
    *,
    alternatives: bool,
) -> "Summary":
    """Measure cell by cell and print a line for each, then the tables; an interrupted run is summarized, too."""
    from tqdm import tqdm

    from swinir.environment import environment
    from swinir.reproduce.results import Failure, Result, conclude
    from swinir.reproduce.summary import Summary

    results: list[Result] = []
    failures: list[Failure] = []

    def summarize() -> Summary:
        done, machine = (tuple(results), tuple(failures)), environment(bench.device)
        return Summary(name, tables, *done, planned.missing, tolerance, machine, planned.lacking)

    bench.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tqdm(total=len(planned.cells), unit="cell", disable=None, dynamic_ncols=True) as bar:

            def show(done: int, total: int) -> None:
                bar.set_postfix_str(f"image {done}/{total}")

            for cell in planned.cells:
                try:
                    measured = bench.measure(cell, progress=show)
                    results.append(conclude(measured, tolerance, bench=bench if alternatives else None))
                    line, errors = _line(results[-1]), [row.error for row in measured.failed]
                except (ValueError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in NO_ROOM:  # nor is there room for other cells
                        raise
                    failures.append(Failure(cell, " ".join(str(error).split())))
                    line, errors = "", [f"{cell.title}: {failures[-1].error}"]
                with tqdm.external_write_mode():
                    if line:
                        typer.echo(line)
                    for text in errors:
                        typer.echo(f"failed: {text}", err=True)
                bar.update()
    finally:
        _write(bench.folder, summarize())
    return summarize()


def _line(result: "Result") -> str:
    from swinir.reproduce.results import figures_text

    table, kept = result.cell.table, " (kept)" if result.measured.reused else ""
    return f"{result.cell.title}: {figures_text(table, result.ours)}, {result.verdict.kind}{kept}"


def _write(folder: Path, summary: "Summary") -> None:
    from swinir.reproduce.page import write_tables_page
    from swinir.reproduce.summary import cost_table, verdict_table, write_summary

    page = folder / f"{summary.name}.html"
    write_tables_page(page, summary)
    files = [page, *write_summary(folder, summary)]
    for table in summary.tables:
        if results := summary.of(table):
            typer.echo(f"\n{table.title}; {table.measure}\n")
            print_table(verdict_table(results))
        if costs := summary.costs(table):
            typer.echo()
            print_table(cost_table(costs))
        for note in notes(table) if results else ():
            typer.echo(f"note: {note.text}")
    typer.echo(f"\n{summary}; tolerance: {summary.tolerance}")
    typer.echo("written: " + ", ".join(str(file) for file in files))

"""`swinir reproduce table2` to `table6`, `color_jpeg`, `div2k` and `all`: cells measured, each with a verdict."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swinir.cli.options import choose_device, print_table
from swinir.report.text_table import TextTable
from swinir.reproduce.published import TABLES, Table
from swinir.weights.zoo import TASK_IN_NAME

if TYPE_CHECKING:
    from swinir.reproduce.measure import Bench
    from swinir.reproduce.plan import Cell, Plan, Wanted
    from swinir.reproduce.results import Result
    from swinir.reproduce.summary import Summary
    from swinir.reproduce.verdict import Tolerance

OUTPUT = Path("results/reproduce")
TESTSETS = Path("testsets")
LEVEL_OPTION = {"x": "--scales", "noise": "--noise", "jpeg": "--jpeg"}
RULES = """Every cell is kept as JSON below the output folder: the same command goes on where it was stopped, and
measures again what other weights, images or settings have changed. Beside the cells it writes NAME.html, NAME.md,
NAME.csv and NAME.json about this command's cells.

Exit codes: 0 when every cell asked for was measured; 1 when some failed, or lack weights or images (they are listed
first, with the command that gets them; --sets and the like ask for fewer); 2 for wrong usage, or when nothing could
be measured."""


def add_to(app: typer.Typer) -> None:
    """A command for each table, and one for all of them."""
    for table in TABLES.values():
        kind = TASK_IN_NAME[table.task][1]
        known = ",".join(map(str, table.levels))
        text = f"Measure {table.title[0].lower()}{table.title[1:]}.\n\n{RULES}"
        app.command(table.name, help=text)(_command(table.name, (table,), LEVEL_OPTION[kind], known))
    whole = tuple(TABLES.values())
    app.command("all", help=f"Measure all tables: {', '.join(TABLES)}.\n\n{RULES}")(
        _command("all", whole, "--levels", "2,25,40 and so on")
    )


def _command(name: str, tables: tuple[Table, ...], flag: str, known: str) -> Callable[..., None]:
    some = ",".join(tables[0].sets[:2])

    def command(
        weights: Annotated[
            list[str] | None,
            typer.Option(
                "--weights",
                help="released, bundled, a name that `swinir zoo list` shows, a file, or a folder of files; can be "
                "given several times. Released ones without it.",
            ),
        ] = None,
        sets: Annotated[str, typer.Option("--sets", help=f"Only these sets, such as {some}.")] = "",
        levels: Annotated[str, typer.Option(flag, help=f"Only these, of {known}.")] = "",
        self_ensemble: Annotated[
            bool, typer.Option("--self-ensemble", help='Measure each cell with self-ensemble too (the paper\'s "+").')
        ] = False,
        testsets: Annotated[Path, typer.Option("--testsets", help="Folder of the benchmark sets.")] = TESTSETS,
        device: Annotated[
            str | None, typer.Option("--device", help="cpu, cuda, cuda:1; a GPU if there is one.")
        ] = None,
        precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "fp32",
        tile: Annotated[
            int | None, typer.Option("--tile", help="Tile side in low-quality pixels; whole images without.")
        ] = None,
        tile_overlap: Annotated[int, typer.Option("--tile-overlap", "--tile_overlap", help="Overlap of tiles.")] = 32,
        psnr_tolerance: Annotated[
            float, typer.Option("--psnr-tolerance", help="How far PSNR and PSNR-B may be off, in dB.")
        ] = 0.02,
        ssim_tolerance: Annotated[float, typer.Option("--ssim-tolerance", help="How far SSIM may be off.")] = 0.001,
        alternatives: Annotated[
            bool,
            typer.Option(
                "--alternatives/--no-alternatives",
                help="Measure a cell that differs in other ways too, to find out why.",
            ),
        ] = True,
        output: Annotated[Path, typer.Option("-o", "--output", help="Where cells and pages go.")] = OUTPUT,
    ) -> None:
        from swinir.reproduce.measure import Bench, Settings
        from swinir.reproduce.plan import Wanted
        from swinir.reproduce.verdict import Tolerance

        tolerance = Tolerance(psnr_tolerance, ssim_tolerance)
        wanted = Wanted(tables, _words(sets), _numbers(flag, levels), self_ensemble)
        settings = Settings(choose_device(device), _precision(precision), _tile(tile), _overlap(tile, tile_overlap))
        given = weights or ["released"]
        planned = _plan(wanted, given, testsets)
        if output.exists() and not output.is_dir():
            raise NotADirectoryError(f"--output must be a folder, and {output} is a file")
        bench = Bench(testsets, output, settings, notice=_notice)
        summary = _measure(name, tables, planned, bench, tolerance, alternatives=alternatives)
        if planned.missing or summary.failures or any(result.measured.failed for result in summary.results):
            raise typer.Exit(1)

    return command


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    for word in _words(text):
        if not word.isdecimal():
            raise ValueError(f"{flag} takes numbers with commas between them, got {word!r}")
    return tuple(map(int, _words(text)))


def _precision(precision: str) -> str:
    from swinir.models.optimized import PRECISIONS

    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def _tile(tile: int | None) -> int | None:
    least = 56  # of windows of 7 and 8
    if tile is not None and tile < least:
        raise ValueError(f"--tile must be at least {least}, got {tile}")
    return tile


def _overlap(tile: int | None, overlap: int) -> int:
    most = None if tile is None else tile - 8  # a tile is rounded down to whole windows
    if overlap < 0 or (most is not None and overlap > most):
        raise ValueError(f"--tile-overlap must be from 0 to {most or 'the tile'}, got {overlap}")
    return overlap


def _notice(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _plan(wanted: "Wanted", given: Sequence[str], testsets: Path) -> "Plan":
    """The plan, with what is missing said before the work; an error when nothing is left."""
    from swinir.reproduce.plan import find_weights, plan

    planned = plan(wanted, find_weights(given), testsets)
    concerned = {cell.table.name for cell in planned.cells}
    left_out = [table.name for table in wanted.tables if table.name not in concerned]
    for missing in planned.missing:
        cells = f"{missing.cells} cell{'' if missing.cells == 1 else 's'}"
        typer.echo(f"missing: {missing.what}, for {cells}; get it by: {missing.remedy}", err=True)
    if not planned.cells:
        if planned.missing:
            raise FileNotFoundError("nothing can be measured without what is missing")
        wanted_tasks = ", ".join(dict.fromkeys(table.task for table in wanted.tables))
        what = f"none of the weights ({', '.join(given)}) is for these cells of {wanted_tasks}"
        raise ValueError(f"{what}; try --weights released, or see `swinir zoo list`")
    if left_out:
        _notice(f"nothing can be measured of {', '.join(left_out)}: no weights or no images for it")
    return planned


def _measure(
    name: str,
    tables: tuple[Table, ...],
    planned: "Plan",
    bench: "Bench",
    tolerance: "Tolerance",
    *,
    alternatives: bool,
) -> "Summary":
    """Measure cell by cell, with a line for each; what is done is written also when it is interrupted."""
    from tqdm import tqdm

    from swinir.environment import environment
    from swinir.reproduce.results import Failure, Result, conclude
    from swinir.reproduce.summary import Summary

    results: list[Result] = []
    failures: list[Failure] = []
    width = max(len(name) for name in ("weights", *(cell.label for cell in planned.cells)))

    def summary() -> Summary:
        machine = environment(bench.settings.device)
        return Summary(
            name, tables, tuple(results), tuple(failures), planned.missing, tolerance, machine, planned.lacking
        )

    bench.folder.mkdir(parents=True, exist_ok=True)
    typer.echo(f"{'weights':{width}}  {_columns('level', 'set', 'measured', 'published', 'difference')}verdict")
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
                    failures.append(Failure(cell, " ".join(str(error).split())))
                    line, errors = "", [f"{_what(cell)}: {failures[-1].error}"]
                with tqdm.external_write_mode():
                    if line:
                        typer.echo(f"{cell.label:{width}}  {line}")
                    for text in errors:
                        typer.echo(f"failed: {text}", err=True)
                bar.update()
    finally:
        _write(bench.folder, summary())
    return summary()


def _what(cell: "Cell") -> str:
    return f"{cell.label} on {cell.set.name}, {cell.level_text}"


def _columns(level: str, name: str, ours: str, published: str, difference: str) -> str:
    return f"{level:8} {name:10} {ours:20} {published:20} {difference:21} "


def _line(result: "Result") -> str:
    from swinir.reproduce.summary import spelled, verdict_text

    cell = result.cell
    return (
        _columns(
            cell.level_text,
            cell.set.name,
            spelled(cell.table, result.ours),
            spelled(cell.table, result.published.values) if result.published else "-",
            spelled(cell.table, result.verdict.differences, sign=True) or "-",
        )
        + verdict_text(result)
        + (" (kept)" if result.measured.reused else "")
    )


def _write(folder: Path, summary: "Summary") -> None:
    from swinir.reproduce.page import write_page
    from swinir.reproduce.published import notes
    from swinir.reproduce.summary import COST_HEAD, cost_cells, counted, write_summary

    page = folder / f"{summary.name}.html"
    write_page(page, summary)
    files = [page, *write_summary(folder, summary)]
    for table in summary.tables:
        if rows := summary.costs(table) if summary.of(table) else []:
            typer.echo()
            print_table(TextTable(COST_HEAD, [cost_cells(row) for row in rows]))
    for table in summary.tables:
        for note in notes(table) if summary.of(table) else ():
            typer.echo(f"note on {table.name}: {note.text}")
    typer.echo(f"\n{counted(summary)}; tolerance: {summary.tolerance}")
    typer.echo("written: " + ", ".join(str(file) for file in files))

"""Tables and plots of reports on GPUs, for docs/speed-gpu.md: `bash scripts/gpu_report.sh --page RESULTS...`.

Later rows replace earlier ones of the same card and measurement, so the files of several reports can be given at once.
Rows of a rehearsal are left out.
"""

import contextlib
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from swinir.atomic import atomic_path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/speed-gpu.md"
BEGIN, END = "<!-- gpu tables: begin -->\n", "<!-- gpu tables: end -->\n"
NOTHING = "No GPU has run this code yet.\n"
Row = dict[str, Any]


def read_rows(files: Iterable[Path]) -> list[Row]:
    """Read rows of JSON Lines files, and validations of trainings from run.tar.gz beside them.

    A last line that was cut is left out, and so are rows of a rehearsal.
    """
    rows: list[Row] = []
    for file in files:
        found = json_lines(file.read_text(encoding="utf-8"))
        cards = [row["card"] for row in found if row["kind"] == "machine"]
        archive = file.with_name("run.tar.gz")
        if archive.exists() and cards:
            found += [{"kind": "validation", "card": cards[-1], **row} for row in validations(archive)]
        rows += [row for row in found if not row.get("card", "").startswith("CPU") and row.get("device") != "cpu"]
    return rows


def json_lines(text: str) -> list[Row]:
    """Parse the lines of a text that are whole."""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def validations(archive: Path) -> list[Row]:
    """Read the validations of a training from its records."""
    with tarfile.open(archive) as records:
        if "metrics.jsonl" not in records.getnames():
            return []
        member = records.extractfile("metrics.jsonl")
        assert member is not None
        return [row for row in json_lines(member.read().decode()) if "psnr_y" in row]


def latest(rows: Sequence[Row], kind: str, *keys: str) -> list[Row]:
    """Select the last row of a kind for each combination of card and keys, in the order of the first ones."""
    found = {}
    for row in rows:
        if row["kind"] == kind:
            found[tuple(json.dumps(row.get(key)) for key in ("card", *keys))] = row
    return list(found.values())


def table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Format a table in Markdown; without lines, nothing."""
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n{body}\n" if body else ""


def grid(rows: Sequence[Row], first: str, line: Callable[[Row], str], column: Callable[[Row], str],
         cell: Callable[[Row], str]) -> str:  # fmt: skip
    """Format rows as a table with a line and a column for each value that the functions give."""
    columns = list(dict.fromkeys(map(column, rows)))
    cells = {(line(row), column(row)): cell(row) for row in rows}
    names = dict.fromkeys(map(line, rows))
    return table([first, *columns], ([name, *(cells.get((name, c), "") for c in columns)] for name in names))


def failed(row: Row) -> str:
    """Explain a row without numbers."""
    return str(row["status"] if row["status"] != "failed" else row.get("error") or "failed").replace("|", "/")


def machines(rows: Sequence[Row]) -> str:
    """Describe the cards with the rates of copying and of matrix products."""
    ceilings: dict[str, list[str]] = {}
    for row in latest(rows, "copy"):
        ceilings.setdefault(row["card"], []).append(f"{row['gb_per_second'] / 1e3:.2f} TB/s copied")
    for row in latest(rows, "matrix", "precision"):
        ceilings.setdefault(row["card"], []).append(f"{row['tflops']:.0f} TFLOP/s in {row['precision']}")
    lines = [(r["card"], r["torch"], ", ".join(ceilings.get(r["card"], ["-"]))) for r in latest(rows, "machine")]
    return table(("card", "PyTorch", "limits measured"), lines)


def test_results(rows: Sequence[Row]) -> str:
    """Count the tests by outcome, and name those that failed."""
    found = latest(rows, "test", "name")
    text = ""
    for card in dict.fromkeys(row["card"] for row in found):
        mine = [row for row in found if row["card"] == card]
        counts = [f"{sum(row['outcome'] == name for row in mine)} {name}" for name in ("passed", "failed", "skipped")]
        text += f"GPU tests, {card}: {', '.join(counts)}.\n\n"
        text += "".join(f"- failed: `{row['name']}`\n" for row in mine if row["outcome"] == "failed")
    return text + "\n" if text else ""


def accuracy(rows: Sequence[Row]) -> str:
    """Format largest differences and PSNR against float64."""
    found = [row for row in latest(rows, "correctness", "network", "variant") if "network" in row]
    if not found:
        return ""
    cell = lambda r: f"{r['max_difference']:.0e}, {r['db']:.0f} dB" if r["status"] == "ok" else failed(r)  # noqa: E731
    head = "### Accuracy\n\nLargest difference of values in [0, 1] and PSNR, compared with float64 on the CPU.\n\n"
    return head + grid(found, "card, variant", lambda r: f"{r['card']}, `{r['variant']}`", lambda r: r["network"], cell)


def size(row: Row) -> str:
    """Name the image of a row."""
    tiles = f", tiles of {row['tile']}" if row["tile"] else ""
    return f"{row['width']}x{row['height']}{tiles}"


def measured(rows: Sequence[Row]) -> list[Row]:
    """Select the rows of speed that name a network."""
    keys = ("network", "variant", "height", "width", "tile")
    return [row for row in latest(rows, "speed", *keys) if "network" in row]


def speed(rows: Sequence[Row]) -> str:
    """Format time for a megapixel of output, speed relative to the plain network, and peak memory."""

    def cell(row: Row) -> str:
        if row["status"] != "ok":
            return failed(row)
        ratio = f" ({row['ratio']:.1f})" if row["ratio_to"] == "plain" else ""
        peak = "" if row["peak_mb"] is None else f", {row['peak_mb']:,.0f} MB"
        return f"{1e3 * row['seconds_per_megapixel']:.1f} ms{ratio}{peak}"

    text = ""
    found = measured(rows)
    for network in dict.fromkeys(row["network"] for row in found):
        mine = [row for row in found if row["network"] == network]
        text += f"**{network}**\n\n"
        text += grid(mine, "card, variant", lambda r: f"{r['card']}, `{r['variant']}`", size, cell)
    head = (
        "### Speed and memory\n\nMilliseconds for a megapixel of output (speed relative to `plain`), and peak memory "
        "beside weights and input.\n\n"
    )
    return head + text if text else ""


def tuning(rows: Sequence[Row]) -> str:
    """Format launch parameters and chunk sizes."""
    launches = [
        (r["card"], r["network"], ", ".join(f"{k} {v}" for k, v in r["launch"].items() if v),
         f"{r['ms_per_megatoken']:.2f} ms, {r['first_seconds']:.0f} s to compile" if r["status"] == "ok" else failed(r))
        for r in latest(rows, "launch", "network", "launch")
    ]  # fmt: skip
    chunks = [
        (r["card"], r["network"], f"{r['tokens']:,}", f"{1e3 * r['seconds_per_megapixel']:.1f} ms")
        for r in latest(rows, "chunk", "network", "tokens")
        if r["status"] == "ok"
    ]
    text = table(("card", "network", "launch of the fused layer in bf16", "a million tokens"), launches)
    text += table(("card", "network", "tokens of a chunk, eager", "a megapixel of output"), chunks)
    return f"### Tuning\n\n{text}" if text else ""


def training(rows: Sequence[Row]) -> str:
    """Format steps per second."""
    lines = []
    for row in latest([{"card": r.get("device", ""), **r} for r in rows], "training"):
        for way in ("eager", "compiled"):
            if way in row:
                rate, memory = row[way]["trainer_steps_per_second"]["median"], row[way].get("peak_mb", {}).get("median")
                waiting = row[way]["waiting_for_data"]["median"]
                peak = "-" if memory is None else f"{memory:,.0f} MB"
                lines.append((row["card"], row["config"]["name"], way, f"{rate:.1f}", f"{100 * waiting:.0f} %", peak))
    titles = ("card", "training", "way", "steps a second", "waiting for data", "peak memory")
    scores = [(r["card"], f"{r['step']:,}", f"{r['psnr_y']:.2f} dB") for r in latest(rows, "validation", "step")]
    text = table(titles, lines) + table(("card", "steps", "PSNR-Y on Set5"), scores)
    return f"### Training\n\n{text}" if text else ""


def plot(path: Path, rows: Sequence[Row]) -> bool:
    """Plot milliseconds for a megapixel of output over the size of images; return false if there is nothing to plot."""
    found = [row for row in measured(rows) if row["status"] == "ok" and not row["tile"]]
    heights: dict[tuple[str, str], set[int]] = {}
    for row in found:
        heights.setdefault((row["card"], row["network"]), set()).add(row["height"])
    several = [key for key, values in heights.items() if len(values) > 1]
    if not several:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(several), 4.5), layout="constrained")
    for axes, (card, network) in zip(figure.subplots(1, len(several), squeeze=False)[0], several, strict=True):
        mine = sorted((r for r in found if (r["card"], r["network"]) == (card, network)), key=lambda r: r["height"])
        for variant in dict.fromkeys(row["variant"] for row in mine):
            points = [(r["height"], 1e3 * r["seconds_per_megapixel"]) for r in mine if r["variant"] == variant]
            axes.plot(*zip(*points, strict=True), marker="o", label=variant)
        axes.set(title=f"{network}, {card}", xlabel="side of the low-quality image in pixels", yscale="log")
        axes.set_ylabel("milliseconds for a megapixel of output")
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return True


def page(
    files: Annotated[list[Path], typer.Argument(help="results.jsonl of one or several reports.")],
    file: Annotated[Path, typer.Option("--file", help="The page, with markers around its tables.")] = PAGE,
    show: Annotated[bool, typer.Option("--show", help="Only print the tables.")] = False,
) -> None:
    """Write the tables and plots of reports into a page."""
    try:
        rows = read_rows(files)
        parts = (machines, test_results, accuracy, speed, tuning, training)
        text = "".join(part(rows) for part in parts)
        if show:
            print(text or NOTHING, end="")
            return
        before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{file}: no markers of tables; add the lines {BEGIN.strip()} and {END.strip()}")
        image = file.with_suffix(".png")
        if plot(image, rows):
            text += f"![Milliseconds for a megapixel of output against image size]({image.name})\n"
        with atomic_path(file) as temporary:
            temporary.write_text(before + BEGIN + (text or NOTHING) + END + after, encoding="utf-8")
    except (OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


app = typer.Typer(add_completion=False)
app.command()(page)

if __name__ == "__main__":
    app()

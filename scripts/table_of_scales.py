"""PSNR at any scale, as a Markdown table: `python scripts/table_of_scales.py MODEL --testsets testsets`.

MODEL is a network of any scale; beside it stand bicubic interpolation and networks of one scale each, whose output is
reduced to the scale, as `swinir restore` does.
"""

from pathlib import Path
from typing import Annotated

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir test`

import typer  # isort: skip

from swinir.bench.scales import reaching
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.results import means
from swinir.evaluation.samples import Sample, find_set
from swinir.inference.forward import Runnable
from swinir.report.text_table import TextTable
from swinir.tasks import get_task
from swinir.testsets import find_set as find_benchmark
from swinir.weights.checkpoint import load_model

FIXED = [f"lightweight_sr_x{scale}_tiny" for scale in (2, 3, 4)]
SCALES = [1.1, 1.5, 2, 2.5, 3, 3.5, 3.7, 4]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Weights file or name of a network of any scale.")],
    fixed: Annotated[list[str], typer.Option("--fixed", help="Networks of one scale; may repeat.")] = FIXED,
    sets: Annotated[list[str], typer.Option("--set", help="Benchmark sets; may repeat.")] = ["Set5", "Set14"],  # noqa: B006
    scales: Annotated[list[float], typer.Option("--scale", help="Scales; may repeat.")] = SCALES,
    testsets: Annotated[Path, typer.Option("--testsets", help="Folder of the sets.")] = Path("testsets"),
) -> None:
    """Print PSNR in dB on luma: a row for each scale, and for each set bicubic, one scale, any scale and the gain."""
    ways = {"bicubic": [], "one scale": [load_model(name) for name in fixed], "any scale": [load_model(model)]}
    task, lines = get_task("lightweight_sr"), []
    for scale in scales:
        line = [f"x{scale:g}"]
        for name in sets:
            protocol = Protocol(task, scale=scale)
            samples = find_set(protocol, find_benchmark(name), testsets)
            found = {way: _psnr(reaching(scale, networks), samples, protocol) for way, networks in ways.items()}
            line += [f"{value:.2f}" for value in found.values()]
            line.append(f"{found['any scale'] - found['one scale']:+.2f}")
        lines.append(tuple(line))
    titles = ("scale", *(f"{name} {column}" for name in sets for column in (*ways, "gain")))
    typer.echo(TextTable(titles, lines, right=range(1, len(titles))).markdown())


def _psnr(model: Runnable, samples: list[Sample], protocol: Protocol) -> float:
    rows = list(evaluate(model, samples, protocol))
    failed = next((row.error for row in rows if row.error), None)
    if failed:
        raise ValueError(failed)
    return means(rows)["psnr_y"]


if __name__ == "__main__":
    app()

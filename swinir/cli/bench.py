"""`swinir bench`: time, memory and exactness of the ways to run a network on this machine."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.options import check_parent, split_words, status_line
from swinir.inference.device import choose_device

if TYPE_CHECKING:
    from swinir.bench.subject import Case, Subject
    from swinir.bench.timing import VariantRow

DEFAULT_MODEL = "lightweight_sr_x1-4_tiny"
HEADER = (
    f"{'size':>11}  {'variant':14}{'seconds (quartiles)':>26}{'CPU s':>9}{'s/MP':>9}{'GFLOP/s':>9}{'share':>7}"
    f"{'peak MB':>9}  {'difference':>20}{'ratio':>8}"
)
LEGEND = (
    "s/MP: seconds for a megapixel of output; share: of the GFLOP/s of matrix products; "
    "peak MB: peak memory beside weights and input"
)


def bench(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A name that `swinir zoo list` shows, or a weights file.")
    ] = DEFAULT_MODEL,
    sizes: Annotated[
        str, typer.Option("--sizes", help="Low-quality images in pixels: sides of squares, or HEIGHTxWIDTH.")
    ] = "136,264",
    tile: Annotated[int | None, typer.Option("--tile", help="Run in tiles of this side; whole images without.")] = None,
    tile_overlap: Annotated[int, typer.Option("--tile_overlap", help="Overlap of tiles.")] = 32,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at once.")] = 1,
    scale: Annotated[
        float | None, typer.Option("--scale", help="Scale of a network of any scale; its largest one without.")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants",
            help="Of plain, plain-cached, fp32, bf16, the same with -eager, -fused or -compiled, bf16-graph, onnx, "
            "openvino, openvino-bf16, spandrel. Default: plain,fp32,bf16, at other than whole scales fp32,bf16.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds; in each every variant runs once.")] = 5,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; a GPU if there is one.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; PyTorch's choice without.")] = (
        None
    ),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was measured.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw time and memory.")] = None,
) -> None:
    """Measure time, memory and exactness of the ways to run a network, and the machine's rate of matrix products.

    A released network without downloaded weights gets random ones. The variants take turns, each in a process of its
    own. An interrupted run keeps its complete rounds.
    """
    from tqdm import tqdm

    from swinir.bench.matrix_rate import matrix_gflops
    from swinir.bench.subject import find_subject
    from swinir.bench.timing import time_variants
    from swinir.bench.variants import get_variants
    from swinir.environment import machine
    from swinir.report.speed import check_plot

    subject = find_subject(name, scale)
    if variants is None:
        variants = "fp32,bf16" if subject.network.any_scale else "plain,fp32,bf16"
    chosen = get_variants(split_words(variants))
    for file in (json_file, plot):
        check_parent(file)
    if plot is not None:
        check_plot(plot)
    cases = _cases(sizes, batch, tile, tile_overlap)
    for case in cases:
        case.check(subject.network)
    where = choose_device(device)
    _set_threads(threads)

    facts: dict[str, Any] = {
        "network": _network(subject),
        "machine": machine(where),
        "matrix_gflops": matrix_gflops(where, [variant.precision for variant in chosen]),
        "repeats": repeats,
        "complete": False,
    }
    typer.echo(f"{_heading(facts, cases[0])}\n\n{HEADER}")
    rows: list[VariantRow] = []
    try:
        with status_line() as tell:
            for case in cases:
                for row in time_variants(
                    subject,
                    chosen,
                    case,
                    device=where,
                    repeats=repeats,
                    matrix_gflops=facts["matrix_gflops"],
                    progress=tell,
                ):
                    rows.append(row)
                    with tqdm.external_write_mode():
                        typer.echo(_line(row), err=row.status == "failed")
        facts["complete"] = True
        typer.echo(f"\n{LEGEND}\n{_summary(rows)}")
    finally:  # also when interrupted: measured rows are kept
        _write(json_file, plot, facts, rows)
    if any(row.status == "failed" for row in rows):
        raise typer.Exit(1)


def _cases(sizes: str, batch: int, tile: int | None, tile_overlap: int) -> "list[Case]":
    from swinir.bench.subject import Case

    cases = []
    for word in split_words(sizes) or [sizes]:
        match = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", word)
        if match is None:
            raise ValueError(f"--sizes must be sides or HEIGHTxWIDTH in pixels, got {word!r}; try --sizes 136,264x200")
        cases.append(Case(int(match[1]), int(match[2] or match[1]), batch, tile, tile_overlap))
    return cases


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _network(subject: "Subject") -> dict[str, Any]:
    from swinir.models.complexity import count_parameters

    return {
        "name": subject.name,
        "scale": subject.network.upscale,
        "parameters": count_parameters(subject.network),
        "file": subject.file.name if subject.file else None,
        "config": subject.network.to_dict(),
    }


def _heading(facts: dict[str, Any], case: "Case") -> str:
    network, where = facts["network"], facts["machine"]
    weights = f"weights of {network['file']}" if network["file"] else "RANDOM weights, since its file is not there"
    tiles = f"tiles of {case.tile} overlapping by {case.tile_overlap}" if case.tile else "whole images"
    threads = f"{where['threads']} of {where['cores']} cores" if where["device"] == "cpu" else where["device"]
    load = "" if where["load"] is None else f", load {where['load']:.1f}"
    rates = ", ".join(f"{rate:,.0f} GFLOP/s in {precision}" for precision, rate in facts["matrix_gflops"].items())
    return "\n".join(
        (
            f"{network['name']}: x{network['scale']:g}, {network['parameters']:,} parameters, {weights}",
            f"a photograph, {tiles}, batch {case.batch}, {facts['repeats']} rounds",
            f"{where['cpu']}, {threads}, {where['machine']}, torch {where['torch']}{load}",
            f"matrix products: {rates}",
        )
    )


def _line(row: "VariantRow") -> str:
    start = f"{f'{row.height}x{row.width}':>11}  {row.variant:14}"
    if row.seconds is None or row.cpu_seconds is None:
        return f"{start}failed: {row.error}"
    low, median, high = row.seconds
    share = "-" if row.matrix_share is None else f"{100 * row.matrix_share:.0f} %"
    peak = "-" if row.peak_mb is None else f"{row.peak_mb:.0f}"
    return (
        f"{start}{f'{median:.3f} ({low:.3f}-{high:.3f})':>26}{row.cpu_seconds[1]:9.3f}{row.seconds_per_megapixel:9.3f}"
        f"{row.gflops:9.1f}{share:>7}{peak:>9}  {_difference(row):>20}{row.ratio:8.2f}"
    )


def _difference(row: "VariantRow") -> str:
    if row.psnr is None or row.variant == row.reference:
        return "-"
    return f"{row.max_difference:.1e}, {row.psnr:.1f} dB"


def _summary(rows: "list[VariantRow]") -> str:
    """State the speed of each variant as a multiple of the first one's."""
    ratios: dict[str, list[str]] = {}
    for row in rows:
        if row.ratio is not None and row.variant != row.ratio_to:
            ratios.setdefault(row.variant, []).append(f"{row.ratio:.2f} ({row.height}x{row.width})")
    first = next((row.ratio_to for row in rows if row.ratio_to), None)
    if not ratios:
        return "nothing to compare: fewer than two variants ran"
    return f"times as fast as {first}: " + "; ".join(f"{name} {', '.join(found)}" for name, found in ratios.items())


def _write(json_file: Path | None, plot: Path | None, facts: dict[str, Any], rows: "list[VariantRow]") -> None:
    from swinir.report.speed import plot_speed, write_speed

    if json_file is not None:
        write_speed(json_file, facts, rows)
    if plot is not None and any(row.seconds for row in rows):
        title = f"{facts['network']['name']}, {facts['machine']['cpu']}, {facts['machine']['device']}"
        plot_speed(plot, title, rows)

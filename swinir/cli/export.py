"""`swinir export`: a network as a file for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from swinir.cli.options import check_parent


def export(
    name: Annotated[str, typer.Argument(help="Weights file, FILE:TASK, or a name that `swinir zoo list` shows.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx; openvino (an .xml and a .bin file); torch (.pt2, which PyTorch unpickles: "
            "load only those that you trust).",
        ),
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write; in the current folder, named like the weights, without."
        ),
    ] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", help="Scale of a network of any scale: 2, 3, ...; its largest one without.")
    ] = None,
) -> None:
    """Export a network for images of any size as ONNX, OpenVINO or a PyTorch program, checked against PyTorch."""
    import time

    from swinir.inference.export import SUFFIXES, describe_input
    from swinir.inference.export import export as write
    from swinir.models.any_scale import at_scale
    from swinir.weights.checkpoint import build_model, find_checkpoint, guess_tasks, read_checkpoint, sha256
    from swinir.weights.multitask import split_name

    if format not in SUFFIXES:
        raise ValueError(f"--format must be one of {', '.join(SUFFIXES)}, got {format!r}")
    source = find_checkpoint(name)
    checkpoint, task = read_checkpoint(name), split_name(name)[1]
    target = output or Path(source.stem + (f"_{task}" if task else "") + SUFFIXES[format])
    check_parent(target)
    guesses = guess_tasks(checkpoint.network)
    model = build_model(checkpoint, device="cpu")
    if scale is not None:
        model = at_scale(model, scale)
    start = time.perf_counter()
    written = write(
        model,
        target,
        format,
        task=checkpoint.task or (guesses[0] if len(guesses) == 1 else None),
        checkpoint=Path(name).name if task else source.name,
        checkpoint_sha256=sha256(source),
    )
    files = " and ".join(map(str, written.files))
    enlarged = model.config.upscale
    differences = ", ".join(f"{c.height}x{c.width}: {c.difference:.1e}" for c in written.checks)
    typer.echo(f"wrote {files}, {written.bytes / 1e6:.1f} MB, in {time.perf_counter() - start:.0f} s")
    typer.echo(f"largest difference from PyTorch, by image: {differences}")
    typer.echo(f"input lq: {describe_input(checkpoint.network)}")
    typer.echo(
        f"output restored: {enlarged} times as high and wide, not clamped"
        if enlarged > 1
        else "output restored: not clamped"
    )
    typer.echo(_use(written.files[0], format))


def _use(path: Path, format: str) -> str:
    if format == "torch":
        return f'run it with torch.export.load("{path}").module(); loading unpickles, so load only files that you trust'
    return f'run it with swinir test --model_path {path}, or swinir.restore(swinir.load_exported("{path}"), lq)'

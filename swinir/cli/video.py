"""`swinir video`: one clip."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer import Option

from swinir.cli import restore_options as given
from swinir.cli.restore import DEFAULT_OUTPUT, follow, open_models, parse_existing, parse_tile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swinir.photos.manifest import Result
    from swinir.video.clip import Clip

VIDEO = "Video"  # group of the help
Codec = Annotated[str, Option("--codec", rich_help_panel=VIDEO, help="libx264, libx265 or libsvtav1 (AV1).")]
Crf = Annotated[
    float | None,
    Option("--crf", rich_help_panel=VIDEO, help="Constant quality, lower is better; by default 18, 20 or 24."),
]
Preset = Annotated[
    str | None,
    Option("--preset", rich_help_panel=VIDEO, help="Of the encoder: ultrafast to placebo, or 0 to 13 (AV1)."),
]
Preview = Annotated[
    str | None, Option("--preview", rich_help_panel=VIDEO, help="Restore the beginning only, as in 5s.")
]
Steady = Annotated[bool, Option("--steady", rich_help_panel=VIDEO, help="Blend frames where nothing moves.")]


def video(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="The clip.")],
    scale: given.Scale = None,
    output: Annotated[Path, Option("-o", "--output", help="The file to write, or a folder.")] = DEFAULT_OUTPUT,
    model: given.Model = None,
    task: given.Task = None,
    noise: given.Noise = None,
    jpeg: given.Jpeg = None,
    strength: given.Strength = 1.0,
    self_ensemble: given.SelfEnsemble = False,
    codec: Codec = "libx264",
    crf: Crf = None,
    preset: Preset = None,
    preview: Preview = None,
    steady: Steady = False,
    suffix: given.Suffix = None,
    skip_existing: given.SkipExisting = False,
    overwrite: given.Overwrite = False,
    tile: given.Tile = "auto",
    tile_overlap: given.TileOverlap = 64,
    device: given.Device = None,
    precision: given.Precision = "auto",
    fp32: given.Fp32 = False,
    backend: given.Backend = None,
    compile: given.Compile = False,
    max_pixels: given.MaxPixels = 400,
    explain: given.Explain = False,
    verbose: given.Verbose = False,
    quiet: given.Quiet = False,
) -> None:
    """Restore a video clip: models are chosen once, from several frames; sound, times and tags stay.

    The same command, run again after an interruption, goes on with the segments in OUTPUT.parts.
    """
    from swinir.inference.runtimes import optional

    optional("av", "video")
    os.environ.setdefault("SVT_LOG", "1")  # errors only; read when the encoder is loaded
    from swinir.cli.restore_display import Display, messages
    from swinir.photos.batch import Clock, Policy
    from swinir.photos.jobs import Output, describe_request
    from swinir.photos.options import RestoreOptions
    from swinir.video.encode import Encoding
    from swinir.video.restore_clip import VideoOptions, plan_clip, restore_clip

    existing = parse_existing(skip_existing, overwrite)
    context.with_resource(messages(logging.INFO if verbose else logging.WARNING))
    treatment = RestoreOptions(
        scale, model, task, noise, jpeg, strength, "model", cast(Any, parse_tile(tile)), tile_overlap,
        "fp32" if fp32 else precision, self_ensemble, compile,
    ).treatment  # fmt: skip
    options = VideoOptions(Encoding(codec, crf, preset), _seconds(preview), steady)
    job = plan_clip(source, output, Output(suffix, request=describe_request(treatment)))
    policy = Policy(
        existing,
        recorded=output != job.target or output.parent != Path(),  # in a folder that is named
        max_pixels=int(max_pixels * 1e6),
    )
    models = open_models(device, backend, treatment)
    clock = Clock()
    display = Display([job], treatment, models, explain=explain, verbose=verbose, quiet=quiet)

    def planned(clip: "Clip", done: float) -> None:
        display.measure(len(clip.pts) * clip.width * clip.height / 1e6, done)

    def results() -> "Iterator[Result]":
        yield restore_clip(
            job, treatment, models, options, policy,
            clock=clock, planned=planned, progress=lambda share: display.progress(job, share),
        )  # fmt: skip

    follow(display, results(), str(job.target), None, clock)


def _seconds(text: str | None) -> float | None:
    """Parse --preview."""
    try:
        return None if text is None else float(text.strip().removesuffix("s"))
    except ValueError:
        raise ValueError(f"--preview must be seconds, such as 5s, got {text!r}") from None

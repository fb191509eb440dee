"""`swinir restore`: photographs, or folders of them."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from swinir.cli.options import check_parent
from swinir.inference.device import choose_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swinir.photos.batch import Item
    from swinir.photos.manifest import Result

DEFAULT_OUTPUT = Path("restored")
OUTPUT, MODELS, SPEED, SHOW = "Output", "Models", "Speed and memory", "Messages"  # groups of the help


def restore(
    context: typer.Context,
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="Images, and folders of images.")],
    scale: Annotated[
        float | None,
        typer.Option("-s", "--scale", "--outscale", help="Enlarge by this factor, such as 2 or 2.5; below 1 reduces."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the outputs; or of one image, the file to write.")
    ] = DEFAULT_OUTPUT,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Also take subfolders.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print estimates, models, time and memory; write nothing.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "-n", "--model", rich_help_panel=MODELS, help="Checkpoint: a file, or a name from `swinir zoo list`."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", rich_help_panel=MODELS, help="Choose only among models of this task.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option("--noise", rich_help_panel=MODELS, help="Noise level to remove, instead of the estimate."),
    ] = None,
    jpeg: Annotated[
        float | None,
        typer.Option("--jpeg", rich_help_panel=MODELS, help="JPEG quality to repair, instead of the estimate."),
    ] = None,
    alpha: Annotated[
        str,
        typer.Option("--alpha-upsampler", rich_help_panel=MODELS, help="model or bicubic, for alpha channels."),
    ] = "model",
    self_ensemble: Annotated[
        bool,
        typer.Option("--self-ensemble", rich_help_panel=MODELS, help="Average eight flips and rotations."),
    ] = False,
    ext: Annotated[
        str,
        typer.Option("--ext", rich_help_panel=OUTPUT, help="auto (as the input), png, jpg, webp, tif, avif or bmp."),
    ] = "auto",
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix", rich_help_panel=OUTPUT, help="Added to the names of outputs; by default the request, as in _x2."
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option("--quality", rich_help_panel=OUTPUT, help="Quality of JPEG, WebP and AVIF outputs, 1 to 100."),
    ] = None,
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", rich_help_panel=OUTPUT, help="Leave out EXIF and XMP.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", rich_help_panel=OUTPUT, help="Skip all outputs that exist.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace outputs that exist.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", rich_help_panel=OUTPUT, help="Also write input and output side by side.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", rich_help_panel=OUTPUT, help="Write the records of all images to one JSON file."),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            "-t", "--tile", rich_help_panel=SPEED, help="Side of tiles in pixels; auto: by free memory; 0: no tiles."
        ),
    ] = "auto",
    tile_overlap: Annotated[
        int, typer.Option("--tile-overlap", rich_help_panel=SPEED, help="Overlap of tiles in pixels.")
    ] = 64,
    device: Annotated[
        str | None,
        typer.Option("--device", rich_help_panel=SPEED, help="cpu, cuda, cuda:1; by default a GPU if there is one."),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", rich_help_panel=SPEED, help="fp32, bf16 or auto.")] = "auto",
    fp32: Annotated[bool, typer.Option("--fp32", rich_help_panel=SPEED, help="The same as --precision fp32.")] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            rich_help_panel=SPEED,
            help="onnx or openvino: run networks by it, on the CPU.",
        ),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", rich_help_panel=SPEED, help="Fuse layers by torch.compile; for GPUs and many images."
        ),
    ] = False,
    max_pixels: Annotated[
        float, typer.Option("--max-pixels", rich_help_panel=SPEED, help="Refuse larger inputs; in megapixels.")
    ] = 400,
    explain: Annotated[
        bool,
        typer.Option("--explain", rich_help_panel=SHOW, help="Print the estimates and the reasons for each model."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", rich_help_panel=SHOW, help="Print size, time and engine of each image."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", rich_help_panel=SHOW, help="Print failures and the last line only.")
    ] = False,
) -> None:
    """Restore images: noise level and JPEG quality are estimated for each, and models are chosen accordingly.

    Outputs have the depth, transparency and metadata of their inputs. Running the same command again restores what is
    missing: the record of each image is kept in results.jsonl in the folder of outputs.
    """
    from swinir.cli.restore_display import Display, messages, print_plans
    from swinir.models.optimized import resolve_precision
    from swinir.photos.batch import Clock, Policy, restore_files
    from swinir.photos.jobs import Output, describe_request, plan_jobs
    from swinir.photos.loaded_models import LoadedModels, load_by
    from swinir.photos.manifest import OutputError
    from swinir.photos.options import RestoreOptions

    if skip_existing and overwrite:
        raise ValueError("--skip-existing and --overwrite exclude each other; leave one out")
    check_parent(json_file)
    context.with_resource(messages(logging.INFO if verbose else logging.WARNING))
    treatment = RestoreOptions(
        scale, model, task, noise, jpeg, cast(Any, alpha), _tile(tile), tile_overlap,
        "fp32" if fp32 else precision, self_ensemble, compile,
    ).treatment  # fmt: skip
    naming = Output(
        suffix,
        ext.removeprefix(".").lower(),
        quality,
        keep_metadata=not strip_metadata,
        request=describe_request(treatment),
    )
    jobs = plan_jobs(inputs, output, naming, recursive=recursive)
    single = len(jobs) == 1 and jobs[0].target == output  # -o names a file
    folder = output.parent if single else output
    policy = Policy(
        "overwrite" if overwrite else "skip" if skip_existing else "recorded",
        recorded=not single or output.parent != Path(),  # in a folder that is named
        max_pixels=int(max_pixels * 1e6),
    )
    chosen = choose_device(device)
    models = LoadedModels(chosen, load=load_by(backend, chosen, treatment.run.precision), options=treatment.run)
    if model is not None:
        models.get(model)  # a mistyped name stops here
    if dry_run:
        raise typer.Exit(print_plans(jobs, treatment, models, policy.max_pixels))
    clock, display = Clock(), Display(jobs, treatment, models, explain=explain, verbose=verbose, quiet=quiet)
    if verbose or (treatment.run.precision == "auto" and chosen.type != "cpu"):
        typer.echo(f"{chosen}, {resolve_precision(treatment.run.precision, chosen)}, {len(jobs)} images", err=True)
    results = restore_files(
        jobs, folder, treatment, models, naming, policy,
        clock=clock, planned=display.announce, progress=display.progress, shown=_write_comparison if compare else None,
    )  # fmt: skip
    try:
        display.follow(results)
    except OutputError as error:
        typer.echo(f"swinir: {error}", err=True)
        raise typer.Exit(2) from error
    finally:  # also when interrupted
        display.summarise(output, clock)
        if json_file is not None:
            _write_json(json_file, display.results, len(jobs))
    if any(result.status == "failed" for result in display.results):
        raise typer.Exit(1)


def _tile(text: str) -> Any:
    """Parse --tile."""
    if text == "auto":
        return text
    if not text.isdecimal():
        raise ValueError(f"--tile must be auto, 0 for no tiles, or a side in pixels, got {text!r}")
    return int(text) or None


def _write_json(path: Path, results: "Sequence[Result]", total: int) -> None:
    from swinir.atomic import atomic_path

    content = {"complete": len(results) == total, "pictures": [asdict(result) for result in results]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_comparison(item: "Item") -> None:
    """Write input and output side by side."""
    import numpy as np

    from swinir.degradations.resize import imresize
    from swinir.image_io.image import to_rgb, write
    from swinir.image_io.picture import from_unit, to_unit
    from swinir.report.figures import side_by_side

    assert item.picture is not None
    assert item.restored is not None
    before, after = (to_rgb(from_unit(to_unit(p.pixels), np.uint8)) for p in (item.picture, item.restored))
    if before.shape != after.shape:
        before = imresize(before, size=(after.shape[0], after.shape[1]))
    target = item.job.target
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target.with_name(f"{target.stem}_compare.png"), side_by_side([("before", before), ("after", after)]))

"""`swinir restore`: photographs, or folders of them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from swinir.cli.options import check_parent, choose_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from swinir.inference.forward import Runnable
    from swinir.photos.batch import Clock, Item
    from swinir.photos.jobs import Job
    from swinir.photos.manifest import Result

DEFAULT_OUTPUT = Path("restored")
BACKENDS = ("onnx", "openvino")


def restore(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Images, and folders of images.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the outputs, or the name of a single output.")
    ] = DEFAULT_OUTPUT,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Also take subfolders.")] = False,
    model: Annotated[
        str | None,
        typer.Option("-n", "--model", help="Checkpoint: a name in the zoo or a file; chosen for each image without."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Choose only among models of this task.")] = None,
    scale: Annotated[int | None, typer.Option("--scale", help="Enlarge by this whole number.")] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", help="Noise level to remove, instead of the estimate.")
    ] = None,
    jpeg: Annotated[
        float | None, typer.Option("--jpeg", help="JPEG quality to repair, instead of the estimate.")
    ] = None,
    outscale: Annotated[
        float | None, typer.Option("-s", "--outscale", help="Enlarge by this factor, which need not be whole.")
    ] = None,
    tile: Annotated[
        str, typer.Option("-t", "--tile", help="Side of tiles in pixels; auto: by free memory; 0: no tiles.")
    ] = "auto",
    tile_overlap: Annotated[int, typer.Option("--tile_overlap", help="Overlap of tiles in pixels.")] = 64,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "auto",
    fp32: Annotated[bool, typer.Option("--fp32", help="The same as --precision fp32.")] = False,
    backend: Annotated[
        str | None, typer.Option("--backend", help="onnx or openvino: run the networks by these, on the CPU in fp32.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, cuda:1; by default a GPU if there is one.")
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option("--suffix", help="Added to the names of outputs, instead of what was asked for, such as _x2."),
    ] = None,
    ext: Annotated[str, typer.Option("--ext", help="auto (as the input), png, jpg, webp, tif, avif or bmp.")] = "auto",
    quality: Annotated[
        int | None, typer.Option("--quality", help="Quality of JPEG, WebP and AVIF outputs, 1 to 100.")
    ] = None,
    alpha_upsampler: Annotated[
        str, typer.Option("--alpha_upsampler", help="model or bicubic, for alpha channels.")
    ] = "model",
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", "--self_ensemble", help="Average eight flips and rotations.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Fuse layers by torch.compile; for GPUs and many images.")
    ] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Skip all outputs that exist.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    strip_metadata: Annotated[bool, typer.Option("--strip-metadata", help="Leave out EXIF and XMP.")] = False,
    max_pixels: Annotated[float, typer.Option("--max-pixels", help="Refuse larger inputs; in megapixels.")] = 400,
    compare: Annotated[bool, typer.Option("--compare", help="Also write input and output side by side.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the estimates and the reasons for each model.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the records of all images to one JSON file.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print size and time of each image.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print failures and the last line only.")] = False,
) -> None:
    """Restore images: noise level and JPEG quality are estimated for each, and models are chosen accordingly.

    Outputs have the depth, transparency and metadata of their inputs. Running the same command again restores what is
    missing. The record of each image is kept in results.jsonl beside the outputs.
    """
    from swinir.inference.options import RunOptions
    from swinir.models.optimized import resolve_precision
    from swinir.photos.batch import Clock, Policy, restore_files
    from swinir.photos.jobs import Output, describe_request, plan_jobs
    from swinir.photos.loaded_models import LoadedModels
    from swinir.photos.manifest import OutputError
    from swinir.photos.restore_photo import Treatment
    from swinir.photos.select_models import Wish

    if scale is not None and not 1 <= scale <= 64:
        raise ValueError(f"--scale must be from 1 to 64, got {scale}")
    if skip_existing and overwrite:
        raise ValueError("--skip-existing and --overwrite exclude each other; leave one out")
    check_parent(json_file)
    exact = outscale if outscale is not None else scale
    run = RunOptions(_tile(tile), tile_overlap, "cut", "fp32" if fp32 else precision, self_ensemble, compile)
    treatment = Treatment(
        model=model,
        wish=Wish(max(1.0, float(scale or outscale or 1)), task, noise, jpeg),
        outscale=None if exact is None else float(exact),
        alpha=cast(Any, alpha_upsampler),
        run=run,
    )
    naming = Output(
        suffix,
        ext.removeprefix(".").lower(),
        quality,
        keep_metadata=not strip_metadata,
        request=describe_request(treatment),
    )
    policy = Policy("overwrite" if overwrite else "skip" if skip_existing else "recorded", int(max_pixels * 1e6))
    jobs = plan_jobs(inputs, output, naming, recursive=recursive)
    folder = jobs[0].target.parent if len(jobs) == 1 and jobs[0].target == output else output
    chosen = choose_device(device)
    models = LoadedModels(chosen, load=_by_backend(backend, chosen), options=run)
    if model is not None:
        models.get(model)  # a mistyped name stops here
    clock, display = Clock(), Display(len(jobs), explain, verbose, quiet)
    if verbose or (run.precision == "auto" and chosen.type != "cpu"):
        typer.echo(f"{chosen}, {resolve_precision(run.precision, chosen)}, {len(jobs)} images", err=True)
    results = restore_files(
        jobs, folder, treatment, models, naming, policy,
        clock=clock, progress=display.progress, shown=_write_comparison if compare else None,
    )  # fmt: skip
    try:
        display.follow(results)
    except OutputError as error:
        typer.echo(f"swinir: {error}", err=True)
        raise typer.Exit(2) from error
    finally:  # also when interrupted
        display.summarise(folder, clock)
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


def _by_backend(backend: str | None, device: "torch.device") -> "Callable[[str, torch.device], Runnable] | None":
    """A function that loads a model and exports it to the backend; None without a backend."""
    if backend is None:
        return None
    from swinir.inference.export import exported
    from swinir.weights.checkpoint import load_model

    if backend not in BACKENDS:
        raise ValueError(f"--backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if device.type != "cpu":
        raise ValueError(f"--backend {backend} runs on the CPU, and --device is {device}; add --device cpu")
    return lambda weights, _: exported(load_model(weights, "cpu"), backend)


class Display:
    """A progress bar, a line for each image, and a summary."""

    def __init__(self, total: int, explain: bool, verbose: bool, quiet: bool) -> None:
        from tqdm import tqdm

        self.total, self.explain, self.verbose, self.quiet = total, explain, verbose, quiet
        self.results: list[Result] = []
        # disable=None: a bar on a terminal, nothing elsewhere. Its unit is an image, and it moves with the tiles.
        self.bar = tqdm(total=total, unit="image", disable=True if quiet else None, dynamic_ncols=True)

    def progress(self, job: "Job", share: float) -> None:
        """Move the bar within an image."""
        from swinir.image_io.reader import named

        self.bar.n = len(self.results) + share
        self.bar.set_postfix_str(named(job.source)[-30:])

    def follow(self, results: "Iterable[Result]") -> None:
        """Print each result as it comes."""
        with self.bar:
            for result in results:
                self.results.append(result)
                with self.bar.external_write_mode():
                    self._show(result)
                self.bar.n = len(self.results)
                self.bar.refresh()

    def _show(self, result: "Result") -> None:
        from swinir.image_io.reader import named
        from swinir.photos.loaded_models import short_name

        if result.status == "failed":
            typer.echo(f"failed: {result.error}", err=True)
            return
        if self.quiet:
            return
        source, target = named(Path(result.input)), named(Path(result.output))
        if result.status == "skipped":
            typer.echo(f"{source}: skipped, {result.error}")
            return
        passes = ", ".join(short_name(name) for name, _ in result.experts) or "needs nothing"
        details = f", {result.output_width}x{result.output_height}, {result.seconds or 0:.1f} s" if self.verbose else ""
        typer.echo(f"{source} -> {target}: {passes}{details}")
        for line in (*(result.findings if self.explain else ()), *result.notes):
            typer.echo(f"  {line}")

    def summarise(self, folder: Path, clock: "Clock") -> None:
        """Print the numbers of images by status."""
        statuses = [result.status for result in self.results]
        counts = {status: statuses.count(status) for status in ("restored", "unchanged", "skipped", "failed")}
        missing = self.total - len(self.results)
        parts = [f"{counts['restored']} restored"]
        parts += [f"{counts['unchanged']} needed nothing"] * bool(counts["unchanged"])
        parts += [f"{counts['skipped']} skipped", f"{counts['failed']} failed"]
        parts += [f"{missing} not reached"] * bool(missing)
        busy = f"; networks computed {clock.utilisation:.0%} of the time" if self.verbose else ""
        typer.echo(f"{', '.join(parts)}; see {folder}{busy}", err=bool(counts["failed"] or missing))
        sys.stdout.flush()


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

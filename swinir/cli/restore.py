"""`swinir restore`: any real picture, or folders of them."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from swinir.cli.options import check_parent, choose_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from swinir.image_io.picture import Picture
    from swinir.inference.forward import Runnable
    from swinir.photos.batch import Existing
    from swinir.photos.jobs import Job, Output
    from swinir.photos.manifest import Result
    from swinir.photos.restore_photo import Repaired, Treatment

DEFAULT_OUTPUT = Path("restored")
BACKENDS = ("onnx", "openvino")


def restore(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Pictures, and folders of them.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for results, or the name of a single one.")
    ] = DEFAULT_OUTPUT,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Folders below folders too.")] = False,
    model: Annotated[
        str | None, typer.Option("-n", "--model", help="Weights: a name in the zoo or a file; chosen without.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Choose only among experts of this task.")] = None,
    scale: Annotated[int | None, typer.Option("--scale", help="Enlarge by this whole number.")] = None,
    noise: Annotated[float | None, typer.Option("--noise", help="Noise level to remove, instead of measuring.")] = None,
    jpeg: Annotated[float | None, typer.Option("--jpeg", help="JPEG quality to repair, instead of measuring.")] = None,
    outscale: Annotated[
        float | None, typer.Option("-s", "--outscale", help="How much larger the result is, 2.5 too.")
    ] = None,
    tile: Annotated[str, typer.Option("-t", "--tile", help="auto: by the free memory; 0: whole; or a side.")] = "auto",
    tile_overlap: Annotated[int, typer.Option("--tile_overlap", help="By how much tiles overlap.")] = 64,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "auto",
    fp32: Annotated[bool, typer.Option("--fp32", help="The same as --precision fp32.")] = False,
    backend: Annotated[
        str | None, typer.Option("--backend", help="onnx or openvino: run the networks by these, on the CPU in fp32.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; a GPU if there is one.")] = None,
    suffix: Annotated[str, typer.Option("--suffix", help="Added to the names of results.")] = "",
    ext: Annotated[str, typer.Option("--ext", help="auto (as the input), png, jpg, webp, tif, avif or bmp.")] = "auto",
    quality: Annotated[int | None, typer.Option("--quality", help="Of JPEG, WebP and AVIF, 1 to 100.")] = None,
    alpha_upsampler: Annotated[
        str, typer.Option("--alpha_upsampler", help="model or bicubic, for transparency.")
    ] = "model",
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", "--self_ensemble", help="Average eight flips and rotations.")
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse layers: for GPUs, and many pictures.")
    ] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave all results alone that exist.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make all results again.")] = False,
    strip_metadata: Annotated[bool, typer.Option("--strip-metadata", help="Leave out EXIF and XMP.")] = False,
    max_pixels: Annotated[float, typer.Option("--max-pixels", help="Refuse larger inputs; in megapixels.")] = 400,
    compare: Annotated[bool, typer.Option("--compare", help="Also write before and after side by side.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what was found, and why an expert is used.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results as one JSON file.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="A line with details for each picture.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Failures and the last line only.")] = False,
) -> None:
    """Restore pictures: what is wrong with each is measured, and the experts for it are chosen.

    Results have the depth, transparency and metadata of their inputs. Running the same command again does what is
    left. A record of each picture is kept in results.jsonl beside them.
    """
    from swinir.photos.jobs import Output, plan_jobs

    how = Output(suffix, ext.removeprefix(".").lower(), quality, keep_metadata=not strip_metadata)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"--quality must be from 1 to 100, got {quality}")
    if skip_existing and overwrite:
        raise ValueError("--skip-existing and --overwrite exclude each other; leave one out")
    if not max_pixels > 0:
        raise ValueError(f"--max-pixels must be positive, got {max_pixels}")
    check_parent(json_file)
    treatment = _treatment(
        model, task, scale, noise, jpeg, outscale, tile, tile_overlap, "fp32" if fp32 else precision,
        self_ensemble, alpha_upsampler, compile,
    )  # fmt: skip
    jobs = plan_jobs(inputs, output, how, recursive=recursive)
    folder = jobs[0].target.parent if len(jobs) == 1 and jobs[0].target == output else output
    existing = "overwrite" if overwrite else "skip" if skip_existing else "recorded"
    _run(
        jobs, folder, treatment, how, cast("Existing", existing), device, backend, int(max_pixels * 1e6), json_file,
        compare=compare, explain=explain, verbose=verbose, quiet=quiet,
    )  # fmt: skip


def _treatment(
    model: str | None,
    task: str | None,
    scale: int | None,
    noise: float | None,
    jpeg: float | None,
    outscale: float | None,
    tile: str,
    tile_overlap: int,
    precision: str,
    self_ensemble: bool,
    alpha: str,
    compile: bool,
) -> "Treatment":
    from swinir.models.optimized import PRECISIONS
    from swinir.photos.restore_photo import Treatment
    from swinir.photos.select_models import Wish

    if precision not in PRECISIONS:
        raise ValueError(f"--precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if model is not None and (task, noise, jpeg) != (None, None, None):
        raise ValueError("--model names the expert itself; leave --task, --noise and --jpeg out")
    if outscale is not None and not 0 < outscale <= 64:
        raise ValueError(f"--outscale must be above 0 and at most 64, got {outscale}")
    if scale is not None and not 1 <= scale <= 64:
        raise ValueError(f"--scale must be from 1 to 64, got {scale}")
    wanted = float(scale or outscale or 1)
    wish = Wish(max(1.0, wanted), task, noise, jpeg)
    exact = outscale if outscale is not None else (float(scale) if scale is not None else None)
    return Treatment(
        model=model,
        wish=wish,
        outscale=exact,
        tile=_tile(tile),
        tile_overlap=tile_overlap,
        precision=precision,
        self_ensemble=self_ensemble,
        alpha=cast(Any, alpha),
        compile=compile,
    )


def _tile(text: str) -> Any:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise ValueError(f"--tile must be auto, 0 for whole pictures, or a side in pixels, got {text!r}")
    return int(text) or None


def _run(
    jobs: "Sequence[Job]",
    folder: Path,
    treatment: "Treatment",
    how: "Output",
    existing: "Existing",
    device: str | None,
    backend: str | None,
    max_pixels: int,
    json_file: Path | None,
    *,
    compare: bool,
    explain: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    from tqdm import tqdm

    from swinir.image_io.reader import named
    from swinir.models.optimized import resolve_precision
    from swinir.photos.batch import Clock, restore_files
    from swinir.photos.manifest import OutputError
    from swinir.photos.restore_photo import Experts

    chosen = choose_device(device)
    experts = Experts(chosen, load=_by_backend(backend, chosen), options=treatment.options)
    if treatment.model is not None:
        experts.get(treatment.model)  # a mistyped name stops here
    if verbose or (treatment.precision == "auto" and chosen.type != "cpu"):
        typer.echo(f"{chosen}, {resolve_precision(treatment.precision, chosen)}, {len(jobs)} pictures", err=True)
    results: list[Result] = []
    clock = Clock()
    # disable=None: a bar on a terminal, nothing elsewhere. Its unit is a picture, and it moves with the tiles.
    with tqdm(total=len(jobs), unit="picture", disable=True if quiet else None, dynamic_ncols=True) as bar:

        def move(job: "Job", share: float) -> None:
            bar.n = len(results) + share
            bar.set_postfix_str(named(job.source)[-30:])

        try:
            for result in restore_files(
                jobs, folder, treatment, experts, how,
                existing=existing, max_pixels=max_pixels, clock=clock, progress=move,
                shown=_write_comparison if compare else None,
            ):  # fmt: skip
                results.append(result)
                with tqdm.external_write_mode():
                    _show(result, explain=explain, verbose=verbose, quiet=quiet)
                bar.n = len(results)
                bar.refresh()
        except OutputError as error:
            typer.echo(f"swinir: {error}", err=True)
            raise typer.Exit(2) from error
        finally:  # also when interrupted
            bar.close()
            _summarise(results, len(jobs), folder, clock.utilisation if verbose else None)
            if json_file is not None:
                _write_json(json_file, results, len(jobs))
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def _by_backend(backend: str | None, device: "torch.device") -> "Callable[[str, torch.device], Runnable] | None":
    """How experts are loaded: as they are, or exported on the way."""
    if backend is None:
        return None
    from swinir.inference.export import exported
    from swinir.weights.checkpoint import load_model

    if backend not in BACKENDS:
        raise ValueError(f"--backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if device.type != "cpu":
        raise ValueError(f"--backend {backend} runs on the CPU, and --device is {device}; add --device cpu")
    return lambda weights, _: exported(load_model(weights, "cpu"), backend)


def _show(result: "Result", *, explain: bool, verbose: bool, quiet: bool) -> None:
    from swinir.image_io.reader import named
    from swinir.photos.batch import expert_names

    if result.status == "failed":
        typer.echo(f"failed: {result.error}", err=True)
        return
    if quiet:
        return
    source, target = named(Path(result.input)), named(Path(result.output))
    if result.status == "skipped":
        typer.echo(f"{source}: skipped, {result.error}")
        return
    what = expert_names(result) or "needs nothing"
    details = f", {result.output_width}x{result.output_height}, {result.seconds or 0:.1f} s" if verbose else ""
    typer.echo(f"{source} -> {target}: {what}{details}")
    for line in (*(result.findings if explain else ()), *result.notes):
        typer.echo(f"  {line}")


def _summarise(results: "Sequence[Result]", total: int, folder: Path, utilisation: float | None) -> None:
    counts = {
        status: sum(r.status == status for r in results) for status in ("restored", "unchanged", "skipped", "failed")
    }
    parts = [f"{counts['restored']} restored"]
    parts += [f"{counts['unchanged']} needed nothing"] * bool(counts["unchanged"])
    parts += [f"{counts['skipped']} skipped", f"{counts['failed']} failed"]
    parts += [f"{total - len(results)} not reached"] * (len(results) < total)
    busy = "" if utilisation is None else f"; networks computed {utilisation:.0%} of the time"
    typer.echo(f"{', '.join(parts)}; see {folder}{busy}", err=bool(counts["failed"] or len(results) < total))
    sys.stdout.flush()


def _write_json(path: Path, results: "Sequence[Result]", total: int) -> None:
    from dataclasses import asdict

    from swinir.atomic import atomic_path

    content = {"complete": len(results) == total, "pictures": [asdict(result) for result in results]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_comparison(job: "Job", repaired: "Repaired", picture: "Picture") -> None:
    import numpy as np

    from swinir.degradations.resize import imresize
    from swinir.image_io.image import to_rgb, write
    from swinir.image_io.picture import from_unit, to_unit
    from swinir.report.figures import side_by_side

    after = to_rgb(from_unit(to_unit(repaired.picture.pixels), np.uint8))
    before = to_rgb(from_unit(to_unit(picture.pixels), np.uint8))
    if before.shape != after.shape:
        before = imresize(before, size=(after.shape[0], after.shape[1]))
    job.target.parent.mkdir(parents=True, exist_ok=True)
    write(job.target.with_name(f"{job.target.stem}_compare.png"), side_by_side([("before", before), ("after", after)]))

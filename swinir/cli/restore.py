"""`swinir restore`: photographs, or folders of them."""

import json
import logging
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from swinir.cli import restore_options as given
from swinir.cli.options import check_parent
from swinir.inference.device import choose_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swinir.cli.restore_display import Display
    from swinir.photos.batch import Clock, Item
    from swinir.photos.loaded_models import LoadedModels
    from swinir.photos.manifest import Result
    from swinir.photos.restore_photo import Treatment

DEFAULT_OUTPUT = Path("restored")


def restore(
    context: typer.Context,
    inputs: given.Inputs,
    scale: given.Scale = None,
    output: given.OutputPlace = DEFAULT_OUTPUT,
    recursive: given.Recursive = False,
    dry_run: given.DryRun = False,
    model: given.Model = None,
    task: given.Task = None,
    noise: given.Noise = None,
    jpeg: given.Jpeg = None,
    strength: given.Strength = 1.0,
    alpha: given.Alpha = "model",
    self_ensemble: given.SelfEnsemble = False,
    ext: given.Extension = "auto",
    suffix: given.Suffix = None,
    quality: given.Quality = None,
    strip_metadata: given.StripMetadata = False,
    skip_existing: given.SkipExisting = False,
    overwrite: given.Overwrite = False,
    compare: given.Compare = False,
    json_file: given.JsonFile = None,
    tile: given.Tile = "auto",
    tile_overlap: given.TileOverlap = 64,
    device: given.Device = None,
    precision: given.Precision = "auto",
    fp32: given.Fp32 = False,
    backend: given.Backend = None,
    compile: given.Compile = False,
    max_pixels: given.MaxPixels = 400,
    shard: given.Shard = None,
    ray: given.Ray = None,
    workers: given.Workers = None,
    records: given.RecordsPlace = None,
    explain: given.Explain = False,
    verbose: given.Verbose = False,
    quiet: given.Quiet = False,
) -> None:
    """Restore images: noise level and JPEG quality are estimated for each, and models are chosen accordingly.

    Outputs have the depth, transparency and metadata of their inputs. Running the same command again restores what is
    missing: the record of each image is kept in results.jsonl in the folder of outputs.
    """
    from swinir.cli.restore_display import Display, messages, print_plans
    from swinir.models.optimized import resolve_precision
    from swinir.photos.batch import Clock, Policy, restore_files
    from swinir.photos.jobs import Output, Shard, describe_request, plan_jobs
    from swinir.photos.options import RestoreOptions

    policy = Policy(parse_existing(skip_existing, overwrite), max_pixels=int(max_pixels * 1e6))
    check_parent(json_file)
    context.with_resource(messages(logging.INFO if verbose else logging.WARNING))
    treatment = RestoreOptions(
        scale, model, task, noise, jpeg, strength, cast(Any, alpha), parse_tile(tile), tile_overlap,
        "fp32" if fp32 else precision, self_ensemble, compile,
    ).treatment  # fmt: skip
    naming = Output(
        suffix,
        ext.removeprefix(".").lower(),
        quality,
        keep_metadata=not strip_metadata,
        request=describe_request(treatment),
    )
    part = Shard.parse(shard or "1/1")
    show = partial(
        Display, treatment=treatment, explain=explain, verbose=verbose, quiet=quiet, keep=json_file is not None
    )
    if ray is not None:
        if dry_run or compare:
            raise ValueError("--ray excludes --dry-run and --compare; leave them out")
        from swinir.cli.restore_cluster import as_text, restore_by_ray

        work = treatment, naming, policy, device, backend
        results = restore_by_ray(inputs, output, work, ray, part, recursive=recursive, workers=workers, records=records)
        follow(show(None), results, as_text(output), json_file)
        return
    if workers is not None or records is not None:
        raise ValueError("--workers and --records are for --ray; leave them out, or add it")
    jobs = [job for job in plan_jobs(inputs, output, naming, recursive=recursive) if job.target in part]
    single = len(jobs) == 1 and jobs[0].target == output  # -o names a file
    folder = output.parent if single else output
    policy = replace(policy, recorded=not single or output.parent != Path())  # in a folder that is named
    models = open_models(device, backend, treatment)
    if dry_run:
        raise typer.Exit(print_plans(jobs, treatment, models, policy.max_pixels))
    clock, display = Clock(), show(jobs, models=models)
    if verbose or (treatment.run.precision == "auto" and models.device.type != "cpu"):
        precision = resolve_precision(treatment.run.precision, models.device)
        typer.echo(f"{models.device}, {precision}, {len(jobs)} images", err=True)
    results = restore_files(
        jobs, folder, treatment, models, naming, policy,
        clock=clock, planned=display.announce, progress=display.progress, shown=_write_comparison if compare else None,
    )  # fmt: skip
    follow(display, results, str(output), json_file, clock)


def follow(
    display: "Display", results: "Iterable[Result]", place: str, json_file: Path | None, clock: "Clock | None" = None
) -> None:
    """Show results as they come, and exit with the code that they deserve."""
    from swinir.photos.manifest import OutputError

    complete = False
    try:
        display.follow(results)
        complete = True
    except OutputError as error:
        typer.echo(f"swinir: {error}", err=True)
        raise typer.Exit(2) from error
    finally:  # also when interrupted
        display.summarise(place, clock)
        if json_file is not None:
            _write_json(json_file, display.results, complete)
    if display.counts["failed"]:
        raise typer.Exit(1)


def parse_existing(skip_existing: bool, overwrite: bool) -> Any:
    """Parse --skip-existing and --overwrite into the word of a `Policy`."""
    if skip_existing and overwrite:
        raise ValueError("--skip-existing and --overwrite exclude each other; leave one out")
    return "overwrite" if overwrite else "skip" if skip_existing else "recorded"


def open_models(device: str | None, backend: str | None, treatment: "Treatment") -> "LoadedModels":
    """Choose the device, and load the model if one is named: a mistyped name stops here."""
    from swinir.photos.loaded_models import LoadedModels, load_by

    chosen = choose_device(device)
    models = LoadedModels(chosen, load=load_by(backend, chosen, treatment.run.precision), options=treatment.run)
    if treatment.model is not None:
        models.get(treatment.model)
    return models


def parse_tile(text: str) -> Any:
    """Parse --tile."""
    if text == "auto":
        return text
    if not text.isdecimal():
        raise ValueError(f"--tile must be auto, 0 for no tiles, or a side in pixels, got {text!r}")
    return int(text) or None


def _write_json(path: Path, results: "Sequence[Result]", complete: bool) -> None:
    from swinir.atomic import atomic_path

    content = {"complete": complete, "pictures": [asdict(result) for result in results]}
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

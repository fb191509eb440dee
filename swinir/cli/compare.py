"""`swinir compare`: several networks on the same images, by one protocol."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from swinir.cli.options import check_parent, make_protocol, print_table, split_words, status_line
from swinir.inference.device import choose_device

if TYPE_CHECKING:
    from swinir.bench.compare_networks import Comparison, Seen
    from swinir.evaluation.protocol import Protocol
    from swinir.inference.tiling import TileBlend
    from swinir.report.figures import Exhibit
    from swinir.testsets import BenchmarkSet

SHOWN = 3  # images in the picture


def expand_models(argv: Sequence[str]) -> list[str]:
    """`--models A B C` as `--models A --models B --models C`, which the parser understands."""
    result: list[str] = []
    within = False
    for word in argv:
        if word.startswith("-"):
            within = word == "--models"
            result.append(word)
        else:
            result += ["--models", word] if within and result[-1] != "--models" else [word]
    return result


def compare(
    models: Annotated[
        list[str],
        typer.Option(
            "--models",
            metavar="NAME|FILE ...",
            help="bicubic, names that `swinir zoo list` shows, weights of SwinIR or of any network that spandrel "
            "knows, exported .onnx or .xml; in one list, or with commas.",
        ),
    ],
    benchmark: Annotated[str | None, typer.Option("--set", help="Benchmark set, such as Set5, in --testsets.")] = None,
    testsets: Annotated[Path, typer.Option("--testsets", help="Folder of benchmark sets.")] = Path("testsets"),
    folder_lq: Annotated[Path | None, typer.Option("--folder_lq", help="Low-quality images, instead of --set.")] = None,
    folder_gt: Annotated[Path | None, typer.Option("--folder_gt", help="Ground-truth images, likewise.")] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="Super-resolution: 2 to 8; with models of any scale also 2.5."),
    ] = None,
    noise: Annotated[int | None, typer.Option("--noise", help="Compare denoising at this level.")] = None,
    jpeg: Annotated[int | None, typer.Option("--jpeg", help="Compare JPEG artifact removal at this quality.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="The task, where --scale, --noise, --jpeg and the set leave it open.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", help="Of psnr, ssim, psnrb, lpips, dists, niqe; the task's own by default."),
    ] = None,
    niqe_parameters: Annotated[
        Path | None,
        typer.Option(
            "--niqe_parameters",
            help="NIQE's parameters: the published modelparameters.mat or niqe_pris_params.npz, or a file of "
            "scripts/fit_niqe.py; the bundled ones by default, whose values are private.",
        ),
    ] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Tile side in low-quality pixels; whole images.")] = None,
    tile_overlap: Annotated[int, typer.Option("--tile_overlap", help="Overlap of tiles.")] = 32,
    tile_blend: Annotated[str, typer.Option("--tile_blend", help="mean, or cut: each pixel from one tile.")] = "mean",
    self_ensemble: Annotated[
        bool, typer.Option("--self_ensemble", help="Average eight flips and rotations, in every network.")
    ] = False,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "fp32",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; a GPU if there is one.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N images.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds, for steadier times.")] = 1,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure memory, in further processes.")] = True,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the table and notes.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a line for each network.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was measured.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw a detail by each network, as .png.")] = None,
    crop: Annotated[
        str | None,
        typer.Option("--crop", metavar="X,Y,SIZE", help="The detail, in pixels of the result; else where they differ."),
    ] = None,
    show: Annotated[
        str | None, typer.Option("--show", help=f"Images of the picture, by name; else the {SHOWN} that differ most.")
    ] = None,
) -> None:
    """Compare networks: quality, size, time and memory of each on the same images.

    A network that fails becomes a line with the reason.
    """
    from swinir.bench.compare_networks import choose_metrics, labels
    from swinir.bench.compare_networks import compare as measure
    from swinir.environment import machine
    from swinir.evaluation.samples import find_samples, find_set
    from swinir.inference.options import RunOptions
    from swinir.metrics.niqe import load
    from swinir.metrics.perceptual import DISTANCES, load_distance
    from swinir.report.comparison import comparison_table, notes, write_csv, write_json, write_markdown

    names = [word for given in models for word in split_words(given)]
    if not names:
        raise ValueError("--models names no network; try --models bicubic,lightweight_sr_x1-4_tiny")
    for file in (markdown, csv_file, json_file, picture):
        check_parent(file)
    spot = _crop(crop)
    if picture is not None and picture.suffix.lower() != ".png":
        raise ValueError(f"--picture must end in .png, got {picture.name!r}")
    row = _set(benchmark, testsets, folder_lq, folder_gt)
    options = RunOptions(tile, tile_overlap, cast("TileBlend", tile_blend), precision, self_ensemble)
    levels = {"noise": 15 if noise is None else noise, "jpeg": 40 if jpeg is None else jpeg}
    protocol = make_protocol(task or _task(row, scale, noise, jpeg), options, scale=scale or 1, **levels)
    all_samples = find_samples(protocol, folder_lq, folder_gt) if row is None else find_set(protocol, row, testsets)
    samples = all_samples[:limit]
    reference = any(sample.gt is not None for sample in samples)
    pristine = None if niqe_parameters is None else load(niqe_parameters)
    chosen_metrics = choose_metrics(split_words(metrics or ""), protocol, reference=reference, pristine=pristine)
    drawing = _Drawing(picture, _wanted(show, [sample.name for sample in samples]), spot)
    labels(names, protocol)
    distances = {name: load_distance(name) for name in chosen_metrics if name in DISTANCES}
    where = choose_device(device)

    facts = _facts(protocol, benchmark or str(folder_gt or folder_lq), len(samples)) | machine(where)
    facts["niqe_parameters"] = None if niqe_parameters is None else niqe_parameters.name
    typer.echo(_heading(facts, len(names)))
    with status_line() as tell:
        found = measure(
            names,
            samples,
            protocol,
            device=where,
            metrics=chosen_metrics,
            distances=distances,
            pristine=pristine,
            memory=memory,
            repeats=repeats,
            progress=tell,
            see=drawing.keep if picture else None,
        )
    typer.echo()
    print_table(comparison_table(found))
    typer.echo("\n".join(["", *notes(found, facts)]))
    for path, write in ((markdown, write_markdown), (csv_file, write_csv), (json_file, write_json)):
        if path is not None:
            write(path, found, facts | {"complete": found.stopped is None})
    drawing.write(found)
    if found.stopped is not None:  # its rows are printed and written
        raise found.stopped
    if found.unread or any(model.status != "ok" for model in found.models):
        raise typer.Exit(1)


def _crop(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6}),([0-9]{1,6}),([1-9][0-9]{0,5})", text.replace(" ", ""))
    if match is None:
        raise ValueError(f"--crop must be X,Y,SIZE in pixels of the result, got {text!r}; try --crop 100,60,80")
    return int(match[1]), int(match[2]), int(match[3])


def _set(name: str | None, testsets: Path, folder_lq: Path | None, folder_gt: Path | None) -> "BenchmarkSet | None":
    from swinir.testsets import BENCHMARK_SETS

    if name is None:
        if folder_lq is None and folder_gt is None:
            raise ValueError("no images to compare on; name --set Set5, or --folder_gt and --folder_lq")
        return None
    if folder_lq is not None or folder_gt is not None:
        raise ValueError("--set names its folders itself; leave --folder_lq and --folder_gt out, or leave --set out")
    if name not in BENCHMARK_SETS:
        raise ValueError(f"unknown set {name!r}; choose from {', '.join(BENCHMARK_SETS)}, or name --folder_gt")
    if not (testsets / name).is_dir():
        raise FileNotFoundError(f"folder not found: {testsets / name}; name the folder of sets with --testsets")
    return BENCHMARK_SETS[name]


def _task(row: "BenchmarkSet | None", scale: float | None, noise: int | None, jpeg: int | None) -> str:
    """Infer the task from the options and the set."""
    asked = [
        option for option, value in (("--scale", scale), ("--noise", noise), ("--jpeg", jpeg)) if value is not None
    ]
    if row is not None and row.pairs and not asked:
        return "real_photo"
    if len(asked) != 1:
        seen = " and ".join(asked) or "none of them"
        raise ValueError(f"name one of --scale, --noise and --jpeg, or --task; got {seen}")
    gray = row is not None and row.gray
    if scale is not None:
        return "classical_sr" if row is None or row.reference else "real_sr"
    if noise is not None:
        return "gray_dn" if gray else "color_dn"
    return "jpeg_car" if gray else "color_jpeg_car"


def _wanted(show: str | None, images: Sequence[str]) -> list[str]:
    wanted = split_words(show or "")
    for name in wanted:
        if name not in images:
            raise ValueError(f"--show {name}: no such image; choose from {', '.join(images[:8])}")
    return wanted


def _facts(protocol: "Protocol", images: str, count: int) -> dict[str, Any]:
    return {
        "images_from": images,
        "num_images": count,
        **protocol.facts(),
        "crop_border": protocol.task.crop_border(protocol.scale),
        "precision": protocol.options.precision,
    }


def _heading(facts: dict[str, Any], count: int) -> str:
    level = next((f", {name} {facts[name]}" for name in ("noise", "jpeg") if facts[name] is not None), "")
    scale = f" x{facts['scale']}" if facts["scale"] > 1 else level
    threads = f"{facts['threads']} of {facts['cores']} cores" if facts["device"] == "cpu" else facts["device"]
    amount = ", ".join(
        f"{n} {what}{'s' * (n != 1)}" for n, what in ((facts["num_images"], "image"), (count, "network"))
    )
    return (
        f"{facts['task']}{scale}, {facts['images_from']}: {amount}\n{facts['cpu']}, {threads}, torch {facts['torch']}"
    )


@dataclass
class _Drawing:
    """The picture of details by each network, drawn from a few images.

    Attributes:
        wanted: names of its images; without names, those with the largest differences.
        crop: x, y and side of the detail; None chooses it by the differences.
    """

    path: Path | None
    wanted: list[str]
    crop: tuple[int, int, int] | None
    exhibits: "list[Exhibit]" = field(default_factory=list)

    def keep(self, seen: "Seen") -> None:
        """Keep the part of an image that the picture may need."""
        from swinir.report.figures import exhibit

        if self.wanted and seen.image not in self.wanted:
            return
        try:
            self.exhibits.append(exhibit(seen, crop=self.crop))
        except ValueError as error:  # the crop is outside this image
            typer.echo(f"swinir: {error}", err=True)
        if not self.wanted and len(self.exhibits) > SHOWN:
            self.exhibits.remove(min(self.exhibits, key=lambda e: e.difference))

    def write(self, found: "Comparison") -> None:
        """Draw and write the picture, if one was asked for."""
        from swinir.image_io.image import write
        from swinir.report.figures import comparison_sheet

        if self.path is None:
            return
        networks = [model.model for model in found.models if model.status == "ok"]
        if not self.exhibits or not networks:
            typer.echo("swinir: no picture: no network restored an image", err=True)
            return
        if self.wanted:
            self.exhibits.sort(key=lambda e: self.wanted.index(e.image))
        write(self.path, comparison_sheet(self.exhibits, networks))
        typer.echo(f"look at {self.path}")

"""`swinir compare`: several networks on the same images, by one protocol."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swinir.cli.options import check_parent, choose_device, make_protocol, print_table

if TYPE_CHECKING:
    from swinir.bench.compare_networks import Comparison, Seen
    from swinir.evaluation.protocol import Protocol
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
    scale: Annotated[int | None, typer.Option("--scale", help="Compare super-resolution: 2, 3, 4, 8.")] = None,
    noise: Annotated[int | None, typer.Option("--noise", help="Compare denoising at this level.")] = None,
    jpeg: Annotated[int | None, typer.Option("--jpeg", help="Compare JPEG artifact removal at this quality.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="The task, where --scale, --noise, --jpeg and the set leave it open.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", help="Of psnr, ssim, psnrb, lpips, dists, niqe; the task's own by default."),
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

    One that cannot take part is a line that says why.
    """
    from swinir.bench.compare_networks import choose_metrics, labels
    from swinir.bench.compare_networks import compare as measure
    from swinir.environment import machine
    from swinir.evaluation.samples import find_samples, find_set
    from swinir.metrics.perceptual import DISTANCES, load_distance
    from swinir.report.comparison import comparison_table, notes

    names = [word for given in models for word in _words(given)]
    if not names:
        raise ValueError("--models names no network; try --models bicubic,lightweight_sr_x2_tiny")
    for file in (markdown, csv_file, json_file, picture):
        check_parent(file)
    spot = _crop(crop)
    if picture is not None and picture.suffix.lower() != ".png":
        raise ValueError(f"--picture must end in .png, got {picture.name!r}")
    row = _set(benchmark, testsets, folder_lq, folder_gt)
    kind = task or _task(row, scale, noise, jpeg)
    protocol = make_protocol(
        kind,
        scale=scale or 1,
        noise=15 if noise is None else noise,
        jpeg=40 if jpeg is None else jpeg,
        tile=tile,
        tile_overlap=tile_overlap,
        tile_blend=tile_blend,
        precision=precision,
        self_ensemble=self_ensemble,
    )
    found_files = find_samples(protocol, folder_lq, folder_gt) if row is None else find_set(protocol, row, testsets)
    samples = found_files[:limit]
    chosen_metrics = choose_metrics(
        _words(metrics or ""), protocol, reference=any(sample.gt is not None for sample in samples)
    )
    wanted = _wanted(show, [sample.name for sample in samples])
    labels(names, protocol)
    distances = {name: load_distance(name) for name in chosen_metrics if name in DISTANCES}
    where = choose_device(device)

    facts = _facts(protocol, benchmark or str(folder_gt or folder_lq), len(samples)) | machine(where)
    typer.echo(_heading(facts, len(names)))
    exhibits: list[Exhibit] = []
    with _progress() as tell:
        found = measure(
            names,
            samples,
            protocol,
            device=where,
            metrics=chosen_metrics,
            distances=distances,
            memory=memory,
            repeats=repeats,
            progress=tell,
            see=(lambda seen: _exhibit(seen, wanted, spot, exhibits)) if picture else None,
        )
    typer.echo()
    print_table(comparison_table(found))
    typer.echo("\n".join(["", *notes(found, facts)]))
    _write(found, facts | {"complete": found.stopped is None}, markdown, csv_file, json_file)
    if picture is not None:
        _draw(picture, exhibits, found, wanted)
    if found.stopped is not None:  # what was measured is printed and kept
        raise found.stopped
    if found.unread or any(model.status != "ok" for model in found.models):
        raise typer.Exit(1)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


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


def _task(row: "BenchmarkSet | None", scale: int | None, noise: int | None, jpeg: int | None) -> str:
    """The task that the options and the set mean."""
    asked = [
        option for option, value in (("--scale", scale), ("--noise", noise), ("--jpeg", jpeg)) if value is not None
    ]
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
    wanted = _words(show or "")
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


@contextmanager
def _progress() -> "Iterator[Any]":
    """A line on a terminal that says what is under way; nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(bar_format="{desc} [{elapsed}]", disable=None, leave=False, dynamic_ncols=True) as bar:
        yield bar.set_description_str


def _exhibit(seen: "Seen", wanted: Sequence[str], crop: tuple[int, int, int] | None, exhibits: "list[Exhibit]") -> None:
    """Keep what the picture may need of an image: a few, the most different ones, unless they were named."""
    from swinir.report.figures import exhibit

    if wanted and seen.image not in wanted:
        return
    try:
        exhibits.append(exhibit(seen, crop=crop))
    except ValueError as error:  # a crop outside this image costs its row of the picture
        typer.echo(f"swinir: {error}", err=True)
    if not wanted and len(exhibits) > SHOWN:
        exhibits.remove(min(exhibits, key=lambda e: e.difference))


def _write(
    found: "Comparison", facts: dict[str, Any], markdown: Path | None, csv_file: Path | None, json_file: Path | None
) -> None:
    from swinir.report.comparison import write_csv, write_json, write_markdown

    for path, write in ((markdown, write_markdown), (csv_file, write_csv), (json_file, write_json)):
        if path is not None:
            write(path, found, facts)


def _draw(picture: Path, exhibits: "list[Exhibit]", found: "Comparison", wanted: Sequence[str]) -> None:
    from swinir.image_io.image import write
    from swinir.report.figures import comparison_sheet

    networks = [model.model for model in found.models if model.status == "ok"]
    if not exhibits or not networks:
        typer.echo("swinir: no picture: no network restored an image", err=True)
        return
    ordered = sorted(exhibits, key=lambda e: wanted.index(e.image)) if wanted else exhibits
    write(picture, comparison_sheet(ordered, networks))
    typer.echo(f"look at {picture}")

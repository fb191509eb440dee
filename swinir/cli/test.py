"""`swinir test`, the same as `python main_test_swinir.py`: benchmark a checkpoint as the released program does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import typer

from swinir.cli.options import check_parent, make_folder, make_protocol
from swinir.inference.device import choose_device

if TYPE_CHECKING:
    import torch

    from swinir.evaluation.protocol import Protocol
    from swinir.evaluation.results import Row
    from swinir.evaluation.samples import Sample
    from swinir.inference.forward import Runnable
    from swinir.inference.tiling import TileBlend
    from swinir.models.swinir import NetworkConfig

BARE_TILE = "400"
EXPORTED = (".onnx", ".xml")  # those of `swinir.inference.runtimes`, which needs torch


class Weights(NamedTuple):
    """A checkpoint or an exported file, or FILE:TASK, and `build`, which loads it as a network on a device."""

    path: Path
    network: "NetworkConfig"
    key: str
    task: str | None
    engine: str
    build: "Callable[[torch.device], Runnable]"


def expand_bare_tile(argv: Sequence[str]) -> list[str]:
    """Give a `--tile` without a number the value that the released program's manual names."""
    result = []
    for i, word in enumerate(argv):
        result.append(word)
        if word == "--tile" and (i + 1 == len(argv) or argv[i + 1].startswith("--")):
            result.append(BARE_TILE)
    return result


def benchmark(
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="classical_sr, lightweight_sr, real_sr, gray_dn, color_dn, jpeg_car, color_jpeg_car, or our own "
            "real_photo.",
        ),
    ] = "color_dn",
    scale: Annotated[
        float, typer.Option("--scale", help="Enlargement: 1, 2, 3, 4, 8; with a model of any scale also 2.5.")
    ] = 1,
    noise: Annotated[int, typer.Option("--noise", help="Noise level: 15, 25, 50.")] = 15,
    jpeg: Annotated[int, typer.Option("--jpeg", help="JPEG quality: 10, 20, 30, 40.")] = 40,
    training_patch_size: Annotated[
        int,
        typer.Option("--training_patch_size", help="Accepted for compatibility; networks run at any size."),
    ] = 128,
    large_model: Annotated[bool, typer.Option("--large_model", help="SwinIR-L, for real_sr x4.")] = False,
    model_path: Annotated[
        str | None,
        typer.Option(
            "--model_path",
            help="Checkpoint, FILE:TASK of one for several tasks, the name of one in the zoo, or an exported .onnx or "
            ".xml; without it a model of the task and level that is on this machine.",
        ),
    ] = None,
    folder_lq: Annotated[
        Path | None,
        typer.Option("--folder_lq", help="Low-quality images; without it they are made for scales such as 2.5."),
    ] = None,
    folder_gt: Annotated[Path | None, typer.Option("--folder_gt", help="Ground-truth images.")] = None,
    tile: Annotated[
        int | None, typer.Option("--tile", help="Tile side in low-quality pixels; bare: 400; whole images without.")
    ] = None,
    tile_overlap: Annotated[int, typer.Option("--tile_overlap", help="Overlap of tiles.")] = 32,
    tile_blend: Annotated[
        str, typer.Option("--tile_blend", help="mean, as released, or cut: each pixel from one tile.")
    ] = "mean",
    self_ensemble: Annotated[
        bool, typer.Option("--self_ensemble", help='Average eight flips and rotations (the paper\'s "+").')
    ] = False,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "fp32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse layers: for GPUs, and many images of one size.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; a GPU if there is one.")] = None,
    save_dir: Annotated[
        Path | None, typer.Option("--save_dir", help="Folder for results instead of results/swinir_...")
    ] = None,
    no_save: Annotated[bool, typer.Option("--no_save", help="Write no images.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N images.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write rows, means and facts of the run.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="The same as CSV.")] = None,
) -> None:
    """Restore the images of a benchmark and measure them, by the released program's protocol."""
    from swinir.evaluation.protocol import check_network
    from swinir.evaluation.samples import find_samples
    from swinir.inference.options import RunOptions
    from swinir.models.optimized import resolve_precision

    blend = cast("TileBlend", tile_blend)  # checked by RunOptions
    options = RunOptions(tile, tile_overlap, blend, precision, self_ensemble, compile)
    protocol = make_protocol(task, options, scale=scale, noise=noise, jpeg=jpeg)
    for file in (json_file, csv_file):
        check_parent(file)
    samples = find_samples(protocol, folder_lq, folder_gt)[:limit]
    if folder_gt is not None and folder_lq is not None and protocol.task.degradation is not None:
        _notice(f"{task} makes its input from --folder_gt; --folder_lq is not used")
    if model_path is None:
        model_path = _default_model(protocol, training_patch_size, large_model)
    if Path(model_path).suffix in EXPORTED:
        chosen = choose_device(device or "cpu")
        checkpoint = _read_exported(Path(model_path), chosen, protocol.options.precision)
    else:
        chosen = choose_device(device)
        checkpoint = _read(model_path, protocol.task.weights_key, protocol.scale)
    if protocol.options.precision == "auto":
        _notice(f"--precision auto means {resolve_precision('auto', chosen)} on {chosen}")
    check_network(checkpoint.network, protocol, checkpoint.path.name, stated=checkpoint.task)
    if protocol.task.gray and checkpoint.network.in_chans == 3:
        _notice(f"{checkpoint.path.name} is for color: grey images go in as three equal channels, their mean comes out")
    _check_size(checkpoint, protocol, large_model)
    if folder_gt is not None:
        _check_level(checkpoint, protocol)
    protocol = _fit_tile(protocol, checkpoint)

    name = protocol.task.result_folder(scale=protocol.scale, noise=noise, jpeg=jpeg, large=large_model)
    folder = save_dir or Path("results") / name
    if not no_save:
        for option, given in (("--folder_lq", folder_lq), ("--folder_gt", folder_gt)):
            if given is not None and folder.resolve() == given.resolve():
                raise ValueError(
                    f"results would be written into {given}, which {option} names, and be tested next time; "
                    "name another folder with --save_dir"
                )
        make_folder(folder)
    model = checkpoint.build(chosen)
    rows: list[Row] = []
    try:
        _run(model, samples, protocol, None if no_save else folder, rows)
    finally:  # also when interrupted: finished rows are printed and kept
        _summarise(rows, str(folder), len(samples))
        _write_files(rows, len(samples), protocol, checkpoint, chosen, json_file, csv_file)
    if any(row.status == "failed" for row in rows):
        raise typer.Exit(1)


def _default_model(protocol: "Protocol", patch: int, large: bool) -> str:
    """Return the path of a model for the task and level.

    A model of one level comes before one for any level, a downloaded one before a bundled one. Grey tasks fall back on
    a model for any level of color images.

    Raises:
        FileNotFoundError: with the released file to download, and its size.
    """
    from swinir.weights import zoo
    from swinir.weights.listing import model_row

    task = protocol.task

    def suits(entry: zoo.ZooEntry) -> bool:
        parts = entry.parts
        # The channels of a grey image share their noise, which a color model for one level was not trained for.
        serves = parts.task == task.name or (parts.task in task.served_by and parts.level_to is not None)
        return serves and parts.covers(protocol.level) and (parts.size == "L") == large

    def rank(entry: zoo.ZooEntry) -> tuple[bool, ...]:
        parts = entry.parts
        own = (parts.task != task.name, parts.level_to is not None)
        return *own, entry.bundled, parts.patch != patch, parts.objective == "PSNR"

    here = sorted(filter(suits, zoo.present()), key=rank)
    if here:
        _notice(f"no --model_path; using {here[0].alias}, which is {model_row(here[0]).state}")
        return str(zoo.locate(here[0].name))
    released = sorted(filter(suits, zoo.RELEASED), key=rank)
    if not released:
        raise FileNotFoundError(f"no model of {task.name} was released for {protocol.level}; add --model_path")
    row = model_row(released[0])
    raise FileNotFoundError(
        f"no model of {row.task} {row.level} is on this machine; run `swinir zoo download {row.name}` "
        f"({row.megabytes} MB), or add --model_path"
    )


def _notice(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _read(model_path: str, key: str, scale: float) -> Weights:
    """Read the checkpoint of a path or zoo name; a released one that is missing is downloaded."""
    import torch

    from swinir.models.any_scale import at_scale
    from swinir.weights import zoo
    from swinir.weights.checkpoint import build_model, find_checkpoint, read_checkpoint
    from swinir.weights.multitask import split_name

    path = Path(model_path)
    if not split_name(path)[0].exists():
        try:
            entry = zoo.find(model_path)
        except ValueError as error:
            raise FileNotFoundError(f"no checkpoint at {model_path}; {error}") from error
        if entry.bundled:
            path = zoo.locate(entry.name)
        else:
            target = path if path.suffix else zoo.default_folder() / entry.file
            if not target.exists():
                typer.echo(f"downloading model {target}")
                zoo.download(entry, target=target, progress=True)
            path = target
    typer.echo(f"loading model from {path}")
    verdict = zoo.verify(find_checkpoint(path))
    if verdict.how == "sha256" and not verdict.ok:
        _notice(f"{path} has the name of known weights but is another file: {verdict.message}")
    checkpoint = read_checkpoint(path, key=key)
    return Weights(
        path,
        checkpoint.network,
        checkpoint.key,
        checkpoint.task,
        f"torch {torch.__version__}",
        lambda device: at_scale(build_model(checkpoint, device), scale),
    )


def _read_exported(path: Path, device: "torch.device", precision: str) -> Weights:
    from swinir.inference.runtimes import load_exported

    if device.type != "cpu" or precision == "bf16":
        wrong = f"--device {device}" if device.type != "cpu" else f"--precision {precision}"
        raise ValueError(f"{wrong} cannot be used with {path}: exported networks run on the CPU in fp32; leave it out")
    model = load_exported(path)
    typer.echo(f"loading model from {path}")
    return Weights(path, model.config, "", None, model.engine, lambda _: model)


def _check_size(checkpoint: Weights, protocol: "Protocol", large: bool) -> None:
    task, dim = protocol.task, checkpoint.network.embed_dim
    if large:
        wanted = task.network_for(protocol.scale, large=True)
        if dim != wanted.embed_dim:
            raise ValueError(
                f"{checkpoint.path.name} is {dim} channels wide, --large_model means {wanted.embed_dim}; leave it out"
            )
    elif task.large is not None and dim == task.large.embed_dim:
        _notice(f"{checkpoint.path.name} is a large model; --large_model names the result folder accordingly")


def _check_level(checkpoint: Weights, protocol: "Protocol") -> None:
    """Print a note if the file's name states other noise levels, JPEG qualities or scales than the images have."""
    from swinir.weights import zoo

    try:
        name = zoo.parse_name(checkpoint.path.name)
    except ValueError:
        return
    asked, kind = protocol.level, zoo.TASK_IN_NAME[protocol.task.name][1]
    if name.kind == kind and not name.covers(asked):
        _notice(f"{checkpoint.path.name} is the model for {name.level_text}, the images are made at {asked}")


def _fit_tile(protocol: "Protocol", checkpoint: Weights) -> "Protocol":
    from swinir.evaluation.protocol import fit_tile

    window = checkpoint.network.window
    fitting = fit_tile(protocol, window)
    asked, used = protocol.options, fitting.options
    for name in ("tile", "tile_overlap"):
        was, now = getattr(asked, name), getattr(used, name)
        if was != now:
            _notice(f"--{name} {was} is no multiple of the window of {window}; using {now}")
    return fitting


def _run(
    model: "Runnable", samples: "Sequence[Sample]", protocol: "Protocol", folder: Path | None, rows: "list[Row]"
) -> None:
    """Evaluate with a line for each image, and append its row to `rows`."""
    from tqdm import tqdm

    from swinir.evaluation.evaluate import evaluate

    # disable=None: a bar on a terminal, nothing elsewhere.
    with tqdm(total=len(samples), unit="image", disable=None, dynamic_ncols=True) as bar:

        def show_tiles(done: int, total: int) -> None:
            bar.set_postfix_str(f"tile {done}/{total}")

        for row in evaluate(model, samples, protocol, folder=folder, progress=show_tiles):
            rows.append(row)  # before it is printed, so that a signal cannot lose a printed row
            with tqdm.external_write_mode():
                typer.echo(_line(len(rows) - 1, row), err=row.status == "failed")
            bar.update()


def _line(index: int, row: "Row") -> str:
    start = f"Testing {index:d} {row.image:20s}"
    if row.status == "failed":
        return f"{start} - failed: {row.error}"
    cells = [
        f"{label}: {value:.2f} dB" if label.startswith("PSNR") else f"{label}: {value:.4f}"
        for label, value in (
            ("PSNR", row.psnr),
            ("SSIM", row.ssim),
            ("PSNRB", row.psnrb),
            ("PSNR_Y", row.psnr_y),
            ("SSIM_Y", row.ssim_y),
            ("PSNRB_Y", row.psnrb_y),
        )
        if value is not None
    ]
    return f"{start} - {'; '.join(cells)}." if cells else start


def _summarise(rows: "list[Row]", title: str, total: int) -> None:
    from swinir.evaluation.results import means

    mean = means(rows)
    if mean:
        typer.echo(f"\n{title} ")
    pairs = (("psnr", "ssim", "PSNR/SSIM(RGB)"), ("psnr_y", "ssim_y", "PSNR_Y/SSIM_Y"))
    for first, second, label in pairs:
        if first in mean:
            similarity = f"; {mean[second]:.4f}" if second in mean else ""
            typer.echo(f"-- Average {label}: {mean[first]:.2f} dB{similarity}")
    for name, label in (("psnrb", "PSNRB"), ("psnrb_y", "PSNRB_Y")):
        if name in mean:
            typer.echo(f"-- Average {label}: {mean[name]:.2f} dB")
    failed = sum(row.status == "failed" for row in rows)
    done = f"{len(rows) - failed} done, {failed} failed"
    left = f", {total - len(rows)} not reached" if len(rows) < total else ""
    typer.echo(done + left, err=bool(failed or left))


def _write_files(
    rows: "list[Row]",
    total: int,
    protocol: "Protocol",
    checkpoint: Weights,
    device: "torch.device",
    json_file: Path | None,
    csv_file: Path | None,
) -> None:
    from swinir.evaluation.results import run_facts, write_csv, write_json
    from swinir.weights.checkpoint import find_checkpoint, sha256

    if json_file is None and csv_file is None:
        return
    facts = run_facts(
        protocol,
        device,
        checkpoint=checkpoint.path,
        digest=sha256(find_checkpoint(checkpoint.path)),
        key=checkpoint.key,
        engine=checkpoint.engine,
        complete=len(rows) == total,
    )
    if json_file is not None:
        write_json(json_file, rows, facts)
    if csv_file is not None:
        write_csv(csv_file, rows, facts)

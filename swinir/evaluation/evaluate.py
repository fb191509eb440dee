"""From folders to numbers: pairs, degradation, restoration, metrics, rows, means.

The protocol is the released tester's; each step of it changes published numbers.
"""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.atomic import atomic_path
from swinir.degradations.jpeg import jpeg
from swinir.degradations.noise import benchmark_noise
from swinir.environment import environment
from swinir.image_io.color import luma
from swinir.image_io.image import list_images, read, to_gray, to_rgb, write
from swinir.inference.forward import Runnable, optimize_for, out_of_memory
from swinir.inference.options import RunOptions
from swinir.inference.restore import align_tile, restore
from swinir.inference.tiling import align_overlap
from swinir.metrics.full_reference import psnr, psnrb, ssim
from swinir.models.optimized import resolve_precision
from swinir.models.swinir import NetworkConfig
from swinir.tasks import TaskSpec
from swinir.testsets import BenchmarkSet
from swinir.testsets.pairs import fits
from swinir.weights.verify import sha256

METRICS = ("psnr", "ssim", "psnrb", "psnr_y", "ssim_y", "psnrb_y")


@dataclass(frozen=True)
class Protocol:
    """What to evaluate: the task, its level, and how the network is run."""

    task: TaskSpec
    scale: int = 1
    noise: int = 15
    jpeg: int = 40
    options: RunOptions = RunOptions(tile_blend="mean")  # noqa: RUF009 - frozen

    @property
    def level(self) -> int:
        """The scale, noise level or JPEG quality that the task's expert is for."""
        return {"noise": self.noise, "jpeg": self.jpeg, None: self.scale}[self.task.degradation]


@dataclass(frozen=True)
class Sample:
    """Files of one image. `gt` and `lq` may be the same kind of file; either may be absent."""

    name: str
    lq: Path | None
    gt: Path | None
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """The result of one image. Metrics that a task does not compute, or that failed, are None."""

    image: str
    status: str  # "ok" or "failed"
    error: str = ""
    width: int | None = None
    height: int | None = None
    psnr: float | None = None
    ssim: float | None = None
    psnrb: float | None = None
    psnr_y: float | None = None
    ssim_y: float | None = None
    psnrb_y: float | None = None
    seconds: float | None = None
    output: str | None = None


def check_network(network: NetworkConfig, protocol: Protocol, source: str, *, stated: str | None = None) -> None:
    """Refuse a network that cannot be the expert asked for; a ValueError naming what differs.

    `stated` is the task that its file names. The image range, by which released denoisers are told from experts for
    JPEG, need not be the task's then.
    """
    task = protocol.task
    wanted = task.network_for(protocol.scale)
    for field, what in (
        ("upsampler", "reconstruction"),
        ("upscale", "scale"),
        ("in_chans", "channels"),
        ("img_range", "image range"),
    ):
        seen, asked = getattr(network, field), getattr(wanted, field)
        if seen != asked and not (field == "img_range" and stated == task.name):
            raise ValueError(
                f"{source} does not fit --task {task.name} --scale {protocol.scale}: "
                f"its {what} is {seen!r}, the task needs {asked!r}; name another checkpoint, task or scale"
            )


def fit_tile(protocol: Protocol, window: int) -> Protocol:
    """The protocol with tiles, and with `cut` their overlap, in whole windows of a network.

    Raises:
        ValueError: for a tile below a window, and an overlap that leaves nothing of it.
    """
    options = protocol.options
    if options.tile is None or options.tile == "auto":
        return protocol
    tile, overlap = align_tile(options.tile, window), options.tile_overlap
    if options.tile_blend == "cut":
        overlap = align_overlap(overlap, tile, window)
    if not 0 <= overlap < tile:
        raise ValueError(
            f"--tile_overlap must be from 0 to below the tile of {tile}, got {overlap}; try --tile_overlap {tile // 8}"
        )
    return replace(protocol, options=replace(options, tile=tile, tile_overlap=overlap))


def find_samples(protocol: Protocol, folder_lq: Path | None, folder_gt: Path | None) -> list[Sample]:
    """Pair the files of a benchmark.

    Tasks that make their own input read `folder_gt`, or, without one, restore `folder_lq` as it is.
    Super-resolution pairs ground truth NAME.png with low-quality NAMEx{scale}.png.

    Raises:
        ValueError, FileNotFoundError, NotADirectoryError: for folders that are missing or hold no images.
    """
    task = protocol.task
    with_gt = task.has_reference and folder_gt is not None
    main, option = (folder_gt, "--folder_gt") if with_gt else (folder_lq, "--folder_lq")
    if main is None:
        option = "--folder_gt" if task.degradation else "--folder_lq"
        raise ValueError(f"{task.name} needs {option}")
    images = list_images(main)
    if not images:
        raise ValueError(f"no images in {main}; look at {option}")
    if not with_gt:
        samples = [Sample(p.stem, lq=p, gt=None) for p in images]
    elif task.degradation:
        samples = [Sample(p.stem, lq=None, gt=p) for p in images]
    else:
        if folder_lq is None:
            raise ValueError(f"{task.name} needs --folder_lq beside --folder_gt")
        partners = {p.stem: p for p in reversed(list_images(folder_lq))}
        samples = [_pair(p, partners, folder_lq, protocol.scale) for p in images]
    repeated = {name for name, count in Counter(s.name for s in samples).items() if count > 1}
    return [_only_first(s, samples) if s.name in repeated else s for s in samples]


def find_set(protocol: Protocol, benchmark: BenchmarkSet, testsets: Path) -> list[Sample]:
    """`find_samples` of a benchmark set in a folder of sets; without references where set or task has none.

    Raises:
        ValueError, FileNotFoundError, NotADirectoryError: as `find_samples`.
    """
    gt = benchmark.gt_folder(testsets)
    if not (benchmark.reference and protocol.task.has_reference):
        return find_samples(protocol, gt, None)
    lq = benchmark.lq_folder(testsets, protocol.scale) if protocol.task.degradation is None else None
    return find_samples(protocol, lq, gt)


def _pair(gt: Path, partners: dict[str, Path], folder_lq: Path, scale: int) -> Sample:
    expected = folder_lq / f"{gt.stem}x{scale}{gt.suffix}"
    lq = expected if expected.is_file() else partners.get(expected.stem)
    problem = "" if lq else f"{gt}: no low-quality partner {expected}"
    return Sample(gt.stem, lq=lq, gt=gt, problem=problem)


def _only_first(sample: Sample, samples: list[Sample]) -> Sample:
    first = next(s for s in samples if s.name == sample.name)
    if sample is first:
        return sample
    problem = f"{sample.gt or sample.lq}: would be written over the result of {first.gt or first.lq}; rename one"
    return Sample(sample.name, sample.lq, sample.gt, problem)


def load_sample(sample: Sample, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
    """Low-quality (H, W, C) float32 in units of 1 and ground-truth (H*scale, W*scale, C) uint8, if there is one.

    Raises:
        ValueError: for unreadable files and partners of the wrong size, named.
    """
    task = protocol.task
    convert = _to_luma_or_gray if task.gray and task.degradation == "jpeg" else to_gray if task.gray else to_rgb
    gt = convert(read(sample.gt)) if sample.gt else None
    if sample.lq is not None:
        lq = convert(read(sample.lq))
        if gt is not None:
            gt = _crop_to(gt, lq, protocol.scale, sample)
        return lq.astype(np.float32) / 255, gt
    assert gt is not None
    if task.degradation == "noise":
        return benchmark_noise(gt, protocol.noise), gt
    return jpeg(gt, protocol.jpeg).astype(np.float32) / 255, gt


def _to_luma_or_gray(image: np.ndarray) -> np.ndarray:
    """Grey files as they are; of colour ones the BT.601 luma, as the grey JPEG benchmark wants it."""
    return image if image.shape[2] == 1 else luma(image).round().astype(np.uint8)


def _crop_to(gt: np.ndarray, lq: np.ndarray, scale: int, sample: Sample) -> np.ndarray:
    height, width = lq.shape[0] * scale, lq.shape[1] * scale
    if not fits(gt.shape, lq.shape, scale):
        raise ValueError(
            f"{sample.lq}: {lq.shape[1]}x{lq.shape[0]} at scale {scale} does not match "
            f"{sample.gt} of {gt.shape[1]}x{gt.shape[0]}; expected about {gt.shape[1] // scale}x{gt.shape[0] // scale}"
        )
    return gt[:height, :width]


def measure(restored: np.ndarray, gt: np.ndarray, protocol: Protocol) -> dict[str, float | None]:
    """The metrics of a task on (H, W, C) uint8 images; SSIM and PSNR-B are None on images too small for them."""
    border = protocol.task.crop_border(protocol.scale)
    views = {"": (restored, gt)}
    if gt.shape[2] == 3:
        views["_y"] = (luma(restored), luma(gt))
    functions = {"psnr": psnr, "ssim": ssim} | ({"psnrb": psnrb} if protocol.task.psnrb else {})
    values: dict[str, float | None] = {}
    for suffix, (a, b) in views.items():
        for name, function in functions.items():
            try:
                values[name + suffix] = function(a, b, crop_border=border)
            except ValueError:
                values[name + suffix] = None
    return values


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) float32 to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def to_uint8(image: Tensor) -> np.ndarray:
    """(1, C, H, W) in [0, 1] to (H, W, C) uint8, rounded.

    Raises:
        ValueError: for NaN or infinite values, which would otherwise become black pixels.
    """
    if not torch.isfinite(image).all():
        raise ValueError("the restored image has NaN or infinite values; try --precision fp32 or another checkpoint")
    return image[0].float().cpu().mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def run(
    model: Runnable,
    lq: np.ndarray,
    protocol: Protocol,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Restore an (H, W, C) float32 image in units of 1 as the protocol says: (H*scale, W*scale, C) uint8.

    Raises:
        ValueError, TooLargeError: as `restore` and `to_uint8`.
    """
    return to_uint8(restore(model, to_tensor(lq), protocol.options, progress=progress))


def evaluate(
    model: Runnable,
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    load: Callable[[Sample, Protocol], tuple[np.ndarray, np.ndarray | None]] = load_sample,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    see: Callable[[Sample, np.ndarray, np.ndarray | None], None] | None = None,
) -> Iterator[Row]:
    """Restore and measure samples one by one; a failure becomes a row and the rest goes on.

    Args:
        load: reads a sample, as `load_sample` does.
        folder: where NAME_SwinIR.png goes; None writes nothing.
        progress: called with (tiles done, tiles in all) within an image.
        see: called with each sample, its result and its ground truth, (H, W, C) uint8, before its row comes.
    """
    model = optimize_for(model, protocol.options)
    for sample in samples:
        try:
            yield _evaluate_one(model, sample, protocol, load, folder, progress, see)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            tile = protocol.options.tile if isinstance(protocol.options.tile, int) else 512
            advice = f"try --tile {max(tile // 2, model.config.window)}"
            yield Row(sample.name, "failed", f"{sample.gt or sample.lq}: out of memory; {advice}")
        except (ValueError, OSError) as error:
            yield Row(sample.name, "failed", " ".join(str(error).split()))


def _evaluate_one(
    model: Runnable,
    sample: Sample,
    protocol: Protocol,
    load: Callable[[Sample, Protocol], tuple[np.ndarray, np.ndarray | None]],
    folder: Path | None,
    progress: Callable[[int, int], None] | None,
    see: Callable[[Sample, np.ndarray, np.ndarray | None], None] | None,
) -> Row:
    if sample.problem:
        raise ValueError(sample.problem)
    lq, gt = load(sample, protocol)
    start = time.perf_counter()
    restored = run(model, lq, protocol, progress=progress)
    seconds = time.perf_counter() - start
    output = None
    if folder is not None:
        output = folder / f"{sample.name}_SwinIR.png"
        write(output, restored)
    metrics = measure(restored, gt, protocol) if gt is not None else {}
    if see is not None:
        see(sample, restored, gt)
    height, width = restored.shape[:2]
    where = str(output) if output else None
    return Row(sample.name, "ok", width=width, height=height, seconds=seconds, output=where, **metrics)  # type: ignore[arg-type]


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Mean of every metric over the rows that have it."""
    columns = {m: [v for r in rows if (v := getattr(r, m)) is not None] for m in METRICS}
    return {m: sum(values) / len(values) for m, values in columns.items() if values}


def run_facts(
    protocol: Protocol, device: torch.device, *, checkpoint: Path, key: str, engine: str, complete: bool
) -> dict[str, Any]:
    """What a run's numbers depend on: its settings, its weights, versions and hardware.

    Args:
        checkpoint: the weights file, which is hashed.
        key: the entry that the weights stood under.
        engine: what ran the network, with its version.
        complete: whether every image was reached.
    """
    made = protocol.task.degradation
    return {
        "task": protocol.task.name,
        "scale": protocol.scale,
        "noise": protocol.noise if made == "noise" else None,
        "jpeg": protocol.jpeg if made == "jpeg" else None,
        "tile": protocol.options.tile,
        "tile_overlap": protocol.options.tile_overlap if protocol.options.tile else None,
        "tile_blend": protocol.options.tile_blend if protocol.options.tile else None,
        "self_ensemble": protocol.options.self_ensemble,
        "compile": protocol.options.compile,
        "precision": resolve_precision(protocol.options.precision, device),
        "complete": complete,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256(checkpoint),
        "checkpoint_key": key,
        "engine": engine,
        **environment(device),
    }


def write_json(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """Facts of the run, one object per image, and the means; an infinite PSNR becomes the string "inf"."""
    content = facts | {"images": [asdict(r) for r in rows], "means": means(rows)}
    _write_text(path, json.dumps(strict(content), indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """One line per image and a last one with the means; the facts of the run stand in columns of their own."""
    text = io.StringIO()
    fields = list(Row.__dataclass_fields__)
    writer = csv.DictWriter(text, fieldnames=[*fields, *facts])
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row) | facts)
    writer.writerow({"image": "mean"} | means(rows) | facts)
    _write_text(path, text.getvalue())


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def strict(value: Any) -> Any:
    """A value for JSON, which has no infinite numbers: they become words."""
    if isinstance(value, Mapping):
        return {k: strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value

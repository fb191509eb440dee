"""Restore the images of a benchmark and measure them; each step follows the released tester and moves its numbers."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from swinir.evaluation.protocol import Protocol
from swinir.evaluation.results import Row
from swinir.evaluation.samples import Sample, load_sample
from swinir.image_io.color import luma
from swinir.image_io.image import write
from swinir.inference.arrays import restore_array
from swinir.inference.forward import Runnable, optimize_for, out_of_memory
from swinir.metrics.full_reference import psnr, psnrb, ssim

Load = Callable[[Sample, Protocol], tuple[np.ndarray, np.ndarray | None]]
See = Callable[[Sample, np.ndarray, np.ndarray | None], None]
Progress = Callable[[int, int], None]


def evaluate(
    model: Runnable,
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    load: Load = load_sample,
    folder: Path | None = None,
    progress: Progress | None = None,
    see: See | None = None,
) -> Iterator[Row]:
    """Restore and measure samples one by one; a sample that fails becomes a row with the error.

    Args:
        load: reads a sample, as `load_sample` does.
        folder: where NAME_SwinIR.png is written; None writes nothing.
        progress: called with (tiles done, tiles in all) within an image.
        see: called with each sample, its output and its ground truth, (H, W, C) uint8, before its row is yielded.
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
    load: Load,
    folder: Path | None,
    progress: Progress | None,
    see: See | None,
) -> Row:
    if sample.problem:
        raise ValueError(sample.problem)
    lq, gt = load(sample, protocol)
    start = time.perf_counter()
    restored = restore_array(model, lq, protocol.options, progress=progress)
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


def measure(restored: np.ndarray, gt: np.ndarray, protocol: Protocol) -> dict[str, float | None]:
    """Compute a task's metrics of (H, W, C) uint8 images; SSIM and PSNR-B are None if the image is too small."""
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

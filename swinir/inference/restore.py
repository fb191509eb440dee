"""The path from a low-quality image to a restored one: pad, run whole or in tiles, crop, clamp."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from swinir.image_io.canvas import row_blocks
from swinir.inference.forward import (
    Backend,
    Runnable,
    as_function,
    memory_factor,
    optimize_for,
    place_of,
    within_memory,
)
from swinir.inference.memory import auto_tile, free_memory
from swinir.inference.options import RunOptions
from swinir.inference.self_ensemble import TURNS, TurnedImage, TurnedTotal
from swinir.inference.tiling import Canvas, Image, Progress, mirrored, run_cut, run_mean
from swinir.models.optimized import OptimizedSwinIR
from swinir.models.phases import COEFFICIENTS, Axis, PhaseWeights, enlarged, pixels_of
from swinir.models.rcan import BaselineConfig
from swinir.models.swinir import NetworkConfig

GPU_PIXELS = 512 * 512  # low-quality pixels of a call that keep a GPU busy: smaller tiles run together
SCRATCH_SHARE = 0.05  # of a GPU's free memory, which tiles need
ENLARGED_PIXELS = 2**17  # of the output, that are made of coefficients at once
LEEWAY = 1e-3  # beyond [0, 1], for rounding
DEFAULTS = RunOptions()


@torch.inference_mode()
def restore(
    model: Runnable,
    lq: Tensor,
    options: RunOptions = DEFAULTS,
    *,
    progress: Progress | None = None,
    check: bool = True,
    **changes: Any,
) -> Tensor:
    """Restore a batch of images, with the released program's padding.

    The image is extended by its mirror image to the next multiple of the window above its size (by a whole window
    where the size is a multiple already), run, cropped and clamped.

    Args:
        model: from `load_model`, `load_exported`, or `optimize`, which saves the work of optimizing a SwinIR at each
            call; its device does the work.
        lq: (B, C, H, W) of floats in [0, 1], on any device; the result stays there.
        options: how to run the network.
        progress: called with (tiles done, tiles in all), for each of the eight passes with self-ensemble.
        check: False takes values outside [0, 1], such as the noise of the benchmarks, which is not clipped. It also
            saves the wait for a GPU to look at the values.
        changes: fields of `RunOptions` that differ from `options`, as in `restore(model, lq, tile=256)`.

    Returns:
        (B, C, H*scale, W*scale), rounded sides, in [0, 1], in the model's dtype.

    Raises:
        TypeError: for something else than a tensor.
        ValueError: for a wrong shape or number of channels, integers, values outside [0, 1] by more than 0.001, NaN;
            for an unusable tile, overlap, blend or precision.
        TooLargeError: a MemoryError, when the device cannot hold the image, or the smallest tiles of it.
    """
    if not isinstance(lq, Tensor):
        raise TypeError(f"lq must be a tensor, got {type(lq).__name__}; swinir.restore_image takes arrays and images")
    if lq.ndim != 4 or lq.shape[1] != model.config.in_chans or lq.numel() == 0:
        raise ValueError(f"lq must be (B, {model.config.in_chans}, H, W), got {tuple(lq.shape)}")
    if check:
        _check_values(lq)
    lq = lq.to(place_of(model).dtype)
    restored = lq.new_empty(_output_shape(lq, model))
    restore_into(model, lq, restored, replace(options, **changes), scratch=lq.new_empty, progress=progress)
    return restored


def _check_values(lq: Tensor) -> None:
    """Refuse integers and values outside [0, 1], which would be clamped to white; one look at a device's values."""
    if not lq.is_floating_point():
        raise ValueError(f"lq must be of floats in [0, 1], got {lq.dtype}; divide values in [0, 255] by 255")
    if lq.is_cuda and torch.cuda.is_current_stream_capturing():  # a CUDA graph, which cannot wait
        return
    low, high = map(float, lq.aminmax())
    if not (low >= -LEEWAY and high <= 1 + LEEWAY):  # NaN, too
        raise ValueError(
            f"lq must be in [0, 1], got {low:.4g} to {high:.4g}; divide values in [0, 255] by 255, clamp what exceeds "
            "[0, 1] a little, or pass check=False to restore it as it is"
        )


@torch.inference_mode()
def restore_into(
    model: Runnable,
    image: Image,
    canvas: Canvas,
    options: RunOptions = DEFAULTS,
    *,
    scratch: Callable[[tuple[int, ...]], Tensor],
    progress: Progress | None = None,
) -> None:
    """Restore an image of any size, which is read and written region by region.

    Args:
        model, options, progress: as `restore` takes them.
        image: (B, C, H, W) in [0, 1], in the model's dtype.
        canvas: takes the output, (B, C, H*scale, W*scale) in [0, 1].
        scratch: makes a tensor of a shape, for sums over overlapping tiles and the self-ensemble where they would take
            much of a GPU's memory.

    Raises:
        ValueError, TooLargeError: as `restore`.
    """
    if not options.extra_window and not isinstance(model, nn.Module | OptimizedSwinIR):
        raise ValueError("extra_window=False is for networks in PyTorch; leave it out")
    model = optimize_for(model, options)
    scratch = partial(_scratch, place_of(model), scratch)
    run = _Run(model, image, options, scratch, progress)
    if not options.self_ensemble:
        run(image, _Clamped(canvas))
        return
    total = scratch(_output_shape(image, model))
    for turn in TURNS:
        run(TurnedImage(image, turn), TurnedTotal(total, turn))
    height, width = total.shape[-2:]
    for rows in row_blocks(height, width):
        canvas[..., rows, slice(0, width)] = (total[..., rows, :] / len(TURNS)).clamp_(0, 1)


def align_tile(tile: int, window: int) -> int:
    """Round a tile down to a multiple of the window; a ValueError if there is none."""
    if tile < window:
        raise ValueError(f"tile must be at least one window of {window} pixels, got {tile}; try --tile {window * 32}")
    return tile // window * window


def chosen_tile(model: Runnable, size: tuple[int, int], options: RunOptions, batch: int) -> int | None:
    """Return the side of tiles for padded images of (height, width); None for those run whole, as asked for."""
    if options.tile == "auto":
        config, device, batch = model.config, place_of(model).device, batch * memory_factor(model)
        return auto_tile(config, *size, options.tile_overlap, device=device, batch=batch) or max(size)
    return None if options.tile is None else align_tile(options.tile, model.config.window)


def padded_side(size: int, config: NetworkConfig | BaselineConfig) -> int:
    """Extend a side to the next multiple of the window above it; of networks without extra window, not below it."""
    extra = isinstance(config, NetworkConfig) or config.extra_window
    return ((size if extra else size - 1) // config.window + 1) * config.window


def _output_shape(image: Image, model: Runnable) -> tuple[int, ...]:
    batch, channels, height, width = image.shape
    return batch, channels, enlarged(height, model.config.upscale), enlarged(width, model.config.upscale)


def _scratch(place: Tensor | Backend, elsewhere: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Tensor:
    """Make a tensor on the network's GPU if it takes little of its memory, else elsewhere."""
    size = math.prod(shape) * place.dtype.itemsize
    if place.device.type == "cuda" and size <= SCRATCH_SHARE * free_memory(place.device):
        return torch.empty(shape, dtype=place.dtype, device=place.device)
    return elsewhere(shape)


class _Clamped:
    """A canvas that clamps parts to [0, 1]; what it does on their device has a second try if memory runs out."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor) -> None:
        def write() -> None:
            self.canvas[region] = part.clamp(0, 1)

        within_memory(part.device, write, (part.shape[-2], part.shape[-1]))


class _Enlarged:
    """A canvas for coefficients of an image of (height, width), which writes the pixels that they stand for.

    Each output pixel depends on the coefficients at one low-quality pixel, so that parts need no overlap.
    """

    def __init__(self, canvas: Canvas, phases: PhaseWeights, given: tuple[int, int], scale: float) -> None:
        self.canvas, self.phases = canvas, phases
        self.axes = [(side, enlarged(side, scale)) for side in given]

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor) -> None:
        rows, cols = (pixels_of(span, *axis) for span, axis in zip(region[1:], self.axes, strict=True))
        if cols.start == cols.stop:
            return
        across = self._axis(1, region[2], cols)
        height = max(1, ENLARGED_PIXELS // (cols.stop - cols.start))
        for start in range(rows.start, rows.stop, height):
            block = slice(start, min(start + height, rows.stop))
            pixels = self.phases(part.to(self.phases.fc1.weight.dtype), self._axis(0, region[1], block), across)
            self.canvas[..., block, cols] = pixels.to(part.dtype)

    def _axis(self, number: int, span: slice, pixels: slice) -> Axis:
        axis = Axis.of(*self.axes[number], pixels)
        return axis._replace(nearest=axis.nearest - span.start)


class _Run:
    """One network over images of one size, whole or in tiles."""

    def __init__(
        self,
        model: Runnable,
        image: Image,
        options: RunOptions,
        scratch: Callable[[tuple[int, ...]], Tensor],
        progress: Progress | None,
    ) -> None:
        self.forward, self.config, self.options = as_function(model, options), model.config, options
        self.phases = model.phase_weights if isinstance(model, OptimizedSwinIR) else None
        self.scratch, self.progress = scratch, progress
        self.tile = chosen_tile(model, self._padded(image), options, image.shape[0])
        # Tiles chosen by free memory fill it, so they run one by one.
        together = isinstance(options.tile, int) and place_of(model).device.type != "cpu"
        self.batch = max(1, GPU_PIXELS // (image.shape[0] * self.tile**2)) if self.tile and together else 1

    def _padded(self, image: Image) -> tuple[int, int]:
        height, width = image.shape[-2:]
        if not self.options.extra_window:
            return height, width
        return padded_side(height, self.config), padded_side(width, self.config)

    def __call__(self, image: Image, canvas: Canvas) -> None:
        """Run the network over an image; the output is not clamped."""
        scale, channels, size = self.config.upscale, image.shape[1], self._padded(image)
        if self.phases is not None:
            canvas = _Enlarged(canvas, self.phases, (image.shape[-2], image.shape[-1]), self.config.upscale)
            scale, channels = 1, channels * COEFFICIENTS
        if self.tile is None:
            rows, cols = (slice(0, side) for side in size)
            restored = self.forward(mirrored(image, rows, cols))
            rows, cols = (slice(0, enlarged(side, scale)) for side in image.shape[-2:])
            canvas[..., rows, cols] = restored[..., rows, cols]
        elif self.options.tile_blend == "mean":
            shape = (image.shape[0], channels, size[0] * int(scale), size[1] * int(scale))
            run_mean(
                self.forward, image, canvas, self.scratch(shape),
                size=size, scale=int(scale), tile=self.tile, overlap=self.options.tile_overlap, progress=self.progress,
            )  # fmt: skip
        else:
            run_cut(
                self.forward, image, canvas,
                size=size, scale=int(scale), tile=self.tile, overlap=self.options.tile_overlap,
                window=self.config.window, batch=self.batch, progress=self.progress,
            )  # fmt: skip

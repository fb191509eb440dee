"""The one way from a low-quality tensor to a restored one: pad, run whole or in tiles, crop, clamp."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from swinir.inference.forward import Runnable, as_function, place_of
from swinir.inference.memory import auto_tile
from swinir.inference.options import RunOptions
from swinir.inference.tiling import cut_strips, mirror_rows, mirror_to, run_cut, run_tiled
from swinir.models.optimized import OptimizedSwinIR
from swinir.models.rcan import BaselineConfig
from swinir.models.swinir import NetworkConfig

GPU_PIXELS = 512 * 512  # low-quality pixels of a call that keep a GPU busy: smaller tiles run together
DEFAULTS = RunOptions()


def align_tile(tile: int, window: int) -> int:
    """Largest multiple of the window that does not exceed `tile`; a ValueError if there is none."""
    if tile < window:
        raise ValueError(f"tile must be at least one window of {window} pixels, got {tile}; try --tile {window * 32}")
    return tile // window * window


@torch.inference_mode()
def restore(
    model: Runnable,
    lq: Tensor,
    options: RunOptions = DEFAULTS,
    *,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> Tensor:
    """Restore a batch of images, with the released program's padding.

    The image is extended by its mirror image to the next multiple of the window above its size (by a whole window
    where the size is a multiple already), run, cropped and clamped.

    Args:
        model: from `load_model`, `load_exported`, or `optimize`, which saves the work of optimizing a SwinIR at each
            call; its device does the work.
        lq: (B, C, H, W) in [0, 1], on any device; the result, and with tiles the canvas, stays there.
        options: how to run the network.
        progress: called with (tiles done, tiles in all), for each of the eight passes with self-ensemble.
        changes: fields of `RunOptions` that differ from `options`, as in `restore(model, lq, tile=256)`.

    Returns:
        (B, C, H*scale, W*scale) in [0, 1], in the model's dtype.

    Raises:
        ValueError: for a wrong shape or number of channels, an unusable tile, overlap, blend or precision.
        TooLargeError: a MemoryError, when the device cannot hold the image, or the smallest tiles of it.
    """
    options = replace(options, **changes)
    if lq.ndim != 4 or lq.shape[1] != model.config.in_chans or lq.numel() == 0:
        raise ValueError(f"lq must be (B, {model.config.in_chans}, H, W), got {tuple(lq.shape)}")
    if not options.extra_window and not isinstance(model, nn.Module | OptimizedSwinIR):
        raise ValueError("extra_window=False is for networks in PyTorch; leave it out")
    place, config = place_of(model), model.config
    height, width = (padded_side(size, config) for size in lq.shape[-2:])
    tile: int | None
    if options.tile == "auto":
        fitting = auto_tile(config, height, width, options.tile_overlap, device=place.device, batch=len(lq))
        tile = fitting or max(height, width)
    else:
        tile = None if options.tile is None else align_tile(options.tile, config.window)
    run = partial(
        _restore_one,
        as_function(model, options),
        config,
        options=options,
        tile=tile,
        batch=_batch(tile, place.device),
        progress=progress,
    )
    lq = lq.to(place.dtype)
    if not options.self_ensemble:
        return run(lq).clamp_(0, 1)
    total = torch.stack([_turn_back(run(_turn(lq, i)), i) for i in range(8)])
    return total.mean(0).clamp_(0, 1)


def restore_strips(
    model: Runnable,
    rows: Iterable[Tensor],
    height: int,
    width: int,
    *,
    tile: int,
    tile_overlap: int = 32,
    precision: str = "fp32",
    compile: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """`restore` for an image too large for memory: its rows in, rows of the result out, with the same bits.

    No more than what one row of tiles sees, and makes, is held. (On a GPU, where small tiles run together, groups
    end with the row of tiles here, and the last bits may differ for it.)

    Args:
        model, tile, tile_overlap, precision, compile, progress: as `restore` takes them.
        rows: (B, C, n, W) blocks in [0, 1] from the top on, with as many rows as they like.
        height, width: of the image.

    Yields:
        (B, C, n, W*scale) in [0, 1], H*scale rows in all, in the model's dtype, on the device of `rows`.

    Raises:
        ValueError: for rows of the wrong shape or fewer than `height`, an unusable tile, overlap or precision.
        TooLargeError: a MemoryError, when the device cannot hold the smallest tiles.
    """
    place, config = place_of(model), model.config
    window, scale = config.window, config.upscale
    tile = align_tile(tile, window)
    forward = as_function(model, RunOptions(precision=precision, compile=compile))
    size = padded_side(height, config), padded_side(width, config)
    left = height * scale

    def checked(block: Tensor) -> Tensor:
        if block.ndim != 4 or block.shape[1] != config.in_chans or block.shape[3] != width or block.numel() == 0:
            raise ValueError(f"rows must be (B, {config.in_chans}, n, {width}), got {tuple(block.shape)}")
        return block.detach().to(place.dtype)

    def cropped(strip: Tensor) -> Tensor:
        nonlocal left
        strip = strip[..., :left, : width * scale].clamp_(0, 1)
        left -= strip.shape[2]
        return strip

    strips = cut_strips(
        torch.inference_mode()(forward),  # as a decorator of this generator it would keep each strip for too long
        mirror_rows(map(checked, rows), height, size),
        *size,
        scale=scale,
        tile=tile,
        overlap=tile_overlap,
        window=window,
        batch=_batch(tile, place.device),
        progress=progress,
    )
    yield from filter(lambda strip: strip.shape[2] > 0, map(cropped, strips))  # a `for` would keep each strip too


def _batch(tile: int | None, device: torch.device) -> int:
    """How many tiles run together."""
    return max(1, GPU_PIXELS // tile**2) if tile and device.type != "cpu" else 1


def padded_side(size: int, config: NetworkConfig | BaselineConfig) -> int:
    """The next multiple of the window above a size, or, of networks that want no extra window, from the size on."""
    extra = isinstance(config, NetworkConfig) or config.extra_window
    return ((size if extra else size - 1) // config.window + 1) * config.window


def _restore_one(
    forward: Callable[[Tensor], Tensor],
    config: NetworkConfig | BaselineConfig,
    lq: Tensor,
    *,
    options: RunOptions,
    tile: int | None,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    window, scale, overlap = config.window, config.upscale, options.tile_overlap
    height, width = lq.shape[-2:]
    if not options.extra_window:
        return forward(lq).to(lq.device)
    padded = mirror_to(lq, padded_side(height, config), padded_side(width, config))
    if tile is None:
        restored = forward(padded).to(lq.device)
    elif options.tile_blend == "mean":
        restored = run_tiled(forward, padded, scale=scale, tile=tile, overlap=overlap, progress=progress)
    else:
        restored = run_cut(
            forward,
            padded,
            scale=scale,
            tile=tile,
            overlap=overlap,
            window=window,
            batch=batch,
            progress=progress,
        )
    return restored[..., : height * scale, : width * scale]


def _turn(x: Tensor, turn: int) -> Tensor:
    x = torch.rot90(x, turn % 4, (2, 3))
    return x.flip(3) if turn >= 4 else x


def _turn_back(x: Tensor, turn: int) -> Tensor:
    x = x.flip(3) if turn >= 4 else x
    return torch.rot90(x, -(turn % 4), (2, 3))

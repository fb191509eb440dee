"""The one way from a low-quality tensor to a restored one: pad, run whole or in tiles, crop, clamp."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from swinir.inference.memory import auto_tile
from swinir.inference.tiling import TileBlend, TooLargeError, cut_strips, mirror_rows, mirror_to, run_cut, run_tiled
from swinir.models.optimized import prepare
from swinir.models.rcan import RCAN, BaselineConfig, Peer
from swinir.models.swinir import NetworkConfig, SwinIR

PRECISIONS = ("fp32", "bf16", "auto")
GPU_PIXELS = 512 * 512  # low-quality pixels of a call that keep a GPU busy: smaller tiles run together
logger = logging.getLogger(__name__)


class Backend(Protocol):
    """A network that something else than PyTorch runs, in one precision."""

    device: torch.device
    dtype: torch.dtype

    @property
    def config(self) -> NetworkConfig | BaselineConfig:
        """What it restores."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """(B, in_chans, H, W) of whole windows to (B, in_chans, H*upscale, W*upscale)."""


Restorer = SwinIR | RCAN  # what can be trained
Runnable = Restorer | Peer | Backend  # what `restore` can run


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep convolutions in float32: GPUs since Ampere otherwise round their operands to TF32's ten bits."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield


def align_tile(tile: int, window: int) -> int:
    """Largest multiple of the window that does not exceed `tile`; a ValueError if there is none."""
    if tile < window:
        raise ValueError(f"tile must be at least one window of {window} pixels, got {tile}; try --tile {window * 32}")
    return tile // window * window


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into what suits the device: bf16 where a GPU computes in it natively, else fp32."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


@torch.inference_mode()
def restore(
    model: Runnable,
    lq: Tensor,
    *,
    tile: int | Literal["auto"] | None = None,
    tile_overlap: int = 32,
    tile_blend: TileBlend = "cut",
    precision: str = "fp32",
    self_ensemble: bool = False,
    compile: bool = False,
    extend: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Restore a batch of images, with the released program's padding.

    The image is extended to the next multiple of the window above its size (a whole window where it fits
    already) by its mirror image, run, cropped and clamped.

    Args:
        model: from `load_model` or `load_exported`; its device does the work.
        lq: (B, C, H, W) in [0, 1], on any device; the result, and with tiles the canvas, stays there.
        tile: longest side of tiles in low-quality pixels, rounded down to a multiple of the window; None runs the
            image whole, "auto" in the largest tiles that the device has memory for.
        tile_overlap: by how much neighbouring tiles overlap at least, in low-quality pixels.
        tile_blend: "cut" takes each pixel from one tile, with the overlap rounded up to a multiple of the window,
            and comes the closer to the whole image the larger the overlap; tiles that do not fit the memory after
            all are divided. "mean" averages the tiles where they overlap, edges and all, as the released program does.
        precision: "fp32"; "bf16" for the matrix products and convolutions, with float32 residuals and output;
            "auto" picks bf16 on GPUs that have it. What comes out of bf16 without finite values is done in fp32.
        self_ensemble: average over the eight flips and rotations (the paper's "+").
        compile: let torch.compile fuse the layers, and on a GPU record them as a graph for each size of tile; the
            first image takes a minute or two longer.
        extend: False leaves the padding to the network, which reflects sides to whole windows and no further; for
            comparison with other programs, of whole images by networks in PyTorch.
        progress: called with (tiles done, tiles in all), for each of the eight passes with self-ensemble.

    Returns:
        (B, C, H*scale, W*scale) in [0, 1], in the model's dtype.

    Raises:
        ValueError: for a wrong shape or number of channels, an unusable tile, overlap, blend or precision.
        TooLargeError: a MemoryError, when the device cannot hold the image, or the smallest tiles of it.
    """
    if lq.ndim != 4 or lq.shape[1] != model.config.in_chans or lq.numel() == 0:
        raise ValueError(f"lq must be (B, {model.config.in_chans}, H, W), got {tuple(lq.shape)}")
    if tile_blend not in get_args(TileBlend):
        raise ValueError(f"tile_blend must be one of {', '.join(get_args(TileBlend))}, got {tile_blend!r}")
    if not extend and (tile is not None or not isinstance(model, nn.Module)):
        raise ValueError("extend=False is for whole images by networks in PyTorch; leave it or the tile out")
    place, config = place_of(model), model.config
    height, width = (padded_side(size, config) for size in lq.shape[-2:])
    if tile == "auto":
        fitting = auto_tile(config, height, width, tile_overlap, device=place.device, batch=len(lq))
        tile = fitting or max(height, width)
    elif tile is not None:
        tile = align_tile(tile, config.window)
    forward = _forward(model, resolve_precision(precision, place.device), place.device, compile=compile)
    run = partial(
        _restore_one,
        forward,
        config,
        tile=tile,
        overlap=tile_overlap,
        blend=tile_blend,
        batch=_batch(tile, place.device),
        extend=extend,
        progress=progress,
    )
    lq = lq.to(place.dtype)
    if not self_ensemble:
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
    forward = _forward(model, resolve_precision(precision, place.device), place.device, compile=compile)
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


def place_of(model: Runnable) -> Tensor | Backend:
    """What has the device and the dtype of a network."""
    return next(model.parameters()) if isinstance(model, nn.Module) else model


def _batch(tile: int | None, device: torch.device) -> int:
    """How many tiles run together."""
    return max(1, GPU_PIXELS // tile**2) if tile and device.type != "cpu" else 1


def padded_side(size: int, config: NetworkConfig | BaselineConfig) -> int:
    """The next multiple of the window above a size, or, of networks that want no extra window, from the size on."""
    extra = isinstance(config, NetworkConfig) or config.extra_window
    return ((size if extra else size - 1) // config.window + 1) * config.window


def _forward(
    model: Runnable, precision: str, device: torch.device, *, compile: bool = False
) -> Callable[[Tensor], Tensor]:
    """The network as a function of an image: SwinIR in its prepared form, others as they are."""
    if precision != "fp32" and not isinstance(model, nn.Module):
        raise ValueError(f"an exported network computes in fp32, got precision {precision!r}; leave it out")

    def network(precision: str) -> Callable[[Tensor], Tensor]:
        if isinstance(model, SwinIR):
            return prepare(model, precision, compile=compile)
        if not isinstance(model, nn.Module):
            return model
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")(model)

    chosen = network(precision)

    def forward(x: Tensor) -> Tensor:
        try:
            with exact_convolutions():
                restored = chosen(x.to(device))
                if precision == "bf16" and not restored.isfinite().all():
                    logger.warning("bf16 gave values that are not finite; computing these pixels in fp32")
                    restored = network("fp32")(x.to(device))
                return restored
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: the error holds the tensors that are to be freed.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise TooLargeError(f"{device} has no memory for {x.shape[-1]}x{x.shape[-2]} pixels at once")

    return forward


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is used up; PyTorch has a class of its own for that on GPUs only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _restore_one(
    forward: Callable[[Tensor], Tensor],
    config: NetworkConfig | BaselineConfig,
    lq: Tensor,
    *,
    tile: int | None,
    overlap: int,
    blend: TileBlend,
    batch: int,
    extend: bool,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    window, scale = config.window, config.upscale
    height, width = lq.shape[-2:]
    if not extend:
        return forward(lq).to(lq.device)
    padded = mirror_to(lq, padded_side(height, config), padded_side(width, config))
    if tile is None:
        restored = forward(padded).to(lq.device)
    elif blend == "mean":
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

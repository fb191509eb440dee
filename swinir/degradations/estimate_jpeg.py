"""Estimate of the JPEG quality of an image: from the tables of its file, or from the pixels.

Nothing here is random: large images are sampled at even distances.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from scipy.fft import dctn

from swinir.degradations.estimate_input import LUMA, merge_equal_channels

# ITU-T T.81, table K.1: the luma steps that IJG's libjpeg scales by its quality. Natural order.
_LUMA_STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).reshape(64)
# Diagonals, every other one upwards: position k of a file's table is entry _ZIGZAG[k] in natural order.
_ZIGZAG = np.array(sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8)))
_LARGEST_STEP = 255  # of a baseline file

_BLOCK = 8
_BLOCKS = 4096  # looked at, at most
_ENOUGH_BLOCKS = 64  # without clipped pixels, to look at no others
_BLOCKS_OF_A_GRID = 384  # looked at to tell whether the grid is a shifted one
_BINS = 8  # of a histogram of coefficients, for each unit
_LARGEST_COEFFICIENT = 512
_SMALLEST_COEFFICIENT = 1.5  # below, rounding alone makes coefficients
# Pixels were rounded once (grey) or twice (Y, then RGB): a standard deviation of 0.29 to 0.35, which the DCT keeps.
_ROUNDING = 0.4
_STRAY = 0.02  # share of coefficients that clipping, or an editor's brush, may have moved anywhere
_BEST_QUALITY = 98  # above it all but the highest frequencies have steps of 1, which rounding hides
_LEAST_EVIDENCE = 100.0  # nats; images never compressed stay below zero, compressed ones reach thousands
_LEAST_FREQUENCIES = 4  # that must speak for a quality: stripes and dots can imitate steps at a few
_STANDARD_SHARE = 0.7  # of the best steps' evidence that a table of libjpeg must have; its own has nearly all
_LEAST_CUSTOM_FREQUENCIES = 12


# JPEG by the file


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> float:
    """Return the quality of a JPEG file in libjpeg's scale, 1 to 100, from its luma table.

    The quality is exact for the tables of libjpeg (OpenCV, Pillow). For other encoders, it is the quality whose table
    is the nearest multiple of the standard one, by least squares of the logarithms, and may be fractional.

    Args:
        tables: 64 quantisation steps by number of the table, as `PIL.Image.Image.quantization` has them, in natural
            order; zig-zag order, as in the file, is understood of libjpeg's tables. The first table is that of luma.

    Raises:
        ValueError: for no table, or one that isn't 64 positive numbers.
    """
    if not tables:
        raise ValueError("jpeg_quality needs a quantisation table, got none")
    steps = np.asarray(tables[min(tables)])
    if steps.shape != (64,) or steps.min() < 1:
        raise ValueError(f"a quantisation table is 64 positive numbers, got {list(tables[min(tables)])[:5]}...")
    for order in (np.arange(64), _ZIGZAG):
        exact = (_standard_tables()[:, order] == steps).all(axis=1)
        if exact.any():
            return float(exact.argmax() + 1)
    inside = steps != _LARGEST_STEP  # where a baseline encoder has cut, the multiple is unknown
    return _nearest_quality(steps[inside], _LUMA_STEPS[inside]) if inside.any() else 1.0


def _nearest_quality(steps: np.ndarray, standard: np.ndarray) -> float:
    """Return the quality whose multiple of the standard steps is nearest, by least squares of the logarithms.

    Logarithms weigh all frequencies alike; without them the coarse steps of high frequencies would decide,
    where images have little energy. The way back is libjpeg's `jpeg_quality_scaling`.
    """
    multiple = float(np.exp(np.log(steps / standard).mean()))
    quality = 50 / multiple if multiple > 1 else 100 - 50 * multiple
    return float(np.clip(quality, 1, 100))


@lru_cache(maxsize=1)
def _standard_tables() -> np.ndarray:
    """libjpeg's luma tables of qualities 1 to 100, (100, 64): `jpeg_quality_scaling` and `jpeg_add_quant_table`."""
    qualities = np.arange(1, 101)[:, None]
    percent = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    return np.clip((_LUMA_STEPS * percent + 50) // 100, 1, _LARGEST_STEP)


# JPEG by the pixels


def pixel_jpeg_quality(image: np.ndarray) -> float | None:
    """Estimate the quality of a JPEG compression before the image was saved losslessly; None without traces.

    DCT coefficients of a decoded JPEG lie at multiples of its quantisation steps (Fan and de Queiroz, 2003,
    "Identification of bitmap compression history", section III), but for the rounding of pixels. For each quality the
    log-likelihood ratio of the luma coefficients is summed: normal around multiples of the step, against anywhere.
    Coefficients that any step would round to zero say nothing. The offset of the block grid is searched too, so cropped
    images are detected. Qualities above 98 leave no traces in pixels. Other encoders' tables give the quality of the
    nearest multiple of the standard one.

    Args:
        image: (H, W, 1) or (H, W, 3) RGB uint8. Whatever changed its pixels after the compression (size, noise,
            another compression on another grid) also wiped out the traces.
    """
    image = merge_equal_channels(image)
    if min(image.shape[:2]) < 2 * _BLOCK:
        return None
    found = _quality_by_evidence(_evidence(image, (0, 0), _BLOCKS))
    if found is not None:
        return found
    grids = [(top, left) for top in range(_BLOCK) for left in range(_BLOCK)][1:]
    grid = max(grids, key=lambda g: _evidence(image, g, _BLOCKS_OF_A_GRID).max(axis=1).sum())
    return _quality_by_evidence(_evidence(image, grid, _BLOCKS))


def _quality_by_evidence(evidence: np.ndarray) -> float | None:
    """Return the quality with the most evidence; for tables that are not libjpeg's, the one nearest to their steps."""
    tables = _standard_tables()[:_BEST_QUALITY]
    of_tables = evidence[np.arange(64), tables - 1]
    quality = int(of_tables.sum(axis=1).argmax()) + 1
    of_table, of_steps = of_tables[quality - 1], evidence.max(axis=1)
    clear = of_steps >= _LEAST_EVIDENCE
    if clear.sum() >= _LEAST_CUSTOM_FREQUENCIES and of_table.sum() < _STANDARD_SHARE * of_steps.sum():
        return _nearest_quality(evidence.argmax(axis=1)[clear] + 1, _LUMA_STEPS[clear])
    enough = of_table.sum() >= _LEAST_EVIDENCE and (of_table > 0).sum() >= _LEAST_FREQUENCIES
    return float(quality) if enough else None


def _evidence(image: np.ndarray, grid: tuple[int, int], most: int) -> np.ndarray:
    """Log-likelihood ratios of the steps 1 to 255 at each frequency, (64, 255), by up to `most` blocks."""
    size = _LARGEST_COEFFICIENT * _BINS
    bins = np.rint(np.abs(_coefficients(image, grid, most)) * _BINS).astype(np.intp)
    bins = np.minimum(bins, size - 1) + np.arange(64) * size
    counts = np.bincount(bins.ravel(), minlength=64 * size).reshape(64, size).astype(np.float32)
    counts[:, -1] = 0  # larger ones are not looked at
    counts[0] = 0  # the mean of a flat block is a multiple of 8 without any compression
    seen = counts.any(axis=0)
    return counts[:, seen] @ _log_ratios()[seen]


def _coefficients(image: np.ndarray, grid: tuple[int, int], most: int) -> np.ndarray:
    """DCT of luma blocks at even distances, (N, 64); blocks with clipped pixels are left out if others are enough."""
    top, left = grid
    rows, cols = ((side - start) // _BLOCK for side, start in zip(image.shape, grid, strict=False))
    whole = image[top : top + rows * _BLOCK, left : left + cols * _BLOCK]
    blocks = whole.reshape(rows, _BLOCK, cols, _BLOCK, -1).swapaxes(1, 2)
    stride = max(1, int(np.sqrt(rows * cols / most)))
    blocks = blocks[::stride, ::stride].reshape(-1, _BLOCK * _BLOCK, image.shape[2])
    kept = (blocks.min(axis=(1, 2)) > 0) & (blocks.max(axis=(1, 2)) < 255)
    if kept.sum() >= _ENOUGH_BLOCKS:
        blocks = blocks[kept]
    # A pattern that repeats is one witness. Blocks are told apart by a hash, as sorting them whole takes long.
    factors = np.cumprod(np.full(blocks[0].size, 0x100000001B3, np.uint64))
    blocks = blocks[np.unique(blocks.reshape(len(blocks), -1) @ factors, return_index=True)[1]]
    # JFIF's Y, rounded as the decoder had it before it made RGB of it; the offset of 128 is in frequency 0 alone.
    luma = blocks if image.shape[2] == 1 else np.rint(blocks @ LUMA)
    return dctn(luma.reshape(-1, _BLOCK, _BLOCK).astype(np.float32), axes=(1, 2), norm="ortho").reshape(-1, 64)


@lru_cache(maxsize=1)
def _log_ratios() -> np.ndarray:
    """Return the log-likelihood ratio of a coefficient's size for each step 1 to 255, in nats: (bins, 255) float32."""
    size = np.arange(_LARGEST_COEFFICIENT * _BINS, dtype=np.float32)[:, None] / _BINS
    step = np.arange(1, _LARGEST_STEP + 1, dtype=np.float32)
    off = size - np.rint(size / step) * step
    # A normal wrapped around the step, relative to a uniform density of 1 / step.
    density = sum(np.exp(-(((off + k * step) / _ROUNDING) ** 2) / 2) for k in (-1, 0, 1))
    ratio = np.log(_STRAY + (1 - _STRAY) * step * density / (_ROUNDING * np.sqrt(2 * np.pi)))
    # Near zero both densities peak, and the smoothness of an image would pass for coarse steps.
    ratio[size < np.maximum(step / 2 - 3 * _ROUNDING, _SMALLEST_COEFFICIENT)] = 0
    return ratio.astype(np.float32)

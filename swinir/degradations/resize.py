"""Bicubic resizing as MATLAB's `imresize` does it, the degradation behind every classical SR benchmark.

The cubic kernel (a = -0.5) is widened by the factor when shrinking (antialiasing), borders are symmetric,
the axis that shrinks most goes first (rows before columns when equal), and on uint8 images MATLAB rounds
after each axis. Leaving out that last habit changes 10 to 14 % of the pixels.
"""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from swinir.image_io.spans import in_spans


def imresize(image: np.ndarray, scale: float | None = None, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Resize (H, W) or (H, W, C) by MATLAB's antialiased bicubic.

    Args:
        image: uint8 in [0, 255], rounded and clipped after each axis as MATLAB does, or float of any
            range, computed in float64 and neither rounded nor clipped.
        scale: output size over input size; the output is ceil(size * scale).
        size: (height, width) of the output instead of a scale.

    Returns:
        Same number of axes and dtype as the input; float64 for float16 and float32 input stays as given.

    Raises:
        ValueError: unless exactly one of scale and size is given, positive, and the image is uint8 or float.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"image must be (H, W) or (H, W, C) and not empty, got shape {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or float, got {image.dtype}")
    if (scale is None) == (size is None):
        raise ValueError("give either scale or size")
    if scale is not None:
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale must be positive, got {scale}")
        # 0.1 * 30 is 3.0000000000000004: a hair above a whole number is that number.
        target = tuple(math.ceil(round(n * scale, 9)) for n in image.shape[:2])
        scales: tuple[float, ...] = (scale, scale)
    else:
        assert size is not None
        if min(size) < 1:
            raise ValueError(f"size must be at least 1x1, got {size}")
        target = tuple(size)
        scales = tuple(t / n for t, n in zip(target, image.shape[:2], strict=True))

    result = image
    for axis in sorted((0, 1), key=lambda a: scales[a]):
        result = _resize_axis(result, axis, target[axis], scales[axis])
    return result.astype(image.dtype, copy=result is image)


def resize_rows(
    blocks: Iterable[np.ndarray], shape: tuple[int, int], size: tuple[int, int], *, step: int
) -> Iterator[np.ndarray]:
    """`imresize` to a size, of an image of floats whose rows come in blocks: the result in blocks of `step` rows.

    Args:
        blocks: (n, W, C), with as many rows as they like.
        shape, size: heights and widths of the image and of the result.
    """
    (height, width), (high, wide) = shape, size
    rows_first = high / height <= wide / width
    index, weight = _taps(height, high, high / height)
    # Mirrored rows lie inside what the image's first and last rows need anyway, or bring the ends in order.
    first = np.minimum.accumulate(index.min(axis=1)[::-1])[::-1]
    last = np.maximum.accumulate(index.max(axis=1))
    starts = range(0, high, step)
    spans = [slice(int(first[y]), int(last[min(y + step, high) - 1]) + 1) for y in starts]

    def across(block: np.ndarray) -> np.ndarray:
        return _resize_axis(block, 1, wide, wide / width)

    def down(y: int, span: slice, block: np.ndarray) -> np.ndarray:
        if high == height:
            return block
        part = slice(y, min(y + step, high))
        return _weighted(block, index[part] - span.start, weight[part])

    def resized(y: int, span: slice, block: np.ndarray) -> np.ndarray:
        result = across(down(y, span, block)) if rows_first else down(y, span, across(block))
        return result.astype(block.dtype, copy=False)

    yield from map(resized, starts, spans, in_spans(blocks, spans, np.concatenate))


def _weighted(source: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Rows made up of those of the source by their indices and weights."""
    total = np.zeros((len(index), *source.shape[1:]))
    broadcast = (slice(None),) + (None,) * (source.ndim - 1)
    for i, w in zip(index.T, weight.T, strict=True):
        total += w[broadcast] * source[i]
    return total


def _resize_axis(image: np.ndarray, axis: int, length: int, scale: float) -> np.ndarray:
    if image.shape[axis] == length and scale == 1:
        return image
    index, weight = _taps(image.shape[axis], length, scale)
    total = np.moveaxis(_weighted(np.moveaxis(image, axis, 0), index, weight), 0, axis)
    if image.dtype == np.uint8:
        # MATLAB rounds halves away from zero; negative values clip to zero, so adding a half serves.
        return np.floor(total.clip(0, 255) + 0.5).astype(np.uint8)
    return total


@lru_cache(maxsize=256)
def _taps(length_in: int, length_out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights, (length_out, taps) each, of the inputs that make up every output."""
    stretch = max(1.0, 1 / scale)
    support = 4 * stretch
    taps = math.ceil(support) + 2
    centre = (np.arange(length_out) + 0.5) / scale - 0.5
    first = np.floor(centre - support / 2).astype(int)
    index = first[:, None] + np.arange(taps)
    weight = _cubic((centre[:, None] - index) / stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    period = 2 * length_in
    mirrored = np.mod(index, period)
    index = np.minimum(mirrored, period - 1 - mirrored)
    used = np.flatnonzero(np.any(weight != 0, axis=0))
    index, weight = index[:, used], weight[:, used]
    index.flags.writeable = weight.flags.writeable = False
    return index, weight


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

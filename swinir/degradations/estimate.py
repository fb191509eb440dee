"""Blind estimates for an image: noise level, JPEG quality, and whether it is grey.

    pixels, JPEG tables -> sense -> Findings, from which `swinir.photos.select_models` selects models

The module needs no torch. Nothing here is random: large images are sampled at even distances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.fft import dctn
from scipy.special import gammaincinv, ndtr

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

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # JFIF's Y of RGB
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

_PATCH = 6
_PATCHES = 40_000  # looked at, at most
_LEAST_PATCHES = 1500
_LEAST_SIDE = 20  # of an image: a covariance of 3 * 36 values needs more patches than that
_VARIED = 0.5  # share of the patches with any difference, below which an image is a drawing
_CENTRAL = 0.3  # share of the patches, those farthest from 0 and 255, that are looked at in any case
_FLAT = 0.99  # share of the patches without any texture that passes the test for one
_SHARED = 5.0  # that luma must show above the channels together; texture alone makes less
_ROUNDS = 12
_SETTLED = 0.02


@dataclass(frozen=True)
class Noise:
    """Noise of one image, in units of 1/255.

    Attributes:
        level: standard deviation of noise independent between pixels and channels; of correlated noise, the level of
            independent noise that is as strong on luma.
        correlated: True if neighbouring pixels share noise: a camera's, film grain, noise under JPEG or resized.
        shadows, highlights: standard deviation on luma in dark and in bright parts; None where it is not known.
    """

    level: float
    correlated: bool = False
    shadows: float | None = None
    highlights: float | None = None

    @property
    def on_luma(self) -> float:
        """Standard deviation on luma."""
        return self.level * float(np.linalg.norm(_LUMA))


@dataclass(frozen=True)
class Findings:
    """Estimates for one image.

    Attributes:
        noise: level and kind of the noise.
        jpeg_quality: quality of the JPEG compression in libjpeg's scale, 1 to 100; None without traces of JPEG.
        jpeg_source: "file" for quantisation tables, "pixels" for an estimate; None without a quality.
        gray: True for one channel, or three equal ones.
    """

    noise: Noise
    jpeg_quality: float | None
    jpeg_source: Literal["file", "pixels"] | None
    gray: bool

    @property
    def noise_level(self) -> float:
        """Level of the noise, by which models are chosen."""
        return self.noise.level

    def explain(self) -> list[str]:
        """Return one sentence for each estimate."""
        noise = f"Noise: standard deviation {self.noise_level:.1f} of 255."
        sources = {
            "file": f"JPEG: the file says quality {self.jpeg_quality or 0:.0f}.",
            "pixels": f"JPEG: the pixels show an earlier compression at quality {self.jpeg_quality or 0:.0f}.",
            None: "JPEG: no sign of compression.",
        }
        return [noise, sources[self.jpeg_source], "Colour: none, it is grey." if self.gray else "Colour: yes."]


def sense(image: np.ndarray, jpeg_tables: Mapping[int, Sequence[int]] | None = None) -> Findings:
    """Estimate noise level and JPEG quality of an (H, W, 1) or (H, W, 3) RGB uint8 image.

    Args:
        image: the decoded pixels.
        jpeg_tables: quantisation tables of a JPEG file, as `jpeg_quality` takes them. Without tables, the quality is
            estimated from the pixels.

    Raises:
        ValueError: for another shape or dtype, or tables that are none.
    """
    image = _check(image)
    noise, gray = Noise(noise_level(image)), image.shape[2] == 1
    if jpeg_tables:
        return Findings(noise, jpeg_quality(jpeg_tables), "file", gray)
    quality = pixel_jpeg_quality(image)
    return Findings(noise, quality, None if quality is None else "pixels", gray)


def _check(image: np.ndarray) -> np.ndarray:
    """Return the image, with one channel if all are equal."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise ValueError(f"image must be (H, W, 1 or 3) uint8, not empty, got {image.dtype} {image.shape}")
    gray = image.shape[2] == 1 or bool((image == image[..., :1]).all())
    return image[..., :1] if gray else image


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
    image = _check(image)
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
    luma = blocks if image.shape[2] == 1 else np.rint(blocks @ _LUMA)
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


# Noise


def noise_level(image: np.ndarray) -> float:
    """Standard deviation of the Gaussian noise in an (H, W, 1) or (H, W, 3) RGB uint8 image, in units of 1/255.

    The noise is modelled as white, independent between channels, and clipped with the pixels at 0 and 255. Where
    channels share their noise, as after JPEG, which keeps little of it in chroma, the estimate is made on luma and
    scaled to the level of independent noise that is as strong there. The estimate is 0 for drawings, and for images
    smaller than 20x20 pixels, which have too few patches.
    """
    image = _check(image)
    if min(image.shape[:2]) < _LEAST_SIDE:
        return 0.0
    level = _white_noise(image)
    if image.shape[2] == 1:
        return level
    shared = _white_noise(np.rint(image @ _LUMA).astype(np.uint8)[..., None]) / float(np.linalg.norm(_LUMA))
    return shared if shared > level + _SHARED else level


def _white_noise(image: np.ndarray) -> float:
    """Level of noise that is independent between pixels and channels.

    The variance common to most principal components of a patch is that of the noise (Chen, Zhu and Heng, 2015, "An
    efficient statistical method for image noise level estimation", algorithm 1), of patches whose gradients are no
    stronger than the noise makes them (Liu, Tanaka and Okutomi, 2013, "Single-image noise level estimation for blind
    denoising", section III). The two steps take turns until they agree. Near 0 and 255, deviations are first scaled
    up by what clipping took, and patches about a standard deviation or nearer to the ends are left out if others are
    enough.
    """
    patches = _patches(image)
    varied = np.ptp(patches, axis=2).max(axis=1) > 0
    if varied.mean() < _VARIED:
        return 0.0
    patches = patches[varied]
    means = patches.mean(axis=2, keepdims=True)
    from_middle = np.abs(means - 127.5).max(axis=(1, 2))
    always_kept = np.quantile(from_middle, _CENTRAL)
    limit = _texture_limit(image.shape[2])
    level = _white_level(patches)
    for _ in range(_ROUNDS):
        central = from_middle <= max(127.5 - level, always_kept)
        some, mean = patches[central], means[central]
        some = (some - mean) / _clipping_ratio(mean, level) + mean
        texture = _texture(some)
        least = min(_LEAST_PATCHES, len(texture))
        allowed = max(limit * level**2, np.partition(texture, least - 1)[least - 1])
        before, level = level, _white_level(some[texture <= allowed])
        if abs(level - before) < _SETTLED:
            break
    return float(np.sqrt(max(level**2 - 1 / 12, 0)))  # less what rounding to whole values adds


def _patches(image: np.ndarray) -> np.ndarray:
    """Patches at even distances, (N, C, 36) float32."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (_PATCH, _PATCH), axis=(0, 1))
    stride = max(1, round(np.sqrt(windows.shape[0] * windows.shape[1] / _PATCHES)))
    windows = windows[::stride, ::stride]
    return windows.reshape(-1, image.shape[2], _PATCH**2).astype(np.float32)


def _white_level(patches: np.ndarray) -> float:
    """Square root of the mean of the smallest eigenvalues: of as many as have their median at their mean."""
    vectors = patches.reshape(len(patches), -1)
    values = np.linalg.eigvalsh(np.cov(vectors, rowvar=False))
    for count in range(len(values), 0, -1):
        mean = values[:count].mean()
        if np.median(values[:count]) >= mean:
            break
    return float(np.sqrt(max(mean, 0)))


def _texture(patches: np.ndarray) -> np.ndarray:
    """Sum of squared differences of neighbours in each patch, (N,)."""
    square = patches.reshape(*patches.shape[:2], _PATCH, _PATCH)
    return sum((np.diff(square, axis=axis) ** 2).sum(axis=(1, 2, 3)) for axis in (2, 3))


@lru_cache(maxsize=2)
def _texture_limit(channels: int) -> float:
    """Return the limit that `_texture` stays below in flat patches with noise of level 1.

    A quadratic form of normal variables, x' A x, whose mean is tr A and variance 2 tr A^2; taken as a gamma
    distribution of the same two, as by Liu et al., Eq. 12.
    """
    difference = np.diff(np.eye(_PATCH), axis=0)
    form, one = difference.T @ difference, np.eye(_PATCH)
    both = np.kron(one, form) + np.kron(form, one)
    mean, variance = channels * np.trace(both), 2 * channels * np.trace(both @ both)
    return float(gammaincinv(mean**2 / variance, _FLAT) * variance / mean)


def _clipping_ratio(means: np.ndarray, level: float) -> np.ndarray:
    """Standard deviation left of noise of `level` by clipping to [0, 255], relative to it, by the clipped mean."""
    level = max(level, 0.1)
    value = np.linspace(-level, 255 + level, 512)
    below, above = -value / level, (255 - value) / level
    inside = ndtr(above) - ndtr(below)
    at_below, at_above = (np.exp(-(edge**2) / 2) / np.sqrt(2 * np.pi) for edge in (below, above))
    mean = value * inside - level * (at_above - at_below) + 255 * (1 - ndtr(above))
    square = (value**2 + level**2) * inside - level * ((value + 255) * at_above - value * at_below)
    variance = square + 255**2 * (1 - ndtr(above)) - mean**2
    ratio = np.sqrt(np.maximum(variance, 0)) / level
    return np.interp(means, mean, ratio).astype(np.float32)

"""Estimate of white Gaussian noise, from the principal components of flat patches.

Precise for noise that is independent between pixels and channels; blind to noise that pixels share, and deceived by
textures and halftones without any flat part.
"""

from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtr

from swinir.degradations.estimate_input import merge_equal_channels

_PATCH = 6
_PATCHES = 40_000  # looked at, at most
_LEAST_PATCHES = 1500
LEAST_SIDE = 20  # of an image: a covariance of 3 * 36 values needs more patches than that
_VARIED = 0.5  # share of the patches with any difference, below which an image is a drawing
_CENTRAL = 0.3  # share of the patches, those farthest from 0 and 255, that are looked at in any case
_FLAT = 0.99  # share of the patches without any texture that passes the test for one
_ROUNDS = 12
_SETTLED = 0.02


def white_noise_level(image: np.ndarray) -> float:
    """Standard deviation of the Gaussian noise in an (H, W, 1) or (H, W, 3) RGB uint8 image, in units of 1/255.

    The noise is modelled as white, independent between channels, and clipped with the pixels at 0 and 255. The estimate
    is 0 for drawings, and for images smaller than 20x20 pixels, which have too few patches.

    The variance common to most principal components of a patch is that of the noise (Chen, Zhu and Heng, 2015, "An
    efficient statistical method for image noise level estimation", algorithm 1), of patches whose gradients are no
    stronger than the noise makes them (Liu, Tanaka and Okutomi, 2013, "Single-image noise level estimation for blind
    denoising", section III). The two steps take turns until they agree. Near 0 and 255, deviations are first scaled
    up by what clipping took, and patches about a standard deviation or nearer to the ends are left out if others are
    enough.
    """
    image = merge_equal_channels(image)
    if min(image.shape[:2]) < LEAST_SIDE:
        return 0.0
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

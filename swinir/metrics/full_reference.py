"""PSNR, SSIM and PSNR-B of two images, as the restoration papers compute them.

All three take (H, W, C) arrays with values in [0, 255]: uint8 images, or float luma from `swinir.image_io.color.luma`.
Others are refused: other integers, and floats that are not finite or all in [0, 1].
"""

import math

import cv2
import numpy as np

_BLOCK = 8  # JPEG's
_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def psnr(restored: np.ndarray, gt: np.ndarray, *, crop_border: int = 0) -> float:
    """PSNR in dB over all channels together; inf for identical images.

    Args:
        restored: (H, W, C) uint8, or floats in [0, 255] as from `luma`.
        gt: reference of the same shape.
        crop_border: pixels left out at each side.

    Raises:
        TypeError: for something else than arrays.
        ValueError: for images of different shape, or nothing left inside the border; for other dtypes than uint8 and
            floats, and floats that are not finite or all in [0, 1].
    """
    a, b = _prepare(restored, gt, crop_border)
    return _decibel(float(np.mean((a - b) ** 2)))


def ssim(restored: np.ndarray, gt: np.ndarray, *, crop_border: int = 0) -> float:
    """SSIM (Wang et al., 2004): Gaussian window 11x11 of sigma 1.5, valid region, mean over channels.

    Raises:
        ValueError: as for `psnr`, and for images smaller than the window.
    """
    a, b = _prepare(restored, gt, crop_border)
    if min(a.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least {_SSIM_WINDOW}x{_SSIM_WINDOW} pixels, got {a.shape[1]}x{a.shape[0]}")
    return float(np.mean([_ssim_channel(a[..., c], b[..., c]) for c in range(a.shape[2])]))


def psnrb(restored: np.ndarray, gt: np.ndarray, *, crop_border: int = 0) -> float:
    """PSNR-B in dB (Yim and Bovik, 2011): the blocking effect of `restored` counts as error; mean over channels.

    Raises:
        ValueError: as for `psnr`, and for images of fewer than two blocks in both directions.
    """
    a, b = _prepare(restored, gt, crop_border)
    if min(a.shape[:2]) < 2 or max(a.shape[:2]) < 2 * _BLOCK:
        raise ValueError(f"PSNR-B needs two blocks of {_BLOCK} pixels, got {a.shape[1]}x{a.shape[0]}")
    channels = [
        _decibel(float(np.mean((a[..., c] - b[..., c]) ** 2)) + _blocking_effect(a[..., c])) for c in range(a.shape[2])
    ]
    return float(np.mean(channels))


def _prepare(restored: np.ndarray, gt: np.ndarray, crop_border: int) -> tuple[np.ndarray, np.ndarray]:
    for image in (restored, gt):
        _check_values(image)
    if restored.shape != gt.shape or restored.ndim != 3:
        raise ValueError(f"images must both be (H, W, C) of one size, got {restored.shape} and {gt.shape}")
    if crop_border < 0 or min(gt.shape[:2]) <= 2 * crop_border:
        raise ValueError(f"a border of {crop_border} leaves nothing of {gt.shape[1]}x{gt.shape[0]}")
    inside = slice(crop_border, -crop_border or None)
    return restored[inside, inside].astype(np.float64), gt[inside, inside].astype(np.float64)


def _check_values(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"images must be (H, W, C) uint8 arrays, got {type(image).__name__}")
    if image.dtype == np.uint8 or not image.size:
        return
    if image.dtype.kind != "f":
        raise ValueError(f"images must be uint8, or luma as floats in [0, 255], got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("images must be finite, got NaN or infinite values")
    if low >= 0 and high <= 1:
        raise ValueError(
            "floats are taken in [0, 255], and these are in [0, 1]; convert: (image * 255).round().astype(np.uint8)"
        )


def _decibel(mean_square: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


def _ssim_channel(a: np.ndarray, b: np.ndarray) -> float:
    kernel = cv2.getGaussianKernel(_SSIM_WINDOW, _SSIM_SIGMA)
    reach = _SSIM_WINDOW // 2

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel)[reach:-reach, reach:-reach]

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return float(np.mean((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * contrast))


def _blocking_effect(x: np.ndarray) -> float:
    """Excess of squared steps across block borders over those elsewhere, scaled by block and image size."""
    height, width = x.shape
    across, down = (np.diff(x, axis=1) ** 2).sum(axis=0), (np.diff(x, axis=0) ** 2).sum(axis=1)
    border_x, border_y = slice(_BLOCK - 1, None, _BLOCK), slice(_BLOCK - 1, None, _BLOCK)
    at_borders = across[border_x].sum() + down[border_y].sum()
    elsewhere = across.sum() + down.sum() - at_borders
    # Counted as in the original definition, for sizes that are multiples of the block.
    num_borders = height * (width // _BLOCK - 1) + width * (height // _BLOCK - 1)
    num_elsewhere = height * (width - 1) + width * (height - 1) - num_borders
    excess = at_borders / num_borders - elsewhere / num_elsewhere
    if excess <= 0:
        return 0.0
    return float(excess * math.log2(_BLOCK) / math.log2(min(height, width)))

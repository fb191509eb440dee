"""Luma, on which super-resolution is compared, and images without colour."""

import numpy as np

from swinir.image_io.canvas import row_blocks


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 studio-range luma of an (H, W, 3) RGB uint8 image: (H, W, 1) float32 in [16, 235], not rounded.

    The same as MATLAB's `rgb2ycbcr` before rounding.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"luma needs an (H, W, 3) image, got shape {image.shape}")
    weights = np.array([65.481, 128.553, 24.966])
    return (image.astype(np.float32) / np.float32(255) @ weights + 16).astype(np.float32)[..., None]


def is_gray(image: np.ndarray) -> bool:
    """Tell whether an (H, W, C) image has equal channels; rows after the first colour are not read."""
    rows = row_blocks(*image.shape[:2])
    return image.shape[2] == 1 or all((image[r] == image[r, :, :1]).all() for r in rows)

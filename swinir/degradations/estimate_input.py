"""Images as the estimators take them."""

import numpy as np

from swinir.image_io.color import is_gray

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # JFIF's Y of RGB


def merge_equal_channels(image: np.ndarray) -> np.ndarray:
    """Return an (H, W, 1) or (H, W, 3) uint8 image, with one channel if all are equal.

    Raises:
        ValueError: for another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise ValueError(f"image must be (H, W, 1 or 3) uint8, not empty, got {image.dtype} {image.shape}")
    return image[..., :1] if is_gray(image) else image

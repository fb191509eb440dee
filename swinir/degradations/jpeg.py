"""JPEG compression, by OpenCV's encoder as in the benchmarks; decoded values depend on its libjpeg."""

from typing import Literal, get_args

import cv2
import numpy as np

Subsampling = Literal["4:2:0", "4:4:4"]
SUBSAMPLINGS: tuple[Subsampling, ...] = get_args(Subsampling)


def jpeg(image: np.ndarray, jpeg_quality: int, subsampling: Subsampling = "4:2:0") -> np.ndarray:
    """Compress an image and decode it again.

    Args:
        image: (H, W, 1) or (H, W, 3) RGB uint8.
        jpeg_quality: 0 to 100, as libjpeg counts.
        subsampling: "4:2:0" halves the sides of the chroma planes, "4:4:4" keeps them; grey images have none.

    Returns:
        The decoded image; same shape and dtype.

    Raises:
        ValueError: for a quality or a subsampling of no meaning, and sides that JPEG cannot hold.
    """
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"subsampling must be {' or '.join(SUBSAMPLINGS)}, got {subsampling!r}")
    if not 0 <= jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality must be from 0 to 100, got {jpeg_quality}")
    gray = image.shape[2] == 1
    source = image if gray else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    factor = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if subsampling == "4:2:0" else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    ok, data = cv2.imencode(".jpg", source, options)
    if not ok:
        raise ValueError(f"JPEG cannot hold an image of {image.shape[1]}x{image.shape[0]}")
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a line above
    return decoded[..., None] if gray else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

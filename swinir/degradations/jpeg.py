"""JPEG compression, by OpenCV's encoder as in the benchmarks; decoded values depend on its libjpeg."""

import cv2
import numpy as np


def jpeg(image: np.ndarray, jpeg_quality: int) -> np.ndarray:
    """Compress an (H, W, 1) or (H, W, 3) RGB uint8 image and decode it again; same shape and dtype."""
    if not 0 <= jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality must be from 0 to 100, got {jpeg_quality}")
    gray = image.shape[2] == 1
    source = image if gray else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", source, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    if not ok:
        raise ValueError(f"JPEG cannot hold an image of {image.shape[1]}x{image.shape[0]}")
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a line above
    return decoded[..., None] if gray else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

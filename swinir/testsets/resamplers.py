"""Ways to reduce an image that are in use, the benchmark's first, to tell what a low-quality file was made with.

Each takes a ground truth, (H, W, C) uint8 whose sides are multiples of the scale, and gives (H / scale, W / scale, C).
Kernels without antialiasing meet only pixels near the sampling points; at odd scales these are pixels themselves, and
several of these ways give the same image.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from PIL import Image

from swinir.degradations.resize import imresize
from swinir.testsets.pairs import reduced, rounded_once

Reducer = Callable[[np.ndarray, int], np.ndarray]


def _on_bytes(gt: np.ndarray, scale: int) -> np.ndarray:
    return imresize(gt, 1 / scale)


def point_cubic(gt: np.ndarray, scale: int, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution of four pixels an axis, whatever the scale; the edge's pixels repeated."""
    result = gt.astype(np.float64)
    for axis in (0, 1):
        length = gt.shape[axis]
        centre = (np.arange(length // scale) + 0.5) * scale - 0.5
        first = np.floor(centre).astype(int) - 1
        index = (first[:, None] + np.arange(4)).clip(0, length - 1)
        x = np.abs(centre[:, None] - first[:, None] - np.arange(4))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        weight = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
        rows = np.moveaxis(result, axis, 0)
        result = np.moveaxis(sum(weight[:, k, None, None] * rows[index[:, k]] for k in range(4)), 0, axis)
    return np.floor(result.clip(0, 255) + 0.5).astype(np.uint8)


def _by_opencv(gt: np.ndarray, scale: int, *, method: int) -> np.ndarray:
    height, width, channels = gt.shape
    return cv2.resize(gt, (width // scale, height // scale), interpolation=method).reshape(-1, width // scale, channels)


def _by_pillow(gt: np.ndarray, scale: int, *, method: Image.Resampling) -> np.ndarray:
    height, width, channels = gt.shape
    small = Image.fromarray(gt if channels == 3 else gt[..., 0]).resize((width // scale, height // scale), method)
    return np.asarray(small).reshape(-1, width // scale, channels)


def _every_nth(gt: np.ndarray, scale: int) -> np.ndarray:
    return gt[::scale, ::scale]


MATLABS = "MATLAB's bicubic"
REDUCERS: dict[str, Reducer] = {
    MATLABS: reduced,
    f"{MATLABS}, rounded after each axis": _on_bytes,
    f"{MATLABS}, rounded once": rounded_once,
    "MATLAB's bicubic without antialiasing": point_cubic,
    "OpenCV's (or PyTorch's) bicubic, which has no antialiasing": partial(_by_opencv, method=cv2.INTER_CUBIC),
    "OpenCV's (or PyTorch's) bilinear, which has no antialiasing": partial(_by_opencv, method=cv2.INTER_LINEAR),
    "OpenCV's Lanczos, which has no antialiasing": partial(_by_opencv, method=cv2.INTER_LANCZOS4),
    "Pillow's bicubic": partial(_by_pillow, method=Image.Resampling.BICUBIC),
    "Pillow's bilinear": partial(_by_pillow, method=Image.Resampling.BILINEAR),
    "Pillow's Lanczos": partial(_by_pillow, method=Image.Resampling.LANCZOS),
    "Pillow's Hamming": partial(_by_pillow, method=Image.Resampling.HAMMING),
    "means of squares (OpenCV's area, Pillow's box)": partial(_by_opencv, method=cv2.INTER_AREA),
    "every n-th pixel (OpenCV's nearest)": _every_nth,
    "every n-th pixel from the middle (Pillow's nearest)": partial(_by_pillow, method=Image.Resampling.NEAREST),
}

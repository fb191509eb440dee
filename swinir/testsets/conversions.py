"""Common ways to reduce an image and to make it gray, to tell which of them made a file.

Reducers take a ground truth, (H, W, C) uint8 with sides that are multiples of the scale, and return
(H / scale, W / scale, C). Without antialiasing a kernel meets only pixels near the sampling points; at odd scales these
are pixels themselves, so that several of these reducers return the same image.

Gray conversions take (H, W, 3) RGB uint8 and return (H, W, 1) uint8.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from PIL import Image

from swinir.degradations.resize import imresize
from swinir.image_io.color import luma
from swinir.image_io.image import to_gray
from swinir.testsets.pairs import reduced, rounded_once

Reducer = Callable[[np.ndarray, int], np.ndarray]


def _on_bytes(gt: np.ndarray, scale: int) -> np.ndarray:
    return imresize(gt, 1 / scale)


def point_cubic(gt: np.ndarray, scale: int, a: float = -0.5) -> np.ndarray:
    """Reduce by Keys' cubic convolution over four pixels per axis at any scale; pixels at the edges are repeated."""
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


MATLAB_BICUBIC = "MATLAB's bicubic"
REDUCERS: dict[str, Reducer] = {
    MATLAB_BICUBIC: reduced,
    f"{MATLAB_BICUBIC}, rounded after each axis": _on_bytes,
    f"{MATLAB_BICUBIC}, rounded once": rounded_once,
    f"{MATLAB_BICUBIC} without antialiasing": point_cubic,
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


def _weighted(*weights: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.floor(image @ np.array(weights) + 0.5).clip(0, 255).astype(np.uint8)[..., None]


def _by_pillow_gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


# MATLAB inverts its YIQ matrix, whose entries have three digits; the entries of the inverse have more.
_RGB2GRAY = np.linalg.inv(np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.106, 1.703]]))[0]

MATLAB_GRAY = "MATLAB's rgb2gray"  # BSD68 is CBSD68 by it, to the last value
GRAY_CONVERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    MATLAB_GRAY: _weighted(*_RGB2GRAY),
    "OpenCV's conversion (BT.601, full range)": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None],
    "libpng's, as OpenCV reads a color PNG in gray": to_gray,
    "Pillow's convert('L')": _by_pillow_gray,
    "BT.601 luma in [16, 235], MATLAB's rgb2ycbcr": lambda image: luma(image).round().astype(np.uint8),
    "BT.709 luma": _weighted(0.2126, 0.7152, 0.0722),
    "the mean of the channels": _weighted(1 / 3, 1 / 3, 1 / 3),
    "the green channel alone": lambda image: image[..., 1:2],
    "weights for BGR on RGB channels": _weighted(*_RGB2GRAY[::-1]),
}

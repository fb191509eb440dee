"""Ways to make one channel of three that are in use, to tell which one made a grey file.

Each takes (H, W, 3) RGB uint8 and gives (H, W, 1) uint8. BSD68 is CBSD68 by the first of them, to the last value.
"""

from collections.abc import Callable

import cv2
import numpy as np

from swinir.image_io.color import luma
from swinir.image_io.image import to_gray


def _weighted(*weights: float) -> Callable[[np.ndarray], np.ndarray]:
    def grey(image: np.ndarray) -> np.ndarray:
        return np.floor(image @ np.array(weights) + 0.5).clip(0, 255).astype(np.uint8)[..., None]

    return grey


# MATLAB inverts its YIQ matrix, whose entries have three digits, so that these have more.
_RGB2GRAY = np.linalg.inv(np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.106, 1.703]]))[0]

MATLABS = "MATLAB's rgb2gray"
LUMAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    MATLABS: _weighted(*_RGB2GRAY),
    "OpenCV's conversion (BT.601, full range)": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None],
    "libpng's, as OpenCV reads a color PNG in gray": to_gray,
    "Pillow's convert('L')": lambda image: (
        (image.astype(np.int64) @ np.array([19595, 38470, 7471]) + 0x8000) >> 16
    ).astype(np.uint8)[..., None],
    "BT.601 luma in [16, 235], MATLAB's rgb2ycbcr": lambda image: luma(image).round().astype(np.uint8),
    "BT.709 luma": _weighted(0.2126, 0.7152, 0.0722),
    "the mean of the channels": _weighted(1 / 3, 1 / 3, 1 / 3),
    "the green channel alone": lambda image: image[..., 1:2],
    "weights for BGR on RGB channels": _weighted(*_RGB2GRAY[::-1]),
}

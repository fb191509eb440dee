"""Versions of one picture side by side, with an enlarged detail below each."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swinir.image_io.image import to_rgb

_BAR = 26
_GAP = 6


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]], *, detail: tuple[int, int, int] | None = None, zoom: int = 4
) -> np.ndarray:
    """Lay out labelled images of one size in a row.

    Args:
        panels: (label, (H, W, 1 or 3) uint8 image) pairs.
        detail: (top, left, side) of a square that a second row shows enlarged; none by default.
        zoom: enlargement of the detail, by repeating pixels.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: without panels, or for images of different size.
    """
    sizes = {image.shape[:2] for _, image in panels}
    if len(sizes) != 1:
        raise ValueError(f"panels must be at least one image and of one size, got {sorted(sizes)}")
    return np.concatenate([_column(label, to_rgb(image), detail, zoom) for label, image in panels], axis=1)


def _column(label: str, image: np.ndarray, detail: tuple[int, int, int] | None, zoom: int) -> np.ndarray:
    width = max(image.shape[1], detail[2] * zoom if detail else 0) + _GAP
    rows = [_label(label, width), _pad(image, width)]
    if detail:
        top, left, side = detail
        part = image[top : top + side, left : left + side]
        enlarged = cv2.resize(part, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
        framed = image.copy()
        cv2.rectangle(framed, (left, top), (left + side - 1, top + side - 1), (255, 220, 0), 1)
        rows = [rows[0], _pad(framed, width), np.full((_GAP, width, 3), 255, np.uint8), _pad(enlarged, width)]
    return np.concatenate(rows, axis=0)


def _pad(image: np.ndarray, width: int) -> np.ndarray:
    return np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)


def _label(text: str, width: int) -> np.ndarray:
    bar = Image.new("RGB", (width, _BAR), "white")
    ImageDraw.Draw(bar).text((4, 4), text, fill="black", font=ImageFont.load_default(15))
    return np.asarray(bar)

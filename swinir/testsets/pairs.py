"""Pairs for super-resolution: make a low-quality image from its ground truth, name it, find it."""

from pathlib import Path

import numpy as np

from swinir.degradations.resize import imresize
from swinir.image_io.image import EXTENSIONS, read, write

MAX_LEFTOVER = (
    12  # pixels by which a ground truth may exceed lq * scale: some sets are cropped to multiples of 2, 3 and 4
)
ROUNDED_ONCE = (8,)  # scales of which the released files were computed in floating point


def reduced_side(side: int, scale: float) -> int:
    """Length of a side of the low-quality image, side / scale rounded down."""
    return int(round(side / scale, 9))  # 33 / 1.1 is 29.999999999999996


def reduced(gt: np.ndarray, scale: float) -> np.ndarray:
    """Make the benchmark's low-quality image, (H / scale, W / scale, C), of an (H, W, C) ground truth, both uint8.

    The ground truth is cropped at the right and bottom by `cropped` and reduced by MATLAB's bicubic, on bytes that are
    rounded after each axis, except at scale 8. All 20 released files of Set5 are reproduced exactly.

    Raises:
        ValueError: for a ground truth smaller than the scale.
    """
    size = reduced_side(gt.shape[0], scale), reduced_side(gt.shape[1], scale)
    if not min(size):
        raise ValueError(f"{gt.shape[1]}x{gt.shape[0]} is too small to be reduced by {scale:g}")
    gt = cropped(gt, scale)
    return rounded_once(gt, int(scale)) if scale in ROUNDED_ONCE else imresize(gt, size=size)


def cropped(gt: np.ndarray, scale: float) -> np.ndarray:
    """Crop a ground truth to the size that the low-quality image has when it is enlarged.

    At an integer scale that is a multiple of it, at another the low-quality side times the scale, rounded, as for LIIF.
    """
    height, width = (round(reduced_side(side, scale) * scale) for side in gt.shape[:2])
    return gt[:height, :width]


def rounded_once(gt: np.ndarray, scale: int) -> np.ndarray:
    """Reduce an (H, W, C) uint8 image, with sides that are multiples of the scale, and round after both axes."""
    return np.floor(imresize(gt.astype(np.float64), 1 / scale).clip(0, 255) + 0.5).astype(np.uint8)


def fits(gt: tuple[int, ...], lq: tuple[int, ...], scale: float) -> bool:
    """Compare the shapes of a ground truth and a low-quality image; a few extra pixels of the former are allowed."""
    leftover = [g - round(n * scale) for g, n in zip(gt[:2], lq[:2], strict=True)]
    return min(leftover) >= 0 and max(leftover) < max(MAX_LEFTOVER, scale)


def lq_name(stem: str, scale: int) -> str:
    """File name of the low-quality image of a ground truth; at scale 1 both have one name."""
    return f"{stem}x{scale}.png" if scale > 1 else f"{stem}.png"


def find_lq(folder: Path, stem: str, scale: int) -> Path | None:
    """Find the low-quality image of a ground truth in a folder, in any format."""
    path = folder / lq_name(stem, scale)
    return next((p for suffix in (".png", *EXTENSIONS) if (p := path.with_suffix(suffix)).is_file()), None)


def write_reduced(gt: Path, target: Path, scale: int) -> bool:
    """Write the low-quality image of a ground-truth file; an existing file is kept and False returned.

    Raises:
        ImageError, ValueError: for a ground truth that cannot be read, or is too small.
        OSError: if the target's folder is missing, full or read-only.
    """
    if target.exists():
        return False
    image = read(gt)
    try:
        write(target, reduced(image, scale))
    except ValueError as error:
        raise ValueError(f"{gt}: {error}") from error
    return True

"""Images as benchmarks and training take them: 8 bits, grey or RGB.

Inside the package an image is an (H, W, 1) or (H, W, 3) uint8 array in [0, 255], grey or RGB. OpenCV's BGR,
palettes, alpha, orientation flags and 16-bit files stop here; `reader` keeps all of a file's content.
"""

from pathlib import Path

import cv2
import numpy as np

from swinir.atomic import atomic_path
from swinir.image_io.reader import EXTENSIONS, MAX_PIXELS, ImageError, named, read_picture

__all__ = ["EXTENSIONS", "MAX_PIXELS", "ImageError", "list_images", "read", "to_gray", "to_rgb", "write"]


def list_images(folder: Path | str) -> list[Path]:
    """Image files directly inside a folder, by suffix, sorted by name as the released program does.

    Raises:
        FileNotFoundError, NotADirectoryError: for a folder that is absent or a file.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"folder not found: {folder}; check the path")
    if not folder.is_dir():
        raise NotADirectoryError(f"not a folder: {folder}; give the folder that holds the images")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))


def read(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image as (H, W, 3) RGB or (H, W, 1) grey uint8.

    The container is checked, and its size compared with `max_pixels`, before a pixel is decoded. EXIF
    orientation is applied, alpha is dropped, 16-bit samples keep their high byte, CMYK becomes RGB without a
    profile.

    Raises:
        ImageError: one line naming the file and what is wrong with it.
    """
    pixels = read_picture(path, max_pixels=max_pixels, through_profile=False).pixels
    if pixels.dtype == np.float32:
        raise ImageError(f"{named(Path(path))}: floating-point samples are not supported here; convert to 8 or 16 bit")
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 1) or (H, W, 3) to (H, W, 3)."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def to_gray(image: np.ndarray) -> np.ndarray:
    """(H, W, 1) or (H, W, 3) uint8 to (H, W, 1): full-range luma, truncated.

    The weights are libpng's fixed-point ones, so that a colour PNG becomes the same grey image as in the
    released program, which lets the decoder convert. Of other formats its decoders round instead.
    """
    if image.shape[2] == 1:
        return image
    return (image.astype(np.int32) @ np.array([9797, 19234, 3737], dtype=np.int32) >> 15).astype(np.uint8)[..., None]


def write(path: Path | str, image: np.ndarray) -> None:
    """Write an (H, W, 1) or (H, W, 3) RGB uint8 image as PNG; the final name never holds a partial file.

    Raises:
        OSError: when the folder is missing, full or read-only.
        ValueError: for another dtype, shape or suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: images are written as .png, got {path.suffix or 'no suffix'}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"image must be (H, W, 1 or 3) uint8, got {image.dtype} {image.shape}")
    flipped = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".png", flipped)
    if not ok:
        raise ValueError(f"{path}: {image.shape[1]}x{image.shape[0]} could not be encoded as PNG")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())

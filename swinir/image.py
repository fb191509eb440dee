"""The only place that reads or writes images.

Inside the package an image is an (H, W, 1) or (H, W, 3) uint8 array in [0, 255], grey or RGB. OpenCV's BGR,
palettes, alpha, orientation flags and 16-bit files stop here.
"""

import stat
import threading
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from swinir.atomic import atomic_path

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MAX_PIXELS = 400_000_000
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
_PILLOWS_LIMIT = threading.Lock()


class ImageError(ValueError):
    """A file that cannot be read as an image; the message is one line that names the file and the reason."""


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
    orientation is applied, alpha is dropped, 16-bit samples keep their high byte.

    Raises:
        ImageError: one line naming the file and what is wrong with it.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: not a regular file")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        with _open(path) as file:
            width, height = file.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{path}: {width}x{height} is more than the limit of {max_pixels / 1e6:.0f} megapixels"
                )
            return _to_array(ImageOps.exif_transpose(file), path)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image of a known format ({', '.join(_FORMATS)})") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        # Pillow's decoders raise all of these for damaged files.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{path}: cannot be read as an image: {' '.join(reason.split())}") from error


def _open(path: Path) -> Image.Image:
    """Open without Pillow's own limit: it is lower than ours, warns on stderr from half of it on, and is global."""
    with _PILLOWS_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _to_array(file: Image.Image, path: Path) -> np.ndarray:
    if file.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(file)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{path}: samples of {values.min()} to {values.max()} are not 8 or 16 bit")
        return (values.astype(np.uint16) >> 8).astype(np.uint8)[..., None]
    if file.mode == "F":
        raise ImageError(f"{path}: floating-point samples are not supported; convert to 8 or 16 bit")
    if file.mode in ("1", "L", "LA", "La"):
        return np.asarray(file.convert("L"))[..., None]
    return np.asarray(file.convert("RGB"))


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

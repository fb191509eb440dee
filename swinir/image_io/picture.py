"""The content of an image file: pixels of 8 or 16 bits or floats, alpha and metadata."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image; None where the file has none.

    Attributes:
        exif: a TIFF structure whose orientation is 1, without a thumbnail.
        icc: the colour profile of the pixels.
        xmp: the packet, whose orientation is 1 as well.
        dpi: horizontal and vertical, in pixels an inch.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """The image of a file, upright.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1] (a TIFF of floats).
        alpha: (H, W) of the same dtype, the largest value opaque; colours are not multiplied by it. None without.
        metadata: EXIF, profile, XMP, resolution.
        format: "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIC" or "PPM", by the content.
        jpeg_tables: of a JPEG, its quantisation tables of 64 values, row by row.
        notes: remarks of the reader for the user, a line each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    jpeg_tables: tuple[tuple[int, ...], ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if pixels.dtype not in (np.uint8, np.uint16, np.float32) or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise ValueError(
                f"pixels must be (H, W, 1 or 3) uint8, uint16 or float32, got {pixels.dtype} {pixels.shape}"
            )
        if alpha is not None and (alpha.dtype != pixels.dtype or alpha.shape != pixels.shape[:2]):
            raise ValueError(
                f"alpha must be {pixels.shape[:2]} {pixels.dtype} as the pixels, got {alpha.dtype} {alpha.shape}"
            )


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """uint8, uint16, or float32 in [0, 1], of any shape, as float32 in [0, 1]."""
    if pixels.dtype == np.float32:
        return pixels
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be uint8, uint16 or float32, got {pixels.dtype}")
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_unit(array: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Floats of any shape as uint8, uint16, or float32: clipped to [0, 1], a half rounded to the even neighbour.

    Raises:
        ValueError: for NaN, infinite values, and other dtypes.
    """
    if not np.isfinite(array).all():
        raise ValueError("the values must be finite, got NaN or infinite ones")
    clipped = np.clip(array.astype(np.float32, copy=False), 0, 1)
    if np.dtype(dtype) == np.float32:
        return clipped
    if np.dtype(dtype) not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are uint8, uint16 or float32, not {np.dtype(dtype)}")
    return (clipped * np.float32(np.iinfo(np.dtype(dtype)).max)).round().astype(dtype)

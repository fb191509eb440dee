"""What a picture file holds: pixels of 8 or 16 bits, alpha, and what else it says about its picture.

`decoding` makes one of a file, `encoding` a file of one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

BLOCK = 2**22  # samples of rows that are worked on together


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture; None for what it does not say.

    Attributes:
        exif: a TIFF structure whose orientation is 1, without a thumbnail.
        icc: the profile that gives the pixels' numbers their colours.
        xmp: the packet, whose orientation is 1 as well.
        dpi: horizontal and vertical, in pixels an inch.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """The picture of a file, standing upright.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1] (a TIFF of floats).
        alpha: (H, W) of the same dtype, the largest value opaque; colours are not multiplied by it. None without.
        metadata: EXIF, profile, XMP, resolution.
        format: "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIC" or "PPM", by the content.
        jpeg_tables: of a JPEG, its quantisation tables of 64 values, row by row.
        notes: what the user should know about the reading, a line each.
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


@dataclass(frozen=True, eq=False)
class Rows:
    """A picture whose samples are had row by row, as often as they are asked for.

    Attributes:
        channels: 1 to 4, alpha last.
        blocks: gives (n, W, channels) arrays of `dtype`, from the top on.
        metadata, format, jpeg_tables, notes: as of a `Picture`.
        close: to be called when no more rows are needed.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "PNG"
    jpeg_tables: tuple[tuple[int, ...], ...] | None = None
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None

    @property
    def colors(self) -> int:
        """1 or 3."""
        return 1 if self.channels < 3 else 3


def rows_of(picture: Picture) -> Rows:
    """The rows of a picture."""
    pixels, alpha = picture.pixels, picture.alpha
    height, width, colors = pixels.shape
    step = max(1, BLOCK // (width * colors))

    def blocks() -> Iterator[np.ndarray]:
        for y in range(0, height, step):
            part = pixels[y : y + step]
            yield part if alpha is None else np.concatenate([part, alpha[y : y + step, :, None]], axis=2)

    return Rows(
        height,
        width,
        colors + (alpha is not None),
        pixels.dtype,
        blocks,
        picture.metadata,
        picture.format,
        picture.jpeg_tables,
        picture.notes,
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

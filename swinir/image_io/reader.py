"""The one way from an image file to a `Picture`.

Files are untrusted: the format is known by the first bytes, and the size is checked before pixels are decoded.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinir.image_io import decoders, png
from swinir.image_io.canvas import Workspace
from swinir.image_io.decoders import File, Opened
from swinir.image_io.errors import (
    DAMAGED,
    ImageError,
    TooManyPixelsError,
    UnknownFormatError,
    absence,
    named,
    refusing,
    require,
)
from swinir.image_io.picture import Picture

__all__ = ["EXTENSIONS", "MAX_PIXELS", "Header", "ImageError", "named", "probe", "read_picture"]

MAX_PIXELS = 400_000_000
MAX_BYTES = 2**32  # of a file; the largest image with 16 bits and alpha takes 3.2 GB without compression
_SMALL = 2**28  # bytes in memory of an image that may be in a file of any length
# An upright image as it is stored, by its orientation (EXIF 2.3, 4.6.4 A). All are views.
_STORED: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}


@dataclass(frozen=True)
class _Format:
    """A format: its suffixes, its first bytes, the function that parses the rest of its header.

    `most_packed`: bytes in memory that a byte of the file can hold, beyond what is small; flat images are packed well.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: Callable[[bytes], object]
    open: Callable[[File], Opened]
    most_packed: int = 4096


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def _brands(head: bytes) -> tuple[bytes, ...]:
    """Brands of an ISO base media file."""
    if head[4:8] != b"ftyp":
        return ()
    return (head[8:12], *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), 256), 4)))


_FORMATS = (
    _Format("PNG", (".png", ".apng"), lambda d: d.startswith(png.SIGNATURE), decoders.open_png, 32768),
    _Format("JPEG", (".jpg", ".jpeg", ".jfif"), lambda d: d.startswith(b"\xff\xd8\xff"), decoders.open_jpeg),
    _Format("BMP", (".bmp",), lambda d: d.startswith(b"BM"), decoders.open_bmp),
    _Format("TIFF", (".tif", ".tiff"), lambda d: d[:4] in _TIFF_STARTS, decoders.open_tiff, 32768),
    _Format("WEBP", (".webp",), lambda d: d.startswith(b"RIFF") and d[8:12] == b"WEBP", decoders.open_webp),
    _Format("GIF", (".gif",), lambda d: d[:6] in (b"GIF87a", b"GIF89a"), decoders.open_gif),
    _Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), lambda d: re.match(rb"P[1-6][\s#]", d), decoders.open_netpbm),
    _Format("AVIF", (".avif",), lambda d: {*_brands(d)} & {*_AVIF_BRANDS}, decoders.open_avif),
    _Format("HEIC", (".heic", ".heif"), lambda d: {*_brands(d)} & {*_HEIC_BRANDS}, decoders.open_heic),
)
EXTENSIONS = tuple(suffix for row in _FORMATS for suffix in row.suffixes)


@dataclass(frozen=True)
class Header:
    """The size and kind of an image, before its pixels are decoded.

    Attributes:
        width, height: in pixels, upright.
        channels: 1 to 4, alpha last.
        dtype: uint8, uint16 or float32.
        format: as of a `Picture`.
    """

    width: int
    height: int
    channels: int
    dtype: np.dtype
    format: str


def probe(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of a file, and check it as `read_picture` does.

    Raises:
        ImageError: as `read_picture`, but for damage of the pixels.
    """
    path = Path(path)
    with refusing(path), ExitStack() as open_files:
        row, opened = _opened(File(_descriptor(path, open_files), open_files), path, max_pixels)
        return _header(opened, row.name)


def read_picture(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    through_profile: bool = True,
    workspace: Workspace | None = None,
) -> Picture:
    """Read a file by its content, whatever its name; of several frames or pages the first.

    Args:
        path: a regular file, or a link to one.
        max_pixels: larger images are refused before a pixel is decoded.
        through_profile: convert CMYK to RGB by the profile in the file, as programs that show images do.
        workspace: source of the arrays of pixels and alpha; without one they are in memory.

    Raises:
        ImageError: one line naming the file and the fault: not there, not an image, damaged, truncated, too large.
        DiskSpaceError: when the workspace has no room.
    """
    path = Path(path)
    array = np.empty if workspace is None else workspace.array
    with refusing(path), ExitStack() as open_files:
        file = File(_descriptor(path, open_files), open_files, through_profile)
        row, opened = _opened(file, path, max_pixels)
        header = _header(opened, row.name)
        colors = 1 if header.channels < 3 else 3
        pixels = array((header.height, header.width, colors), header.dtype)
        alpha = array((header.height, header.width), header.dtype) if header.channels > colors else None
        stored = _STORED.get(opened.orientation, lambda upright: upright)
        y = 0
        for block in opened.blocks():
            rows = slice(y, y + len(block))
            stored(pixels)[rows] = block[..., :colors]
            if alpha is not None:
                stored(alpha)[rows] = block[..., colors]
            y += len(block)
            if workspace is not None:
                workspace.release()
        assert y == opened.height
    return Picture(pixels, alpha, opened.metadata, row.name, opened.tables, tuple(dict.fromkeys(file.notes)))


def _opened(file: File, path: Path, max_pixels: int) -> tuple[_Format, Opened]:
    """Parse the header, and refuse what is too large."""
    head = file.binary().read(256)
    row = next((row for row in _FORMATS if row.starts(head)), None)
    if row is None:
        raise UnknownFormatError(f"not an image of a known format ({', '.join(row.name for row in _FORMATS)})")
    opened = row.open(file)
    size, pixels = f"{opened.width}x{opened.height}", opened.width * opened.height
    too_large = f"{size} is more than the limit of {max_pixels / 1e6:g} megapixels"
    require(pixels <= max_pixels, too_large, TooManyPixelsError)
    require(
        pixels * opened.channels * opened.dtype.itemsize <= max(_SMALL, row.most_packed * file.size),
        f"its {file.size:,} bytes cannot hold {size} pixels; {DAMAGED}",
    )
    suffix = path.suffix.lower()
    if suffix in EXTENSIONS and suffix not in row.suffixes:
        file.notes.append(f"named {path.suffix}, but its content is {row.name}")
    if opened.frames > 1:
        file.notes.append(f"the first of {opened.frames} {'pages' if row.name == 'TIFF' else 'frames'}")
    return row, opened


def _descriptor(path: Path, open_files: ExitStack) -> int:
    """Open a regular file; anything else is not opened, and never waited for if it takes the file's place."""
    try:
        _require_regular(os.stat(path))
    except FileNotFoundError:
        require(not path.is_symlink(), "a link to a file that is not there")
        raise ImageError(absence(path)) from None
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    open_files.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    _require_regular(status)
    require(status.st_size, "the file is empty")
    require(status.st_size <= MAX_BYTES, f"{status.st_size:,} bytes are more than the limit of {MAX_BYTES:,}")
    return descriptor


def _header(opened: Opened, name: str) -> Header:
    size = (opened.width, opened.height) if opened.orientation not in (5, 6, 7, 8) else (opened.height, opened.width)
    return Header(*size, opened.channels, opened.dtype, name)


def _require_regular(status: os.stat_result) -> None:
    require(stat.S_ISREG(status.st_mode), "not a regular file")

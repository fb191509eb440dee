"""Decoders of each format: the header at once, the pixels block by block.

Only the decoders named here are used. libvips decodes row by row; Pillow reads BMP, the tables of JPEG, and AVIF of 8
bits, whose colours libvips enlarges without interpolation; pillow-heif reads HEIC, for which the wheel of libvips lacks
a decoder.
"""

import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
import pyvips
from PIL import Image, ImageCms, UnidentifiedImageError

from swinir.image_io import exif, jpeg, netpbm, png, tiff
from swinir.image_io.canvas import BLOCK
from swinir.image_io.errors import DAMAGED, ImageError, require
from swinir.image_io.picture import Metadata

_MOST_WHOLE = 2**28  # bytes of a file that Python reads whole
_PILLOWS_SETTINGS, _NOTED_ERRORS = threading.Lock(), threading.Lock()
_ORIENTATION_IN_XMP = re.compile(rb"(tiff:Orientation(?:=[\"']|>))([2-8])")
_DTYPES = {"uchar": "u1", "ushort": "u2", "float": "f4", "short": "i2", "int": "i4", "uint": "u4"}
_COLORS = {"b-w": 1, "grey16": 1, "srgb": 3, "rgb16": 3, "rgb": 3, "scrgb": 3, "cmyk": 4}
_UNKNOWN_DPI = (25.4, 72.0)  # of libvips, for files without a resolution
_FIELDS = ("icc-profile-data", "exif-data", "xmp-data", "orientation", "n-pages")

pyvips.cache_set_max(0)  # a file may change between two readings
logging.getLogger("pyvips").addHandler(logging.NullHandler())  # else its warnings reach the terminal
logging.getLogger("pyvips").propagate = False


@dataclass(frozen=True)
class Opened:
    """A file whose header is parsed, as stored: blocks are (n, W, `channels` or more), from the top on."""

    width: int
    height: int
    channels: int
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]
    metadata: Metadata = field(default_factory=Metadata)
    orientation: int = 1
    frames: int = 1
    tables: tuple[tuple[int, ...], ...] | None = None


@dataclass
class File:
    """An open file.

    Attributes:
        open_files: closed by the reader in the end.
        through_profile: as `read_picture` takes it.
        notes: remarks of the decoder for the user.
    """

    descriptor: int
    open_files: ExitStack
    through_profile: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def binary(self) -> BinaryIO:
        """Open the file from its start for Python, with a fresh buffer: libvips moves the descriptor's position."""
        file = self.open_files.enter_context(os.fdopen(os.dup(self.descriptor), "rb"))
        file.seek(0)
        return file

    def by_vips(self, loader: str, fail_on: str = "error") -> pyvips.Image:
        """Let libvips parse the header. It shares the descriptor's position: read nothing else until it has decoded."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        with _vips_errors():
            source = pyvips.Source.new_from_descriptor(self.descriptor)
            return pyvips.Operation.call(f"{loader}_source", source, access="sequential", fail_on=fail_on)

    def by_pillow(self, name: str) -> Image.Image:
        """Let Pillow parse the header."""
        with _pillow_without_its_limit():
            try:
                return Image.open(self.binary(), formats=(name,))
            except UnidentifiedImageError as error:
                raise ImageError(DAMAGED) from error


def open_png(file: File) -> Opened:
    found = png.walk(file.binary())
    image = file.by_vips("pngload")
    for name in image.get_fields():
        if name.startswith("png-comment-") and name.endswith("-Raw profile type exif"):  # of ImageMagick
            with suppress(ValueError):
                found.exif = found.exif or bytes.fromhex("".join(image.get(name).split("\n")[3:]))
    opened = _from_vips(image, file)
    if found.exif or found.xmp:
        orientation, more = _about(found.exif, None, found.xmp, file.notes)
        about = opened.metadata
        about = replace(about, exif=about.exif or more.exif, xmp=about.xmp or more.xmp)
        opened = replace(opened, metadata=about, orientation=max(opened.orientation, orientation))
    return replace(opened, frames=found.frames)


def open_jpeg(file: File) -> Opened:
    jpeg.check(file.binary())
    tables: Mapping[int, list[int]] = getattr(file.by_pillow("JPEG"), "quantization", {})
    opened = _from_vips(file.by_vips("jpegload", "truncated"), file)  # other damage is common, and all programs show it
    return replace(opened, tables=tuple(tuple(tables[number]) for number in sorted(tables)) or None)


def open_tiff(file: File) -> Opened:
    data = exif.FileBytes(file.binary())
    has_alpha, part_rows = tiff.check(data)
    try:
        block = exif.described(data)
    except ImageError:
        block = None
        file.notes.append("its EXIF is damaged and left out")
    return _from_vips(file.by_vips("tiffload"), file, has_alpha=has_alpha, block=block, most_rows=part_rows)


def open_webp(file: File) -> Opened:
    return _from_vips(file.by_vips("webpload"), file)


def open_gif(file: File) -> Opened:
    return _from_vips(file.by_vips("gifload"), file)


def open_avif(file: File) -> Opened:
    _check_length(file)
    opened = replace(_from_vips(file.by_vips("heifload"), file), orientation=1)  # libheif has turned it
    return opened if opened.dtype == np.uint16 else replace(_from_pillow("AVIF", file), frames=opened.frames)


def _check_length(file: File) -> None:
    require(file.size <= _MOST_WHOLE, f"{file.size:,} bytes are more than {_MOST_WHOLE:,}, the limit for AVIF and HEIC")


def open_bmp(file: File) -> Opened:
    return _from_pillow("BMP", file)


def open_netpbm(file: File) -> Opened:
    binary = file.binary()
    head = netpbm.header(binary)
    return Opened(head.width, head.height, head.channels, head.dtype, lambda: netpbm.blocks(binary, head))


def open_heic(file: File) -> Opened:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("HEIC files need pillow-heif; pip install 'swinir-toolkit[heic]'") from error
    _check_length(file)
    found = pillow_heif.open_heif(file.binary(), convert_hdr_to_8bit=False)  # upright
    channels = {"L": 1, "LA": 2, "La": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}[found.mode.split(";")[0]]
    _, metadata = _about(found.info.get("exif"), found.info.get("icc_profile"), found.info.get("xmp"), file.notes)
    width, height = found.size
    dtype = np.dtype(np.uint16 if ";" in found.mode else np.uint8)

    def blocks() -> Iterator[np.ndarray]:
        yield np.asarray(found).reshape(height, width, channels)

    return Opened(width, height, channels, dtype, blocks, metadata, frames=len(found))


# By libvips.


@contextmanager
def _vips_errors() -> Iterator[None]:
    """Turn the several lines of an error of libvips into one."""
    try:
        yield
    except pyvips.Error as error:
        lines = [line for line in error.detail.splitlines() if line.strip()] or [error.message]
        raise ImageError(f"{DAMAGED} ({lines[-1]})") from error  # behind warnings about other files


@contextmanager
def _tiff_errors() -> Iterator[None]:
    """Raise errors that libvips notes for the process: it shows parts of a TIFF file it cannot decode as black."""
    with _NOTED_ERRORS:
        pyvips.vips_lib.vips_error_clear()
        yield
        noted = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode(errors="replace")
    for line in noted.splitlines():
        require(not line.startswith("tiff2vips"), f"{DAMAGED} ({line})")


def _from_vips(
    image: pyvips.Image,
    file: File,
    *,
    has_alpha: bool | None = None,
    block: bytes | None = None,
    most_rows: int = 2**31,
) -> Opened:
    """Describe an image that libvips has opened; `has_alpha` and EXIF (`block`) where it does not tell.

    `most_rows`: of a block; libvips is slow where one takes several rows of small tiles.
    """
    known = {name: image.get(name) for name in image.get_fields() if name in _FIELDS}
    icc = known.get("icc-profile-data")
    orientation, metadata = _about(block or known.get("exif-data"), icc, known.get("xmp-data"), file.notes)
    dpi = (image.xres * 25.4, image.yres * 25.4)
    if not any(np.allclose(dpi, unknown, rtol=1e-3) for unknown in _UNKNOWN_DPI):
        metadata = replace(metadata, dpi=_dpi(dpi))
    with _vips_errors():
        if image.interpretation not in _COLORS:
            image = image.colourspace("srgb")
    require(image.format in _DTYPES, f"samples of the type {image.format} are not supported; convert to 8 or 16 bit")
    dtype, colors = np.dtype(_DTYPES[image.format]), _COLORS[image.interpretation]
    require(colors <= image.bands, DAMAGED)
    if dtype not in (np.uint8, np.float32):
        dtype = np.dtype(np.uint16)
    finish: Callable[[np.ndarray], np.ndarray] = _checked
    channels = colors + (image.bands > colors and (image.hasalpha() if has_alpha is None else has_alpha))
    if image.interpretation == "cmyk":
        finish, metadata = _from_cmyk(icc if file.through_profile else None, file.notes), replace(metadata, icc=None)
        dtype, channels = np.dtype(np.uint8), 3

    def blocks() -> Iterator[np.ndarray]:
        errors = _tiff_errors if image.get("vips-loader").startswith("tiffload") else nullcontext
        region, step = pyvips.Region.new(image), max(1, min(most_rows, BLOCK // image.width))
        for top in range(0, image.height, step):
            rows = min(step, image.height - top)
            with _vips_errors(), errors():
                data = region.fetch(0, top, image.width, rows)
            samples = np.frombuffer(data, _DTYPES[image.format])
            yield finish(samples.reshape(rows, image.width, image.bands))

    return Opened(
        image.width,
        image.height,
        channels,
        dtype,
        blocks,
        metadata,
        known.get("orientation", orientation),
        known.get("n-pages", 1),
    )


def _checked(samples: np.ndarray) -> np.ndarray:
    """Samples as uint8, uint16, or float32 in [0, 1]; an ImageError for values out of range."""
    if samples.dtype in (np.uint8, np.uint16):
        return samples
    low, high = samples.min(), samples.max()
    if samples.dtype != np.float32:
        require(low >= 0 and high <= 65535, f"samples of {low} to {high} are not 8 or 16 bit")
        return samples.astype(np.uint16)
    require(np.isfinite(samples).all(), "floating-point samples that are NaN or infinite")
    advice = "scale them to [0, 1], or convert to 16 bit"
    require(low >= 0 and high <= 1, f"floating-point samples of {low:.3g} to {high:.3g}; {advice}")
    return samples


def _from_cmyk(profile: bytes | None, notes: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from CMYK to RGB samples."""
    transform = None
    if profile:
        try:
            transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("its profile is damaged and was not used")
    notes.append(f"CMYK converted to {'sRGB through its profile' if transform else 'RGB without a profile'}")

    def convert(samples: np.ndarray) -> np.ndarray:
        if samples.dtype == np.uint16:
            samples = (samples >> 8).astype(np.uint8)
        ink = Image.fromarray(np.ascontiguousarray(samples[..., :4]), "CMYK")
        rgb = ImageCms.applyTransform(ink, transform) if transform else ink.convert("RGB")
        assert rgb is not None
        return np.asarray(rgb)

    return convert


# By Pillow.

# Its modes, where they are not read as RGB.
_MODES = {"1": "L", "L": "L", "LA": "LA", "RGBA": "RGBA"}


def _from_pillow(name: str, file: File) -> Opened:
    image = file.by_pillow(name)
    mode = _MODES.get(image.mode, "RGB")
    info = image.info
    orientation, metadata = _about(info.get("exif"), info.get("icc_profile"), info.get("xmp"), file.notes)

    def blocks() -> Iterator[np.ndarray]:
        samples = np.asarray(image.convert(mode))
        yield samples.reshape(*samples.shape[:2], -1)

    metadata = replace(metadata, dpi=_dpi(info.get("dpi")))
    return Opened(*image.size, len(mode), np.dtype(np.uint8), blocks, metadata, orientation)


@contextmanager
def _pillow_without_its_limit() -> Iterator[None]:
    """Lift Pillow's limit of pixels, which is lower than ours, and silence its warnings; both are of the process."""
    with _PILLOWS_SETTINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


# Metadata.


def _about(block: bytes | None, icc: bytes | None, xmp: bytes | None, notes: list[str]) -> tuple[int, Metadata]:
    """The orientation, by EXIF or else XMP, and the metadata of the upright image; damaged EXIF is left out."""
    found = _ORIENTATION_IN_XMP.search(xmp or b"")
    orientation = int(found[2]) if found else 1
    block = (block or b"").removeprefix(b"Exif\0\0") or None
    if block:
        try:
            orientation = exif.directory(block).integer(block, exif.ORIENTATION, orientation)
            block = exif.upright(block)
        except ImageError:
            block = None
            notes.append("its EXIF is damaged and left out")
    return orientation, Metadata(block, icc, _ORIENTATION_IN_XMP.sub(rb"\g<1>1", xmp) if xmp else None)


def _dpi(pair: Any) -> tuple[float, float] | None:
    """Pixels an inch where a file gives credible ones."""
    try:
        horizontal, vertical = (float(value) for value in pair)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (horizontal, vertical) if 1e-3 < min(horizontal, vertical) <= max(horizontal, vertical) < 1e6 else None

"""Images written as files: the content each format can hold, and the treatment of what it cannot.

libvips encodes from the arrays as they are, be they mapped files. It loses the EXIF of TIFF, which is added here, and
has no BMP, which Pillow writes.
"""

import errno
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
from PIL import Image

from swinir.atomic import atomic_path
from swinir.image_io import exif
from swinir.image_io.canvas import Workspace
from swinir.image_io.errors import ImageError
from swinir.image_io.picture import Metadata, Picture


@dataclass(frozen=True)
class Format:
    """The content a file of a format can hold, and the operation of libvips that writes it.

    Attributes:
        suffixes: of its files.
        dtypes: of its samples, the most exact first.
        alpha: True if it has an alpha channel.
        lossless: True if pixels come back as they were, without a quality.
        quality: the default, 1 to 100; None for as exact as possible.
        takes_quality: True if there is a quality to choose.
        metadata: the fields of `Metadata` it stores.
        operation: of libvips; None for BMP.
        largest_side: in pixels.
        largest_entry: bytes of EXIF or XMP; of a JPEG's segment, less its name.
    """

    name: str
    suffixes: tuple[str, ...]
    dtypes: tuple[type, ...]
    alpha: bool
    lossless: bool
    quality: int | None
    takes_quality: bool
    metadata: tuple[str, ...]
    operation: str | None
    largest_side: int = 2**31 - 1
    largest_entry: int = 2**31 - 1


_ALL = ("exif", "icc", "xmp", "dpi")
_8, _16, _FLOAT = np.uint8, np.uint16, np.float32
# fmt: off
FORMATS = (
    #      name    suffixes           samples            alpha  lossless  quality      metadata   operation
    Format("PNG",  (".png",),         (_16, _8),         True,  True,     None, False, _ALL,      "pngsave"),
    Format("JPEG", (".jpg", ".jpeg"), (_8,),             False, False,    95,   True,  _ALL,      "jpegsave", 65_500,
           largest_entry=65_000),
    Format("WEBP", (".webp",),        (_8,),             True,  True,     None, True,  _ALL[:3],  "webpsave", 16_383),
    Format("TIFF", (".tif", ".tiff"), (_FLOAT, _16, _8), True,  True,     None, False, _ALL,      "tiffsave"),
    Format("AVIF", (".avif",),        (_8,),             True,  False,    90,   True,  _ALL[:3],  "heifsave", 16_384),
    Format("BMP",  (".bmp",),         (_8,),             False, True,     None, False, _ALL[3:],  None),
)
# fmt: on
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compression": 6, "filter": 0xF8},  # the filter that suits each row
    "JPEG": {"subsample_mode": "off"},
    "AVIF": {"subsample_mode": "off", "compression": "av1"},
    "TIFF": {"compression": "deflate", "resunit": "inch"},
}
_VIPS_FORMATS = {"u1": "uchar", "u2": "ushort", "f4": "float"}
_VIPS_BLOBS = {"exif": ("exif-data", 1), "icc": ("icc-profile-data", 8), "xmp": ("xmp-data", 2)}  # and flags of "keep"
_MOST_CLASSIC = 2**32 - 2**24  # bytes of samples in a TIFF file whose offsets have 32 bits
_UNKNOWN_DPI = 72.0  # written where there is none to keep
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

pyvips.concurrency_set(min(4, os.cpu_count() or 1))


def can_hold(suffix: str) -> Format:
    """The format of files with a suffix such as ".png"; a ValueError that names those that can be written."""
    for row in FORMATS:
        if suffix.lower() in row.suffixes:
            return row
    known = ", ".join(suffix for row in FORMATS for suffix in row.suffixes)
    raise ValueError(f"images are written as {known}, got {suffix or 'no suffix'}")


def write_picture(
    path: Path | str,
    picture: Picture,
    *,
    quality: int | None = None,
    keep_metadata: bool = True,
    workspace: Workspace | None = None,
) -> tuple[str, ...]:
    """Write an image in the format of the path's suffix; the final name never holds a partial file.

    Content that the format cannot hold is brought as near as it can: samples are rounded to fewer bits, and
    transparent parts are laid on white, as web browsers show them. Orientation is always upright. A TIFF file of more
    than 4 GiB is a BigTIFF and has no EXIF.

    Args:
        path: with a suffix of `FORMATS`; a file of that name is replaced.
        picture: pixels, alpha and metadata to write; its `format` and `notes` do not matter.
        quality: 1 to 100, of JPEG, WebP and AVIF. Without one JPEG takes 95, AVIF 90, and WebP is lossless.
        keep_metadata: without, only the profile is written, which the colours need.
        workspace: source of the arrays; its mapped pages leave main memory while libvips encodes.

    Returns:
        A line for the user about each loss.

    Raises:
        ValueError: for an unknown suffix, a quality out of range or of a format that has none, and an image too
            large for the format.
        OSError: when the folder is missing, full or read-only.
    """
    path = Path(path)
    row = can_hold(path.suffix)
    if quality is not None and not (row.takes_quality and 1 <= quality <= 100):
        allowed = "from 1 to 100" if row.takes_quality else f"for JPEG, WebP and AVIF only, not {row.name}"
        raise ValueError(f"quality is {allowed}, got {quality}")
    height, width, channels = picture.pixels.shape
    if max(height, width) > row.largest_side:
        raise ValueError(f"{row.name} holds at most {row.largest_side} pixels a side, got {width}x{height}; write .png")
    notes: list[str] = []
    image = _fitted(picture, row, notes)
    about = _kept(picture.metadata, channels, row, keep_metadata, notes)
    options = dict(_OPTIONS.get(row.name, {}))
    quality = row.quality if quality is None else quality
    if quality is not None:
        options["Q"] = quality
    elif row.name == "WEBP":
        options.update(lossless=True, exact=True)
    appended = None
    if row.name == "TIFF":
        big = math.prod((height, width, image.bands, picture.pixels.itemsize)) > _MOST_CLASSIC
        options.update(bigtiff=big, predictor="none" if image.format == "float" else "horizontal")
        if big and about.exif:
            notes.append("a TIFF file of more than 4 GiB has no place for its EXIF")
        appended, about = None if big else about.exif, replace(about, exif=None)
    with atomic_path(path) as temporary:
        with temporary.open("r+b") as file:
            if row.operation is None:
                _write_bmp(file, image, about)
            else:
                options["keep"] = sum(flag for name, (_, flag) in _VIPS_BLOBS.items() if getattr(about, name))
                _save(file, _with_metadata(image, about), row.operation, options, workspace)
        if appended:
            exif.append(temporary, appended)
    return tuple(notes)


def _fitted(picture: Picture, row: Format, notes: list[str]) -> pyvips.Image:
    """Samples of a dtype that the format has, alpha last if it has alpha; computed when they are written."""
    image, dtype = _of_array(picture.pixels), picture.pixels.dtype
    top = _top(dtype)
    if picture.alpha is not None:
        alpha = _of_array(picture.alpha[..., None])
        if row.alpha:
            image = image.bandjoin(alpha)
        elif picture.alpha.min() != top:
            share = alpha / top
            image = image * share + (1 - share) * top
            notes.append(f"{row.name} has no alpha: transparent parts were laid on white")
    depth = dtype
    if dtype.type not in row.dtypes:
        depth = np.dtype(row.dtypes[0])
        image = image * (_top(depth) / top)
        notes.append(f"{row.name} holds {8 * depth.itemsize} bits a sample: they were rounded to that")
    if image.format != _vips_format(depth):
        image = (image if depth.kind == "f" else image.rint()).cast(_vips_format(depth))
    grey, color = {"u1": ("b-w", "srgb"), "u2": ("grey16", "rgb16"), "f4": ("b-w", "scrgb")}[depth.str[1:]]
    return image.copy(interpretation=grey if image.bands < 3 else color)


def _of_array(array: np.ndarray) -> pyvips.Image:
    """An image on the memory of an (H, W, C) array."""
    height, width, channels = array.shape
    return pyvips.Image.new_from_memory(np.ascontiguousarray(array), width, height, channels, _vips_format(array.dtype))


def _vips_format(dtype: np.dtype) -> str:
    return _VIPS_FORMATS[dtype.str[1:]]


def _top(dtype: np.dtype) -> float:
    """The value of white, and of opaque."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def _kept(metadata: Metadata, channels: int, row: Format, keep_metadata: bool, notes: list[str]) -> Metadata:
    """The metadata that the format stores and that is true of the image."""
    about = metadata if keep_metadata else Metadata(icc=metadata.icc)
    if about.exif:
        try:
            about = replace(about, exif=exif.upright(about.exif))
        except ImageError:
            about = replace(about, exif=None)
            notes.append("its EXIF is damaged and left out")
    if about.icc and about.icc[16:20] != (b"GRAY" if channels == 1 else b"RGB "):
        about = replace(about, icc=None)
        notes.append("its profile is for images of another kind and left out")
    for field, name in (("exif", "EXIF"), ("icc", "profile"), ("xmp", "XMP"), ("dpi", "resolution")):
        value = getattr(about, field)
        if value and field not in row.metadata:
            about = replace(about, **{field: None})
            if field != "dpi":  # which few miss
                notes.append(f"{row.name} has no place for its {name}")
        elif field in ("exif", "xmp") and value and len(value) > row.largest_entry:
            about = replace(about, **{field: None})
            notes.append(f"its {name} of {len(value):,} bytes is too long for {row.name} and left out")
    return about


def _with_metadata(image: pyvips.Image, about: Metadata) -> pyvips.Image:
    horizontal, vertical = about.dpi or (_UNKNOWN_DPI, _UNKNOWN_DPI)
    image = image.copy(xres=horizontal / 25.4, yres=vertical / 25.4)
    for field, (name, _) in _VIPS_BLOBS.items():
        if content := getattr(about, field):
            prefix = b"Exif\0\0" if field == "exif" else b""
            image.set_type(pyvips.GValue.blob_type, name, prefix + content)
    return image


def _save(
    file: BinaryIO, image: pyvips.Image, operation: str, options: dict[str, Any], workspace: Workspace | None
) -> None:
    """Let libvips write; by the open file, since it cannot open every name."""
    if workspace is not None:
        image.set_progress(True)
        image.signal_connect("eval", lambda *_: workspace.release())
    try:
        target = pyvips.Target.new_to_descriptor(file.fileno())
        pyvips.Operation.call(f"{operation}_target", image, target, **options)
    except pyvips.Error as error:
        code = next((code for code in _NO_ROOM if os.strerror(code) in error.detail), errno.EIO)
        lines = error.detail.splitlines() or [error.message]
        raise OSError(code, os.strerror(code) if code != errno.EIO else lines[-1]) from error


def _write_bmp(file: BinaryIO, image: pyvips.Image, about: Metadata) -> None:
    mode = {1: "L", 3: "RGB"}[image.bands]
    whole = Image.frombuffer(mode, (image.width, image.height), image.write_to_memory(), "raw", mode, 0, 1)
    whole.save(file, "BMP", **({"dpi": about.dpi} if about.dpi else {}))

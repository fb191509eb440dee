"""Pictures written as files: what each format can hold, and what is done with what it cannot."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from swinir.atomic import atomic_path
from swinir.image_io import exif, png, tiff
from swinir.image_io.containers import ContainerError
from swinir.image_io.picture import Metadata, Picture, from_unit, to_unit

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Format:
    """What a file of a format can hold, and how it is made.

    Attributes:
        suffixes: of its files.
        dtypes: of its samples, the most exact first.
        alpha: whether it has an alpha channel.
        lossless: whether pixels come back as they were, without a quality.
        quality: what is taken without one, 1 to 100; None for as exact as it can.
        takes_quality: whether there is a quality to choose.
        metadata: the fields of `Metadata` it stores.
        encode: the file, from (H, W, 1 to 4) samples with alpha last, what metadata there is, and a quality.
        largest_side: in pixels.
        largest_entry: bytes of EXIF or XMP; of a JPEG's segment, less what names it.
        write: the same as `encode` into an empty file, for blocks of rows, the whole's shape and dtype; if it can.
    """

    name: str
    suffixes: tuple[str, ...]
    dtypes: tuple[type, ...]
    alpha: bool
    lossless: bool
    quality: int | None
    takes_quality: bool
    metadata: tuple[str, ...]
    encode: Callable[[np.ndarray, Metadata, int | None], bytes]
    largest_side: int = 2**31 - 1
    largest_entry: int = 2**31 - 1
    write: Callable[[BinaryIO, Iterable[np.ndarray], Shape, np.dtype, Metadata], None] | None = None


def _png(image: np.ndarray, about: Metadata, quality: int | None) -> bytes:
    return png.encode(image, about)


def _to_png(file: BinaryIO, blocks: Iterable[np.ndarray], shape: Shape, dtype: np.dtype, about: Metadata) -> None:
    for part in png.encoded(blocks, shape, dtype, about):
        file.write(part)


def _to_tiff(file: BinaryIO, blocks: Iterable[np.ndarray], shape: Shape, dtype: np.dtype, about: Metadata) -> None:
    tiff.write(file, blocks, shape, dtype, about)


def _tiff(image: np.ndarray, about: Metadata, quality: int | None) -> bytes:
    return tiff.encode(image, about)


def _jpeg(image: np.ndarray, about: Metadata, quality: int | None) -> bytes:
    block = b"Exif\0\0" + about.exif if about.exif else None
    dpi = about.dpi and tuple(min(round(value), 65535) for value in about.dpi)  # whole numbers of 16 bits
    return _by_pillow(image, "JPEG", quality=quality, subsampling=0, exif=block, icc_profile=about.icc, xmp=about.xmp,
                      dpi=dpi)  # fmt: skip


def _webp(image: np.ndarray, about: Metadata, quality: int | None) -> bytes:
    how = {"lossless": True, "exact": True} if quality is None else {"quality": quality}
    return _by_pillow(image, "WEBP", **how, exif=about.exif, icc_profile=about.icc, xmp=about.xmp)


def _avif(image: np.ndarray, about: Metadata, quality: int | None) -> bytes:
    sampling = "4:0:0" if image.shape[2] == 1 else "4:4:4"
    return _by_pillow(image, "AVIF", quality=quality, subsampling=sampling, exif=about.exif, icc_profile=about.icc,
                      xmp=about.xmp)  # fmt: skip


def _bmp(image: np.ndarray, about: Metadata, quality: int | None) -> bytes:
    return _by_pillow(image, "BMP", dpi=about.dpi)


def _by_pillow(image: np.ndarray, name: str, **options: object) -> bytes:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[image.shape[2]]
    file = Image.frombytes(mode, image.shape[1::-1], image.tobytes())
    data = io.BytesIO()
    file.save(data, name, **{key: value for key, value in options.items() if value is not None})
    return data.getvalue()


_ALL = ("exif", "icc", "xmp", "dpi")
_8, _16, _FLOAT = np.uint8, np.uint16, np.float32
# fmt: off
FORMATS = (
    #      name    suffixes           samples            alpha  lossless  quality      metadata
    Format("PNG",  (".png",),         (_16, _8),         True,  True,     None, False, _ALL,     _png, write=_to_png),
    Format("JPEG", (".jpg", ".jpeg"), (_8,),             False, False,    95,   True,  _ALL,     _jpeg, 65_500, 65_000),
    Format("WEBP", (".webp",),        (_8,),             True,  True,     None, True,  _ALL[:3], _webp, 16_383),
    Format("TIFF", (".tif", ".tiff"), (_FLOAT, _16, _8), True,  True,     None, False, _ALL,     _tiff, write=_to_tiff),
    Format("AVIF", (".avif",),        (_8,),             True,  False,    90,   True,  _ALL[:3], _avif, 16_384),
    Format("BMP",  (".bmp",),         (_8,),             False, True,     None, False, _ALL[3:], _bmp),
)
# fmt: on


def can_hold(suffix: str) -> Format:
    """The format of files with a suffix such as ".png"; a ValueError that names those that can be written."""
    for row in FORMATS:
        if suffix.lower() in row.suffixes:
            return row
    known = ", ".join(suffix for row in FORMATS for suffix in row.suffixes)
    raise ValueError(f"pictures are written as {known}, got {suffix or 'no suffix'}")


def write_picture(
    path: Path | str, picture: Picture, *, quality: int | None = None, keep_metadata: bool = True
) -> tuple[str, ...]:
    """Write a picture in the format of the path's suffix; the final name never holds a partial file.

    What the format cannot hold is brought as near as it can: samples are rounded to fewer bits, and what is
    transparent is laid on white, as web browsers show it. Orientation is always upright.

    Args:
        path: with a suffix of `FORMATS`; a file of that name is replaced.
        picture: pixels, alpha and metadata to write; its `format` and `notes` do not matter.
        quality: 1 to 100, of JPEG, WebP and AVIF. Without one JPEG takes 95, AVIF 90, and WebP is lossless.
        keep_metadata: without, only the profile is written, which the colours need.

    Returns:
        What was lost, a line each, for the user.

    Raises:
        ValueError: for an unknown suffix, a quality out of range or of a format that has none, and a picture too
            large for the format.
        OSError: when the folder is missing, full or read-only.
    """
    path = Path(path)
    row = _checked(path, picture.pixels.shape, quality)
    notes: list[str] = []
    image = _fitted(picture, row, notes)
    about = _kept(picture.metadata, picture.pixels.shape, row, keep_metadata, notes)
    data = row.encode(image, about, row.quality if quality is None else quality)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return tuple(notes)


def write_rows(
    path: Path | str,
    blocks: Iterable[np.ndarray],
    shape: Shape,
    dtype: np.dtype,
    metadata: Metadata,
    *,
    quality: int | None = None,
    keep_metadata: bool = True,
) -> tuple[str, ...]:
    """`write_picture` for a picture whose rows come one after another; held whole where the format needs it.

    PNG and TIFF are written as the rows come. A TIFF file of more than 4 GiB is a BigTIFF and has no EXIF.

    Args:
        blocks: (n, W, 1 to 4) samples, alpha last.
        shape, dtype: of the whole.

    Raises:
        ValueError, OSError: as `write_picture`.
    """
    path = Path(path)
    row = _checked(path, shape, quality)
    colors = 1 if shape[2] < 3 else 3
    if row.write is None:
        image, y = np.empty(shape, dtype), 0
        for block in blocks:
            image[y : y + len(block)] = block
            y += len(block)
        picture = Picture(image[..., :colors], image[..., colors] if shape[2] > colors else None, metadata)
        return write_picture(path, picture, quality=quality, keep_metadata=keep_metadata)
    notes: list[str] = []
    depth = _depth(dtype, row, notes)
    about = _kept(metadata, (*shape[:2], colors), row, keep_metadata, notes)
    if about.exif and row.name == "TIFF" and tiff.is_big(shape, depth):
        about = replace(about, exif=None)
        notes.append("a TIFF file of more than 4 GiB has no place for its EXIF")
    fitting = blocks if depth == dtype else (from_unit(to_unit(block), depth) for block in blocks)
    with atomic_path(path) as temporary, temporary.open("r+b") as file:
        row.write(file, fitting, shape, depth, about)
    return tuple(notes)


def _checked(path: Path, shape: tuple[int, ...], quality: int | None) -> Format:
    """The format of a path; a ValueError for a quality or a size that it has not."""
    row = can_hold(path.suffix)
    if quality is not None and not (row.takes_quality and 1 <= quality <= 100):
        allowed = "from 1 to 100" if row.takes_quality else f"for JPEG, WebP and AVIF only, not {row.name}"
        raise ValueError(f"quality is {allowed}, got {quality}")
    height, width = shape[:2]
    if max(height, width) > row.largest_side:
        raise ValueError(f"{row.name} holds at most {row.largest_side} pixels a side, got {width}x{height}; write .png")
    return row


def _depth(dtype: np.dtype, row: Format, notes: list[str]) -> np.dtype:
    """Of the samples in a file."""
    if dtype.type in row.dtypes:
        return dtype
    depth = np.dtype(row.dtypes[0])
    notes.append(f"{row.name} holds {8 * depth.itemsize} bits a sample: they were rounded to that")
    return depth


def _fitted(picture: Picture, row: Format, notes: list[str]) -> np.ndarray:
    """(H, W, 1 to 4) samples of a dtype that the format has, alpha last if it has alpha."""
    image = picture.pixels
    alpha = None if picture.alpha is None else picture.alpha[..., None]
    if alpha is not None and row.alpha:
        image = np.concatenate([image, alpha], axis=2)
    elif alpha is not None and (alpha != _opaque(alpha.dtype)).any():
        share = to_unit(alpha)
        image = from_unit(to_unit(image) * share + (1 - share), image.dtype)
        notes.append(f"{row.name} has no alpha: transparent parts were laid on white")
    depth = _depth(image.dtype, row, notes)
    return image if image.dtype == depth else from_unit(to_unit(image), depth)


def _opaque(dtype: np.dtype) -> float:
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def _kept(metadata: Metadata, shape: tuple[int, ...], row: Format, keep_metadata: bool, notes: list[str]) -> Metadata:
    """The metadata that the format stores and that is true of pixels of a shape."""
    about = metadata if keep_metadata else Metadata(icc=metadata.icc)
    height, width, channels = shape
    if about.exif:
        try:
            about = replace(about, exif=exif.of_size(exif.upright(about.exif), width, height))
        except ContainerError:
            about = replace(about, exif=None)
            notes.append("its EXIF is damaged and left out")
    if about.icc and about.icc[16:20] != (b"GRAY" if channels == 1 else b"RGB "):
        about = replace(about, icc=None)
        notes.append("its profile is for pictures of another kind and left out")
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

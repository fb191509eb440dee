"""TIFF files: what they claim, samples of 16 bits and floats, and pictures as TIFF with their metadata.

Section numbers are those of TIFF 6.0. Pillow reads TIFF of 8 bits; of deeper colour it would keep 8 bits, and floats
of one channel only.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from swinir.image_io.containers import (
    DAMAGED,
    TRUNCATED,
    Bytes,
    Container,
    ContainerError,
    inflated,
    pieces,
    require,
    unpack,
)
from swinir.image_io.exif import DESCRIPTIVE, Directory, count_directories, directory, numbers, packed
from swinir.image_io.picture import Metadata
from swinir.image_io.spans import in_spans

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, CHANNELS, STRIP_ROWS, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR = 282, 283, 284, 296, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
XMP, ICC = 700, 34675

NOTHING = Metadata()
_MOST_PAGES = 65536
_STORED, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _ZSTD = 1, 5, 8, 32946, 32773, 50000
_OF_BYTES = (_STORED, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _ZSTD)  # compressions that know bytes, not pixels
_BY_PIECES = (_STORED, _DEFLATE, _OLD_DEFLATE)
_DTYPES = {(1, 16): "u2", (3, 16): "f2", (3, 32): "f4", (3, 64): "f8"}  # by sample format and bits
_MOST_CLASSIC = 2**32 - 2**24  # bytes of samples in a file whose offsets have 32 bits; what is said of them takes less
_BLOCK = 2**23  # bytes of rows that are decoded together, where they can be
_MOST_BAND = 2**28  # bytes of a row of tiles, or of a strip that has to be decoded whole, for a file to be read by rows
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3


def inspect(data: Bytes) -> Container:
    """The first page of a TIFF file; whether its samples lie in the file, and the directories of all pages."""
    first = directory(data)
    require(all(entry.end <= len(data) for entry in first.entries.values()), TRUNCATED)
    width, height = first.integer(data, WIDTH), first.integer(data, HEIGHT)
    require(width and height, f"a TIFF file of {width}x{height} pixels")
    starts, lengths = _segments(data, first)
    require(starts and len(starts) == len(lengths), "a TIFF file without image data")
    planes, wide, high = _grid(data, first)
    require(len(starts) >= planes * -(-height // high) * -(-width // wide), TRUNCATED)
    require(all(start + length <= len(data) for start, length in zip(starts, lengths, strict=True)), TRUNCATED)
    return Container(width, height, count_directories(data, _MOST_PAGES), max(first.integers(data, BITS, (1,))))


def _segments(data: Bytes, page: Directory) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the strips or tiles start, and their lengths in bytes."""
    tiled = TILES in page.entries
    starts = page.integers(data, TILES if tiled else STRIPS)
    lengths = page.integers(data, TILE_BYTES if tiled else STRIP_BYTES)
    if not lengths and len(starts) == 1 and page.integer(data, COMPRESSION, _STORED) == _STORED:
        # Some writers leave out how long a single strip is.
        bits = sum(page.integers(data, BITS, (1,)))
        lengths = (page.integer(data, HEIGHT) * ((page.integer(data, WIDTH) * bits + 7) // 8),)
    return starts, lengths


def _grid(data: Bytes, page: Directory) -> tuple[int, int, int]:
    """Number of planes, and width and height of a tile or strip."""
    width, height = page.integer(data, WIDTH), page.integer(data, HEIGHT)
    planes = page.integer(data, CHANNELS, 1) if page.integer(data, PLANAR, 1) == 2 else 1
    if TILES in page.entries:
        wide, high = page.integer(data, TILE_WIDTH), page.integer(data, TILE_HEIGHT)
    else:
        wide, high = width, min(height, page.integer(data, STRIP_ROWS, height))
    require(planes and wide and high, "a TIFF file with strips or tiles of no size")
    require(wide * high <= 2 * (width + 1024) * (height + 1024), "a TIFF file with tiles far larger than its picture")
    return planes, wide, high


class _Samples(NamedTuple):
    """How samples are stored, and which are of use."""

    dtype: np.dtype
    channels: int
    colors: int
    kept: int
    white_is_zero: bool
    multiplied: bool

    def finished(self, image: np.ndarray) -> np.ndarray:
        """Stored samples as uint8, uint16, or float32 in [0, 1]; a ContainerError for other floats."""
        image = image[..., : self.kept]
        if image.dtype.kind == "f":
            image = image.astype(np.float32)
            require(np.isfinite(image).all(), "floating-point samples that are NaN or infinite")
            low, high = float(image.min()), float(image.max())
            require(
                low >= 0 and high <= 1,
                f"floating-point samples of {low:.3g} to {high:.3g}; scale them to [0, 1], or convert to 16 bit",
            )
        if self.white_is_zero:
            top = 1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
            image = np.concatenate([top - image[..., : self.colors], image[..., self.colors :]], axis=2)
        return _divided_by_alpha(image) if self.multiplied else image


def _stored(data: Bytes, page: Directory, dtypes: Mapping[tuple[int, int], str]) -> _Samples | None:
    """None for what is left to Pillow."""
    bits, kinds = page.integers(data, BITS, (1,)), page.integers(data, FORMAT, (1,))
    photometric = page.integer(data, PHOTOMETRIC, 1)
    name = dtypes.get((kinds[0], bits[0]))
    if (
        name is None
        or len({*bits}) > 1
        or len({*kinds}) > 1
        or photometric not in (0, 1, 2)
        or page.integer(data, COMPRESSION, _STORED) not in _OF_BYTES
        or page.integer(data, FILL_ORDER, 1) != 1
    ):
        return None
    channels, colors = page.integer(data, CHANNELS, 1), 3 if photometric == 2 else 1
    require(colors <= channels <= colors + 16, f"a TIFF file of {channels} channels")
    extra = page.integers(data, EXTRA)[:1]
    kept = colors + (extra in ((1,), (2,)) and channels > colors)
    multiplied = kept > colors and extra == (1,)
    return _Samples(np.dtype(page.order + name), channels, colors, kept, photometric == 0, multiplied)


def samples(data: bytes) -> np.ndarray | None:
    """(H, W, 1 to 4) uint16, or float32 in [0, 1], of an inspected file, alpha last; None for what Pillow reads.

    Raises:
        ContainerError: for floats outside [0, 1] or not finite, and for damaged data.
    """
    page = directory(data)
    kind = _stored(data, page, _DTYPES)
    if kind is None:
        return None
    shape = page.integer(data, HEIGHT), page.integer(data, WIDTH), kind.channels
    image, y = np.empty(shape, kind.dtype.newbyteorder("=")), 0
    for band in _bands(data, page, kind):
        image[y : y + len(band)] = band
        y += len(band)
    return kind.finished(image)


def has_rows(data: Bytes) -> bool:
    """Whether `rows` reads an inspected file as Pillow and `samples` do, and holds but a part of it at a time."""
    page = directory(data)
    kind = _stored(data, page, {**_DTYPES, (1, 8): "u1"})
    if kind is None:
        return False
    more = kind.channels > kind.colors
    if kind.dtype.itemsize == 1 and more and (kind.kept < kind.channels or kind.multiplied or kind.white_is_zero):
        return False  # of which Pillow makes this and that
    planes, wide, high = _grid(data, page)
    across = -(-page.integer(data, WIDTH) // wide)
    by_pieces = planes == 1 and TILES not in page.entries and _compression(data, page) in _BY_PIECES
    return by_pieces or across * wide * high * kind.channels * kind.dtype.itemsize <= _MOST_BAND


def rows(data: Bytes) -> Iterator[np.ndarray]:
    """(n, W, 1 to 4) blocks of an inspected file that `has_rows`, from the top on; else as `samples`.

    Raises:
        ContainerError: as `samples`, when it is met.
    """
    page = directory(data)
    kind = _stored(data, page, {**_DTYPES, (1, 8): "u1"})
    assert kind is not None
    yield from map(kind.finished, _bands(data, page, kind))


def _compression(data: Bytes, page: Directory) -> int:
    return page.integer(data, COMPRESSION, _STORED)


def _bands(data: Bytes, page: Directory, kind: _Samples) -> Iterator[np.ndarray]:
    """(n, W, channels) of the native byte order, from the top on: parts of strips, or whole rows of tiles or planes."""
    width, height = page.integer(data, WIDTH), page.integer(data, HEIGHT)
    planes, wide, high = _grid(data, page)
    down, across, deep = -(-height // high), -(-width // wide), kind.channels // planes
    starts, lengths = _segments(data, page)
    compression, predictor = _compression(data, page), page.integer(data, PREDICTOR, 1)
    require(predictor in (1, _DIFFERENCES, _FLOAT_DIFFERENCES), f"a TIFF file with the unknown predictor {predictor}")
    native, row_bytes = kind.dtype.newbyteorder("="), wide * deep * kind.dtype.itemsize
    tiled = TILES in page.entries

    def undone(number: int, rows: int) -> Iterator[np.ndarray]:
        """A strip or tile, some rows at a time."""
        for raw in _unpacked(data, starts[number], lengths[number], compression, row_bytes, rows):
            yield _undone(raw, predictor, kind.dtype, (len(raw) // row_bytes, wide, deep)).astype(native, copy=False)

    for band in range(down):
        left = height - band * high
        rows = high if tiled else min(high, left)
        if planes == 1 and not tiled:
            yield from undone(band, rows)
            continue
        image = np.empty((min(rows, left), width, kind.channels), native)
        for plane in range(planes):
            for column in range(across):
                segment = np.concatenate(list(undone((plane * down + band) * across + column, rows)))
                part = image[:, column * wide : (column + 1) * wide, plane * deep : (plane + 1) * deep]
                part[...] = segment[: part.shape[0], : part.shape[1]]
        yield image


def _unpacked(data: Bytes, start: int, length: int, compression: int, row_bytes: int, rows: int) -> Iterator[bytes]:
    """The bytes of a strip or tile, some rows at a time; a ContainerError where there are too few or damaged ones."""
    needed, size = row_bytes * rows, max(1, _BLOCK // row_bytes) * row_bytes
    if compression == _STORED:
        require(needed <= length, TRUNCATED)
        for at in range(start, start + needed, size):
            raw = data[at : min(at + size, start + needed)]
            require(len(raw) % row_bytes == 0, TRUNCATED)
            yield raw
    elif compression in _BY_PIECES:
        yield from inflated(pieces(data, start, start + length), size, needed)
    else:
        # To libtiff, which Pillow asks, these are the rows of a grey image of 8 bits.
        packed = data[start : start + length]
        grey = _file({WIDTH: row_bytes, HEIGHT: rows, COMPRESSION: compression, STRIP_BYTES: len(packed)}, packed)
        try:
            with TiffImageFile(io.BytesIO(grey)) as file:  # by `Image.open` it would have a limit of its own
                raw = file.tobytes()
        except (OSError, ValueError, SyntaxError) as error:
            raise ContainerError(DAMAGED) from error
        require(len(raw) == needed, TRUNCATED)
        yield raw


def _file(tags: dict[int, int], strip: bytes) -> bytes:
    """A TIFF file of grey bytes in one strip."""
    tags = {BITS: 8, PHOTOMETRIC: 1, CHANNELS: 1, STRIP_ROWS: tags[HEIGHT], **tags}
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted({**tags, STRIPS: start}.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + bytes(4) + strip


def _undone(raw: bytes, predictor: int, dtype: np.dtype, shape: tuple[int, int, int]) -> np.ndarray:
    """Samples from bytes, their differences along rows summed (section 14, and Adobe's technical note 3 for floats)."""
    rows, wide, deep = shape
    if predictor == _FLOAT_DIFFERENCES:
        flat = np.frombuffer(raw, np.uint8).reshape(rows, -1, deep).cumsum(axis=1, dtype=np.uint8)
        planes = flat.reshape(rows, dtype.itemsize, wide * deep)  # the most significant bytes first
        joined = np.ascontiguousarray(planes.transpose(0, 2, 1))
        return joined.view(dtype.newbyteorder(">")).reshape(shape)
    image = np.frombuffer(raw, dtype).reshape(shape)
    if predictor == _DIFFERENCES:
        whole = image.view(f"{dtype.byteorder}u{dtype.itemsize}")
        native = whole.dtype.newbyteorder("=")
        return whole.cumsum(axis=1, dtype=native).view(dtype.newbyteorder("="))
    return image


def _divided_by_alpha(image: np.ndarray) -> np.ndarray:
    """Colors that were stored multiplied by alpha, as they were before; where alpha is 0 they stay."""
    top = 1.0 if image.dtype.kind == "f" else 65535.0
    alpha = image[..., -1:].astype(np.float64) / top
    colors = np.minimum(image[..., :-1] / np.where(alpha, alpha, 1), top)
    colors = colors if image.dtype.kind == "f" else colors.round()
    return np.concatenate([colors.astype(image.dtype), image[..., -1:]], axis=2)


def resolution(data: Bytes) -> tuple[float, float] | None:
    """Horizontal and vertical, in pixels an inch; None where the file does not say."""
    page = directory(data)
    inches = {2: 1.0, 3: 2.54}.get(page.integer(data, RESOLUTION_UNIT, 2))
    values = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        entry = page.entries.get(tag)
        if entry is None or entry.kind != 5 or inches is None:
            return None
        over, under = unpack(f"{page.order}II", data, entry.start)
        values.append(over * inches / under if under else 0.0)
    return values[0], values[1]


def content(data: Bytes, tag: int) -> bytes | None:
    """The bytes of a tag such as the profile's; None without."""
    entry = directory(data).entries.get(tag)
    return None if entry is None else data[entry.start : entry.end]


# Writing.


def encode(image: np.ndarray, about: Metadata = NOTHING) -> bytes:
    """An (H, W, 1 to 4) uint8, uint16 or float32 image as a TIFF file, deflated; alpha last, not multiplied in."""
    file = io.BytesIO()
    write(file, [image], image.shape, image.dtype, about)
    return file.getvalue()


def is_big(shape: tuple[int, int, int], dtype: np.dtype) -> bool:
    """Whether an (H, W, C) image is written as BigTIFF: its samples may take more than the 4 GiB of other files."""
    return shape[0] * shape[1] * shape[2] * dtype.itemsize > _MOST_CLASSIC


def write(
    file: BinaryIO,
    blocks: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    about: Metadata,
) -> None:
    """What `encode` gives, for an image of a shape and dtype whose rows come in blocks, into an empty file.

    The file starts with the EXIF structure, whose offsets stay true so, and ends with a directory that
    names the picture and what EXIF's first directory says about it. A BigTIFF has no EXIF.
    """
    height, width, channels = shape
    big, size, floats = is_big(shape, dtype), dtype.itemsize, dtype.kind == "f"
    exif = None if big else about.exif
    old = directory(exif) if exif else Directory("<", {}, 0, 0)
    order, word = old.order, "Q" if big else "I"
    file.write(exif or (b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)))
    rows = min(height, max(1, 2**18 // (width * channels * size)))
    starts, lengths = [], []
    for block in in_spans(blocks, (slice(y, min(y + rows, height)) for y in range(0, height, rows)), np.concatenate):
        if not floats:
            block = np.diff(block, axis=1, prepend=np.zeros((len(block), 1, channels), dtype))
        strip = zlib.compress(block.astype(dtype.newbyteorder(order)).tobytes())
        file.write(bytes(file.tell() % 2))
        starts.append(file.tell())
        lengths.append(len(strip))
        file.write(strip)
    tags = {
        WIDTH: numbers(order, "I", width),
        HEIGHT: numbers(order, "I", height),
        BITS: numbers(order, "H", *[8 * size] * channels),
        COMPRESSION: numbers(order, "H", _DEFLATE),
        PHOTOMETRIC: numbers(order, "H", 2 if channels >= 3 else 1),
        STRIPS: numbers(order, word, *starts),
        CHANNELS: numbers(order, "H", channels),
        STRIP_ROWS: numbers(order, "I", rows),
        STRIP_BYTES: numbers(order, "I", *lengths),
        PREDICTOR: numbers(order, "H", 1 if floats else _DIFFERENCES),
        FORMAT: numbers(order, "H", *[3 if floats else 1] * channels),
    }
    if channels in (2, 4):
        tags[EXTRA] = numbers(order, "H", 2)
    if about.dpi:
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), about.dpi, strict=True):
            tags[tag] = (5, 1, struct.pack(f"{order}II", round(value * 1000), 1000))
        tags[RESOLUTION_UNIT] = numbers(order, "H", 2)
    for tag, packet in ((XMP, about.xmp), (ICC, about.icc)):
        if packet:
            tags[tag] = (7, len(packet), packet)
    for tag in DESCRIPTIVE:
        if exif and tag in old.entries:
            entry = old.entries[tag]
            tags[tag] = (entry.kind, entry.number, exif[entry.start : entry.end])
    file.write(bytes(file.tell() % 2))
    place = file.tell()
    file.write(packed(order, tags, place, big=big))
    file.seek(8 if big else 4)
    file.write(struct.pack(f"{order}{word}", place))
    file.seek(0, io.SEEK_END)

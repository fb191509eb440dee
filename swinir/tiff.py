"""The structure of TIFF, which EXIF shares: directories of tags; samples of 16 bits and more; pictures as TIFF.

Section numbers are those of TIFF 6.0. Pillow reads TIFF of 8 bits; of deeper colour it would keep 8 bits, and floats
of one channel only.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from swinir.containers import TRUNCATED, Container, ContainerError, require, unpack

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, CHANNELS, STRIP_ROWS, STRIP_BYTES = 273, 274, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR = 282, 283, 284, 296, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
XMP, EXIF, ICC, GPS, INTEROPERABILITY = 700, 34665, 34675, 34853, 0xA005
PIXEL_X, PIXEL_Y = 0xA002, 0xA003  # of the EXIF directory
# Directory entries about the picture, not the file: description, maker, model, software, date, artist, copyright.
DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432, EXIF, GPS)

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MOST_PAGES = 65536
_STORED, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _ZSTD = 1, 5, 8, 32946, 32773, 50000
_OF_BYTES = (_STORED, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _ZSTD)  # compressions that know bytes, not pixels
_DTYPES = {(1, 16): "u2", (3, 16): "f2", (3, 32): "f4", (3, 64): "f8"}  # by sample format and bits
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3


_Value = tuple[int, int, bytes]  # type, count, bytes


class Entry(NamedTuple):
    """A tag's type, number of values, and where its values lie."""

    kind: int
    number: int
    start: int

    @property
    def end(self) -> int:
        return self.start + self.number * _SIZES.get(self.kind, 1)


class Directory(NamedTuple):
    """A directory of tags: byte order, entries, where the place of the next directory is written, and that place."""

    order: Literal["<", ">"]
    entries: dict[int, Entry]
    link: int
    following: int

    def integers(self, data: bytes, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Values of a tag of whole numbers; a ContainerError for another type, and where they are cut off."""
        if tag not in self.entries:
            return default
        entry = self.entries[tag]
        require(entry.kind in _INTEGERS, f"its tag {tag} is of type {entry.kind}, where a whole number is due")
        require(entry.end <= len(data), TRUNCATED)
        values = np.frombuffer(data, self.order + _INTEGERS[entry.kind], entry.number, entry.start)
        return tuple(values.tolist())

    def integer(self, data: bytes, tag: int, default: int | None = None) -> int:
        """The first value of a tag; a ContainerError where there is none and no default."""
        values = self.integers(data, tag) or (default,)
        require(values[0] is not None, f"a TIFF file without the tag {tag}")
        return values[0] or 0


def directory(data: bytes, at: int | None = None) -> Directory:
    """The directory at an offset, or the first one, of a TIFF structure, classic or BigTIFF."""
    require(data[:2] in (b"II", b"MM"), "a TIFF structure of unknown byte order")
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (version,) = unpack(f"{order}H", data, 2)
    require(version in (42, 43), f"a TIFF structure of version {version}")
    word, number, size = ("I", "H", 12) if version == 42 else ("Q", "Q", 20)
    pointer = struct.calcsize(word)
    if at is None:
        (at,) = unpack(order + word, data, 4 if version == 42 else 8)
    (count,) = unpack(order + number, data, at)
    start = at + struct.calcsize(order + number)
    entries = {}
    for place in range(start, start + min(count, len(data)) * size, size):
        tag, kind, values = unpack(f"{order}HH{word}", data, place)
        value = place + 4 + pointer
        if values * _SIZES.get(kind, 1) > pointer:
            (value,) = unpack(order + word, data, value)
        entries[tag] = Entry(kind, values, value)
    link = start + count * size
    return Directory(order, entries, link, unpack(order + word, data, link)[0])


def inspect(data: bytes) -> Container:
    """The first page of a TIFF file; whether its samples lie in the file, and the directories of all pages."""
    first = directory(data)
    require(all(entry.end <= len(data) for entry in first.entries.values()), TRUNCATED)
    width, height = first.integer(data, WIDTH), first.integer(data, HEIGHT)
    require(width and height, f"a TIFF file of {width}x{height} pixels")
    starts, lengths = _segments(data, first)
    require(starts and len(starts) == len(lengths), "a TIFF file without image data")
    require(all(start + length <= len(data) for start, length in zip(starts, lengths, strict=True)), TRUNCATED)
    pages, seen, following = 1, set(), first.following
    while following and following not in seen and pages < _MOST_PAGES:
        seen.add(following)
        pages, following = pages + 1, directory(data, following).following
    return Container(width, height, pages, max(first.integers(data, BITS, (1,))))


def _segments(data: bytes, page: Directory) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the strips or tiles start, and their lengths in bytes."""
    tiled = TILES in page.entries
    starts = page.integers(data, TILES if tiled else STRIPS)
    lengths = page.integers(data, TILE_BYTES if tiled else STRIP_BYTES)
    if not lengths and len(starts) == 1 and page.integer(data, COMPRESSION, _STORED) == _STORED:
        # Some writers leave out how long a single strip is.
        bits = sum(page.integers(data, BITS, (1,)))
        lengths = (page.integer(data, HEIGHT) * ((page.integer(data, WIDTH) * bits + 7) // 8),)
    return starts, lengths


def samples(data: bytes) -> np.ndarray | None:
    """(H, W, 1 to 4) uint16, or float32 in [0, 1], of an inspected file, alpha last; None for what Pillow reads.

    Raises:
        ContainerError: for floats outside [0, 1] or not finite, and for damaged data.
    """
    page = directory(data)
    bits, kinds = page.integers(data, BITS, (1,)), page.integers(data, FORMAT, (1,))
    photometric = page.integer(data, PHOTOMETRIC, 1)
    name = _DTYPES.get((kinds[0], bits[0]))
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
    image = _assembled(data, page, np.dtype(page.order + name), channels)[..., :kept]
    if image.dtype.kind == "f":
        image = image.astype(np.float32)
        require(np.isfinite(image).all(), "floating-point samples that are NaN or infinite")
        low, high = float(image.min()), float(image.max())
        require(
            low >= 0 and high <= 1,
            f"floating-point samples of {low:.3g} to {high:.3g}; scale them to [0, 1], or convert to 16 bit",
        )
    if photometric == 0:  # white is zero
        image[..., :colors] = (1 if image.dtype.kind == "f" else 65535) - image[..., :colors]
    if kept > colors and extra == (1,):
        image = _divided_by_alpha(image)
    return image


def _assembled(data: bytes, page: Directory, dtype: np.dtype, channels: int) -> np.ndarray:
    """(H, W, channels) of the native byte order, from strips or tiles of one plane or several."""
    width, height = page.integer(data, WIDTH), page.integer(data, HEIGHT)
    planes = channels if page.integer(data, PLANAR, 1) == 2 else 1
    deep = channels // planes
    if TILES in page.entries:
        wide, high = page.integer(data, TILE_WIDTH), page.integer(data, TILE_HEIGHT)
    else:
        wide, high = width, min(height, page.integer(data, STRIP_ROWS, height))
    require(wide and high, "a TIFF file with strips or tiles of no size")
    require(wide * high <= 2 * (width + 1024) * (height + 1024), "a TIFF file with tiles far larger than its picture")
    corners = [(p, y, x) for p in range(planes) for y in range(0, height, high) for x in range(0, width, wide)]
    starts, lengths = _segments(data, page)
    require(len(starts) >= len(corners), TRUNCATED)
    compression, predictor = page.integer(data, COMPRESSION, _STORED), page.integer(data, PREDICTOR, 1)
    require(predictor in (1, _DIFFERENCES, _FLOAT_DIFFERENCES), f"a TIFF file with the unknown predictor {predictor}")
    image = np.empty((height, width, channels), dtype.newbyteorder("="))
    for (plane, y, x), start, length in zip(corners, starts, lengths, strict=False):
        rows = high if TILES in page.entries else min(high, height - y)
        packed = data[start : start + length]
        raw = _unpacked(packed, compression, wide * deep * dtype.itemsize, rows)
        segment = _undone(raw, predictor, dtype, (rows, wide, deep))
        part = image[y : y + rows, x : x + wide, plane : plane + deep]
        part[...] = segment[: part.shape[0], : part.shape[1]]
    return image


def _unpacked(packed: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    """The bytes of a strip or tile; a ContainerError where there are too few or they are damaged."""
    needed = row_bytes * rows
    if compression == _STORED:
        raw = packed[:needed]
    elif compression in (_DEFLATE, _OLD_DEFLATE):
        try:
            raw = zlib.decompressobj().decompress(packed, needed)
        except zlib.error as error:
            raise ContainerError("its image data is damaged; copy or download it again") from error
    else:
        # To libtiff, which Pillow asks, these are the rows of a grey image of 8 bits.
        grey = _file({WIDTH: row_bytes, HEIGHT: rows, COMPRESSION: compression, STRIP_BYTES: len(packed)}, packed)
        try:
            with Image.open(io.BytesIO(grey), formats=("TIFF",)) as file:
                raw = file.tobytes()
        except (OSError, ValueError, SyntaxError) as error:
            raise ContainerError("its image data is damaged; copy or download it again") from error
    require(len(raw) == needed, TRUNCATED)
    return raw


def _file(numbers: dict[int, int], strip: bytes) -> bytes:
    """A TIFF file of grey bytes in one strip."""
    tags = {BITS: 8, PHOTOMETRIC: 1, CHANNELS: 1, STRIP_ROWS: numbers[HEIGHT], **numbers}
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


# Writing.


def encode(
    image: np.ndarray,
    *,
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """An (H, W, 1 to 4) uint8, uint16 or float32 image as a TIFF file, deflated; alpha last, not multiplied in.

    The file starts with the EXIF structure, whose offsets stay true so, and ends with a directory that
    names the picture and what EXIF's first directory says about it.

    Args:
        exif: a TIFF structure that `upright` returned.
        icc, xmp: the profile, and the packet.
        dpi: horizontal and vertical, in pixels an inch.

    Raises:
        ValueError: for more than the 4 GiB that such a file can hold.
    """
    height, width, channels = image.shape
    data = bytearray(exif or b"II*\0" + bytes(4))
    old = directory(exif) if exif else Directory("<", {}, 0, 0)
    order, size = old.order, image.dtype.itemsize
    floats = image.dtype.kind == "f"
    rows = min(height, max(1, 2**18 // (width * channels * size)))
    starts, lengths = [], []
    for y in range(0, height, rows):
        block = image[y : y + rows]
        if not floats:
            block = np.diff(block, axis=1, prepend=np.zeros((len(block), 1, channels), image.dtype))
        strip = zlib.compress(block.astype(image.dtype.newbyteorder(order)).tobytes())
        data += bytes(len(data) % 2)
        starts.append(len(data))
        lengths.append(len(strip))
        data += strip
    if len(data) + 16 * len(starts) >= 2**32:
        raise ValueError(f"{width}x{height} takes more than the 4 GiB of a TIFF file; write .png")
    tags = {
        WIDTH: _value(order, "I", width),
        HEIGHT: _value(order, "I", height),
        BITS: _value(order, "H", *[8 * size] * channels),
        COMPRESSION: _value(order, "H", _DEFLATE),
        PHOTOMETRIC: _value(order, "H", 2 if channels >= 3 else 1),
        STRIPS: _value(order, "I", *starts),
        CHANNELS: _value(order, "H", channels),
        STRIP_ROWS: _value(order, "I", rows),
        STRIP_BYTES: _value(order, "I", *lengths),
        PREDICTOR: _value(order, "H", 1 if floats else _DIFFERENCES),
        FORMAT: _value(order, "H", *[3 if floats else 1] * channels),
    }
    if channels in (2, 4):
        tags[EXTRA] = _value(order, "H", 2)
    if dpi:
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
            tags[tag] = (5, 1, struct.pack(f"{order}II", round(value * 1000), 1000))
        tags[RESOLUTION_UNIT] = _value(order, "H", 2)
    for tag, packet in ((XMP, xmp), (ICC, icc)):
        if packet:
            tags[tag] = (7, len(packet), packet)
    for tag in DESCRIPTIVE:
        if exif and tag in old.entries:
            entry = old.entries[tag]
            tags[tag] = (entry.kind, entry.number, exif[entry.start : entry.end])
    data += bytes(len(data) % 2)
    data[4:8] = struct.pack(f"{order}I", len(data))
    return bytes(data + _directory(order, tags, len(data)))


def _value(order: str, letter: str, *values: int) -> _Value:
    return {"H": 3, "I": 4}[letter], len(values), struct.pack(f"{order}{len(values)}{letter}", *values)


def _directory(order: str, tags: Mapping[int, _Value], start: int) -> bytes:
    """A directory without a next one that lies at `start`, its longer values behind it."""
    behind = start + 2 + 12 * len(tags) + 4
    rows, values = [struct.pack(f"{order}H", len(tags))], bytearray()
    for tag, (kind, count, content) in sorted(tags.items()):
        field = content.ljust(4, b"\0")
        if len(content) > 4:
            field = struct.pack(f"{order}I", behind + len(values))
            values += content + bytes(len(content) % 2)
        rows.append(struct.pack(f"{order}HHI", tag, kind, count) + field)
    return b"".join([*rows, bytes(4), values])


# EXIF: a TIFF structure whose first directory describes a picture and names a second one.


def described(data: bytes) -> bytes | None:
    """EXIF of an inspected TIFF file: what its first directory says about the picture; None if that is nothing.

    Raises:
        ContainerError: for damaged directories of EXIF.
    """
    page = directory(data)
    block = bytearray(data[:2] + struct.pack(f"{page.order}HI", 42, 0))
    tags = {tag: page.entries[tag] for tag in DESCRIPTIVE if tag in page.entries}
    if not tags:
        return None
    place = _copied(data, page._replace(entries=tags), block, depth=2)
    block[4:8] = struct.pack(f"{page.order}I", place)
    return bytes(block)


def _copied(data: bytes, page: Directory, block: bytearray, depth: int) -> int:
    """Append a directory, and those it names, to a block of the same byte order; returns its place."""
    tags: dict[int, _Value] = {}
    for tag, entry in page.entries.items():
        if tag in (EXIF, GPS, INTEROPERABILITY):
            if depth:
                place = _copied(data, directory(data, page.integer(data, tag)), block, depth - 1)
                tags[tag] = _value(page.order, "I", place)
        elif entry.kind in _SIZES:
            require(entry.end <= len(data), "damaged EXIF")
            tags[tag] = (entry.kind, entry.number, data[entry.start : entry.end])
    # Entries that share their values could make gigabytes of a small file.
    require(sum(len(content) for _, _, content in tags.values()) <= len(data), "damaged EXIF")
    place = len(block)
    block += _directory(page.order, tags, place)
    return place


def resolution(data: bytes) -> tuple[float, float] | None:
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


def content(data: bytes, tag: int) -> bytes | None:
    """The bytes of a tag such as the profile's; None without."""
    entry = directory(data).entries.get(tag)
    return None if entry is None else data[entry.start : entry.end]


def upright(exif: bytes) -> bytes:
    """EXIF that says the picture stands upright, without the thumbnail, which is of the picture as it was.

    All else keeps its bytes and its place.

    Raises:
        ContainerError: for damaged EXIF.
    """
    first, patched = directory(exif), bytearray(exif)
    require(all(entry.end <= len(exif) for entry in first.entries.values()), "damaged EXIF")
    if ORIENTATION in first.entries:
        _patch(patched, first, ORIENTATION, 1)
    patched[first.link : first.link + 4] = bytes(4)
    return bytes(patched)


def of_size(exif: bytes, width: int, height: int) -> bytes:
    """EXIF whose width and height, where it has them, are those given."""
    first, patched = directory(exif), bytearray(exif)
    try:
        second = directory(exif, first.integer(exif, EXIF, 0) or None)
        for tag, value in ((PIXEL_X, width), (PIXEL_Y, height)):
            if tag in second.entries:
                _patch(patched, second, tag, value)
    except ContainerError:  # of no use to anybody, and none of the picture's
        return exif
    return bytes(patched)


def _patch(data: bytearray, where: Directory, tag: int, value: int) -> None:
    """Overwrite a whole number in its place; a number too large for the place stays."""
    entry = where.entries[tag]
    letter, most = {3: ("H", 2**16), 4: ("I", 2**32)}.get(entry.kind, ("", 0))
    if letter and value < most and entry.end <= len(data):
        struct.pack_into(where.order + letter, data, entry.start, value)

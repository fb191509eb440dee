"""TIFF files: what they claim, samples of 16 bits and floats, and pictures as TIFF with their metadata.

Section numbers are those of TIFF 6.0. Pillow reads TIFF of 8 bits; of deeper colour it would keep 8 bits, and floats
of one channel only.
"""

import io
import struct
import zlib

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from swinir.containers import TRUNCATED, Container, ContainerError, require, unpack
from swinir.exif import DESCRIPTIVE, Directory, count_directories, directory, numbers, packed

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, CHANNELS, STRIP_ROWS, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, PREDICTOR = 282, 283, 284, 296, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
XMP, ICC = 700, 34675

_MOST_PAGES = 65536
_STORED, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _ZSTD = 1, 5, 8, 32946, 32773, 50000
_OF_BYTES = (_STORED, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _ZSTD)  # compressions that know bytes, not pixels
_DTYPES = {(1, 16): "u2", (3, 16): "f2", (3, 32): "f4", (3, 64): "f8"}  # by sample format and bits
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3


def inspect(data: bytes) -> Container:
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


def _grid(data: bytes, page: Directory) -> tuple[int, int, int]:
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
    planes, wide, high = _grid(data, page)
    deep = channels // planes
    starts, lengths = _segments(data, page)
    corners = [(p, y, x) for p in range(planes) for y in range(0, height, high) for x in range(0, width, wide)]
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
            with TiffImageFile(io.BytesIO(grey)) as file:  # by `Image.open` it would have a limit of its own
                raw = file.tobytes()
        except (OSError, ValueError, SyntaxError) as error:
            raise ContainerError("its image data is damaged; copy or download it again") from error
    require(len(raw) == needed, TRUNCATED)
    return raw


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
        WIDTH: numbers(order, "I", width),
        HEIGHT: numbers(order, "I", height),
        BITS: numbers(order, "H", *[8 * size] * channels),
        COMPRESSION: numbers(order, "H", _DEFLATE),
        PHOTOMETRIC: numbers(order, "H", 2 if channels >= 3 else 1),
        STRIPS: numbers(order, "I", *starts),
        CHANNELS: numbers(order, "H", channels),
        STRIP_ROWS: numbers(order, "I", rows),
        STRIP_BYTES: numbers(order, "I", *lengths),
        PREDICTOR: numbers(order, "H", 1 if floats else _DIFFERENCES),
        FORMAT: numbers(order, "H", *[3 if floats else 1] * channels),
    }
    if channels in (2, 4):
        tags[EXTRA] = numbers(order, "H", 2)
    if dpi:
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
            tags[tag] = (5, 1, struct.pack(f"{order}II", round(value * 1000), 1000))
        tags[RESOLUTION_UNIT] = numbers(order, "H", 2)
    for tag, packet in ((XMP, xmp), (ICC, icc)):
        if packet:
            tags[tag] = (7, len(packet), packet)
    for tag in DESCRIPTIVE:
        if exif and tag in old.entries:
            entry = old.entries[tag]
            tags[tag] = (entry.kind, entry.number, exif[entry.start : entry.end])
    data += bytes(len(data) % 2)
    data[4:8] = struct.pack(f"{order}I", len(data))
    return bytes(data + packed(order, tags, len(data)))

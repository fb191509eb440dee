"""PNG files: chunks and checksums, samples of 16 bits, and pictures as PNG with their metadata.

Section numbers are those of the PNG specification, third edition.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np
from PIL.PngImagePlugin import PngImageFile

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
from swinir.image_io.picture import Metadata

NOTHING = Metadata()
SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # table 12
_MOST_CHUNKS = 2**20  # the largest pictures take half as many at the usual 8 KB
_MOST_DEFLATED = 1032  # bytes of a byte: 258 by a code of one bit and a distance of another
# First column and row, and steps, of the seven passes (section 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE = ((0, 0, 1, 1),)
_CHUNK = 2**20  # bytes of a chunk of image data, at least; none can hold more than 2 GiB
_BLOCK = 2**23  # bytes of rows that are decoded together
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
# What decoding and metadata need. The rest is left out: frames of animations, and texts of any length.
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"iCCP", b"pHYs")
_LAST = {b"IDAT": 1, b"IEND": 2}
_KEPT_TEXTS = (_XMP, b"Raw profile type exif", b"Raw profile type xmp")


class Chunk(NamedTuple):
    """A chunk's name, and where its content and the whole of it lie in the file."""

    kind: bytes
    start: int
    end: int

    def content(self, data: Bytes) -> bytes:
        return data[self.start : self.end]

    def whole(self, data: Bytes) -> bytes:
        return data[self.start - 8 : self.end + 4]


class Header(NamedTuple):
    """What IHDR says."""

    width: int
    height: int
    depth: int
    color: int
    compression: int
    filtering: int
    interlace: int


def chunks(data: Bytes, *, verify: bool = False) -> Iterator[Chunk]:
    """The chunks to IEND, with their checksums verified if asked; a ContainerError for damage and a missing end."""
    at = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        length, _ = unpack(">II", data, at)
        chunk = Chunk(data[at + 4 : at + 8], at + 8, at + 8 + length)
        (checksum,) = unpack(">I", data, chunk.end)
        require(chunk.kind.isalpha(), "a PNG file with a chunk whose name is not four letters")
        require(
            not verify or _checksum(data, at + 4, chunk.end) == checksum,
            f"the checksum of its {chunk.kind.decode()} chunk is wrong: the file is damaged; copy or download it again",
        )
        yield chunk
        if chunk.kind == b"IEND":
            return
        at = chunk.end + 4
    raise ContainerError(f"a PNG file of more than {_MOST_CHUNKS:,} chunks")


def _checksum(data: Bytes, start: int, end: int) -> int:
    value = 0
    for piece in pieces(data, start, end):
        value = zlib.crc32(piece, value)
    return value


def header(data: Bytes) -> Header:
    """IHDR, checked; a ContainerError for what the specification does not allow."""
    length, kind = unpack(">I4s", data, len(SIGNATURE))
    require((length, kind) == (13, b"IHDR"), "a PNG file that does not start with its header")
    found = Header(*unpack(">IIBBBBB", data, len(SIGNATURE) + 8))
    require(0 < found.width < 2**31 and 0 < found.height < 2**31, f"a PNG file of {found.width}x{found.height} pixels")
    require(
        found.depth in _DEPTHS.get(found.color, ()),
        f"a PNG file of colour type {found.color} with {found.depth} bits, which does not exist",
    )
    require(
        (found.compression, found.filtering) == (0, 0) and found.interlace in (0, 1),
        "a PNG file with an unknown compression, filter or interlace method",
    )
    return found


def inspect(data: Bytes) -> Container:
    """Walk a PNG file to its end and verify every checksum."""
    found = header(data)
    deflated, frames, kinds = 0, 1, []
    for chunk in chunks(data, verify=True):
        kinds.append(chunk.kind)
        if chunk.kind == b"IDAT":
            deflated += chunk.end - chunk.start
        elif chunk.kind == b"acTL":
            frames = max(1, unpack(">I", data, chunk.start)[0])
    require(kinds.count(b"IHDR") == 1, "a PNG file with two headers")
    require(b"IDAT" in kinds, "a PNG file without image data")
    require(found.color != 3 or b"PLTE" in kinds, "a PNG file with palette colours and no palette")
    most_pixels = (_MOST_DEFLATED * deflated * 8) // (found.depth * CHANNELS[found.color])
    return Container(found.width, found.height, frames, found.depth, most_pixels)


def still(data: bytes) -> bytes:
    """An inspected file of one picture after all that is said about it; `data` itself if it is one."""
    walked = list(chunks(data))
    kept = sorted((chunk for chunk in walked if _is_kept(chunk, data)), key=lambda chunk: _LAST.get(chunk.kind, 0))
    if kept == walked:
        return data
    return SIGNATURE + b"".join(chunk.whole(data) for chunk in kept)


def without_pixels(data: Bytes) -> bytes:
    """A file of the same header that says the same about the picture, and holds none."""
    about = (chunk for chunk in chunks(data) if _is_kept(chunk, data) and chunk.kind not in _LAST)
    parts = [SIGNATURE, *(chunk.whole(data) for chunk in about)]
    return b"".join([*parts, _chunk(b"IDAT", zlib.compress(b"")), _chunk(b"IEND", b"")])


def _is_kept(chunk: Chunk, data: Bytes) -> bool:
    return chunk.kind in _KEPT or (
        chunk.kind in _TEXTS and data[chunk.start : chunk.start + 80].split(b"\0")[0] in _KEPT_TEXTS
    )


def transparent(data: Bytes) -> tuple[int, ...] | None:
    """The colour that tRNS makes transparent, in samples of the file's depth; None without, and with a palette."""
    found = header(data)
    for chunk in chunks(data):
        if chunk.kind == b"tRNS" and found.color in (0, 2):
            # Bits above the depth are to be ignored (section 11.3.1.1).
            return tuple(v & (2**found.depth - 1) for v in unpack(f">{CHANNELS[found.color]}H", data, chunk.start))
    return None


def samples(data: bytes) -> np.ndarray | None:
    """(H, W, 1 to 4) uint16 of an inspected file of 16 bits, alpha last; None for less, which is left to Pillow.

    Pillow would keep 8 bits. OpenCV decodes, and gets a file of three chunks whose data was found to be complete:
    its own checks have let crafted files crash it.
    """
    found = header(data)
    if found.depth != 16:
        return None
    deflated = b"".join(chunk.content(data) for chunk in chunks(data) if chunk.kind == b"IDAT")
    _check_rows(deflated, found)
    plain = SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", *found)) + _chunk(b"IDAT", deflated)
    try:
        image = cv2.imdecode(np.frombuffer(plain + _chunk(b"IEND", b""), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ContainerError(f"its {found.width}x{found.height} pixels cannot be decoded") from error
    if image is None or image.dtype != np.uint16:
        raise ContainerError("its image data is damaged")
    if image.ndim == 2:
        return image[..., None]
    if found.color == 4:  # grey with alpha, decoded as colour
        return image[..., [0, 3]]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _check_rows(deflated: bytes, found: Header) -> None:
    """Refuse image data that is short, damaged, or filtered in unknown ways."""
    pixel_bytes = found.depth * CHANNELS[found.color] // 8
    lengths: list[tuple[int, int]] = []  # rows, bytes of each with its filter
    for column, row, step_x, step_y in _ADAM7 if found.interlace else _WHOLE:
        columns, rows = -((column - found.width) // step_x), -((row - found.height) // step_y)
        if columns > 0 and rows > 0:
            lengths.append((rows, 1 + columns * pixel_bytes))
    total = sum(number * length for number, length in lengths)
    try:  # a byte more than there should be, for the checksum at the end to be met
        rows_of_bytes = zlib.decompressobj().decompress(deflated, total + 1)
    except zlib.error as error:
        raise ContainerError(DAMAGED) from error
    require(len(rows_of_bytes) >= total, TRUNCATED)
    flat, at = np.frombuffer(rows_of_bytes, np.uint8), 0
    for number, length in lengths:
        require(flat[at : at + number * length : length].max() <= 4, "its image data is damaged: an unknown filter")
        at += number * length


# Row by row.


def has_rows(data: Bytes) -> bool:
    """Whether `rows` reads a file: one that is not interlaced, of 8 or 16 bits, without a palette."""
    found = header(data)
    return not found.interlace and found.depth in (8, 16) and found.color != 3


def rows(data: Bytes) -> Iterator[np.ndarray]:
    """(n, W, 1 to 4) uint8 or uint16 blocks of an inspected file, from the top on, alpha last.

    Rows are filtered by their neighbours above (section 9): a decoder gets each block as a file of its own, whose first
    row is the last one of the block before, unfiltered.

    Raises:
        ContainerError: for damaged and missing data, when it is met.
    """
    found = header(data)
    row_bytes = 1 + found.width * CHANNELS[found.color] * found.depth // 8
    stretches = (pieces(data, chunk.start, chunk.end) for chunk in chunks(data) if chunk.kind == b"IDAT")
    size, total = max(1, _BLOCK // row_bytes) * row_bytes, found.height * row_bytes
    above = bytes(row_bytes)
    for filtered in inflated(chain.from_iterable(stretches), size, total, to_the_end=True):
        used = np.frombuffer(filtered, np.uint8)[::row_bytes].max()
        require(used <= 4, "its image data is damaged: an unknown filter")
        head = struct.pack(">IIBBBBB", *found._replace(height=1 + len(filtered) // row_bytes))
        deflated = zlib.compress(above + filtered, 0)
        part = SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", deflated) + _chunk(b"IEND", b"")
        block = samples(part)
        if block is None:
            with PngImageFile(io.BytesIO(part)) as file:  # by `Image.open` it would have a limit of its own
                block = np.asarray(file)
        block = block.reshape(len(block), found.width, -1)
        above = b"\0" + block[-1].astype(block.dtype.newbyteorder(">")).tobytes()
        yield block[1:]


# Writing.


def encode(image: np.ndarray, about: Metadata = NOTHING) -> bytes:
    """An (H, W, 1 to 4) uint8 or uint16 image as a PNG file; alpha last."""
    return b"".join(encoded([image], image.shape, image.dtype, about))


def encoded(
    blocks: Iterable[np.ndarray], shape: tuple[int, int, int], dtype: np.dtype, about: Metadata
) -> Iterator[bytes]:
    """What `encode` gives, part by part, for an image of a shape and dtype whose rows come in blocks."""
    height, width, channels = shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    found = Header(width, height, dtype.itemsize * 8, color, 0, 0, 0)
    yield SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", *found))
    if about.icc:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(about.icc))
    if about.dpi:
        yield _chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in about.dpi), 1))
    if about.exif:
        yield _chunk(b"eXIf", about.exif)
    if about.xmp:
        yield _chunk(b"iTXt", _XMP + bytes(5) + about.xmp)
    held = bytearray()
    for part in _deflated(blocks):
        held += part
        if len(held) >= _CHUNK:
            yield _chunk(b"IDAT", bytes(held))
            held.clear()
    yield _chunk(b"IDAT", bytes(held)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _deflated(blocks: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Filtered and compressed rows, some at a time."""
    # Filtered samples repeat seldom, which this strategy knows: a twentieth less.
    compressor, above = zlib.compressobj(6, strategy=zlib.Z_FILTERED), None
    for rows, distance in chain.from_iterable(map(_of_bytes, blocks)):
        above = np.zeros_like(rows[:1]) if above is None else above
        yield compressor.compress(_filtered(rows, np.concatenate([above, rows[:-1]]), distance).tobytes())
        above = rows[-1:].copy()
    yield compressor.flush()


def _of_bytes(block: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """An (n, W, C) block as (some, bytes) uint8, the more significant byte first, and the bytes of a pixel."""
    distance = block.shape[2] * block.dtype.itemsize
    step = max(1, 2**20 // (block.shape[1] * distance))
    for start in range(0, len(block), step):
        rows = block[start : start + step]
        rows = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">"))
        yield rows.view(np.uint8).reshape(len(rows), -1), distance


def _filtered(rows: np.ndarray, above: np.ndarray, distance: int) -> np.ndarray:
    """Each row after its filter's number, by the filter whose differences are smallest in sum (section 12.7).

    Args:
        rows, above: (N, bytes) uint8, and the row above each.
        distance: bytes of a pixel.
    """
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, distance:], corner[:, distance:] = rows[:, :-distance], above[:, :-distance]
    a, b, c = left.astype(np.int16), above.astype(np.int16), corner.astype(np.int16)
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
    average = ((a + b) >> 1).astype(np.uint8)
    tried = np.stack([rows, rows - left, rows - above, rows - average, rows - paeth])
    cost = abs(tried.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0)
    return np.concatenate([best[:, None].astype(np.uint8), tried[best, np.arange(len(rows))]], axis=1)

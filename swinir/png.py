"""PNG files: chunks and checksums, samples of 16 bits, and pictures as PNG with their metadata.

Section numbers are those of the PNG specification, third edition.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from swinir.containers import TRUNCATED, Container, ContainerError, require, unpack

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # table 12
_MOST_CHUNKS = 2**20  # the largest pictures take half as many at the usual 8 KB
_MOST_DEFLATED = 1032  # bytes of a byte: 258 by a code of one bit and a distance of another
# First column and row, and steps, of the seven passes (section 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE = ((0, 0, 1, 1),)
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

    def content(self, data: bytes) -> bytes:
        return data[self.start : self.end]

    def whole(self, data: bytes) -> bytes:
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


def chunks(data: bytes, *, verify: bool = False) -> Iterator[Chunk]:
    """The chunks to IEND, with their checksums verified if asked; a ContainerError for damage and a missing end."""
    view = memoryview(data)
    at = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        length, _ = unpack(">II", data, at)
        chunk = Chunk(data[at + 4 : at + 8], at + 8, at + 8 + length)
        (checksum,) = unpack(">I", data, chunk.end)
        require(chunk.kind.isalpha(), "a PNG file with a chunk whose name is not four letters")
        require(
            not verify or zlib.crc32(view[at + 4 : chunk.end]) == checksum,
            f"the checksum of its {chunk.kind.decode()} chunk is wrong: the file is damaged; copy or download it again",
        )
        yield chunk
        if chunk.kind == b"IEND":
            return
        at = chunk.end + 4
    raise ContainerError(f"a PNG file of more than {_MOST_CHUNKS:,} chunks")


def header(data: bytes) -> Header:
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


def inspect(data: bytes) -> Container:
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


def _is_kept(chunk: Chunk, data: bytes) -> bool:
    return chunk.kind in _KEPT or (
        chunk.kind in _TEXTS and data[chunk.start : chunk.start + 80].split(b"\0")[0] in _KEPT_TEXTS
    )


def transparent(data: bytes) -> tuple[int, ...] | None:
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
        raise ContainerError("its image data is damaged; copy or download it again") from error
    require(len(rows_of_bytes) >= total, TRUNCATED)
    flat, at = np.frombuffer(rows_of_bytes, np.uint8), 0
    for number, length in lengths:
        require(flat[at : at + number * length : length].max() <= 4, "its image data is damaged: an unknown filter")
        at += number * length


# Writing.


def encode(
    image: np.ndarray,
    *,
    exif: bytes | None = None,
    icc: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """An (H, W, 1 to 4) uint8 or uint16 image as a PNG file; alpha last.

    Args:
        exif: a TIFF structure, as EXIF stores it.
        icc, xmp: the profile, and the packet.
        dpi: horizontal and vertical, in pixels an inch.
    """
    height, width, channels = image.shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    found = Header(width, height, image.dtype.itemsize * 8, color, 0, 0, 0)
    parts = [SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", *found))]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi:
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    if exif:
        parts.append(_chunk(b"eXIf", exif))
    if xmp:
        parts.append(_chunk(b"iTXt", _XMP + bytes(5) + xmp))
    parts += [_chunk(b"IDAT", _deflated(image)), _chunk(b"IEND", b"")]
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _deflated(image: np.ndarray) -> bytes:
    """Filtered and compressed rows, some at a time."""
    height, _, channels = image.shape
    rows = np.ascontiguousarray(image.astype(image.dtype.newbyteorder(">"), copy=False)).view(np.uint8)
    rows = rows.reshape(height, -1)
    distance = channels * image.dtype.itemsize
    step = max(1, 2**20 // rows.shape[1])
    above = np.zeros((1, rows.shape[1]), np.uint8)
    # Filtered samples repeat seldom, which this strategy knows: a twentieth less.
    compressor, parts = zlib.compressobj(6, strategy=zlib.Z_FILTERED), []
    for start in range(0, height, step):
        block = rows[start : start + step]
        parts.append(compressor.compress(_filtered(block, np.concatenate([above, block[:-1]]), distance).tobytes()))
        above = block[-1:]
    return b"".join([*parts, compressor.flush()])


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

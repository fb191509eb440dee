"""What image files claim before a pixel is decoded: format, size and whether all of the file is there.

Each function walks the structure of one format over the whole file, in time proportional to its length, and says
what is wrong by a `ContainerError`. PNG and TIFF have modules of their own.
"""

import os
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

TRUNCATED = "the file is truncated; copy or download it again"
PIXELS_PER_JPEG_BYTE = 1024  # 64 pixels a block, a bit a block at least, and half the blocks at the odd samplings
MAX_JPEG_SCANS = 200  # encoders write about ten; each costs a pass over the image, whatever it holds

HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


class ContainerError(ValueError):
    """What is wrong with the bytes of a file, in one line; who knows the file adds its name."""


@dataclass(frozen=True)
class Container:
    """What a whole file claims to hold.

    Attributes:
        width, height: in pixels, as stored; 0 where only the decoder's header parser knows.
        frames: pictures or pages in it, the first of which is read; 0 as for the size.
        depth: bits a sample; 8 where there is no choice.
        most_pixels: no valid file of this length can hold more.
    """

    width: int
    height: int
    frames: int = 1
    depth: int = 8
    most_pixels: int = sys.maxsize


def require(condition: object, reason: str) -> None:
    """Raises ContainerError unless the condition holds."""
    if not condition:
        raise ContainerError(reason)


class FileBytes:
    """The bytes of an open file, of which slices are read when they are asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.length = file, os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.length)
        self.file.seek(start)
        return self.file.read(max(0, stop - start))


Bytes = bytes | FileBytes


def unpack(layout: str, data: Bytes, start: int) -> tuple[int, ...]:
    """`struct.unpack_from` that knows what a missing byte means."""
    try:
        return struct.unpack(layout, data[start : start + struct.calcsize(layout)])
    except struct.error as error:
        raise ContainerError(TRUNCATED) from error


PIECE = 2**20  # bytes of a file that are looked at together


def pieces(data: Bytes, start: int, end: int) -> Iterator[bytes]:
    """A stretch of a file, a piece at a time."""
    for at in range(start, end, PIECE):
        yield data[at : min(at + PIECE, end)]


DAMAGED = "its image data is damaged; copy or download it again"


def inflated(packed: Iterable[bytes], size: int, total: int, *, to_the_end: bool = False) -> Iterator[bytes]:
    """The first `total` bytes of a zlib stream, `size` at a time.

    Args:
        packed: the stream in pieces.
        to_the_end: go on to the checksum behind the last byte.

    Raises:
        ContainerError: when it is damaged or too short.
    """
    stream, out = zlib.decompressobj(), bytearray()
    try:
        for piece in packed:
            while total:
                wanted = min(size, total) - len(out)
                part = stream.decompress(piece, wanted)
                out += part
                if len(part) < wanted:
                    break
                piece = stream.unconsumed_tail
                total -= len(out)
                yield bytes(out)
                out.clear()
            if not total and (not to_the_end or stream.decompress(piece, 1) or stream.eof):
                return
    except zlib.error as error:
        raise ContainerError(DAMAGED) from error
    require(not total, TRUNCATED)


# JPEG. A marker is 0xFF and a byte that is neither stuffing, nor a restart, nor another 0xFF.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg(data: bytes) -> Container:
    """The first picture of a JPEG file; whatever follows its end is not looked at."""
    width = height = depth = scans = entropy = 0
    at = 0
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == _EOI:
            require(scans, "a JPEG file without image data")
            return Container(width, height, depth=depth, most_pixels=PIXELS_PER_JPEG_BYTE * entropy)
        if marker == _SOI:
            continue
        (length,) = unpack(">H", data, at)
        if marker in _FRAMES:
            require(not width, "a JPEG file with two frame headers")
            depth, height, width = unpack(">BHH", data, at + 2)
            require(width and height, f"a JPEG file of {width}x{height} pixels")
        at += length
        if marker == _SOS:
            require(width, "a JPEG file without a frame header")
            scans += 1
            require(scans <= MAX_JPEG_SCANS, f"a JPEG file of more than {MAX_JPEG_SCANS} scans")
            following = _MARKER.search(data, at)
            entropy += max(0, (following.start() if following else len(data)) - at)
    raise ContainerError(TRUNCATED)


def webp(data: bytes) -> Container:
    """A RIFF file of one VP8 or VP8L picture, or an animation of several."""
    (length,) = unpack("<I", data, 4)
    end = 8 + length
    require(end <= len(data), TRUNCATED)
    canvas, picture, frames = None, None, 0
    at = 12
    while at + 8 <= end:
        kind, length = data[at : at + 4], unpack("<I", data, at + 4)[0]
        start, at = at + 8, at + 8 + length + length % 2
        require(start + length <= end, TRUNCATED)
        if kind == b"VP8X":
            low_w, high_w, low_h, high_h = unpack("<HBHB", data, start + 4)
            canvas = (1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16))
        elif kind == b"VP8 " and picture is None:
            sides = unpack("<HH", data, start + 6)
            picture = (sides[0] & 0x3FFF, sides[1] & 0x3FFF)
        elif kind == b"VP8L" and picture is None:
            (bits,) = unpack("<I", data, start + 1)
            picture = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"ANMF":
            frames += 1
    size = canvas if frames and canvas else picture
    require(size is not None, "a WebP file without a picture")
    # A canvas is allocated before it is compared with what is drawn on it.
    require(frames or canvas is None or canvas == picture, "a WebP file whose picture does not fill its canvas")
    assert size is not None
    return Container(*size, frames=max(frames, 1))


def gif(data: bytes) -> Container:
    """A GIF file, block by block to its trailer."""
    width, height, flags = unpack("<HHB", data, 6)
    at = 13 + _gif_palette(flags)
    frames = 0
    while True:
        (kind,) = unpack("B", data, at)
        if kind == 0x3B:
            require(frames, "a GIF file without a picture")
            return Container(width, height, frames)
        if kind == 0x2C:
            left, top, wide, high, flags = unpack("<HHHHB", data, at + 1)
            if not frames:  # a first frame beyond the screen makes the screen larger
                width, height = max(width, left + wide), max(height, top + high)
            frames += 1
            at += 11 + _gif_palette(flags)
        elif kind == 0x21:
            at += 2
        else:
            raise ContainerError(f"a GIF file with an unknown block of kind {kind}")
        while length := unpack("B", data, at)[0]:
            at += 1 + length
        at += 1


def _gif_palette(flags: int) -> int:
    """Bytes of the colour table that a byte of flags announces."""
    return 3 * 2 ** (1 + (flags & 7)) if flags & 0x80 else 0


def bmp(data: bytes) -> Container:
    """A Windows or OS/2 bitmap."""
    file_bytes, _, pixels, header = unpack("<IIII", data, 2)
    if header == 12:
        width, height, _, bits = unpack("<HHHH", data, 18)
        compression = image_bytes = 0
    else:
        width, height, _, bits, compression, image_bytes = unpack("<iiHHII", data, 18)
    height = abs(height)  # negative for rows from top to bottom
    require(width > 0 and height, f"a BMP file of {width}x{height} pixels")
    compressed = compression in (1, 2)
    needed = (image_bytes or file_bytes - pixels) if compressed else (width * bits + 31) // 32 * 4 * height
    require(pixels + needed <= len(data), TRUNCATED)
    return Container(width, height)


# Netpbm. Comments may stand wherever a blank may.
_BLANK = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM_SIZE = re.compile(rb"P[1-6]" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})")
_NETPBM_MAXIMUM = re.compile(_BLANK + rb"(\d{1,9})")


@dataclass(frozen=True)
class Netpbm:
    """Header of a PBM, PGM or PPM file: size, channels, the value of white, where the samples start."""

    width: int
    height: int
    channels: int
    maximum: int
    start: int
    plain: bool


def netpbm_header(data: bytes) -> Netpbm:
    """Parse the header; a ContainerError if it is not one."""
    size = _NETPBM_SIZE.match(data)
    require(size, "a PBM, PGM or PPM file without a width and a height")
    assert size is not None
    kind, end, maximum = data[1:2], size.end(), 1
    if kind in b"2356":
        value = _NETPBM_MAXIMUM.match(data, end)
        require(value, "a PGM or PPM file without a largest value")
        assert value is not None
        end, maximum = value.end(), int(value[1])
    require(0 < maximum < 65536, f"a PGM or PPM file whose largest value is {maximum}")
    channels = 3 if kind in b"36" else 1
    return Netpbm(int(size[1]), int(size[2]), channels, maximum, end + 1, plain=kind in b"123")


def netpbm(data: bytes) -> Container:
    """A PBM, PGM or PPM file, with its samples as text or as bytes."""
    header = netpbm_header(data)
    width, height, samples = header.width, header.height, header.width * header.channels
    require(width and height, f"a PBM, PGM or PPM file of {width}x{height} pixels")
    if header.plain:  # a digit a sample at least; PBM needs no blanks between them
        row_bytes = samples
    elif header.maximum == 1 and data[1:2] == b"4":
        row_bytes = (width + 7) // 8
    else:
        row_bytes = samples * (1 if header.maximum < 256 else 2)
    require(header.start + row_bytes * height <= len(data), TRUNCATED)
    return Container(width, height, depth=8 if header.maximum < 256 else 16)


def bmff_brand(data: bytes) -> str | None:
    """ "AVIF" or "HEIC" by the brands of an ISO base media file; None for anything else."""
    if data[4:8] != b"ftyp":
        return None
    (length,) = unpack(">I", data, 0)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(length, 256), 4))]
    if any(brand in AVIF_BRANDS for brand in brands):
        return "AVIF"
    return "HEIC" if any(brand in HEIC_BRANDS for brand in brands) else None


def bmff(data: bytes) -> Container:
    """An ISO base media file, AVIF or HEIC, box by box; its size is left to the decoder's parser."""
    boxes = list(_boxes(data, 0, len(data)))
    require({b"meta", b"mdat"} <= {kind for kind, _, _ in boxes}, TRUNCATED)
    meta = next((start, stop) for kind, start, stop in boxes if kind == b"meta")
    return Container(0, 0, 0, depth=_bits(data, *meta))


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box (ISO/IEC 14496-12, 4.2)."""
    while at < end:
        length, header = unpack(">I", data, at)[0], 8
        kind = data[at + 4 : at + 8]
        if length == 1:
            length, header = unpack(">Q", data, at + 8)[0], 16
        elif length == 0:  # to the end of the file
            length = end - at
        require(length >= header, "a box is shorter than its own header")
        require(at + length <= end, TRUNCATED)
        yield kind, at + header, at + length
        at += length


def _bits(data: bytes, start: int, stop: int) -> int:
    """Most bits a sample of the items that "meta" describes (ISO/IEC 23008-12, 6.5.6); 8 where it does not say."""
    spans = [(start + 4, stop)]  # behind version and flags
    for wanted in (b"iprp", b"ipco", b"pixi"):
        spans = [(a, b) for span in spans for kind, a, b in _boxes(data, *span) if kind == wanted]
    return max((max(data[a + 5 : min(b, a + 5 + data[a + 4])], default=8) for a, b in spans if b - a > 5), default=8)

"""The chunks of a PNG file around its pixels.

libpng, which decodes them, does not miss the end of a file (IEND), and libvips does not look for EXIF and XMP behind
the pixels, nor for more frames.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from swinir.image_io.errors import DAMAGED, ImageError, require

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_MOST_CHUNKS = 2**20  # the largest images take half as many at the usual 8 KB
_MOST_METADATA = 2**26  # bytes
_XMP = b"XML:com.adobe.xmp\0"


@dataclass
class Chunks:
    """The findings of `walk`.

    Attributes:
        frames: number of images of an animation; 1 without one.
        exif, xmp: metadata that lie behind the pixels; None without.
    """

    frames: int = 1
    exif: bytes | None = None
    xmp: bytes | None = None


def walk(file: BinaryIO) -> Chunks:
    """Go through all chunks to IEND; an ImageError where there is none."""
    found, pixels = Chunks(), False
    file.seek(len(SIGNATURE))
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        require(len(head) == 8 and head[4:].isalpha(), DAMAGED)
        length, kind = struct.unpack(">I4s", head)
        start = file.tell()
        if kind == b"IEND":
            require(head + file.read(4) == _END, DAMAGED)
            require(pixels, "a PNG file without image data")
            return found
        pixels = pixels or kind == b"IDAT"
        if kind == b"acTL":
            found.frames = max(1, int.from_bytes(file.read(4), "big"))
        elif kind in (b"eXIf", b"iTXt") and pixels and length <= _MOST_METADATA:
            content, checksum = file.read(length), file.read(4)
            require(zlib.crc32(kind + content).to_bytes(4, "big") == checksum, DAMAGED)
            if kind == b"eXIf":
                found.exif = content
            elif content.startswith(_XMP + b"\0\0\0\0"):
                found.xmp = content.removeprefix(_XMP + b"\0\0\0\0")
        file.seek(start + length + 4)
    raise ImageError(f"a PNG file of more than {_MOST_CHUNKS:,} chunks; save it again with another program")

"""Checks of a JPEG file before libvips decodes it.

libjpeg reads gigabytes in search of a header, makes a pass over the image for each of any number of scans, and takes a
file without its end for a whole one. Pillow ignores damage of any kind.
"""

import struct
from typing import BinaryIO

from swinir.image_io.errors import DAMAGED, ImageError, require

_MOST_SCANS = 200  # encoders write about ten
_MOST_BETWEEN = 2**16  # bytes between segments
_PIECE = 2**20  # bytes that are searched together
_MOST_PER_PIXEL = 8  # bytes
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = 0xDA, 0xD9


def check(file: BinaryIO) -> None:
    """Follow the segments to the first scan, and search its end; an ImageError where one is missing."""
    frames, marker = [], 0
    file.seek(2)
    while marker != _START_OF_SCAN:
        marker = _next_marker(file)
        require(marker != _END, DAMAGED)
        length = int.from_bytes(file.read(2), "big")
        require(length >= 2, DAMAGED)
        start = file.tell()
        if marker in _FRAMES:
            frames.append(struct.unpack(">xHH", file.read(5).ljust(5, b"\0")))
        file.seek(start + length - 2)
    require(len(frames) == 1, f"a JPEG file with {len(frames) or 'no'} frame headers")
    scans, last, left = 1, b"", _MOST_PER_PIXEL * frames[0][0] * frames[0][1] + _PIECE
    while left > 0 and (piece := file.read(_PIECE)):
        left -= len(piece)
        piece = last + piece
        end = piece.find(bytes((0xFF, _END)))
        scans += piece.count(bytes((0xFF, _START_OF_SCAN)), 0, end if end >= 0 else None)
        require(scans <= _MOST_SCANS, f"a JPEG file of more than {_MOST_SCANS} scans; save it again")
        if end >= 0:
            return
        last = piece[-1:]
    raise ImageError(DAMAGED)


def _next_marker(file: BinaryIO) -> int:
    """The next marker of a segment, behind a few bytes at most that belong to none, as libjpeg takes them."""
    before = 0
    for _ in range(_MOST_BETWEEN):
        byte = file.read(1)
        require(byte, DAMAGED)
        if before == 0xFF and byte[0] not in (0, 1, 0xFF, *range(0xD0, 0xD9)):
            return byte[0]
        before = byte[0]
    raise ImageError(DAMAGED)

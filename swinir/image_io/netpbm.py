"""PBM, PGM and PPM files.

The wheel of libvips has no reader for them. Pillow keeps 8 of 16 bits of colour, and reads millions of blanks in a
header; OpenCV shows a truncated file as a whole one.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from swinir.image_io.canvas import row_blocks
from swinir.image_io.errors import DAMAGED, require

_MOST_HEADER = 2**16  # bytes, with comments
_MOST_TEXT = 2**26  # bytes of samples written as decimal numbers
_BLANK = rb"(?:\s|#[^\r\n]*[\r\n])+"
_SIZE = re.compile(rb"P([1-6])" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})")
_MAXIMUM = re.compile(_BLANK + rb"(\d{1,5})")


class Netpbm(NamedTuple):
    """The header: number of the format (1 to 6), size, channels, the value of white, and the start of the samples."""

    kind: int
    width: int
    height: int
    channels: int
    maximum: int
    start: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.maximum < 256 else np.uint16)


def header(file: BinaryIO) -> Netpbm:
    """Parse the header; an ImageError if it is not one, and for a file with fewer samples than it claims."""
    file.seek(0)
    head = file.read(_MOST_HEADER)
    size = _SIZE.match(head)
    require(size, f"a PBM, PGM or PPM file without a width and a height in its first {_MOST_HEADER:,} bytes")
    assert size is not None
    kind, width, height = (int(text) for text in size.groups())
    maximum, end = 1, size.end()
    if kind not in (1, 4):
        value = _MAXIMUM.match(head, end)
        require(value, "a PGM or PPM file without a largest value")
        assert value is not None
        maximum, end = int(value[1]), value.end()
    require(0 < maximum < 65536, f"a PGM or PPM file whose largest value is {maximum}")
    require(width and height, f"a PBM, PGM or PPM file of {width}x{height} pixels")
    found = Netpbm(kind, width, height, 3 if kind in (3, 6) else 1, maximum, end + 1)
    least = found.channels * width if kind < 4 else _row_bytes(found)  # a digit a sample, if they are numbers
    available = file.seek(0, 2) - found.start
    require(available >= least * height, DAMAGED)
    require(kind >= 4 or available <= _MOST_TEXT, f"samples as text of more than {_MOST_TEXT:,} bytes; convert to PNG")
    return found


def _row_bytes(head: Netpbm) -> int:
    return -(-head.width // 8) if head.kind == 4 else head.width * head.channels * head.dtype.itemsize


def blocks(file: BinaryIO, head: Netpbm) -> Iterator[np.ndarray]:
    """(n, W, 1 or 3) blocks of rows from the top on, uint8 or uint16 of the full range."""
    file.seek(head.start)
    if head.kind < 4:
        yield from [_of_text(file.read(), head)]
        return
    row_bytes = _row_bytes(head)
    for part in row_blocks(head.height, head.width):
        rows = part.stop - part.start
        data = file.read(rows * row_bytes)
        require(len(data) == rows * row_bytes, DAMAGED)
        if head.kind == 4:
            bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, row_bytes), axis=1)
            yield _full_range(1 - bits[:, : head.width, None], head)
        else:
            values = np.frombuffer(data, head.dtype.newbyteorder(">"))
            yield _full_range(values.reshape(rows, head.width, head.channels), head)


def _of_text(text: bytes, head: Netpbm) -> np.ndarray:
    text = re.sub(rb"#[^\r\n]*", b"", text)
    count = head.height * head.width * head.channels
    if head.kind == 1:  # which needs no blanks between digits
        digits = np.frombuffer(text, np.uint8)
        values = 1 - (digits[(digits == ord("0")) | (digits == ord("1"))] - ord("0"))
    else:
        require(re.fullmatch(rb"[\s\d]*", text), "samples that are no numbers")
        values = np.fromstring(text, np.int64, sep=" ")
    require(len(values) >= count, DAMAGED)
    return _full_range(values[:count].reshape(head.height, head.width, head.channels), head)


def _full_range(values: np.ndarray, head: Netpbm) -> np.ndarray:
    largest = int(values.max())
    require(largest <= head.maximum, f"a value of {largest} is above the file's largest, {head.maximum}")
    top = int(np.iinfo(head.dtype).max)
    if head.maximum != top:
        values = (values.astype(np.uint32) * top + head.maximum // 2) // head.maximum
    return values.astype(head.dtype)

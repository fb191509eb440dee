"""The directories of tags that EXIF and TIFF share (TIFF 6.0, section 2).

libvips neither reads nor writes EXIF of TIFF files, and does not say which of their channels is alpha. Pillow copies
EXIF, and replaces letters that are not ASCII.
"""

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from swinir.image_io.errors import DAMAGED, require

ORIENTATION, EXIF, GPS, INTEROPERABILITY = 274, 34665, 34853, 0xA005
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003  # of the EXIF directory, for compressed files only
# Tags about the image, not the file: description, maker, model, software, date, artist, copyright.
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432, EXIF, GPS)
_MOST_ENTRIES = 4096  # of a directory; cameras write about a hundred
_MOST_COPIED = 2**26  # bytes

# Bytes of a value by its type, and of a number that byte order concerns.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {**_SIZES, 5: 4, 10: 4}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 9: "u4", 13: "u4", 16: "u8", 18: "u8"}
Value = tuple[int, int, bytes]  # type, number of values, bytes
Tags = dict[int, "Value | Tags"]  # a directory, and those it names


class FileBytes:
    """The bytes of an open file; slices are read when they are asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.length = file, os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.length)
        self.file.seek(start)
        return self.file.read(max(0, stop - start))


Bytes = bytes | FileBytes


class Entry(NamedTuple):
    """A tag's type, number of values, and where its values lie."""

    kind: int
    number: int
    start: int

    @property
    def end(self) -> int:
        return self.start + self.number * _SIZES.get(self.kind, 1)


class Directory(NamedTuple):
    """A directory of tags: byte order, entries, and the place of the link to the next directory."""

    order: Literal["<", ">"]
    entries: dict[int, Entry]
    link: int

    def integers(self, data: Bytes, tag: int, default: tuple[int, ...] = ()) -> np.ndarray:
        """Values of a tag of whole numbers; an ImageError for another type, and where they are cut off."""
        if tag not in self.entries:
            return np.array(default, np.uint64)
        entry = self.entries[tag]
        require(entry.kind in _INTEGERS, f"its tag {tag} is of type {entry.kind}, where a whole number is due")
        require(entry.end <= len(data), DAMAGED)
        return np.frombuffer(data[entry.start : entry.end], self.order + _INTEGERS[entry.kind]).astype(np.uint64)

    def integer(self, data: Bytes, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        values = self.integers(data, tag)
        return int(values[0]) if len(values) else default


def _unpack(layout: str, data: Bytes, start: int) -> tuple[int, ...]:
    part = data[start : start + struct.calcsize(layout)]
    require(len(part) == struct.calcsize(layout), DAMAGED)
    return struct.unpack(layout, part)


def directory(data: Bytes, at: int | None = None) -> Directory:
    """Parse the directory at an offset, or the first one, of a TIFF structure, classic or BigTIFF."""
    require(data[:2] in (b"II", b"MM"), "a TIFF structure of unknown byte order")
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (version,) = _unpack(f"{order}H", data, 2)
    require(version in (42, 43), f"a TIFF structure of version {version}")
    count_word, word, size = ("H", "I", 12) if version == 42 else ("Q", "Q", 20)
    pointer = struct.calcsize(word)
    if at is None:
        (at,) = _unpack(order + word, data, pointer)
    (count,) = _unpack(order + count_word, data, at)
    require(count <= _MOST_ENTRIES, f"a TIFF structure of {count} tags in a directory")
    start = at + struct.calcsize(count_word)
    link = start + count * size
    rows = data[start : link + pointer]
    require(len(rows) == link + pointer - start, DAMAGED)
    entries = {}
    for place in range(0, count * size, size):
        tag, kind, values = struct.unpack_from(f"{order}HH{word}", rows, place)
        value = start + place + 4 + pointer
        if values * _SIZES.get(kind, 1) > pointer:
            (value,) = struct.unpack_from(order + word, rows, place + 4 + pointer)
        entries[tag] = Entry(kind, values, value)
    return Directory(order, entries, link)


def upright(exif: bytes) -> bytes:
    """EXIF whose orientation is 1, without the thumbnail, which shows the image as it was before.

    All else keeps its bytes and its place.

    Raises:
        ImageError: for damaged EXIF.
    """
    first, patched = directory(exif), bytearray(exif)
    require(all(entry.end <= len(exif) for entry in first.entries.values()), "damaged EXIF")
    turned = first.entries.get(ORIENTATION)
    if turned is not None and turned.kind in (3, 4, 9):
        struct.pack_into(first.order + ("H" if turned.kind == 3 else "I"), patched, turned.start, 1)
    patched[first.link : first.link + 4] = bytes(4)
    return bytes(patched)


def described(data: Bytes) -> bytes | None:
    """EXIF of a TIFF file: the description of the image in its first directory; None where there is none.

    Raises:
        ImageError: for damaged directories.
    """
    tags = _descriptive(data)
    return b"II*\0\x08\0\0\0" + _packed(tags, 8) if tags else None


def append(path: Path, exif: bytes) -> None:
    """Add EXIF to a little-endian classic TIFF file: write a new first directory at its end.

    Raises:
        ImageError: for damaged EXIF; the file is as it was.
    """
    added = _descriptive(exif)
    taken = added.get(EXIF)
    if isinstance(taken, dict):  # the size is a matter of compressed files
        taken.pop(_PIXEL_X, None), taken.pop(_PIXEL_Y, None)
    with path.open("r+b") as file:
        data = FileBytes(file)
        tags = {**_copied(data, directory(data)), **added}
        place = file.seek(0, io.SEEK_END)
        place += file.write(bytes(place % 2))
        file.write(_packed(tags, place))
        file.seek(4)
        file.write(struct.pack("<I", place))


def _descriptive(data: Bytes) -> Tags:
    page = directory(data)
    entries = {tag: page.entries[tag] for tag in _DESCRIPTIVE if tag in page.entries}
    return _copied(data, page._replace(entries=entries), depth=2)


def _copied(data: Bytes, page: Directory, depth: int = 0) -> Tags:
    """Values of a directory in little-endian order, and to a depth those of the directories it names."""
    tags: Tags = {}
    # Entries that share their values could make gigabytes of a small file.
    require(sum(e.end - e.start for e in page.entries.values()) <= min(len(data), _MOST_COPIED), "damaged EXIF")
    for tag, entry in page.entries.items():
        if depth and tag in (EXIF, GPS, INTEROPERABILITY):
            tags[tag] = _copied(data, directory(data, page.integer(data, tag)), depth - 1)
        elif entry.kind in _SIZES:
            require(entry.end <= len(data), "damaged EXIF")
            number = f"u{_NUMBERS[entry.kind]}"
            values = np.frombuffer(data[entry.start : entry.end], page.order + number).astype(f"<{number}")
            tags[tag] = (entry.kind, entry.number, values.tobytes())
    return tags


def _packed(tags: Tags, start: int) -> bytes:
    """A little-endian directory that lies at `start`, its longer values and further directories behind it."""
    behind = start + 2 + 12 * len(tags) + 4
    rows, values = [struct.pack("<H", len(tags))], bytearray()
    for tag, value in sorted(tags.items()):
        if isinstance(value, dict):
            kind, number, field = 4, 1, struct.pack("<I", behind + len(values))
            values += _packed(value, behind + len(values))
        else:
            kind, number, content = value
            field = content.ljust(4, b"\0")
            if len(content) > 4:
                field = struct.pack("<I", behind + len(values))
                values += content
        values += bytes(len(values) % 2)
        rows.append(struct.pack("<HHI", tag, kind, number) + field)
    return b"".join([*rows, bytes(4), values])

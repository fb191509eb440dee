"""The structure that EXIF and TIFF share: directories of tags. EXIF's are read, copied and corrected here.

The structure is that of TIFF 6.0, section 2.
"""

import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from swinir.image_io.containers import TRUNCATED, Bytes, ContainerError, require, unpack

ORIENTATION, EXIF, GPS, INTEROPERABILITY = 274, 34665, 34853, 0xA005
PIXEL_X, PIXEL_Y = 0xA002, 0xA003  # of the EXIF directory
# Entries about the picture, not the file: description, maker, model, software, date, artist, copyright.
DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432, EXIF, GPS)

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
Value = tuple[int, int, bytes]  # type, number of values, bytes


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

    def integers(self, data: Bytes, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Values of a tag of whole numbers; a ContainerError for another type, and where they are cut off."""
        if tag not in self.entries:
            return default
        entry = self.entries[tag]
        require(entry.kind in _INTEGERS, f"its tag {tag} is of type {entry.kind}, where a whole number is due")
        require(entry.end <= len(data), TRUNCATED)
        values = np.frombuffer(data[entry.start : entry.end], self.order + _INTEGERS[entry.kind])
        return tuple(values.tolist())

    def integer(self, data: Bytes, tag: int, default: int | None = None) -> int:
        """The first value of a tag; a ContainerError where there is none and no default."""
        values = self.integers(data, tag) or (default,)
        require(values[0] is not None, f"a TIFF file without the tag {tag}")
        return values[0] or 0


def directory(data: Bytes, at: int | None = None) -> Directory:
    """The directory at an offset, or the first one, of a TIFF structure, classic or BigTIFF."""
    order, word, size = _layout(data)
    pointer = struct.calcsize(word)
    start, count = _extent(data, at)
    link = start + count * size
    (following,) = unpack(order + word, data, link)
    entries = {}
    for place in range(start, link, size):
        tag, kind, values = unpack(f"{order}HH{word}", data, place)
        value = place + 4 + pointer
        if values * _SIZES.get(kind, 1) > pointer:
            (value,) = unpack(order + word, data, value)
        entries[tag] = Entry(kind, values, value)
    return Directory(order, entries, link, following)


def count_directories(data: Bytes, most: int) -> int:
    """How many directories follow each other, up to `most`; a circle ends where it closes."""
    order, word, size = _layout(data)
    seen: set[int] = set()
    start, count = _extent(data, None)
    while len(seen) < most - 1:
        (following,) = unpack(order + word, data, start + count * size)
        if not following or following in seen:
            break
        seen.add(following)
        start, count = _extent(data, following)
    return len(seen) + 1


def _layout(data: Bytes) -> tuple[Literal["<", ">"], str, int]:
    """Byte order, the letter of an offset, and the bytes of an entry."""
    require(data[:2] in (b"II", b"MM"), "a TIFF structure of unknown byte order")
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (version,) = unpack(f"{order}H", data, 2)
    require(version in (42, 43), f"a TIFF structure of version {version}")
    return (order, "I", 12) if version == 42 else (order, "Q", 20)


def _extent(data: Bytes, at: int | None) -> tuple[int, int]:
    """Where the entries of a directory start, and how many there are."""
    order, word, _ = _layout(data)
    number = "H" if word == "I" else "Q"
    if at is None:
        (at,) = unpack(order + word, data, struct.calcsize(word))
    return at + struct.calcsize(number), unpack(order + number, data, at)[0]


def numbers(order: str, letter: str, *values: int) -> Value:
    return {"H": 3, "I": 4, "Q": 16}[letter], len(values), struct.pack(f"{order}{len(values)}{letter}", *values)


def packed(order: str, tags: Mapping[int, Value], start: int, *, big: bool = False) -> bytes:
    """A directory without a next one that lies at `start`, its longer values behind it; `big` for a BigTIFF."""
    count, word, size = ("Q", "Q", 8) if big else ("H", "I", 4)
    behind = start + struct.calcsize(f"<{count}") + (4 + 2 * size) * len(tags) + size
    rows, values = [struct.pack(f"{order}{count}", len(tags))], bytearray()
    for tag, (kind, number, content) in sorted(tags.items()):
        field = content.ljust(size, b"\0")
        if len(content) > size:
            field = struct.pack(f"{order}{word}", behind + len(values))
            values += content + bytes(len(content) % 2)
        rows.append(struct.pack(f"{order}HH{word}", tag, kind, number) + field)
    return b"".join([*rows, bytes(size), values])


def described(data: Bytes) -> bytes | None:
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


def _copied(data: Bytes, page: Directory, block: bytearray, depth: int) -> int:
    """Append a directory, and those it names, to a block of the same byte order; returns its place."""
    tags: dict[int, Value] = {}
    # Entries that share their values could make gigabytes of a small file.
    require(sum(entry.end - entry.start for entry in page.entries.values()) <= len(data), "damaged EXIF")
    for tag, entry in page.entries.items():
        if tag in (EXIF, GPS, INTEROPERABILITY):
            if depth:
                place = _copied(data, directory(data, page.integer(data, tag)), block, depth - 1)
                tags[tag] = numbers(page.order, "I", place)
        elif entry.kind in _SIZES:
            require(entry.end <= len(data), "damaged EXIF")
            tags[tag] = (entry.kind, entry.number, data[entry.start : entry.end])
    place = len(block)
    block += packed(page.order, tags, place)
    return place


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

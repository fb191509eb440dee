"""Whether a weights file is whole: by the hash known of it, or by what it carries itself.

A file of torch holds a CRC-32 of each tensor, but none of its headers. Those are held against each other, byte
for byte, so that a flipped bit is found without any hash.
"""

import hashlib
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

How = Literal["sha256", "crc", "none"]

# Files of torch before 1.6: protocol 2, then torch's magic number 0x1950a86a20f9469cfc6c as a pickled integer.
LEGACY_HEAD = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


@dataclass(frozen=True)
class Expected:
    """What is known about a file from elsewhere; None for what is not.

    Attributes:
        bytes: its length.
        sha256: lower-case hex digest.
        parameters: number of float32 values that it must have room for, unless the digest tells all.
    """

    bytes: int | None = None
    sha256: str | None = None
    parameters: int | None = None


class Finding(NamedTuple):
    """What a check found.

    `how` says by what: "sha256" finds any change; "crc" any change to the stored tensors, and to all but a few
    descriptive bytes around them where the layout was checked; "none" means that only form and length could be
    looked at.
    """

    ok: bool
    how: How
    message: str


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def examine(path: Path, expected: Expected, *, layout: bool = True) -> Finding:
    """Check a file by its known hash, or by the checksums it carries.

    Args:
        path: an existing file.
        expected: what is known about it.
        layout: whether the headers of a zip file must be, byte for byte, such as today's torch writes them.
            Other writers, older ones of torch too, may put valid things there that this refuses.
    """
    size = path.stat().st_size
    if expected.sha256 is not None:
        if expected.bytes is not None and size != expected.bytes:
            return Finding(False, "sha256", f"{size} bytes instead of {expected.bytes}")
        digest = sha256(path)
        if digest != expected.sha256:
            return Finding(False, "sha256", f"SHA-256 is {digest} instead of {expected.sha256}")
        return Finding(True, "sha256", "SHA-256 matches")

    how: How = "none"
    with path.open("rb") as stream:
        head = stream.read(len(LEGACY_HEAD))
    if head.startswith(b"PK\x03\x04"):
        how, fault = "crc", _zip_fault(path, layout)
        matching = "and the file's layout match" if layout else "matches"
        praise = f"no SHA-256 known; CRC-32 of every tensor {matching}"
    elif head == LEGACY_HEAD:
        fault, praise = None, "no checksum known; a checkpoint of the old format, which carries none"
    elif path.suffix == ".safetensors":
        fault, praise = _safetensors_fault(path), "no checksum known; header and length fit each other"
    else:
        fault, praise = f"not a checkpoint: it begins with {head!r}", ""
    if fault is None and size < 4 * (expected.parameters or 0):
        fault = f"{size} bytes can't hold {expected.parameters} parameters"
    return Finding(fault is None, how, fault or praise)


def _safetensors_fault(path: Path) -> str | None:
    """What keeps the header and the length of a safetensors file from fitting; None when they fit."""
    data = path.stat().st_size - 8
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if length > data:
            return "shorter than its header"
        try:
            header = json.loads(stream.read(length))
            spans = sorted(row["data_offsets"] for key, row in header.items() if key != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return "unreadable header"
    stop = 0
    for start, end in spans:
        if start != stop:
            return f"tensors leave a gap or overlap at byte {start}"
        stop = end
    return None if stop == data - length else f"{data - length} bytes of tensors instead of {stop}"


def _zip_fault(path: Path, layout: bool) -> str | None:
    """What is wrong with a checkpoint in torch's zip format; None when nothing is."""
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                members = archive.infolist()
                if not any(member.filename.endswith("/data.pkl") for member in members):
                    return "a zip file, but no checkpoint: it has no data.pkl"
                compressed = [m.filename for m in members if m.compress_type not in (zipfile.ZIP_STORED, 8)]
                if compressed:
                    return f"unknown compression of {compressed[0]}"
                broken = archive.testzip()
                if broken is not None:
                    return f"CRC-32 of {broken} does not match"
                return _layout_fault(archive, stream) if layout else None
        except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError, zlib.error, struct.error) as error:
            return f"a cut or damaged zip file ({error})"


def _layout_fault(archive: zipfile.ZipFile, stream: BinaryIO) -> str | None:
    """What is odd about the headers, every byte of which has to be the one that follows from the others.

    What stays unseen is a field that nothing else determines: the version of the writer.
    """
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    starts = [member.header_offset for member in members]
    for member, start, stop in zip(members, [0, *starts[1:]], [*starts[1:], archive.start_dir], strict=True):
        stream.seek(start)
        if not _local_part_fits(member, stream.read(stop - start)):
            return f"the header of {member.filename} contradicts the directory, or holds what torch does not write"
    if len({(m.create_version, m.create_system, m.internal_attr, m.external_attr) for m in members}) > 1:
        return "the directory's entries differ in writer or attributes"
    stream.seek(archive.start_dir)
    return None if _directory_fits(stream.read(), archive) else "the directory is damaged"


def _local_part_fits(member: zipfile.ZipInfo, part: bytes) -> bool:
    """Whether everything from a member's local header up to the next one agrees with the directory."""
    year, month, day, hour, minute, second = member.date_time
    version = member.extract_version | member.reserved << 8
    stamp = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
    fixed = struct.pack("<4s5H", b"PK\x03\x04", version, member.flag_bits, member.compress_type, *stamp)
    crc, packed, size, name_length, extra_length = struct.unpack_from("<3I2H", part, len(fixed))
    data_start = 30 + name_length + extra_length
    data_stop = data_start + member.compress_size
    streamed = bool(member.flag_bits & 8)  # lengths may stand behind the data instead
    known = (member.CRC, member.compress_size, member.file_size)
    wide = (member.CRC, 0xFFFFFFFF, 0xFFFFFFFF)  # lengths in the zip64 extra field
    descriptors = {mark + struct.pack(form, *known) for mark in (b"", b"PK\x07\x08") for form in ("<3I", "<I2Q")}
    return (
        part.startswith(fixed)
        and (crc, packed, size) in ({known, wide, (0, 0, 0)} if streamed else {known, wide})
        and part[30 : 30 + name_length] == _name_bytes(member)
        and _extra_fits(part[30 + name_length : data_start], known)
        and _extra_fits(member.extra, known)
        and data_stop <= len(part)
        and part[data_stop:] in (descriptors if streamed and member.file_size else {b""})
        and member.volume == 0
        and not member.comment
    )


def _extra_fits(extra: bytes, known: tuple[int, int, int]) -> bool:
    """Whether extra fields are those that torch writes: its padding ("FB", all Z) and zip64 lengths."""
    while extra:
        if len(extra) < 4:
            return False
        mark, length = struct.unpack("<2sH", extra[:4])
        content, extra = extra[4 : 4 + length], extra[4 + length :]
        padding = mark == b"FB" and content == b"Z" * length
        zip64 = mark == b"\x01\x00" and struct.pack("<2Q", known[2], known[1]).startswith(content[:16])
        if not (padding or zip64):
            return False
    return True


def _directory_fits(directory: bytes, archive: zipfile.ZipFile) -> bool:
    """Whether lengths in the directory, and what follows it, are those that its members ask for."""
    length = 0
    for member in archive.infolist():
        texts = struct.unpack_from("<3H", directory, length + 28)
        if texts != (len(_name_bytes(member)), len(member.extra), len(member.comment)):
            return False
        length += 46 + sum(texts)
    count, start, tail = len(archive.infolist()), archive.start_dir, directory[length:]
    short = (min(count, 0xFFFF), min(count, 0xFFFF), min(length, 0xFFFFFFFF), min(start, 0xFFFFFFFF))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, *short, 0)
    wide = struct.pack("<2I4Q", 0, 0, count, count, length, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + length, 1)
    record = struct.pack("<4sQ", b"PK\x06\x06", 44)
    # Between record and wide stand two versions: the writer's, free, and the reader's, 4.5 wherever zip64 is used.
    return tail == end or (tail[:12] == record and tail[14:] == struct.pack("<H", 45) + wide + locator + end)


def _name_bytes(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")

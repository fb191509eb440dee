"""The images in a folder or an archive that a user has, one after another.

Archives are untrusted: nothing is unpacked under a name of theirs, links and devices are passed over, an entry that
points outside makes the whole archive suspect, and sizes are counted as they come, not as they are claimed.
"""

import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from swinir.image_io.image import EXTENSIONS

MAX_ENTRIES = 100_000
MAX_FILE = 2**29  # bytes of one image
MAX_TOTAL = 2**34  # bytes that an archive unpacks to
MAX_RATIO = 100  # of unpacked to packed bytes; black BMP pages come to about 40
_SMALL = 2**26  # bytes that any archive may unpack to
_MAX_HEADER = 2**20  # bytes of a long name
_BLOCK = 2**20
_UNPACKED_FIRST = {b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip"}


@dataclass(frozen=True)
class Entry:
    """An image of a source.

    Attributes:
        label: its path below the source.
        path: where its bytes are until the next entry is asked for; None if it is passed over.
        reason: why it is passed over.
    """

    label: PurePosixPath
    path: Path | None
    reason: str = ""


def entries(source: Path) -> Iterator[Entry]:
    """The images of a folder, a zip or a tar archive (also packed by gzip, bzip2 or xz), subfolders included.

    Raises:
        FileNotFoundError, ValueError: for a source that is neither, is damaged, or could do harm; the message says why.
    """
    if source.is_dir():
        yield from _of_folder(source)
        return
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such folder or archive; check the path")
    with source.open("rb") as file:
        head = file.read(8)
    for start, what in _UNPACKED_FIRST.items():
        if head.startswith(start):
            raise ValueError(f"{source} is a {what} archive; unpack it and give the folder")
    try:
        if zipfile.is_zipfile(source):
            yield from _of_zip(source)
        else:
            yield from _of_tar(source)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{source} cannot be read to its end ({reason}); get it again") from error


def _of_folder(source: Path) -> Iterator[Entry]:
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            label = PurePosixPath(path.relative_to(source).as_posix())
            if _is_image(label):
                yield Entry(label, path) if path.is_file() else Entry(label, None, "not a regular file")


def _of_zip(source: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(source) as archive, tempfile.TemporaryDirectory() as folder:
        budget = _Budget(source)
        for info in archive.infolist():
            label = budget.checked(info.filename)
            if info.is_dir() or not _is_image(label):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive comes from no Unix
            if kind not in (0, stat.S_IFREG):
                yield Entry(label, None, "a link, or no regular file")
            elif info.flag_bits & 1:
                yield Entry(label, None, "encrypted")
            else:
                with archive.open(info) as file:
                    yield budget.unpacked(label, cast(BinaryIO, file), Path(folder))


class _Member(tarfile.TarInfo):
    """A member of a tar archive, refused before a long name is read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.size > _MAX_HEADER and not member.isreg():
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _of_tar(source: Path) -> Iterator[Entry]:
    with _opened_tar(source) as archive, tempfile.TemporaryDirectory() as folder:
        budget = _Budget(source)
        for member in archive:
            label = budget.checked(member.name)
            budget.spend(0 if _is_image(label) else member.size)  # skipping unpacks, too
            if member.isdir() or not _is_image(label):
                continue
            file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if file is None:
                yield Entry(label, None, "a link, or no regular file")
            else:
                yield budget.unpacked(label, cast(BinaryIO, file), Path(folder))


def _opened_tar(source: Path) -> tarfile.TarFile:
    try:  # not by `is_tarfile`, which would read long names into memory
        return tarfile.open(source, tarinfo=_Member)
    except tarfile.TarError as error:
        raise ValueError(f"{source} is neither a folder nor a whole zip or tar archive; give one of these") from error


class _Budget:
    """What an archive may still unpack to."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.bytes = min(MAX_TOTAL, max(_SMALL, MAX_RATIO * source.stat().st_size))
        self.entries = MAX_ENTRIES

    def checked(self, name: str) -> PurePosixPath:
        """The path of an entry, which does not leave the archive."""
        self.entries -= 1
        if self.entries < 0:
            raise ValueError(f"{self.source} has more than {MAX_ENTRIES:,} entries; unpack what you need of it")
        label = PurePosixPath(name.replace("\\", "/"))
        if label.is_absolute() or ".." in label.parts or ":" in name.split("/")[0] or "\0" in name:
            raise ValueError(
                f"{self.source} has the entry {ascii(name)[:120]}, which points out of the folder it is unpacked in; "
                "it was made to do harm: get it elsewhere"
            )
        return label

    def spend(self, count: int) -> None:
        """Take bytes off what is left."""
        self.bytes -= count
        if self.bytes < 0:
            raise ValueError(
                f"{self.source} unpacks to more than {MAX_TOTAL:,} bytes or {MAX_RATIO} times its size; unpack what "
                "you need of it and give the folder"
            )

    def unpacked(self, label: PurePosixPath, file: BinaryIO, folder: Path) -> Entry:
        """The entry with its bytes in a file of our own name."""
        path, size = folder / f"image{label.suffix.lower()}", 0
        with path.open("wb") as out:
            while block := file.read(_BLOCK):
                self.spend(len(block))
                size += len(block)
                if size > MAX_FILE:
                    return Entry(label, None, f"larger than {MAX_FILE:,} bytes")
                out.write(block)
        return Entry(label, path)


def _is_image(label: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in label.parts)
    return label.suffix.lower() in EXTENSIONS and not hidden

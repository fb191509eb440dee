"""The images in a folder or an archive, one after another, and the role that each path suggests.

Archives are untrusted: nothing is unpacked under a name from the archive, links and devices are skipped, an entry that
points outside makes the whole archive suspect, and sizes are counted while unpacking, not taken from headers.
"""

import os
import re
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

from swinir.image_io.image import EXTENSIONS
from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet

MAX_ENTRIES = 100_000
MAX_FILE = 2**29  # bytes of one image
MAX_TOTAL = 2**34  # unpacked bytes of an archive
MAX_RATIO = 100  # of unpacked to packed bytes; black BMP pages come to about 40
_SMALL = 2**26  # unpacked bytes that every archive may have
_MAX_HEADER = 2**20  # bytes of a long name
_BLOCK = 2**20
_OTHER_ARCHIVES = {b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip"}
_NO_FILE = "a link, or no regular file"


@dataclass(frozen=True)
class SourceImage:
    """An image of a source.

    Attributes:
        label: path below the source.
        path: file with its bytes, valid until the next image; None for an image that is skipped.
        reason: why the image is skipped.
    """

    label: PurePosixPath
    path: Path | None
    reason: str = ""


def source_images(source: Path) -> Iterator[SourceImage]:
    """Yield the images of a folder, a zip archive or a tar archive (plain, gzip, bzip2, xz), with subfolders.

    Raises:
        FileNotFoundError, ValueError: for any other source, and for a corrupt or harmful archive.
    """
    if source.is_dir():
        yield from _of_folder(source)
        return
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such folder or archive; check the path")
    with source.open("rb") as file:
        head = file.read(8)
    for start, kind in _OTHER_ARCHIVES.items():
        if head.startswith(start):
            raise ValueError(f"{source} is a {kind} archive; unpack it and give the folder")
    try:
        if zipfile.is_zipfile(source):
            yield from _of_zip(source)
        else:
            yield from _of_tar(source)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{source} is corrupt ({reason}); download it again") from error


def _of_folder(source: Path) -> Iterator[SourceImage]:
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            label = PurePosixPath(path.relative_to(source).as_posix())
            if _is_image(label):
                yield SourceImage(label, path) if path.is_file() else SourceImage(label, None, "not a regular file")


def _of_zip(source: Path) -> Iterator[SourceImage]:
    with zipfile.ZipFile(source) as archive, tempfile.TemporaryDirectory() as folder:
        budget = _Budget(source)
        for info in archive.infolist():
            label = budget.checked(info.filename)
            if info.is_dir() or not _is_image(label):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 in archives that were not made on Unix
            if kind not in (0, stat.S_IFREG):
                yield SourceImage(label, None, _NO_FILE)
            elif info.flag_bits & 1:
                yield SourceImage(label, None, "encrypted")
            else:
                with archive.open(info) as file:
                    yield budget.unpacked(label, cast(BinaryIO, file), Path(folder))


class _Member(tarfile.TarInfo):
    """A member of a tar archive; a long name is refused before it is read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.size > _MAX_HEADER and not member.isreg():
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _of_tar(source: Path) -> Iterator[SourceImage]:
    with _opened_tar(source) as archive, tempfile.TemporaryDirectory() as folder:
        budget = _Budget(source)
        for member in archive:
            label = budget.checked(member.name)
            budget.spend(0 if _is_image(label) else member.size)  # skipping a member unpacks it as well
            if member.isdir() or not _is_image(label):
                continue
            file = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if file is None:
                yield SourceImage(label, None, _NO_FILE)
            else:
                yield budget.unpacked(label, cast(BinaryIO, file), Path(folder))


def _opened_tar(source: Path) -> tarfile.TarFile:
    try:  # `is_tarfile` would read long names into memory
        return tarfile.open(source, tarinfo=_Member)
    except tarfile.TarError as error:
        raise ValueError(f"{source} is neither a folder nor a whole zip or tar archive; give one of these") from error


class _Budget:
    """The entries and unpacked bytes that an archive may still have."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.bytes = min(MAX_TOTAL, max(_SMALL, MAX_RATIO * source.stat().st_size))
        self.entries = MAX_ENTRIES

    def checked(self, name: str) -> PurePosixPath:
        """Return the path of an entry; refuse one that leaves the folder it is unpacked in."""
        self.entries -= 1
        if self.entries < 0:
            raise ValueError(f"{self.source} has more than {MAX_ENTRIES:,} entries; unpack what you need of it")
        label = PurePosixPath(name.replace("\\", "/"))
        if label.is_absolute() or ".." in label.parts or ":" in name.split("/")[0] or "\0" in name:
            raise ValueError(
                f"{self.source} has the entry {ascii(name)[:120]}, which points out of the folder it is unpacked in; "
                "the archive is malicious: get the images from another source"
            )
        return label

    def spend(self, count: int) -> None:
        """Subtract bytes from the budget."""
        self.bytes -= count
        if self.bytes < 0:
            raise ValueError(
                f"{self.source} unpacks to more than {MAX_TOTAL:,} bytes or {MAX_RATIO} times its size; unpack what "
                "you need of it and give the folder"
            )

    def unpacked(self, label: PurePosixPath, file: BinaryIO, folder: Path) -> SourceImage:
        """Copy the bytes of an entry to a file with a name of our own."""
        path, size = folder / f"image{label.suffix.lower()}", 0
        with path.open("wb") as out:
            while block := file.read(_BLOCK):
                self.spend(len(block))
                size += len(block)
                if size > MAX_FILE:
                    return SourceImage(label, None, f"larger than {MAX_FILE:,} bytes")
                out.write(block)
        return SourceImage(label, path)


def _is_image(label: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in label.parts)
    return label.suffix.lower() in EXTENSIONS and not hidden


# Roles. In the layouts that sets circulate in:
# Set5/HR/baby.png, baby_GT.bmp, GTmod12/baby.png, img_001_SRF_4_HR.png      are ground truths;
# LR_bicubic/X2/babyx2.png, LRbicx4/baby.png, img_001_SRF_4_LR.png           are low-quality images;
# img_001_SRF_4_SelfExSR_SR.png, noisy25/101085.png, LR_bicubic/X4/0801x4m   are neither.

_SELFEXSR = re.compile(r"(?P<name>.+)_SRF_(?P<scale>\d)_(?P<kind>.+)")
_GT_STEM = re.compile(r"(?P<name>.+?)_(HR|GT|gt|hr)")
_LQ_STEM = re.compile(r"(?P<name>.+?)_(LR|LQ|lr|lq)(_?x(?P<scale>\d))?")
_SCALED_STEM = re.compile(r"(?P<name>.+?)_?x(?P<scale>[2348])")
_OTHER_STEM = re.compile(r".+x[2348][dmw]")  # DIV2K's difficult, mild and wild

_SCALE_FOLDER = re.compile(r"(.*[_\W]|lr.*|bic|bicubic)?x(?P<scale>[2348])", re.I)
_FOLDERS = (
    ("other", re.compile(r".*(unknown|difficult|mild|wild|noisy|blur|result|jpeg?_?q).*", re.I)),
    ("lq", _SCALE_FOLDER),
    ("lq", re.compile(r"(lr|lq|low|.*[_\W]lr|bic).*", re.I)),
    ("gt", re.compile(r"(hr|gt|high|ground.?truth|original|.*[_\W](hr|gt)).*", re.I)),
)


@dataclass(frozen=True)
class Role:
    """The role of a file in a set.

    Attributes:
        kind: "gt", "lq", or "other".
        name: of the image, without scale and suffix.
        scale: of a low-quality image; 1 for others.
        reason: why a file of kind "other" is not used.
    """

    kind: Literal["gt", "lq", "other"]
    name: str
    scale: int = 1
    reason: str = ""


def role_in(row: BenchmarkSet, path: PurePosixPath) -> Role:
    """Derive the role of a file from its path below the source of a set."""
    if row.pairs:
        return Role("lq" if row.pairs[0] in path.parts else "gt", path.stem)
    return role_of(path) if row.reference else Role("gt", path.stem)


def role_of(path: PurePosixPath) -> Role:
    """Derive the role of a file from its path below the source; the nearest folder takes precedence."""
    stem = path.stem
    if match := _SELFEXSR.fullmatch(stem):
        kind, name, scale = match["kind"], match["name"], int(match["scale"])
        if kind in ("HR", "LR"):
            return Role("gt", name) if kind == "HR" else Role("lq", name, scale)
        return Role("other", stem, reason="the output of a method")
    folder, scale = _folder_of(path)
    if folder == "other" or _OTHER_STEM.fullmatch(stem):
        return Role("other", stem, reason="degraded in another way than the set's low-quality images")
    match = _LQ_STEM.fullmatch(stem) or _SCALED_STEM.fullmatch(stem)
    if folder != "gt" and (match or folder == "lq"):
        name = match["name"] if match else stem
        scale = int(match["scale"] or scale) if match else scale
        if scale > 1:
            return Role("lq", name, scale)
        return Role("other", stem, reason="a low-quality image with no scale in its name or folder")
    match = _GT_STEM.fullmatch(stem)
    return Role("gt", match["name"] if match else stem)


def _folder_of(path: PurePosixPath) -> tuple[str, int]:
    """Kind of the nearest folder that matches a pattern, and the scale that folders name."""
    kind, scale = "", 1
    for part in reversed(path.parent.parts):
        if match := _SCALE_FOLDER.fullmatch(part):
            scale = int(match["scale"]) if scale == 1 else scale
        if not kind:
            kind = next((name for name, pattern in _FOLDERS if pattern.fullmatch(part)), "")
    return kind, scale


def set_of(path: PurePosixPath) -> BenchmarkSet | None:
    """The set that the nearest folder with the name of a set belongs to."""
    for part in reversed(path.parent.parts):
        for row in BENCHMARK_SETS.values():
            if row.is_called(part):
                return row
    return None

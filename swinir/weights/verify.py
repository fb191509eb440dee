"""Integrity of a weights file: by the SHA-256 known for it, or by the checksums it carries itself.

A file of PyTorch is a zip archive with a CRC-32 for each tensor; `zipfile` checks those. A safetensors file has a
header that must account for every byte; `safetensors` checks that. Files of PyTorch before 1.6 have neither.
"""

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from safetensors import SafetensorError, safe_open

How = Literal["sha256", "crc", "none"]

# Files of PyTorch before 1.6: pickle protocol 2, then PyTorch's magic number as a pickled integer.
LEGACY_HEAD = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


@dataclass(frozen=True)
class Expected:
    """Published facts about a file; None for unknown ones.

    Attributes:
        bytes: length of the file.
        sha256: lower-case hex digest.
        parameters: number of float32 values that the file must have room for, where no digest is known.
    """

    bytes: int | None = None
    sha256: str | None = None
    parameters: int | None = None


class Finding(NamedTuple):
    """Result of a check.

    `how` names the means: "sha256" detects any change; "crc" any change to the stored tensors; "none" says that only
    format and length could be checked.
    """

    ok: bool
    how: How
    message: str


def printable(text: str) -> str:
    """Return text of unknown origin without control characters, at most 160 characters of it."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 160 else f"{text[:160]}..."


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def examine(path: Path, expected: Expected) -> Finding:
    """Check an existing file by its known hash, or by the checksums it carries."""
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
        how, fault = "crc", _zip_fault(path)
        praise = "no SHA-256 known; CRC-32 of every tensor matches"
    elif head == LEGACY_HEAD:
        fault, praise = None, "no checksum known; a checkpoint of the old format, which carries none"
    elif path.suffix == ".safetensors" or head[8:9] == b"{":
        fault, praise = _safetensors_fault(path), "no checksum known; header and length agree"
    else:
        fault, praise = f"not a checkpoint: it begins with {head!r}", ""
    if fault is None and size < 4 * (expected.parameters or 0):
        fault = f"{size} bytes can't hold {expected.parameters} parameters"
    return Finding(fault is None, how, fault or praise)


def _safetensors_fault(path: Path) -> str | None:
    try:
        with safe_open(path, framework="numpy"):
            return None
    except (SafetensorError, OSError) as error:
        return f"a cut or damaged safetensors file ({printable(str(error))})"


def _zip_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return "a zip file, but no checkpoint: it has no data.pkl"
            broken = archive.testzip()
            return None if broken is None else f"CRC-32 of {printable(broken)} does not match"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, zlib.error) as error:
        return f"a cut or damaged zip file ({printable(str(error))})"

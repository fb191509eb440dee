"""Safe loading of weights files of unknown origin.

Files are treated as hostile: pickles are scanned and then loaded with `weights_only`, archives are checked for
damage, compression and false sizes before they are read, and all sizes have limits. The meaning of the tensors is not
known here.
"""

import io
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from safetensors import safe_open
from torch import Tensor

from swinir.weights.verify import printable

MAX_BYTES = 2 * 2**30  # of a file, and of what it unpacks to
MAX_PICKLE_BYTES = 8 * 2**20  # of the part that names tensors; the largest released SwinIR needs 0.2 MB

# What the pickle of a weights file may name. PyTorch's own list is longer, and some of it makes gigabytes of a line.
PLAIN_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)|torch(\.cuda|\.storage)? \w*Storage"
    r"|torch (Size|[a-z]\w*)|torch\._utils _rebuild_\w+|torch\._tensor _rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter|torch\.serialization _get_layout"
)
LEGACY_PICKLES = 5  # that open a file of PyTorch's older format: three of its header, the content, its storages

# First bytes of what is often taken for a weights file.
OTHER_FILES = (
    (b"version https://git-lfs", "is a Git-LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"\x1f\x8b", "is a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "is a 7-Zip archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89PNG", "is a PNG image; name a weights file"),
    (b"\xff\xd8\xff", "is a JPEG image; name a weights file"),
)
DOWNLOAD_AGAIN = "download the file again"


class CheckpointError(ValueError):
    """A weights file that cannot be used: one line with the file, what is wrong, and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Content(NamedTuple):
    """Content of a weights file.

    Attributes:
        table: the top level; values are harmless, but of any type.
        metadata: of a safetensors file; None for PyTorch's formats, which have none.
        file_bytes: length of the file.
    """

    table: dict[Any, Any]
    metadata: dict[str, str] | None
    file_bytes: int


def read_content(path: Path) -> Content:
    """Read a file of either format of PyTorch, or of safetensors; told apart by content.

    Raises:
        CheckpointError: for anything else, and for what is damaged or could do harm.
        OSError: when it is not there or cannot be read.
    """
    if path.is_dir():
        raise CheckpointError("is a folder; name a weights file in it")
    if not path.exists():  # also for names that no file can have
        raise FileNotFoundError(path)
    if not path.is_file():
        raise CheckpointError("is not a regular file; name a weights file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(512)
        _refuse_other_files(head, size)
        if _is_safetensors(head):
            table, metadata = _read_safetensors(path)
            return Content(table, metadata, size)
        if head.startswith(b"PK"):
            _check_archive(file, size)
        else:
            file.seek(0)
            _check_pickles(file, LEGACY_PICKLES)
        return Content(_unpickle(file), None, size)


def _refuse_other_files(head: bytes, size: int) -> None:
    if size == 0:
        raise CheckpointError(f"is empty; {DOWNLOAD_AGAIN}")
    if size > MAX_BYTES:
        raise CheckpointError(f"has {size:,} bytes, more than the limit of {MAX_BYTES:,}; name a file of weights alone")
    for start, what in OTHER_FILES:
        if head.startswith(start):
            raise CheckpointError(what)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"is a web page, as a failed download leaves it; {DOWNLOAD_AGAIN} from a direct link")
    if head[257:262] == b"ustar":
        raise CheckpointError("is a tar archive; unpack it first, or load it with an old PyTorch and save it again")
    if not (head.startswith((b"PK", b"\x80")) or _is_safetensors(head)):
        raise CheckpointError(
            f"is neither a PyTorch nor a safetensors file, it starts with bytes {head[:8].hex(' ')}; {DOWNLOAD_AGAIN}"
        )


def _is_safetensors(head: bytes) -> bool:
    # The end of the header's length, which may begin with a pickle's \x80, and the header's bracket.
    return head[5:9] == b"\0\0\0{" and not head.startswith(b"PK")


def _check_archive(file: BinaryIO, size: int) -> None:
    """Refuse a zip archive that is damaged, is no checkpoint, or would unpack to more than the file holds.

    PyTorch's reader checks none of this, and its writer never compresses.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(name.endswith("/constants.pkl") for name in names):
                raise CheckpointError("is a TorchScript program, not weights; save the state dict of its model instead")
            if not any(name.endswith("/data.pkl") for name in names):
                raise CheckpointError(f"is a zip archive but no checkpoint: it has no data.pkl but {some(names)}")
            compressed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if compressed:
                raise CheckpointError(
                    f"has compressed entries ({some(compressed)}), which PyTorch never writes and which can unpack to "
                    "any size; unpack and load it where you trust it, then save it with torch.save"
                )
            total = sum(entry.file_size for entry in entries)
            if total > min(size, MAX_BYTES):
                raise CheckpointError(
                    f"claims entries of {total:,} bytes in a file of {size:,}; it is damaged or made to fill the "
                    f"memory; {DOWNLOAD_AGAIN}"
                )
            damaged = archive.testzip()
            if damaged is None:
                for entry in entries:
                    if entry.filename.endswith("/data.pkl"):
                        _check_pickle_size(entry.file_size)
                        _check_pickles(io.BytesIO(archive.read(entry)), 1)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile meets hostile bytes with many kinds of exception
        raise CheckpointError(f"is a damaged or cut-off zip archive ({reason(error)}); {DOWNLOAD_AGAIN}") from error
    if damaged is not None:
        raise CheckpointError(f"is damaged: entry {shown(damaged)} fails its checksum; {DOWNLOAD_AGAIN}")


def _check_pickles(file: BinaryIO, count: int) -> None:
    """Refuse pickles that name more than tensors need, or are absurdly long, without running them."""
    start = file.tell()
    try:
        for _ in range(count):
            for opcode, argument, position in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST") and not PLAIN_GLOBALS.fullmatch(str(argument)):
                    raise CheckpointError(_refusal(str(argument).replace(" ", ".")))
                _check_pickle_size((position or 0) - start)
    except CheckpointError:
        raise
    except Exception as error:  # hostile bytes again
        raise CheckpointError(f"is a damaged or cut-off pickle ({reason(error)}); {DOWNLOAD_AGAIN}") from error


def _check_pickle_size(size: int) -> None:
    if size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"describes its tensors in more than {MAX_PICKLE_BYTES:,} bytes; name a file of weights alone"
        )


def _refusal(name: str) -> str:
    return (
        f"asks to run {shown(name)}, which plain weights never need; refused, and nothing was run; "
        "have its author save the state dict alone, or convert it to .safetensors where you trust it"
    )


def _unpickle(file: BinaryIO) -> dict[Any, Any]:
    """Load with `weights_only`: a pickle that wants anything but tensors and plain types is refused, not run."""
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a parser of hostile bytes may raise anything
        unwanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unwanted:
            raise CheckpointError(_refusal(unwanted[1])) from error
        raise CheckpointError(f"cannot be read as weights ({reason(error)}); {DOWNLOAD_AGAIN}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not a table of weights; save a state dict")
    # A pickle can plant attributes on an OrderedDict that hide its methods; a plain copy has none.
    return dict(dict.items(content))


def _read_safetensors(path: Path) -> tuple[dict[Any, Any], dict[str, str]]:
    """Tensors by name, and the metadata."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, file.metadata() or {}
    except OSError:
        raise
    except Exception as error:  # its own exception, and those of dtypes that PyTorch has not
        raise CheckpointError(f"is a damaged safetensors file ({reason(error)}); {DOWNLOAD_AGAIN}") from error


# Tensors.


def plain_tensors(table: Mapping[Any, Any], file_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """Return `table` with "module." removed from names; every value is a plain tensor with all elements in memory."""
    tensors: dict[str, Tensor] = {}
    total = 0
    for name, value in table.items():
        if not isinstance(name, str):
            raise CheckpointError(f"has a key of type {type(name).__name__} among its weights; save a state dict")
        if type(value) not in (Tensor, nn.Parameter):
            kind = type(value).__name__
            raise CheckpointError(f"its entry {shown(name)} is a {kind}, where a tensor is due; save a state dict")
        tensor = Tensor.detach(value)  # unbound: a pickle can plant attributes on tensors as well
        fault = _fault(tensor, file_bytes)
        if fault:
            raise CheckpointError(
                f"its tensor {shown(name)} of shape {tuple(tensor.shape)} {fault}; save it as a dense float tensor"
            )
        total += tensor.numel() * max(tensor.element_size(), 4)  # as float32
        if total > MAX_BYTES:  # many may share the bytes of one
            raise CheckpointError(
                f"its tensors take more than the limit of {MAX_BYTES:,} bytes, in a file of {file_bytes:,}; "
                "name a file of weights alone"
            )
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if name in tensors:
            raise CheckpointError(f"has {shown(name)} twice, with and without 'module.'; save one of them")
        tensors[name] = tensor
    return tensors


def _fault(tensor: Tensor, file_bytes: int) -> str | None:
    """Return why a tensor is not a plain dense one that the file can hold; None for a good one."""
    if tensor.device.type == "meta":
        return "has no values (meta device)"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "is sparse or nested"
    if tensor.is_quantized:
        return "is quantized"
    try:
        stored = tensor.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):
        return "has no storage"
    needed = tensor.numel() * tensor.element_size()
    if needed > stored or (needed and stored > file_bytes):
        return f"claims {needed:,} bytes of a storage of {stored:,} in a file of {file_bytes:,}"
    return None


def to_float(name: str, tensor: Tensor) -> Tensor:
    """Return a float32 copy with memory of its own; refuse other types and values that are not finite."""
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"its tensor {shown(name)} is {tensor.dtype}, where floats are expected; quantized weights are not "
            "supported, name the original file"
        )
    copied = tensor.to("cpu", torch.float32, copy=True).contiguous()
    # NumPy, since PyTorch would start its threads anew for each of hundreds of small tensors.
    if not np.isfinite(copied.numpy()).all():
        raise CheckpointError(
            f"its tensor {shown(name)} has NaN or infinite values; the training diverged or the file is damaged; "
            "take an earlier checkpoint"
        )
    return copied


# Text from files, for messages of one line.


def shown(name: object) -> str:
    """Return a name from a file in printable form, at most 160 characters."""
    if not isinstance(name, str):
        return f"a key of type {type(name).__name__}"
    return printable(name)


def some(names: Collection[object]) -> str:
    """List up to three names and the number of further ones."""
    first = ", ".join(shown(name) for name in list(names)[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first or "nothing"


def reason(error: Exception) -> str:
    """Return the first line of a library's exception, without its advice."""
    text = str(error).split("WeightsUnpickler error: ")[-1].strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return shown(line.rstrip(" .:;"))

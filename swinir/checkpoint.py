"""Weights files: the only place that reads or writes them, and that tells a network from its weights.

A file is taken as hostile until it has proved to be SwinIR's: pickles are loaded with `weights_only`, an
archive must hold what it claims, and no tensor is copied before names, shapes and storage sizes agree with
a network built on the meta device. What names and shapes cannot tell is decided by stated rules, which
`Checkpoint.rules` repeats as sentences.
"""

import hashlib
import io
import json
import math
import os
import pickletools
import re
import secrets
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, get_origin

import numpy as np
import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from swinir.network import NetworkConfig, SwinIR, attn_mask, relative_position_index
from swinir.tasks import TASKS, get_task

ENTRIES = ("params_ema", "params", "state_dict", "model")  # where weights stand in a file, by preference
SUFFIXES = (".pth", ".pt", ".safetensors")
MAX_BYTES = 2 * 2**30  # of a file, of what it unpacks to, and of what a network derives from its window
MAX_PICKLE_BYTES = 8 * 2**20  # of the part that names tensors; the largest released file needs 0.2 MB
MAX_LAYERS = 1024  # Swin Transformer layers; the largest released network has 54
MAX_UPSCALE = 1024

MASK = ".attn_mask"
INDEX = ".attn.relative_position_index"
LAYER = re.compile(r"layers\.(\d{1,6})\.residual_group\.blocks\.(\d{1,6})\.")

# A part of a key, in lower case, that only another network has.
OTHER_NETWORKS = (
    ("attn.logit_scale", "Swin2SR or another Swin Transformer V2"),
    ("overlap_attn.", "HAT"),
    ("aligned_relative_position_index", "SRFormer"),
    ("rdb1.conv1", "RRDBNet (ESRGAN)"),
    ("layer1.0.conv1.", "a ResNet"),
)
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


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what is known about them.

    Attributes:
        path: the file.
        network: the network the weights belong to.
        state: learned weights only, float32 on the CPU, names without "module.".
        key: the entry the weights stood under; "" when the file is nothing but weights.
        task: the task that the file itself states, for files of this project.
        step: the training step, likewise.
        rules: a sentence for each fact that the file does not tell and a rule decided.
        self_described: whether the file held its own network configuration.
    """

    path: Path
    network: NetworkConfig
    state: dict[str, Tensor]
    key: str
    task: str | None
    step: int | None
    rules: tuple[str, ...]
    self_described: bool


def read_checkpoint(path: str | Path, *, key: str | None = None) -> Checkpoint:
    """Read a weights file: released, of this project, or of any tool that kept SwinIR's names.

    Args:
        path: .pth or .pt of either format of PyTorch, or .safetensors; told apart by content.
        key: the entry to prefer when the file has it; otherwise, or when it has not, the first of `ENTRIES`,
            else the file's top level.

    Raises:
        CheckpointError: for a file that cannot be read or whose weights are not those of a SwinIR.
    """
    path = Path(path)
    try:
        return _read(path, key)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file; check the path, or see `swinir zoo list` for known names"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check the file") from error


def infer_network(state: Mapping[str, Tensor]) -> tuple[NetworkConfig, tuple[str, ...]]:
    """The network that weights belong to, from names and shapes alone, and the rules that had to help.

    Derived buffers in `state` tell the training size. No values are read: tensors may be on the meta device.

    Raises:
        CheckpointError: when `state` is not exactly the weights of one SwinIR.
    """
    network, rules = _infer(state)
    return network, tuple(rules.values())


def guess_tasks(network: NetworkConfig) -> list[str]:
    """Names of the tasks whose released networks share upsampler, channels, range and scale with `network`."""
    return [
        name
        for name, task in TASKS.items()
        if network.upscale in task.scales
        and (network.upsampler, network.in_chans, network.img_range)
        == (task.network.upsampler, task.network.in_chans, task.network.img_range)
    ]


def write_checkpoint(
    path: str | Path,
    state: Mapping[str, Tensor],
    network: NetworkConfig,
    *,
    key: str = "params",
    task: str | None = None,
    step: int | None = None,
) -> None:
    """Write weights with all that is needed to use them; a file under `path` is replaced only by a whole one.

    The derived buffers are written too, as in the released files, so that other tools recognise SwinIR.

    Args:
        path: .pth, .pt or .safetensors; the suffix decides the format.
        state: weights of `SwinIR(network)`, with or without derived buffers and "module.".
        network: stored beside the weights.
        key: the entry for the weights, one of `ENTRIES`.
        task: stored beside the weights; one of `swinir.tasks.TASKS`.
        step: stored beside the weights.

    Raises:
        CheckpointError: for weights that do not fit `network` or are not finite, or a failure to write.
    """
    path = Path(path)
    try:
        if path.suffix not in SUFFIXES:
            raise CheckpointError(f"the suffix says no format of weights; use one of {', '.join(SUFFIXES)}")
        if key not in ENTRIES:
            raise CheckpointError(f"weights cannot stand under {key!r}; use one of {', '.join(ENTRIES)}")
        if task is not None:
            get_task(task)
        weights = _with_derived(_plain_tensors(state), network)
        facts = {"network": network.to_dict(), "task": task, "step": step}
        if path.suffix == ".safetensors":
            # This format refuses tensors that share memory, as the derived ones of all layers do.
            separate = {name: tensor.clone() for name, tensor in weights.items()}
            metadata = {name: json.dumps(fact) for name, fact in (facts | {"key": key}).items()}
            data = safetensors_bytes(separate, metadata={"format": "pt"} | metadata)
            _write_atomically(path, lambda file: file.write(data))
        else:
            _write_atomically(path, lambda file: torch.save({key: weights} | facts, file))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as a RuntimeError
        raise CheckpointError(f"{path}: cannot be written: {_reason(error)}; check the folder and its space") from error


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The file of that path, or else the downloaded or bundled file that the zoo knows by that name.

    Raises:
        CheckpointError: when it is neither.
        FileNotFoundError: for a name whose file was not downloaded, with the command that does.
    """
    path = Path(path_or_name)
    if path.exists() or len(path.parts) > 1:
        return path
    from swinir import zoo

    try:
        return zoo.locate(str(path_or_name))
    except ValueError as error:
        raise CheckpointError(f"{path}: no such file, and {error}") from error


def load_model(
    path_or_name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> SwinIR:
    """A network ready for inference, from a weights file or by its name in the zoo.

    Args:
        path_or_name: a path if there is such a file, otherwise a name in the zoo.
        device: None is the GPU where there is one.
        dtype: of weights and activations; None is float32.

    Raises:
        CheckpointError: for an unknown name, and for what `read_checkpoint` refuses.
        FileNotFoundError: for a name whose file was not downloaded.
    """
    return build_model(read_checkpoint(find_checkpoint(path_or_name)), device, dtype)


def build_model(
    checkpoint: Checkpoint, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> SwinIR:
    """The checkpoint's network with its weights, in eval mode and without gradients; None as in `load_model`."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and overwritten; the caller's stream stays
        model = SwinIR(checkpoint.network)
    model.load_state_dict(checkpoint.state)
    return model.requires_grad_(False).eval().to(device=device, dtype=dtype)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, key: str | None) -> Checkpoint:
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
            content, facts = _read_safetensors(path)
            entry, table = facts["key"] if facts.get("key") in ENTRIES else "", content
        else:
            if head.startswith(b"PK"):
                _check_archive(file, size)
            else:
                file.seek(0)
                _check_pickles(file, LEGACY_PICKLES)
            content = _unpickle(file)
            entry, table = _choose_entry(content, key)
            facts = content if entry else {}

    tensors = _plain_tensors(table, file_bytes=size)
    network, rules = _infer(tensors)
    described, task, step = facts.get("network"), None, None
    self_described = type(described) is dict
    if type(described) is dict:
        network, rules = _reconcile(described, network, rules)
        task, step = _stated_task(facts.get("task")), facts.get("step")
    state = {name: _to_float(name, tensor) for name, tensor in tensors.items() if not _is_derived(name)}
    step = step if _is_int(step) else None
    return Checkpoint(path, network, state, entry, task, step, tuple(rules.values()), self_described)


# Files: nothing here knows SwinIR.


def _refuse_other_files(head: bytes, size: int) -> None:
    if size == 0:
        raise CheckpointError(f"is empty; {DOWNLOAD_AGAIN}")
    if size > MAX_BYTES:
        raise CheckpointError(f"has {size:,} bytes, more than the limit of {MAX_BYTES:,}; name a SwinIR weights file")
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
    return head[8:9] == b"{" and not head.startswith((b"PK", b"\x80"))


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
                raise CheckpointError(f"is a zip archive but no checkpoint: it has no data.pkl but {_some(names)}")
            compressed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if compressed:
                raise CheckpointError(
                    f"has compressed entries ({_some(compressed)}), which PyTorch never writes and which can unpack to "
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
        raise CheckpointError(f"is a damaged or cut-off zip archive ({_reason(error)}); {DOWNLOAD_AGAIN}") from error
    if damaged is not None:
        raise CheckpointError(f"is damaged: entry {_show(damaged)} fails its checksum; {DOWNLOAD_AGAIN}")


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
        raise CheckpointError(f"is a damaged or cut-off pickle ({_reason(error)}); {DOWNLOAD_AGAIN}") from error


def _check_pickle_size(size: int) -> None:
    if size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"describes its tensors in more than {MAX_PICKLE_BYTES:,} bytes; is it SwinIR?")


def _refusal(name: str) -> str:
    return (
        f"asks to run {_show(name)}, which plain weights never need; refused, and nothing was run; "
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
        raise CheckpointError(f"cannot be read as weights ({_reason(error)}); {DOWNLOAD_AGAIN}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {type(content).__name__}, not a table of weights; save a state dict")
    # A pickle can plant attributes on an OrderedDict that hide its methods; a plain copy has none.
    return dict(dict.items(content))


def _read_safetensors(path: Path) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Tensors by name, and the facts that `write_checkpoint` put into the metadata (none in other files)."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            metadata = file.metadata() or {}
    except OSError:
        raise
    except Exception as error:  # its own exception, and those of dtypes that PyTorch has not
        raise CheckpointError(f"is a damaged safetensors file ({_reason(error)}); {DOWNLOAD_AGAIN}") from error
    facts = {}
    for name in ("network", "task", "step", "key"):
        try:
            facts[name] = json.loads(metadata[name])
        except (KeyError, ValueError, RecursionError):  # another tool's metadata
            continue
    return tensors, facts if type(facts.get("network")) is dict else {}


def _write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# Tables of tensors.


def _choose_entry(content: dict[Any, Any], key: str | None) -> tuple[str, dict[Any, Any]]:
    """The entry with the weights and its table; ("", content) when the top level is the table."""
    wanted = [key] if key and key in content else []
    for entry in wanted or ENTRIES:
        table = content.get(entry)
        if isinstance(table, dict) and _has_tensors(table):
            return entry, dict(dict.items(table))
    if not wanted and _has_tensors(content):
        return "", content
    for entry in wanted or ENTRIES:
        if entry in content:
            kind = "dict without tensors" if isinstance(content[entry], dict) else type(content[entry]).__name__
            raise CheckpointError(f"holds no weights: its entry {_show(entry)} is a {kind}; save a state dict")
    raise CheckpointError(f"has no tensors inside; it holds {_some(content)}; name a file that holds a state dict")


def _has_tensors(table: dict[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in dict.values(table))


def _plain_tensors(table: Mapping[Any, Any], file_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """`table` with names freed of "module."; every value a plain tensor whose elements all exist in memory."""
    tensors: dict[str, Tensor] = {}
    for name, value in table.items():
        if not isinstance(name, str):
            raise CheckpointError(f"has a key of type {type(name).__name__} among its weights; save a state dict")
        if type(value) not in (Tensor, nn.Parameter):
            kind = type(value).__name__
            raise CheckpointError(f"its entry {_show(name)} is a {kind}, where a tensor is due; save a state dict")
        tensor = Tensor.detach(value)  # unbound: a pickle can plant attributes on tensors as well
        fault = _fault(tensor, file_bytes)
        if fault:
            raise CheckpointError(
                f"its tensor {_show(name)} of shape {tuple(tensor.shape)} {fault}; save it as a dense float tensor"
            )
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if name in tensors:
            raise CheckpointError(f"has {_show(name)} twice, with and without 'module.'; save one of them")
        tensors[name] = tensor
    return tensors


def _fault(tensor: Tensor, file_bytes: int) -> str | None:
    """Why the values of a tensor are not simply there, in a storage that the file can have held; None if they are."""
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


def _is_derived(name: str) -> bool:
    return name.endswith((MASK, INDEX))


def _to_float(name: str, tensor: Tensor) -> Tensor:
    """A copy in float32 with memory of its own; refuses what is no float and what is not finite."""
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"its tensor {_show(name)} is {tensor.dtype}, where floats are expected; quantized weights are not "
            "supported, name the original file"
        )
    copied = tensor.to("cpu", torch.float32, copy=True).contiguous()
    # NumPy, since PyTorch would start its threads anew for each of hundreds of small tensors.
    if not np.isfinite(copied.numpy()).all():
        raise CheckpointError(
            f"its tensor {_show(name)} has NaN or infinite values; the training diverged or the file is damaged; "
            "take an earlier checkpoint"
        )
    return copied


def _with_derived(tensors: dict[str, Tensor], network: NetworkConfig) -> dict[str, Tensor]:
    """The state dict that is written: learned weights copied to the CPU, derived buffers made anew."""
    _check_size(network)
    learned = {name: tensor for name, tensor in tensors.items() if not _is_derived(name)}
    _check_fit(network, learned)
    derived = {INDEX: relative_position_index(network.window)}
    if network.shifted:
        derived[MASK] = attn_mask(network)
    weights = {}
    for name in _shapes(network):
        if name in learned:
            _to_float(name, learned[name])
            weights[name] = learned[name].to("cpu", copy=True).contiguous()
        else:
            weights[name] = derived[MASK if name.endswith(MASK) else INDEX]
    return weights


# The network.


def _infer(state: Mapping[str, Tensor]) -> tuple[NetworkConfig, dict[str, str]]:
    """The network, and the rules by the option that each decided."""
    _refuse_other_networks(state)
    depths = _depths(state)
    in_chans, dim = _shape(state, "conv_first.weight", rank=4)[1::-1]
    blocks = [[f"layers.{i}.residual_group.blocks.{j}" for j in range(depth)] for i, depth in enumerate(depths)]
    tables = [
        _shape(state, *(f"{block}.attn.relative_position_bias_table" for block in layer), rank=2) for layer in blocks
    ]
    side = math.isqrt(tables[0][0])
    if side * side != tables[0][0] or side % 2 == 0:
        raise CheckpointError(
            f"its relative_position_bias_table has {tables[0][0]} rows, which fits no window; a table has "
            "(2 * window - 1)**2 rows; name a SwinIR weights file"
        )
    window = (side + 1) // 2
    rules = {
        "img_range": "img_range is 255 as in the released networks with window 7; weights do not tell it"
        if window == 7
        else "img_range is 1 as in all released networks but those with window 7; weights do not tell it",
        "drop_path_rate": "drop_path_rate is 0; it acts only in training and leaves no trace in the weights",
    }
    hidden = _shape(state, *(f"{block}.mlp.fc1.weight" for block in blocks[0]), rank=2)[0]
    try:
        network = NetworkConfig(
            in_chans=in_chans,
            window_size=window,
            img_range=255.0 if window == 7 else 1.0,
            depths=tuple(depths),
            embed_dim=dim,
            num_heads=tuple(heads for _, heads in tables),
            mlp_ratio=_ratio(hidden, dim),
            resi_connection="3conv" if "conv_after_body.0.weight" in state else "1conv",
            img_size=_training_size(state, window, depths, rules),
            qkv_bias=any(name.endswith(".attn.qkv.bias") for name in state),
            ape="absolute_pos_embed" in state,
            patch_norm="patch_embed.norm.weight" in state,
            **_reconstruction(state, in_chans),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"its shapes describe no SwinIR: {error}; name a SwinIR weights file") from error
    _check_size(network)
    _check_fit(network, state)
    return network, rules


def _refuse_other_networks(state: Mapping[str, Tensor]) -> None:
    for part, network in OTHER_NETWORKS:
        for name in state:
            if part in name.lower():
                raise CheckpointError(
                    f"does not look like SwinIR but like {network}: it has {_show(name)}; name a SwinIR weights file"
                )
    if not any(LAYER.match(name) for name in state):
        raise CheckpointError(
            f"does not look like SwinIR: no layers.0.residual_group.blocks.0 but {_some(state)}; "
            "name a SwinIR weights file"
        )


def _depths(state: Mapping[str, Tensor]) -> list[int]:
    """Number of Swin Transformer layers in each RSTB, which must be numbered without gaps."""
    layers: dict[int, set[int]] = {}
    for name in state:
        match = LAYER.match(name)
        if match:
            layers.setdefault(int(match[1]), set()).add(int(match[2]))
    for i in range(len(layers)):
        blocks = layers.get(i, set())
        gaps = [j for j in range(max(1, len(blocks))) if j not in blocks]
        if gaps:
            raise CheckpointError(
                f"has no layers.{i}.residual_group.blocks.{gaps[0]} but later layers; the file is incomplete, "
                f"{DOWNLOAD_AGAIN}"
            )
    depths = [len(layers[i]) for i in range(len(layers))]
    if sum(depths) > MAX_LAYERS:
        raise CheckpointError(f"has {sum(depths):,} layers, more than the limit of {MAX_LAYERS}; is it SwinIR?")
    return depths


def _shape(state: Mapping[str, Tensor], *names: str, rank: int) -> tuple[int, ...]:
    """Shape of the first tensor that is there among `names`."""
    name = next((name for name in names if name in state), None)
    if name is None:
        raise CheckpointError(f"has no {names[0]}; the file is incomplete or not SwinIR, {DOWNLOAD_AGAIN}")
    shape = tuple(state[name].shape)
    if len(shape) != rank or 0 in shape:
        raise CheckpointError(f"its {name} has shape {shape}, expected {rank} non-empty dimensions; is it SwinIR?")
    return shape


def _ratio(hidden: int, dim: int) -> float:
    """A ratio that gives back exactly `hidden` when the network multiplies and truncates."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _training_size(state: Mapping[str, Tensor], window: int, depths: list[int], rules: dict[str, str]) -> int:
    """Side of the training patch: from the position embedding, the mask, or a rule, which is added to `rules`."""
    if "absolute_pos_embed" in state:
        return _root(_shape(state, "absolute_pos_embed", rank=3)[1], "positions in its absolute_pos_embed")
    mask = next((name for name in state if name.endswith(MASK)), None)
    if mask is not None:
        return window * _root(_shape(state, mask, rank=3)[0], f"windows in its {_show(mask)}")
    if max(depths) >= 2 and any(name.endswith(INDEX) for name in state):
        rules["img_size"] = (
            f"img_size is {window}: a file with relative_position_index but no attn_mask was trained within one "
            "window, without shifts"
        )
        return window
    size = 126 if window == 7 else window * max(2, (64 + window // 2) // window)
    why = (
        "the derived buffers were stripped, so shifted windows and a usual training size are assumed"
        if max(depths) >= 2
        else "with one layer per block no window is shifted and nothing depends on the training size"
    )
    rules["img_size"] = f"img_size is {size}: {why}"
    return size


def _root(square: int, what: str) -> int:
    root = math.isqrt(square)
    if root * root != square:
        raise CheckpointError(f"the number of {what}, {square}, is no square; name a network of square patches")
    return root


def _reconstruction(state: Mapping[str, Tensor], in_chans: int) -> dict[str, Any]:
    """Options of the part after the deep features: upsampler, upscale, and num_feat where it exists."""
    before = "conv_before_upsample.0.weight"
    if "conv_up1.weight" in state:
        upscale = 4 if "conv_up2.weight" in state else 2
        return {"upsampler": "nearest+conv", "upscale": upscale, "num_feat": _shape(state, before, rank=4)[0]}
    if "upsample.0.weight" not in state:
        if before in state:
            raise CheckpointError(f"has no upsample.0.weight or conv_up1.weight; it is incomplete, {DOWNLOAD_AGAIN}")
        return {"upsampler": "", "upscale": 1}
    out, feat = _shape(state, "upsample.0.weight", rank=4)[:2]
    if before in state or "conv_last.weight" in state:
        steps = sum(re.fullmatch(r"upsample\.\d+\.weight", name) is not None for name in state)
        upscale = 3 if steps == 1 and out == 9 * feat else 2**steps
        name = "pixelshuffle"
    else:
        upscale = math.isqrt(out // in_chans)
        name = "pixelshuffledirect"
        if upscale**2 * in_chans != out:
            raise CheckpointError(
                f"its upsample.0.weight gives {out} channels, which is no square number times the {in_chans} of the "
                "input; is it SwinIR?"
            )
    if upscale > MAX_UPSCALE:
        raise CheckpointError(f"enlarges more than {MAX_UPSCALE} times; is it SwinIR?")
    return {"upsampler": name, "upscale": upscale} | ({"num_feat": feat} if name == "pixelshuffle" else {})


def _check_size(network: NetworkConfig) -> None:
    """Refuse what a small file could make large: buffers derived from the window and the training size."""
    layers, tokens = sum(network.depths), network.window**2
    in_memory = layers * tokens**2 * (8 + 16)  # index and, in shifted layers, four masks
    in_file = layers * tokens**2 * 8 + network.img_size**2 * tokens * 4
    if max(in_memory, in_file) > MAX_BYTES:
        raise CheckpointError(
            f"a window of {network.window} and an img_size of {network.img_size} in {layers} layers need "
            f"{max(in_memory, in_file):,} bytes of buffers, more than the limit of {MAX_BYTES:,}; is it SwinIR?"
        )


@lru_cache(maxsize=32)
def _shapes(network: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict, derived buffers included."""
    try:
        with torch.device("meta"):
            state = SwinIR(replace(network, drop_path_rate=0.0)).state_dict()
    except RuntimeError as error:  # sizes beyond 64 bits
        raise CheckpointError(f"describes an absurd network ({_reason(error)}); is it SwinIR?") from error
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_fit(network: NetworkConfig, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not exactly those of `network`; derived buffers may be left out."""
    expected = _shapes(network)
    masked = any(name.endswith(MASK) for name in state)
    optional = {name for name in expected if name.endswith(INDEX) or (name.endswith(MASK) and not masked)}
    misshapen = [
        f"{name} has shape {tuple(tensor.shape)}, expected {expected[name]}"
        for name, tensor in state.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    problems = {
        "missing": [name for name in expected if name not in state and name not in optional],
        "surplus": [name for name in state if name not in expected],
        "misshapen": misshapen,
    }
    found = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
    if found:
        raise CheckpointError(
            f"its weights are not those of one SwinIR; {'; '.join(found)}; {DOWNLOAD_AGAIN}, or name one saved whole"
        )


def _reconcile(
    described: dict[str, Any], inferred: NetworkConfig, rules: dict[str, str]
) -> tuple[NetworkConfig, dict[str, str]]:
    """The network that the file describes, held against the one inferred; rules stay for what it leaves open."""
    known = {field.name: field.type for field in fields(NetworkConfig)}
    for name, value in dict.items(described):
        if name in known and not _has_type(value, known[name]):
            raise CheckpointError(f"its network option {name} has a value of the wrong type or size; save it again")
    try:
        network = NetworkConfig.from_dict(inferred.to_dict() | described)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"its network options are invalid: {_reason(error)}; save it again") from error
    _check_size(network)

    unseen = {"use_checkpoint", "mlp_ratio", "window_size", *rules}
    if inferred.upsampler in ("", "pixelshuffledirect"):
        unseen.add("num_feat")
    differing = {name for name in known if name not in unseen and getattr(network, name) != getattr(inferred, name)}
    if int(inferred.embed_dim * network.mlp_ratio) != int(inferred.embed_dim * inferred.mlp_ratio):
        differing.add("mlp_ratio")
    if network.window != inferred.window:
        differing.add("window_size")
    # Unless a rule assumed it, whether windows are shifted is known.
    if network.shifted != inferred.shifted and not ("img_size" in rules and inferred.shifted):
        differing.add("img_size")
    if differing:
        pairs = [f"{name} {getattr(network, name)!r} for {getattr(inferred, name)!r}" for name in sorted(differing)]
        raise CheckpointError(f"its network options disagree with its weights: {_some(pairs)}; save it again")
    return network, {name: rule for name, rule in rules.items() if name not in described}


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a value from a file has the type of an option: strictly (True is no int) and finite."""
    if get_origin(kind) is tuple:
        return isinstance(value, (list, tuple)) and all(_is_int(item) for item in value)
    if kind is float:
        return _is_int(value) or (type(value) is float and math.isfinite(value))
    return _is_int(value) if kind is int else type(value) is kind


def _is_int(value: Any) -> bool:
    """Whether a value from a file is an integer of a size that can be printed and computed with."""
    return type(value) is int and abs(value) < 2**63


def _stated_task(task: Any) -> str | None:
    if task is None:
        return None
    if not isinstance(task, str):
        raise CheckpointError(f"its task is a {type(task).__name__}, not a name; save it again")
    try:
        return get_task(task).name
    except ValueError as error:
        raise CheckpointError(f"it states an {_reason(error)}") from error


# Messages.


def _show(name: object) -> str:
    """A name from a file, fit for one line on a terminal."""
    if not isinstance(name, str):
        return f"a key of type {type(name).__name__}"
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= 160 else f"{shown[:160]}..."


def _some(names: Collection[object]) -> str:
    """Up to three names, then how many more."""
    shown = ", ".join(_show(name) for name in list(names)[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"


def _reason(error: Exception) -> str:
    """What a library's exception says, without its advice: one short line."""
    text = str(error).split("WeightsUnpickler error: ")[-1].strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return _show(line.rstrip(" .:;"))

"""Reading and writing weights files.

    read_checkpoint: find_checkpoint -> read_content -> entry -> plain tensors -> infer -> Checkpoint
    load_model: read_checkpoint -> build_model

FILE:TASK names one network of a file for several tasks, see `swinir.weights.multitask`: its adapter is merged into the
body, and from there on it is an ordinary SwinIR.

No tensor is copied before names, shapes and storage sizes agree with a network built on the meta device.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from swinir.atomic import atomic_path
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.models.windows import attn_mask, relative_position_index
from swinir.tasks import TASKS, get_task
from swinir.weights.infer_config import (
    INDEX,
    MASK,
    check_fit,
    check_size,
    infer,
    infer_network,
    is_derived,
    is_int,
    reconcile,
    state_shapes,
)
from swinir.weights.multitask import JointWeights, SeveralTasksError, merge_adapter, parse_joint, split_name
from swinir.weights.safe_load import CheckpointError, plain_tensors, read_content, reason, shown, some, to_float
from swinir.weights.verify import sha256

__all__ = [
    "ENTRIES",
    "SUFFIXES",
    "Checkpoint",
    "CheckpointError",
    "SeveralTasksError",
    "build_model",
    "find_checkpoint",
    "guess_tasks",
    "infer_network",
    "load_model",
    "read_checkpoint",
    "read_joint",
    "read_state",
    "read_tensors",
    "sha256",
    "write_checkpoint",
    "write_joint",
    "write_state",
]

ENTRIES = ("params_ema", "params", "state_dict", "model")  # where weights stand in a file, by preference
SUFFIXES = (".pth", ".pt", ".safetensors")
NO_SUCH_FILE = "no such file; check the path, or see `swinir zoo list` for known names"


@dataclass(frozen=True)
class Checkpoint:
    """Weights with the facts known about them.

    Attributes:
        path: the file.
        network: configuration of the network.
        state: learned weights only, float32 on the CPU, names without "module.".
        key: entry of the file that held the weights; "" when the file holds weights only.
        task: the task that the file itself states, for files of this project.
        step: training step, likewise.
        rules: one sentence for each fact that was decided by a rule, since the file does not state it.
        self_described: True when the file holds its network configuration.
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
        path: .pth or .pt of either format of PyTorch, or .safetensors; told apart by content. FILE:TASK is the network
            of a task in a file for several. Without such a file, a name in the zoo.
        key: the entry to prefer when the file has it; otherwise, or when it has not, the first of `ENTRIES`,
            else the file's top level.

    Raises:
        CheckpointError: for a file that cannot be read or whose weights are not those of a SwinIR.
        SeveralTasksError: (a CheckpointError) for a file for several tasks without one that it has; it lists them.
        FileNotFoundError: for a name whose file was not downloaded, with the command that does.
    """
    file, task = find_checkpoint(path), split_name(path)[1]
    with _naming(file):
        return _read(file, key, task)


def read_joint(path: str | Path) -> JointWeights:
    """Read a file for several tasks, each of whose networks is checked as `read_checkpoint` does.

    Raises:
        CheckpointError: for a file that cannot be read, and one for a single task.
    """
    file = find_checkpoint(path)
    with _naming(file):
        _, facts, tensors = _content(file, None)
        if type(facts.get("tasks")) is not dict:
            raise CheckpointError("holds the network of one task, not of several; name a file of a joint training")
        joint = parse_joint(tensors, facts["tasks"])
        joint_networks(joint)
        return joint.converted(to_float)


def joint_networks(joint: JointWeights) -> dict[str, NetworkConfig]:
    """Return the network of each task.

    Raises:
        CheckpointError: for a task whose weights are not those of a SwinIR.
    """
    return {task: _network(joint.weights(task), fact)[0] for task, fact in joint.facts.items()}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the file's name to errors, and make those of the system errors of the file."""
    try:
        yield
    except SeveralTasksError as error:
        error.args = (f"{path}: {error}",)
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {NO_SUCH_FILE}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check the file") from error


def guess_tasks(network: NetworkConfig) -> list[str]:
    """Return the names of the paper's tasks whose networks share upsampler, channels, range and scale with `network`.

    Files of a task of ours state it.
    """
    return [
        name
        for name, task in TASKS.items()
        if task.in_paper
        and network.upscale in task.scales
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
    dtype: torch.dtype | None = None,
) -> None:
    """Write weights with their network configuration, atomically.

    The derived buffers are written too, as in the released files, so that other tools recognise SwinIR.

    Args:
        path: .pth, .pt or .safetensors; the suffix decides the format.
        state: weights of `SwinIR(network)`, with or without derived buffers and "module.".
        network: stored beside the weights.
        key: the entry for the weights, one of `ENTRIES`.
        task: stored beside the weights; one of `swinir.tasks.TASKS`.
        step: stored beside the weights.
        dtype: store the weights in this type, torch.float16 to halve the file; as they are by default.

    Raises:
        CheckpointError: for weights that do not fit `network` or are not finite, or a failure to write.
    """
    path = Path(path)
    with _writing(path):
        if key not in ENTRIES:
            raise CheckpointError(f"weights cannot stand under {key!r}; use one of {', '.join(ENTRIES)}")
        if task is not None:
            get_task(task)
        weights = plain_tensors(state)
        if dtype is not None:
            weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
        weights = _with_derived(weights, network)
        _write(path, key, weights, {"network": network.to_dict(), "task": task, "step": step})


def write_joint(path: str | Path, joint: JointWeights) -> None:
    """Write a file for several tasks, atomically. Derived buffers are left out.

    Raises:
        CheckpointError: for weights that are not those of its tasks, or not finite, or a failure to write.
    """
    path = Path(path)
    with _writing(path):
        state = {name: to_float(name, tensor) for name, tensor in plain_tensors(joint.state()).items()}
        for task in parse_joint(state, joint.facts).facts:
            check_fit(NetworkConfig.from_dict(joint.facts[task]["network"]), joint.weights(task))
        _write(path, ENTRIES[1], state, {"tasks": joint.facts})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Refuse a suffix of no format, and add the file's name to errors."""
    try:
        if path.suffix not in SUFFIXES:
            raise CheckpointError(f"the suffix says no format of weights; use one of {', '.join(SUFFIXES)}")
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as a RuntimeError
        raise CheckpointError(f"{path}: cannot be written: {reason(error)}; check the folder and its space") from error


def _write(path: Path, key: str, weights: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
    """Write weights and facts in the format that the suffix decides."""
    if path.suffix != ".safetensors":
        _save({key: dict(weights)} | facts, path)
        return
    # This format refuses tensors that share memory, as the derived ones of all layers do.
    separate = {name: tensor.clone() for name, tensor in weights.items()}
    metadata = {name: json.dumps(fact) for name, fact in (facts | {"key": key}).items()}
    data = safetensors_bytes(separate, metadata={"format": "pt"} | metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _save(content: dict[str, Any], path: Path) -> None:
    # Into an open file: given a path, PyTorch would write the temporary name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def read_state(path: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a weights file of any network, as float32 on the CPU, names without "module.".

    Raises:
        CheckpointError: for a file that cannot be read, holds no tensors, or others than of floats.
    """
    return _read_tensors(Path(path), key, ENTRIES, to_float)


def read_tensors(path: str | Path, *, entries: Sequence[str] = ENTRIES) -> dict[str, Tensor]:
    """Return the tensors of a weights file like `read_state`, but keep integer and boolean tensors as they are.

    Args:
        entries: entries of the file to look in, by preference; then the top level.
    """

    def copied(name: str, tensor: Tensor) -> Tensor:
        return to_float(name, tensor) if tensor.is_floating_point() else tensor.to("cpu", copy=True).contiguous()

    return _read_tensors(Path(path), None, entries, copied)


def _read_tensors(
    path: Path, key: str | None, entries: Sequence[str], copied: Callable[[str, Tensor], Tensor]
) -> dict[str, Tensor]:
    with _naming(path):
        content = read_content(path)
        _, table = _choose_entry(content.table, key, entries)
        tensors = plain_tensors(table, file_bytes=content.file_bytes)
        return {name: copied(name, tensor) for name, tensor in tensors.items()}


def write_state(
    path: str | Path,
    state: Mapping[str, Tensor],
    network: Mapping[str, Any],
    *,
    key: str = "params",
    task: str | None = None,
    step: int | None = None,
) -> None:
    """Write the weights of a network other than SwinIR, with its configuration; `read_state` reads them."""
    _save({key: dict(state), "network": dict(network), "task": task, "step": step}, Path(path))


def find_checkpoint(path_or_name: str | Path) -> Path:
    """Return the file of a path, of FILE:TASK, or the downloaded or bundled file of a name in the zoo.

    Raises:
        CheckpointError: for an unknown name.
        FileNotFoundError: for a name whose file was not downloaded, with the command that does.
    """
    path, _ = split_name(path_or_name)
    if len(path.parts) > 1 or path.exists():
        return path
    from swinir.weights import zoo

    try:
        return zoo.locate(str(path_or_name))
    except ValueError as error:
        raise CheckpointError(f"{path}: no such file, and {error}") from error


def load_model(
    path_or_name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> SwinIR:
    """Load a network for inference from a weights file or by its name in the zoo.

    Args:
        path_or_name: a path or FILE:TASK if there is such a file, otherwise a name in the zoo.
        device: None is the GPU where there is one.
        dtype: of weights and activations; None is float32.

    Raises:
        CheckpointError: for an unknown name, and for what `read_checkpoint` refuses.
        FileNotFoundError: for a name whose file was not downloaded.
    """
    return build_model(read_checkpoint(path_or_name), device, dtype)


def build_model(
    checkpoint: Checkpoint, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> SwinIR:
    """Build the network of a checkpoint in eval mode, without gradients; None as in `load_model`."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = SwinIR.from_state(checkpoint.network, checkpoint.state)
    return model.requires_grad_(False).eval().to(device=device, dtype=dtype)


def _content(path: Path, key: str | None) -> tuple[str, dict[Any, Any], dict[str, Tensor]]:
    """Return the entry with the weights, what the file states beside it, and the weights."""
    content = read_content(path)
    if content.metadata is None:
        entry, table = _choose_entry(content.table, key)
        facts = content.table if entry else {}
    else:
        facts = _safetensors_facts(content.metadata)
        entry, table = facts["key"] if facts.get("key") in ENTRIES else "", content.table
    return entry, facts, plain_tensors(table, file_bytes=content.file_bytes)


def _read(path: Path, key: str | None, part: str | None) -> Checkpoint:
    entry, facts, tensors = _content(path, key)
    factors: dict[str, Tensor] = {}
    if type(facts.get("tasks")) is dict:
        joint = parse_joint(tensors, facts["tasks"])
        if part not in joint.facts:
            raise SeveralTasksError(joint, path.name, part)
        facts, tensors, factors = joint.facts[part], joint.weights(part), joint.adapter(part)
    elif part is not None:
        raise CheckpointError(f"holds the network of one task; leave out {':' + shown(part)!r}")
    network, rules = _network(tensors, facts)
    self_described = type(facts.get("network")) is dict
    task, step = (_stated_task(facts.get("task")), facts.get("step")) if self_described else (None, None)
    state = {name: to_float(name, tensor) for name, tensor in tensors.items() if not is_derived(name)}
    state = merge_adapter(state, factors)
    step = step if is_int(step) else None
    return Checkpoint(path, network, state, entry, task, step, tuple(rules.values()), self_described)


def _network(tensors: Mapping[str, Tensor], facts: Mapping[Any, Any]) -> tuple[NetworkConfig, dict[str, str]]:
    """Return the network of tensors, checked against what their file states, and the rules that were applied."""
    network, rules = infer(tensors)
    described = facts.get("network")
    return reconcile(described, network, rules) if type(described) is dict else (network, rules)


def _safetensors_facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that `write_checkpoint` put into safetensors metadata; {} for files of other tools."""
    facts = {}
    for name in ("network", "task", "step", "key", "tasks"):
        try:
            facts[name] = json.loads(metadata[name])
        except (KeyError, ValueError, RecursionError):  # another tool's metadata
            continue
    return facts if dict in (type(facts.get("network")), type(facts.get("tasks"))) else {}


def _choose_entry(
    content: dict[Any, Any], key: str | None, entries: Sequence[str] = ENTRIES
) -> tuple[str, dict[Any, Any]]:
    """Return the entry with the weights and its table; ("", content) when the top level is the table."""
    wanted = [key] if key and key in content else []
    for entry in wanted or entries:
        table = content.get(entry)
        if isinstance(table, dict) and _has_tensors(table):
            return entry, dict(dict.items(table))
    if not wanted and _has_tensors(content):
        return "", content
    for entry in wanted or entries:
        if entry in content:
            kind = "dict without tensors" if isinstance(content[entry], dict) else type(content[entry]).__name__
            raise CheckpointError(f"holds no weights: its entry {shown(entry)} is a {kind}; save a state dict")
    raise CheckpointError(f"has no tensors inside; it holds {some(content)}; name a file that holds a state dict")


def _has_tensors(table: dict[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in dict.values(table))


def _stated_task(task: Any) -> str | None:
    if task is None:
        return None
    if not isinstance(task, str):
        raise CheckpointError(f"its task is a {type(task).__name__}, not a name; save it again")
    try:
        return get_task(task).name
    except ValueError as error:
        raise CheckpointError(f"it states an {reason(error)}") from error


def _with_derived(tensors: dict[str, Tensor], network: NetworkConfig) -> dict[str, Tensor]:
    """Return the state dict to write: learned weights copied to the CPU, derived buffers recomputed."""
    check_size(network)
    learned = {name: tensor for name, tensor in tensors.items() if not is_derived(name)}
    check_fit(network, learned)
    derived = {INDEX: relative_position_index(network.window)}
    if network.shifted:
        derived[MASK] = attn_mask(network.img_size, network.window)
    weights = {}
    for name in state_shapes(network):
        if name in learned:
            to_float(name, learned[name])
            weights[name] = learned[name].to("cpu", copy=True).contiguous()
        else:
            weights[name] = derived[MASK if name.endswith(MASK) else INDEX]
    return weights

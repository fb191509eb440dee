"""Layout of a file for several tasks: one body, a head and a tail for each task, and adapters of the body.

    layers.0.residual_group.blocks.0.attn.qkv.weight               of the body, by SwinIR's names
    tasks.TASK.conv_first.weight                                   of a task's head or tail
    adapters.ADAPTER.layers.0.residual_group.blocks.0.attn.qkv.a   A of W + BA; B ends in ".b"

Beside the weights, `tasks` states for each task the paper's task, the network, the training step and the adapter.
`swinir.weights.checkpoint` reads and writes such files; FILE:TASK names the network of a task.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from swinir.models.multitask import adapted, matrix_shape
from swinir.weights.safe_load import CheckpointError, shown, some, to_float

MAX_TASKS = 256
MAX_RANK = 64
NAME = re.compile(r"[a-z0-9_]{1,40}")  # of tasks and adapters


@dataclass(frozen=True)
class JointWeights:
    """Content of a file for several tasks, by the names of tasks and adapters.

    Attributes:
        facts: what the file states of each task: "task", "network" and "step", as of a file for one task, and
            "adapter", a name or None.
        body: weights by name.
        ends: head and tail of each task, by name.
        adapters: factors A and B of each adapter, as LAYER.a and LAYER.b.
    """

    facts: dict[str, dict[str, Any]]
    body: dict[str, Tensor]
    ends: dict[str, dict[str, Tensor]]
    adapters: dict[str, dict[str, Tensor]]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors by their names in the file."""
        parts = {"tasks": self.ends, "adapters": self.adapters}
        named = {
            f"{kind}.{part}.{name}": tensor
            for kind, tables in parts.items()
            for part, table in tables.items()
            for name, tensor in table.items()
        }
        return self.body | named

    def weights(self, task: str) -> dict[str, Tensor]:
        """Return body, head and tail of a task, without its adapter."""
        return self.body | self.ends[task]

    def adapter(self, task: str) -> dict[str, Tensor]:
        """Return the factors of a task's adapter; none without one."""
        name = self.facts[task]["adapter"]
        return self.adapters[name] if name else {}

    def converted(self, convert: Callable[[str, Tensor], Tensor]) -> "JointWeights":
        """Return a copy with each tensor, named as in the file, converted."""
        return parse_joint({name: convert(name, tensor) for name, tensor in self.state().items()}, self.facts)


class SeveralTasksError(CheckpointError):
    """A file for several tasks was named without a task, or with one that it does not have.

    Attributes:
        joint: content of the file.
        asked: the task; None without one.
    """

    def __init__(self, joint: JointWeights, file: str, asked: str | None) -> None:
        wrong = f"has no task {shown(asked)!r}" if asked is not None else "holds one network for several tasks"
        super().__init__(f"{wrong}; choose one of {', '.join(f'{file}:{task}' for task in joint.facts)}")
        self.joint, self.asked = joint, asked


def split_name(name: str | Path) -> tuple[Path, str | None]:
    """Split FILE:TASK at its last colon, if that leaves a file; a file whose own name has colons goes first."""
    file, colon, task = str(name).rpartition(":")
    if colon and not os.path.exists(name) and os.path.isfile(file):  # false for names that no file can have
        return Path(file), task
    return Path(name), None


def stem(name: str | Path) -> str:
    """Return a file's name without folder and suffix; joint_sr_x2 for joint.pth:sr_x2."""
    file, task = split_name(name)
    return file.stem + (f"_{task}" if task else "")


def parse_joint(tensors: Mapping[str, Tensor], facts: Mapping[Any, Any]) -> JointWeights:
    """Sort the tensors of a file for several tasks by task and adapter.

    Args:
        tensors: by their names in the file; values are not read.
        facts: what the file states of its tasks, of unknown origin.

    Raises:
        CheckpointError: for facts, names or shapes that do not fit together.
    """
    if not 1 <= len(facts) <= MAX_TASKS:
        raise CheckpointError(f"states {len(facts):,} tasks, where 1 to {MAX_TASKS} are allowed; save it again")
    stated = {}
    for task, fact in facts.items():
        names = [task] if type(fact) is not dict or fact.get("adapter") is None else [task, fact["adapter"]]
        if type(fact) is not dict or not all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
            raise CheckpointError(f"states a task {shown(task)} in another way than this program; save it again")
        stated[task] = {**fact, "adapter": fact.get("adapter")}
    used = [fact["adapter"] for fact in stated.values() if fact["adapter"] is not None]
    body: dict[str, Tensor] = {}
    ends: dict[str, dict[str, Tensor]] = {task: {} for task in stated}
    adapters: dict[str, dict[str, Tensor]] = {name: {} for name in used}
    tables = {"tasks": ends, "adapters": adapters}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind not in tables:
            body[name] = tensor
            continue
        part, _, own = rest.partition(".")
        if part not in tables[kind]:
            raise CheckpointError(f"has {shown(name)}, which belongs to none of its tasks ({some(stated)})")
        tables[kind][part][own] = tensor
    joint = JointWeights(stated, body, ends, adapters)
    for task, table in ends.items():
        if double := body.keys() & table.keys():
            raise CheckpointError(f"has {some(sorted(double))} both in its body and for the task {task}; save it again")
    for name, factors in adapters.items():
        _check_adapter(name, factors, body)
    if not all(adapters.values()):
        raise CheckpointError("states an adapter that it does not hold; save it again")
    return joint


def _check_adapter(name: str, factors: Mapping[str, Tensor], body: Mapping[str, Tensor]) -> None:
    """Refuse factors that come without their layer or their partner, or do not fit it."""
    for factor in factors:
        layer, _, letter = factor.rpartition(".")
        shapes = [
            tuple(table[key].shape) if key in table else ()
            for table, key in ((body, f"{layer}.weight"), (factors, f"{layer}.a"), (factors, f"{layer}.b"))
        ]
        weight, a, b = shapes
        fits = letter in ("a", "b") and len(weight) in (2, 4) and len(a) == len(b) == 2
        if not fits or (b[0], a[1]) != matrix_shape(weight) or a[0] != b[1] or not 1 <= a[0] <= MAX_RANK:
            raise CheckpointError(
                f"its adapter {shown(name)} has {shown(factor)}, which fits no layer: weight {weight}, A {a}, B {b}, "
                f"rank at most {MAX_RANK}; save it again"
            )


def merge_adapter(state: dict[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights with an adapter merged into the layers."""
    merged = dict(state)
    for factor, b in factors.items():
        layer, _, letter = factor.rpartition(".")
        if letter == "b":
            a, b = to_float(f"{layer}.a", factors[f"{layer}.a"]), to_float(factor, b)
            name = f"{layer}.weight"
            merged[name] = to_float(name, adapted(state[name], a, b))
    return merged

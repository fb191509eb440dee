"""The models that a user can name, as rows of a table."""

from dataclasses import dataclass
from typing import Literal

from swinir.weights.zoo import RELEASED, TASK_IN_NAME, ZooEntry, bundled, locate


@dataclass(frozen=True)
class ModelRow:
    """A released or bundled model.

    Attributes:
        name: short name, which `load_model` and `swinir restore -n` take.
        task: a key of `swinir.tasks.TASKS`.
        level: x4, noise25 or jpeg40; x1-4 or noise0-55 for a model for any level.
        scale: factor of enlargement, the largest one of a model of any scale; 1 for models that keep the size.
        parameters: their number; None where it is not known.
        state: "bundled" with the package, "downloaded", or neither: "available" to `swinir zoo download`; "missing" for
            a bundled file that is gone, "damaged" for a file of a wrong length.
        megabytes: size of the file; None where it is not known.
    """

    name: str
    task: str
    level: str
    scale: int
    parameters: int | None
    state: Literal["bundled", "downloaded", "available", "missing", "damaged"]
    megabytes: float | None


def list_models(task: str | None = None) -> list[ModelRow]:
    """List all bundled and released models, or those of a task, without reading their files.

    Raises:
        ValueError: for an unknown task.
    """
    if task is not None and task not in TASK_IN_NAME:
        raise ValueError(f"unknown task {task!r}; choose one of {', '.join(TASK_IN_NAME)}")
    return [model_row(entry) for entry in (*bundled(), *RELEASED) if task in (None, entry.parts.task)]


def model_row(entry: ZooEntry) -> ModelRow:
    """Return the row of an entry of the zoo."""
    parts = entry.parts
    try:
        size: int | None = locate(entry.name).stat().st_size
        state: str = "bundled" if entry.bundled else "downloaded"
        if entry.bytes not in (None, size):
            state = "damaged"
    except FileNotFoundError:
        size, state = entry.bytes, "missing" if entry.bundled else "available"
    megabytes = None if (size := entry.bytes or size) is None else round(size / 1e6, 1)
    scale = (parts.level_to or parts.level) if parts.kind == "x" else 1
    return ModelRow(entry.alias, parts.task, parts.level_text, scale, entry.parameters, state, megabytes)  # type: ignore[arg-type]

"""Save states in forks that are killed; `test_checkpoints.py` starts this process with a folder.

Each line it reads is "STEP SAVES OPERATIONS": a fork saves the steps STEP, STEP + 1, ... and kills itself after SAVES
saves and OPERATIONS further file operations. The answer is the last step whose save had returned, STEP - 1 if none had.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from forks import signal_self

from swinir.train.checkpoints import StateStore


def content(step: int) -> dict[str, torch.Tensor]:
    """Two megabytes of a value that is the step."""
    return {"weights": torch.full((500_000,), float(step))}


def save_until_killed(folder: Path, step: int, saves: int, operations: int, completed: int) -> None:
    """Save rising steps, every second of them as best; each is reported through a pipe once its save has returned."""
    store = StateStore(folder, keep=2)
    last = step + saves - 1
    signal_self(signal.SIGKILL, operations, lambda: step > last)
    while True:
        store.save(content(step), step, best=step % 2 == 0)
        os.write(completed, step.to_bytes(8, "big"))
        step += 1


def last_completed(folder: Path, step: int, saves: int, operations: int) -> int:
    """The last step that was completed before the kill."""
    source, completed = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_until_killed(folder, step, saves, operations, completed)
        finally:
            os._exit(1)  # unreachable unless a save fails
    os.close(completed)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself with status {status}"
    with open(source, "rb") as pipe:
        steps = pipe.read()
    return int.from_bytes(steps[-8:], "big") if steps else step - 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(last_completed(Path(sys.argv[1]), *map(int, line.split())), flush=True)  # noqa: T201 - the answer

"""A process that saves states until it is killed, again and again; `test_states.py` starts it with a folder.

Each line it reads is "STEP SAVES SECONDS": a fork of it saves steps STEP, STEP + 1, ... and is killed that many
seconds after that many saves, or after its start for none.
The answer is the last step whose save had returned, STEP - 1 if none had.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from swinir.train.states import StateStore


def content(step: int) -> dict[str, torch.Tensor]:
    """Two megabytes that tell their step."""
    return {"weights": torch.full((500_000,), float(step))}


def save_forever(folder: Path, step: int, completed: int) -> None:
    """Save rising steps, every second of them as best; each is written to a pipe once its save has returned."""
    store = StateStore(folder, keep=2)
    while True:
        store.save(content(step), step, best=step % 2 == 0)
        os.write(completed, step.to_bytes(8, "big"))
        step += 1


def save_until_killed(folder: Path, step: int, saves: int, seconds: float) -> int:
    """The last step that was completed before the kill."""
    source, completed = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_forever(folder, step, completed)
        finally:
            os._exit(1)  # unreachable unless a save fails
    os.close(completed)
    steps = b"".join(os.read(source, 8) for _ in range(saves))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself with status {status}"
    with open(source, "rb") as pipe:
        steps += pipe.read()
    return int.from_bytes(steps[-8:], "big") if steps else step - 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        first, number, delay = line.split()
        print(save_until_killed(Path(sys.argv[1]), int(first), int(number), float(delay)), flush=True)  # noqa: T201 - the answer

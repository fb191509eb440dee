"""Run the command in forks of a process that has loaded PyTorch, and kill them at a given point.

A fork sends the signal to itself after a number of rows and file operations, so the point does not depend on speed.

`commands()` starts the process. It reads a line for commands that run at the same time, a JSON list of the fields of
`Command`, and answers with a list of exit codes, -N for a process ended by signal N. The output of a command is
appended to the file `output`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

OPERATIONS = ("open", "os.", "shutil.")  # beginnings of audit events for files and folders


@dataclass(frozen=True)
class Command:
    """One run of the command.

    Attributes:
        words: after "swinir".
        output: file for stdout and stderr.
        processes: more than one get the environment that torchrun would give them.
        kill: signal to end the (first) process with; 0 lets it run.
        rows: number of lines in the file `metrics` before the signal.
        operations: number of file operations after that and before the signal.
        metrics: a run's metrics.jsonl.
    """

    words: list[str]
    output: str
    processes: int = 1
    kill: int = 0
    rows: int = 0
    operations: int = 0
    metrics: str = ""


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def _child(command: Command, rank: int, port: int) -> None:
    from swinir.cli.main import main

    with open(command.output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if command.processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(command.processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if command.kill and rank == 0:
        signal_self(command.kill, command.operations, lambda: _lines(Path(command.metrics)) >= command.rows)
    code = 1
    try:
        code = main(command.words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def signal_self(number: int, operations: int, ready: Callable[[], bool]) -> None:
    """Send this process a signal at file operation number `operations` (from 0) from when `ready` is true."""
    left, busy = operations, False

    def hook(event: str, _args: object) -> None:
        nonlocal left, busy
        if busy or left < 0 or not event.startswith(OPERATIONS):
            return
        busy = True  # `ready` works with files, too
        if ready():
            left -= 1
            if left < 0:
                os.kill(os.getpid(), number)
        busy = False

    sys.addaudithook(hook)


def _run(together: list[Command]) -> list[int]:
    children = []
    for command in together:
        port = _free_port()
        for rank in range(command.processes):
            children.append(os.fork())
            if children[-1] == 0:
                _child(command, rank, port)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@contextmanager
def commands() -> Iterator[Callable[..., list[int]]]:
    """A function that runs one command, or several at the same time, and gives the exit codes of their processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def run(*together: Command) -> list[int]:
            process.stdin.write(json.dumps([asdict(command) for command in together]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()
    assert process.returncode == 0


def in_another_process(function: Callable[[], int]) -> int:
    """The value of a function that is run in a fork of this process, a small number; -N if signal N ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = int(function())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Beside:
    """A fork that has run a function and keeps its value, until it is killed or this process ends."""

    def __init__(self, function: Callable[[], object]) -> None:
        ready, done = os.pipe(), os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                os.close(done[1])
                value = function()
                os.write(ready[1], b"1")
                os.read(done[0], 1)  # until the other end is closed
                del value
            finally:
                os._exit(99)
        os.close(done[0])
        os.read(ready[0], 1)

    def kill(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


if __name__ == "__main__":
    import swinir.cli.main
    import swinir.photos.batch
    import swinir.train.trainer  # noqa: F401 - loaded once, here

    import torch  # isort: skip

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for line in sys.stdin:
        codes = _run([Command(**fields) for fields in json.loads(line)])
        print(json.dumps(codes), flush=True)  # noqa: T201 - the answer

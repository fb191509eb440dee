"""Runs the command in forks of a process that has loaded PyTorch already, and ends them as told.

`commands()` starts it. Each line it reads is a job, JSON of the keys of `Command`; the answer is a list of exit codes,
-N for a process that signal N ended. What the command prints goes to the file `output`, appended.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

DEADLINE = 120.0  # seconds to wait for a row


@dataclass(frozen=True)
class Command:
    """One run of the command.

    Attributes:
        words: after "swinir".
        output: file for stdout and stderr.
        processes: more than one get the environment that torchrun would give them.
        kill: signal to end the (first) process with; 0 lets it run.
        rows: lines of the file `metrics` to wait for before the kill.
        seconds: to wait after that.
        metrics: a run's metrics.jsonl.
    """

    words: list[str]
    output: str
    processes: int = 1
    kill: int = 0
    rows: int = 0
    seconds: float = 0.0
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
    code = 1
    try:
        code = main(command.words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _run(command: Command) -> list[int]:
    port = _free_port()
    children = []
    for rank in range(command.processes):
        children.append(os.fork())
        if children[-1] == 0:
            _child(command, rank, port)
    if command.kill:
        until = time.monotonic() + DEADLINE
        while _lines(Path(command.metrics)) < command.rows and not _ended(children[0]) and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(command.seconds)
        os.kill(children[0], command.kill)  # it is still there, if only to be waited for
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@contextmanager
def commands() -> Iterator[Callable[[Command], list[int]]]:
    """A function that runs a command and gives the exit codes of its processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def run(command: Command) -> list[int]:
            process.stdin.write(json.dumps(asdict(command)) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()
    assert process.returncode == 0


if __name__ == "__main__":
    import swinir.cli.main
    import swinir.folder
    import swinir.train.trainer  # noqa: F401 - loaded once, here

    import torch  # isort: skip

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for line in sys.stdin:
        print(json.dumps(_run(Command(**json.loads(line)))), flush=True)  # noqa: T201 - the answer

"""Generators in processes of their own: items, errors, and their end with the process that started them.

Run as a program with the name of a signal, it is `swinir bench` with a variant that sends the signal and never ends.
"""

import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from swinir.bench.processes import Remote


def facts(*args):
    yield os.getpid(), torch.get_num_threads(), args
    raise ValueError("no luck")


def test_items_and_errors_come_from_another_process_with_the_same_number_of_threads():
    with closing(Remote(facts, 1, "a")) as steps:
        pid, threads, args = next(steps)
        assert pid != os.getpid()
        assert (threads, args) == (torch.get_num_threads(), (1, "a"))
        with pytest.raises(ValueError, match="no luck"):
            next(steps)
        with pytest.raises(StopIteration):
            next(steps)


class UnpicklableError(Exception):
    def __init__(self, text, more):
        super().__init__(text)


def ending(how):
    if how == "leave":
        os._exit(3)
    raise UnpicklableError("no luck", ...)
    yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"), [("leave", "ended with exit code 3"), ("raise", "UnpicklableError: no luck")]
)
def test_the_end_of_the_process_and_errors_that_cannot_be_sent_are_described(how, message):
    with closing(Remote(ending, how)) as steps, pytest.raises(RuntimeError, match=message):
        next(steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["SIGINT", *(pytest.param(name, marks=pytest.mark.extras) for name in ("SIGTERM", "SIGKILL"))]
)
def test_no_process_outlives_an_interrupted_benchmark(name):
    """All processes hold the pipe that is read here to its end."""
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    number = signal.Signals[name]
    assert done.returncode == (-number if name == "SIGKILL" else 128 + number)
    assert "fp32" not in done.stdout.split("ratio\n")[-1]
    assert "Traceback" not in done.stdout


class Endless:
    """A network that sends a signal, as a terminal does for SIGINT to all processes, and never ends."""

    def __init__(self, model):
        self.config, self.device, self.dtype = model.config, torch.device("cpu"), torch.float32
        self.precision = "fp32"
        self.name = os.environ["SIGNAL"]

    def __call__(self, x):
        number = signal.Signals[self.name]
        if number == signal.SIGINT:
            os.killpg(0, number)
        else:
            os.kill(os.getppid(), number)
        while True:
            x.sum()


if __name__ == "__main__":
    from swinir.bench import matrix_rate, variants
    from swinir.cli.main import main

    os.environ["SIGNAL"] = sys.argv[1]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    matrix_rate.PRODUCTS["cpu"] = ((8, 8, 8),)
    variants.VARIANTS["bf16"] = replace(variants.VARIANTS["bf16"], precision="fp32", build=Endless)
    sys.exit(main(["bench", "--sizes", "8", "--variants", "fp32,bf16", "--device", "cpu"]))

"""Several processes that act as one, and killed runs that end as uninterrupted ones.

Most of these processes are forks with the environment that torchrun gives (see `forks.py`); torchrun itself is slow.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forks import Command, commands
from training import CPU, SMALL, assert_same_ending, configuration, last_state, same, timeless

from swinir.train.distributed import start_processes

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def run_command():
    with commands() as run:
        yield run


@pytest.fixture
def toml(images, tmp_path):
    """A function that writes a configuration, and gives the words of the command that trains it in a folder."""

    def words(run, **options):
        config = configuration(images, **options).model_dump(mode="json", exclude_none=True)
        path = tmp_path / f"{run}.toml"
        path.write_text(_toml(config))
        return ["train", "--config", str(path), "--run", str(tmp_path / run), "--device", "cpu"]

    return words


def _toml(values):
    """Nested plain values as dotted TOML keys."""

    def lines(values, prefix=""):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from lines(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key} = {json.dumps(value)}"

    return "\n".join(lines(values)) + "\n"


def weights(run):
    return last_state(run)["optimization"]["network"]


def largest_difference(run, other):
    """Between the weights of two runs."""
    ours, theirs = weights(run), weights(other)
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours)


# Alone.


def test_one_process_is_itself_and_its_own_mean():
    with start_processes("cpu") as alone:
        assert (alone.rank, alone.count, alone.device) == (0, 1, CPU)
        assert alone.mean(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
        assert (alone.any(True), alone.any(False)) == (True, False)
        assert alone.gather(["a", "b"]) == ["a", "b"]
        assert alone.share("a") == "a"
        alone.wait()
        parameter = torch.nn.Parameter(torch.ones(2))
        parameter.grad = torch.tensor([1.0, 2.0])
        alone.average_gradients([parameter])
        assert parameter.grad.tolist() == [1.0, 2.0]


def test_processes_wait_for_a_first_one_that_decodes_for_hours(monkeypatch):
    asked = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("swinir.train.distributed.rendezvous", lambda url: iter([(dist.HashStore(), 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: asked.update(options))
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with start_processes("cpu"):
        assert asked["timeout"] >= timedelta(hours=3)


# Two as one.

STEPS = {"schedule": {"iterations": 12}, "data": {"batch": 4}, "network": SMALL | {"drop_path_rate": 0.1}}


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(run_command, toml, tmp_path):
    for name, processes in (("two", 2), ("one", 1)):
        words = toml(name, precision="fp64", optimizer={"lr": 2e-4}, **STEPS)
        assert set(run_command(Command(words, str(tmp_path / f"{name}.txt"), processes=processes))) == {0}
    two, one = tmp_path / "two", tmp_path / "one"
    assert largest_difference(two, one) < 1e-12
    for ours, theirs in zip(timeless(two), timeless(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert json.loads((two / "run.json").read_text())["processes"] == 2
    printed = (tmp_path / "two.txt").read_text()
    assert printed.count("step 12/12  loss") == 1  # one process alone prints
    assert printed.count("SHA-256") == 1


@pytest.mark.parametrize("optimizer", [pytest.param("adam", marks=pytest.mark.slow), "muon"])
def test_two_processes_are_to_the_last_bit_one_that_runs_its_batch_in_two_parts(run_command, toml, tmp_path, optimizer):
    for name, processes, accumulate in (("two", 2, 1), ("one", 1, 2)):
        options = {"accumulate": accumulate, "precision": "bf16", "optimizer": {"name": optimizer, "lr": 2e-3}}
        words = toml(name, **options, **STEPS)
        assert set(run_command(Command(words, str(tmp_path / f"{name}.txt"), processes=processes))) == {0}
    ours, theirs = (last_state(tmp_path / name)["optimization"] for name in ("two", "one"))
    assert same(ours, theirs)
    losses = [[row["loss"] for row in timeless(tmp_path / name) if "loss" in row] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_together(run_command, toml, tmp_path):
    options = STEPS | {"log_every": 1}
    assert run_command(Command(toml("whole", **options), str(tmp_path / "whole.txt"), processes=2)) == [0, 0]
    words, output = toml("parts", **options), str(tmp_path / "parts.txt")
    metrics = str(tmp_path / "parts" / "metrics.jsonl")
    stop = Command(words, output, processes=2, kill=signal.SIGTERM, rows=3, metrics=metrics)
    assert run_command(stop) == [143, 143]
    assert run_command(Command(words, output, processes=2)) == [0, 0]
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")
    assert Path(output).read_text().count("resuming at step") == 1


def test_what_is_wrong_with_the_data_ends_all_processes(run_command, toml, images, tmp_path):
    words = toml("run", **STEPS)
    (images / "a.png").write_bytes(b"")
    assert run_command(Command(words, str(tmp_path / "run.txt"), processes=2)) == [2, 2]


# Ended from outside.

LONG = {"schedule": {"iterations": 32}, "log_every": 1, "save_every": 4, "network": SMALL | {"drop_path_rate": 0.2}}


def test_a_run_that_is_asked_to_leave_saves_its_state_and_goes_on_by_the_same_command(run_command, toml, tmp_path):
    assert run_command(Command(toml("whole", **LONG), str(tmp_path / "whole.txt"))) == [0]
    words, output, metrics = toml("parts", **LONG), tmp_path / "parts.txt", str(tmp_path / "parts" / "metrics.jsonl")
    for line, kind, code in ((2, signal.SIGTERM, 143), (6, signal.SIGINT, 130)):
        stop = Command(words, str(output), kill=kind, rows=line, metrics=metrics)
        assert run_command(stop) == [code]
        (step,) = re.findall(r"stopped at step (\d+); the same command resumes", output.read_text())[-1:]
        assert max((tmp_path / "parts" / "states").glob("step-*")).name.startswith(f"step-{int(step):08d}")
    assert run_command(Command(words, str(output))) == [0]
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")
    assert "Traceback" not in output.read_text()


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moments_ends_as_if_it_had_not_been(run_command, toml, tmp_path):
    assert run_command(Command(toml("whole", **LONG), str(tmp_path / "whole.txt"))) == [0]
    words, output, metrics = toml("parts", **LONG), str(tmp_path / "parts.txt"), tmp_path / "parts" / "metrics.jsonl"
    chance = random.Random(0)
    for attempt in range(12):  # all before row 30 of 32, since each row is an operation
        done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        rows = 0 if attempt % 4 == 0 else min(done + 1, 2 * attempt)  # every fourth gets hardly further, or not at all
        kill = {"kill": signal.SIGKILL, "rows": rows, "operations": chance.randrange(8), "metrics": str(metrics)}
        assert run_command(Command(words, output, **kill)) == [-signal.SIGKILL]
    assert run_command(Command(words, output)) == [0]
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")


# Under torchrun.

KILLED_ONCE = """
import os, signal
if "RANK" in os.environ:  # a worker
    from pathlib import Path
    from swinir.train.optimizer import Optimization

    plain, marker = Optimization.step, Path(os.environ["MARKER"])

    def step(self, batch, number):
        if number == 7 and self.processes.rank == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, batch, number)

    Optimization.step = step
"""


@pytest.mark.slow
def test_torchrun_starts_the_command_and_restarts_a_killed_worker_and_the_run_ends_the_same(
    run_command, toml, tmp_path
):
    options = STEPS | {"save_every": 3}
    assert run_command(Command(toml("whole", **options), str(tmp_path / "whole.txt"), processes=2)) == [0, 0]
    marker = tmp_path / "killed"
    (tmp_path / "sitecustomize.py").write_text(KILLED_ONCE)
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}", "MARKER": str(marker)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # As a user would: -- stands before the command, whose --run torchrun would take for its own.
    words = [*torchrun, "--max-restarts", "1", "-m", "--", "swinir", *toml("parts", **options)]
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert marker.exists()
    assert "resuming at step 6" in done.stdout
    assert done.stdout.count("step 12/12  loss") == 1
    assert_same_ending(tmp_path / "parts", tmp_path / "whole")

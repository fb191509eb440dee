"""Training states: exact, safe from kills and full disks; damaged ones are skipped with a warning."""

import errno
import hashlib
import logging
import os
import random
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saver import content as big_content
from training import same

from swinir.atomic import temporaries
from swinir.train.checkpoints import NAME, StateStore

KILLS = 24


def content(step):
    return {"weights": torch.arange(4.0) + step, "note": f"after {step}"}


def saved(folder, *steps, best=(), keep=3):
    store = StateStore(folder / "states", keep=keep)
    for step in steps:
        store.save(content(step), step, best=step in best)
    return store


def steps_of(paths):
    return [int(path.name.split("-")[1]) for path in paths]


def named(folder, data, step, digest=None):
    """A file with any content under the name of a state; its hash is right unless given."""
    path = folder / f"step-{step:08d}-{digest or hashlib.sha256(data).hexdigest()[:16]}.pt"
    path.write_bytes(data)
    return path


# Writing and reading.


def test_tensors_and_plain_values_come_back_bit_for_bit(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    whole = {
        "network": dict(model.named_parameters()),
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "odd": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "half": torch.tensor([1.0, 3.14159], dtype=torch.bfloat16),
        "rng": torch.get_rng_state(),
        "empty": torch.empty(0, 3, dtype=torch.int64),
        "plain": {"step": 7, "big": 2**100, "pi": 3.141592653589793, "none": None, "flags": (True, [False])},
    }
    store = StateStore(tmp_path / "states")
    path = store.save(whole, 7)
    restored, step, source = store.load_latest()
    assert (step, source) == (7, path)
    assert same(restored, whole)
    assert same(store.load(path), whole)


def test_without_states_there_is_no_latest_and_nothing_is_made(tmp_path):
    store = StateStore(tmp_path / "states")
    assert (store.load_latest(), store.paths(), store.best()) == (None, [], None)
    store.clear()
    assert store.archive_after(0) == []
    assert list(tmp_path.iterdir()) == []


def test_a_name_has_the_step_and_the_hash_and_the_highest_step_is_the_newest(tmp_path):
    store = saved(tmp_path, 1000, 99_999_999, 100_000_000)
    assert store.load_latest()[1] == 100_000_000
    path = store.paths()[-1]
    assert path.name == f"step-00001000-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt"


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_few_and_the_best_are_kept(tmp_path, keep):
    store = saved(tmp_path, *range(10, 80, 10), best=[20, 30], keep=keep)
    assert steps_of(store.paths()) == [70, 60, 50][:keep]
    assert steps_of([store.best()]) == [30]
    assert same(store.load(store.best()), content(30))
    assert len(list(store.folder.iterdir())) == keep + 1
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        StateStore(tmp_path, keep=0)


def test_a_step_saved_again_replaces_its_first_state(tmp_path):
    store = saved(tmp_path, 10, 20)
    store.save({"again": 1}, 20)
    store.save({"again": 1}, 20)
    assert steps_of(store.paths()) == [20, 10]
    assert store.load_latest()[0] == {"again": 1}


def test_the_best_is_a_hard_link_or_without_links_a_copy(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(errno.EPERM, "no links here")

    store = saved(tmp_path, 10, best=[10])
    assert store.best().samefile(store.paths()[0])
    monkeypatch.setattr(os, "link", fail)
    store.save(content(20), 20, best=True)
    assert not store.best().samefile(store.paths()[0])
    assert store.best().read_bytes() == store.paths()[0].read_bytes()
    assert len(list(store.folder.iterdir())) == 3


def test_clear_removes_all_states_and_no_other_file(tmp_path):
    store = saved(tmp_path, 10, 20, best=[10])
    store.archive_after(10)
    (store.folder / "notes.txt").write_text("mine")
    store.clear()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["notes.txt"]
    assert store.load_latest() is None


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ({"psnr": np.float64(30)}, r"content\['psnr'\] is a float64"),
        ({"rows": [0, {"x": np.zeros(2)}]}, r"content\['rows'\]\[1\]\['x'\] is a ndarray"),
        ({"run": Path("run")}, r"content\['run'\] is a \w+Path"),
        ({np.int64(3): 1}, "a key of content is a int64"),
    ],
)
def test_what_could_not_be_read_again_is_refused_before_it_is_written(tmp_path, broken, place):
    store = StateStore(tmp_path / "states")
    with pytest.raises(TypeError, match=place):
        store.save(broken, 1)
    assert list(tmp_path.iterdir()) == []


# Going back.


def test_going_back_abandons_the_states_beyond_and_loses_none(tmp_path):
    store = saved(tmp_path, 500, 750, 1000, best=[1000])
    moved = store.archive_after(500)
    assert store.load_latest()[1] == 500
    assert store.best() is None
    assert sorted(path.name[:13] for path in moved) == ["best-00001000", "step-00000750", "step-00001000"]
    assert all(same(store.load(path), content(steps_of([path])[0])) for path in moved)


def test_a_save_of_a_lower_step_abandons_the_higher_ones_unless_it_fails(tmp_path, monkeypatch):
    store = saved(tmp_path, 500, 1000, best=[1000])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            store.save(content(600), 600)
    assert steps_of(store.paths()) == [1000, 500]
    store.save(content(600), 600)
    assert steps_of(store.paths()) == [600, 500]
    assert store.best() is None
    assert len(list(store.abandoned.iterdir())) == 2


def test_of_two_best_states_that_a_kill_left_the_one_known_to_the_step_counts(tmp_path):
    store = saved(tmp_path, 10, 20, best=[10])
    first = store.best().read_bytes()
    store.save(content(30), 30, best=True)
    store.paths()[0].unlink()
    store.best().with_name(saved(tmp_path / "other", 10, best=[10]).best().name).write_bytes(first)
    assert steps_of([store.best()]) == [30]
    store.archive_after(store.load_latest()[1])
    assert steps_of([store.best()]) == [10]


# Damage.


def flip(data, bit):
    damaged = bytearray(data)
    damaged[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(damaged)


def assert_falls_back(store, caplog, fault):
    """The newest state is passed over for the one before, in one line that names both."""
    newest, before = store.paths()[:2]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "swinir"):
        restored, step, path = store.load_latest()
    assert (step, path) == (steps_of([before])[0], before)
    assert same(restored, content(step))
    (line,) = caplog.messages
    assert str(newest) in line
    assert fault in line
    assert f"resuming from {before.name} instead" in line
    assert "\n" not in line
    with pytest.raises(ValueError, match=re.escape(fault)) as error:
        store.load(newest)
    assert str(newest) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def two(tmp_path):
    """Two states, and the bytes of the newer one."""
    store = saved(tmp_path, 10, 20)
    return store, store.paths()[0].read_bytes()


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_found(two, caplog, data):
    store, whole = two
    store.paths()[0].write_bytes(flip(whole, data.draw(st.integers(0, 8 * len(whole) - 1))))
    assert_falls_back(store, caplog, "is damaged")


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_file_is_found(two, caplog, data):
    store, whole = two
    length = data.draw(st.integers(0, len(whole) - 1))
    store.paths()[0].write_bytes(whole[:length])
    assert_falls_back(store, caplog, "is damaged" if length else "is empty")


def test_a_wrong_name_is_found(two, caplog):
    store, _ = two
    newest, before = store.paths()
    renamed = newest.rename(newest.with_name(newest.name.replace("00000020", "00000030")))
    assert_falls_back(store, caplog, "was renamed (it holds step 20")
    renamed.rename(newest.with_name(newest.name[:14] + before.name[14:]))
    assert_falls_back(store, caplog, "is damaged")


@pytest.mark.parametrize(
    "other", [b"PK\x03\x04garbage", b"\x80\x02garbage", {"step": 20, "content": {}, "more": 1}, [1, 2], torch.ones(2)]
)
def test_another_file_under_its_own_hash_is_no_state(tmp_path, caplog, other):
    store = saved(tmp_path, 10)
    if not isinstance(other, bytes):
        torch.save(other, tmp_path / "other.pt")
    named(store.folder, other if isinstance(other, bytes) else (tmp_path / "other.pt").read_bytes(), 20)
    assert_falls_back(store, caplog, "is not a training state")


class Trap:
    """Makes a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, caplog):
    store = saved(tmp_path, 10)
    sprung = tmp_path / "sprung"
    torch.save({"step": 20, "content": {"trap": Trap(sprung)}}, tmp_path / "trap.pt")
    named(store.folder, (tmp_path / "trap.pt").read_bytes(), 20)
    assert_falls_back(
        store,
        caplog,
        f"is not a training state (it asks for {os.mkdir.__module__}.mkdir; refused, and nothing was run)",
    )
    assert not sprung.exists()


def test_a_file_of_another_name_is_refused_and_a_missing_one_not_called_damaged(tmp_path):
    path = saved(tmp_path, 10).paths()[0].rename(tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: has no name of a state, such as step-.*; name another state"):
        StateStore(tmp_path).load(path)
    with pytest.raises(FileNotFoundError):
        StateStore(tmp_path).load(tmp_path / "step-00000020-0123456789abcdef.pt")


def test_the_best_is_the_last_resort_also_beside_a_folder_named_as_a_state(tmp_path, caplog):
    store = saved(tmp_path, 10, 20, 30, best=[10], keep=2)
    (store.folder / "step-00000040-0123456789abcdef.pt").mkdir()
    for path in store.paths()[1:]:
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, "swinir"):
        restored, step, path = store.load_latest()
    assert (step, path) == (10, store.best())
    assert same(restored, content(10))
    assert [f"resuming from {path.name}" in line for line in caplog.messages] == [True, True, True]
    assert "cannot be read" in caplog.messages[0]


def test_when_all_are_damaged_one_line_names_them_and_the_way_out(tmp_path):
    store = saved(tmp_path, 10, 20, best=[10])
    damaged = [*store.paths(), store.best()]
    for path in damaged:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of its states can be read") as error:
        store.load_latest()
    assert all(f"{path.name} is empty" in str(error.value) for path in damaged)
    assert str(error.value).endswith("start again with --fresh")
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_there_is_no_fault_of_the_states(tmp_path, caplog):
    store = saved(tmp_path, 10, 20)
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)) as error:
        store.load_latest(map_location="cuda:99")
    assert not isinstance(error.value, ValueError)
    assert caplog.messages == []


# Full disks.


def no_space(*_arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_of_it(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    no_space()


@pytest.mark.parametrize(
    ("owner", "name", "failure"),
    [(Path, "write_bytes", half_of_it), (os, "fsync", no_space), (Path, "replace", no_space)],
)
@pytest.mark.parametrize("best", [False, True])
def test_a_full_disk_leaves_the_earlier_states_and_no_half_file(tmp_path, monkeypatch, owner, name, failure, best):
    store = saved(tmp_path, 10, 20, best=[10])
    before = {path: path.read_bytes() for path in store.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failure)
        with pytest.raises(OSError, match="No space left"):
            store.save(content(30), 30, best=best)
    assert {path: path.read_bytes() for path in store.folder.iterdir()} == before
    assert store.load_latest()[1] == 20


def test_a_disk_that_fills_up_between_the_best_and_its_step_leaves_the_former_best_to_go_back_to(tmp_path, monkeypatch):
    store = saved(tmp_path, 10, best=[10])
    write_bytes = Path.write_bytes
    room = iter([True])
    monkeypatch.setattr(os, "link", no_space)
    monkeypatch.setattr(
        Path, "write_bytes", lambda path, data: (write_bytes if next(room, 0) else half_of_it)(path, data)
    )
    with pytest.raises(OSError, match="No space left"):
        store.save(content(20), 20, best=True)
    assert temporaries(store.folder) == []
    assert same(store.load(store.best()), content(20))
    _, step, _ = store.load_latest()
    assert step == 10
    store.archive_after(step)
    assert steps_of([store.best()]) == [10]


@contextmanager
def files_no_longer_than(length):
    """A limit of the system's own: a write beyond it really stops in the middle."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_write_that_the_system_cuts_short_leaves_the_earlier_states(tmp_path):
    store = saved(tmp_path, 10)
    with files_no_longer_than(2**20), pytest.raises(OSError, match="File too large"):
        store.save(big_content(20), 20)
    assert len(list(store.folder.iterdir())) == 1
    assert store.load_latest()[1] == 10


# Kills.


def test_a_save_removes_what_a_killed_process_left_and_nothing_else(tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    old, young, other = (folder / name for name in (f".{'0' * 16}.part", f".{'1' * 16}.part", "video.part"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1, 1))
    os.utime(young, (2**32, 2**32))
    store = StateStore(folder)
    assert old.exists()
    store.save(content(1), 1)
    assert not old.exists()
    assert young.exists()
    assert other.exists()


@contextmanager
def saver(folder):
    """A function (step, saves, operations) -> last completed step of a process that saves until it is killed."""
    command = [sys.executable, str(Path(__file__).parents[1] / "saver.py"), str(folder)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def save_until_killed(step, saves, operations):
            process.stdin.write(f"{step} {saves} {operations}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield save_until_killed
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_kill_at_any_moment_loses_no_completed_save(tmp_path, caplog):
    store = StateStore(tmp_path / "states")
    chance = random.Random(0)
    step, saves, inside = 0, 0, 0
    with saver(store.folder) as save_until_killed:
        for _ in range(KILLS):
            completed = save_until_killed(step + 1, chance.randrange(3), chance.randrange(20))
            saves += completed - step
            latest = store.load_latest()
            assert completed <= (latest[1] if latest else 0) <= completed + 1
            if latest is None:
                continue
            step = latest[1]
            assert same(latest[0], big_content(step))
            inside += bool(temporaries(store.folder))
            best = store.best()
            assert step - step % 2 <= (steps_of([best])[0] if best else 0) <= step + 1
            for path in [*store.paths()[1:], *([best] if best else [])]:
                assert same(store.load(path), big_content(steps_of([path])[0]))
    assert caplog.messages == []
    assert saves >= KILLS // 2
    assert inside > 0
    assert all(NAME.fullmatch(path.name) for path in store.folder.iterdir() if path not in temporaries(store.folder))
    store = StateStore(store.folder, keep=2)
    store.save(big_content(step + 1), step + 1)
    assert temporaries(store.folder) == []
    assert len(list(store.folder.iterdir())) == 3

"""Recordings of GPU work: what is recorded, held and handed out. The hardware is played by the CPU."""

import random
from collections import Counter

import pytest
import torch
from fake_cuda import FakeCuda

from swinir.models.graphs import LOOK_BACK, MAX_ELEMENTS, MAX_RECORDINGS, Recordings, drop_recordings, reserved_bytes

DEVICE = torch.device("cuda", 1)  # not the current one


@pytest.fixture
def fake_cuda(monkeypatch):
    return FakeCuda(monkeypatch)


def twice(x):
    return x.mul(2).add_(1)


def of(size, value=1.0):
    return torch.full((size,), value)


def test_a_size_is_recorded_when_it_returns_and_replayed_from_then_on(fake_cuda):
    recordings, calls = Recordings(DEVICE), []

    def function(x):
        calls.append(len(x))
        return twice(x)

    outputs = [recordings.run(function, of(3, value)) for value in (1, 2, 5, 7)]
    assert [output.tolist() for output in outputs] == [[3] * 3, [5] * 3, [11] * 3, [15] * 3]
    assert calls == [3, 3, 3]  # directly, before the recording, in it
    assert [graph.replays for graph in fake_cuda.graphs] == [2]


def test_sizes_that_are_seen_once_are_never_recorded(fake_cuda):
    recordings = Recordings(DEVICE)
    for size in range(1, 1000):
        recordings.run(twice, of(size))
    assert not fake_cuda.captures


def test_dtypes_are_recorded_one_by_one(fake_cuda):
    recordings = Recordings(DEVICE)
    for dtype in (torch.float32, torch.float64) * 3:
        assert recordings.run(twice, of(3).to(dtype)).dtype == dtype
    assert len(fake_cuda.captures) == 2


@pytest.mark.parametrize("sizes", [MAX_RECORDINGS, MAX_RECORDINGS + 1, LOOK_BACK, LOOK_BACK + 1])
def test_however_many_sizes_return_in_turn_no_recording_is_made_twice(fake_cuda, sizes):
    recordings = Recordings(DEVICE)
    for _ in range(4):
        for size in range(1, sizes + 1):
            recordings.run(twice, of(size))
    assert len(fake_cuda.captures) == (MAX_RECORDINGS if sizes <= LOOK_BACK else 0)
    assert len(fake_cuda.graphs) <= MAX_RECORDINGS


def test_few_recordings_are_made_in_whatever_order_sizes_come(fake_cuda):
    chance, recordings, made = random.Random(0), Recordings(DEVICE), []
    pairs = [size for size in range(1, 400) for _ in range(2)]
    for size in [*pairs, *([7] * 500), *(chance.randint(1, 12) for _ in range(1000))]:
        recordings.run(twice, of(size))
        made.append(len(fake_cuda.captures))
    assert max(after - before for before, after in zip(made, made[LOOK_BACK:], strict=False)) <= MAX_RECORDINGS
    assert made[-1] > MAX_RECORDINGS  # sizes that went out of use made room


def test_sizes_that_go_out_of_use_make_room(fake_cuda):
    recordings = Recordings(DEVICE)
    for size in range(1, MAX_RECORDINGS + 1):
        recordings.run(twice, of(size))
        recordings.run(twice, of(size))
    for _ in range(LOOK_BACK + 3):
        recordings.run(twice, of(1))
        recordings.run(twice, of(99))
    replays = Counter(graph.replays for graph in fake_cuda.graphs)
    assert len(fake_cuda.captures) == MAX_RECORDINGS + 1
    assert replays[LOOK_BACK + 3] == 1  # the size in use kept its place


def test_large_inputs_run_directly(fake_cuda):
    recordings = Recordings(DEVICE)
    for _ in range(3):
        recordings.run(lambda x: x[:1] + 1, torch.zeros(1).expand(MAX_ELEMENTS + 1))
    assert not fake_cuda.captures


def test_everything_happens_on_the_networks_device_in_one_pool(fake_cuda):
    recordings, devices = Recordings(DEVICE), []

    def function(x):
        devices.append(fake_cuda.current)
        return twice(x)

    for size in (1, 2):
        for _ in range(3):
            recordings.run(function, of(size))
    assert set(devices) == {1}
    assert {device for device, _, _ in fake_cuda.captures} == {1}
    ((_, stream),) = {(pool, stream) for _, pool, stream in fake_cuda.captures}
    assert stream.device == 1
    assert stream.waited_for == [fake_cuda.streams[1][0]] * 2
    assert fake_cuda.streams[1][0].waited_for == [stream] * 2
    assert fake_cuda.current == 0


def test_a_replay_on_another_stream_waits_for_the_last_one(fake_cuda):
    recordings = Recordings(DEVICE)
    for _ in range(3):
        recordings.run(twice, of(3))
    with torch.cuda.device(DEVICE):
        other = torch.cuda.Stream(DEVICE)
        with torch.cuda.stream(other):
            recordings.run(twice, of(3))
            recordings.run(twice, of(3))
    assert other.waited_for == [fake_cuda.streams[1][0]]


def test_dropped_recordings_are_made_anew_in_another_pool(fake_cuda):
    recordings, elsewhere = Recordings(DEVICE), Recordings(torch.device("cuda", 0))
    assert not drop_recordings(DEVICE)
    for _ in range(3):
        recordings.run(twice, of(3))
        elsewhere.run(twice, of(3))
    assert (reserved_bytes(DEVICE), reserved_bytes(torch.device("cuda"))) == (1000, 2000)
    assert drop_recordings(DEVICE)
    assert (reserved_bytes(DEVICE), len(fake_cuda.graphs)) == (0, 1)
    for _ in range(3):
        assert recordings.run(twice, of(3, 4.0)).tolist() == [9.0] * 3
    assert len({pool for device, pool, _ in fake_cuda.captures if device == 1}) == 2
    assert len({stream for device, _, stream in fake_cuda.captures if device == 1}) == 1


@pytest.mark.parametrize(("failure", "smaller"), [(RuntimeError, 0), (torch.OutOfMemoryError, 1)])
def test_where_recording_fails_the_function_runs_directly(fake_cuda, caplog, failure, smaller):
    recordings = Recordings(DEVICE)
    fake_cuda.failure = failure("capture invalidated\nstack")
    for value in range(4):
        assert recordings.run(twice, of(3, float(value))).tolist() == [2.0 * value + 1] * 3
    fake_cuda.failure = None
    for size in (2, 3, 4) * 2:
        recordings.run(twice, of(size))
    assert len(fake_cuda.captures) == smaller  # after lack of memory, smaller inputs are recorded
    (line,) = caplog.messages
    assert line.startswith("cuda:1: no CUDA graph for input (3,), which runs without: ")
    assert "stack" not in line


def test_a_network_that_is_gone_leaves_no_recording(fake_cuda):
    recordings = Recordings(DEVICE)
    for _ in range(3):
        recordings.run(twice, of(3))
    del recordings
    assert not fake_cuda.graphs
    assert not reserved_bytes(DEVICE)


@pytest.mark.gpu
@pytest.mark.parametrize("index", [0, 1])
def test_recordings_on_a_gpu_compute_what_the_function_does(index):
    if index >= torch.cuda.device_count():
        pytest.skip("one CUDA device")
    device = torch.device("cuda", index)
    weight, recordings = torch.randn(64, 64, device=device), Recordings(device)

    def function(x):
        return torch.relu(x @ weight) * x.abs().mean()

    before = torch.cuda.memory_reserved(device)
    for _ in range(5):
        for rows in (8, 200, 31, 1000, 77, 5):
            x = torch.randn(rows, 64, device=device)
            assert torch.equal(recordings.run(function, x), function(x))
    assert len(recordings._kept) == MAX_RECORDINGS
    assert reserved_bytes(device) > 0
    assert drop_recordings(device)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(device) <= before + 2**25  # workspaces

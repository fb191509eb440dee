"""Free memory, the needs of a network, and the tile that fits."""

import math
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCuda
from hypothesis import given, settings
from hypothesis import strategies as st

import swinir.inference.memory
from swinir.inference.memory import auto_tile, bytes_per_pixel, free_memory, release_memory
from swinir.inference.restore import restore
from swinir.models.graphs import Recordings
from swinir.models.optimized import optimize
from swinir.models.rcan import BaselineConfig
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TASKS

CPU = torch.device("cpu")
SMALL = NetworkConfig(embed_dim=48, depths=(2, 1), num_heads=(2, 2), img_size=16)
NETWORKS = {
    "same size": SMALL,
    "direct x2": replace(SMALL, upsampler="pixelshuffledirect", upscale=2),
    "shuffle x4": replace(SMALL, upsampler="pixelshuffle", upscale=4),
    "nearest x4": replace(SMALL, upsampler="nearest+conv", upscale=4),
    "wide": replace(SMALL, embed_dim=180, num_heads=(6, 6)),
}


def growth(config, side):
    """Bytes by which a fresh process grows at most while it restores an image."""
    torch.set_num_threads(1)
    network = SwinIR(config).eval()
    restore(network, torch.rand(1, config.in_chans, 40, 40))
    lq = torch.rand(1, config.in_chans, side, side)

    def memory(field):
        return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(field)) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    restore(network, lq)
    return memory("VmHWM") - before


QUICK = ("direct x2",)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak memory")
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_the_estimate_covers_the_needs_of_a_network(name):
    config, side = NETWORKS[name], 263
    with get_context("spawn").Pool(1) as pool:
        taken = pool.apply(growth, (config, side))
    estimate = bytes_per_pixel(config) * 264**2
    assert estimate / 3 < taken < 1.15 * estimate + 30e6  # beside it, chunks of a fixed size


def test_every_released_network_and_a_baseline_have_an_estimate():
    for task in TASKS.values():
        assert bytes_per_pixel(task.network) > 4 * task.network.embed_dim
    assert bytes_per_pixel(BaselineConfig("rcan", 3, 4)) > 0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 64), st.integers(1, 10**8), st.integers(1, 3))
@settings(max_examples=200)
def test_a_tile_fits_the_budget_or_is_the_smallest(rows, cols, overlap, free, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swinir.inference.memory, "free_memory", lambda device: free)
        tile = auto_tile(SMALL, 8 * rows, 8 * cols, overlap, device=CPU, batch=batch)
    room = free / 2 / bytes_per_pixel(SMALL) / batch
    if tile is None:
        assert 64 * rows * cols <= room
        return
    assert 64 * rows * cols > room
    assert tile % 8 == 0
    smallest = math.ceil(overlap / 8) * 8 + 8
    assert tile == smallest or (tile > smallest and tile**2 <= room < (tile + 8) ** 2)


def test_tiles_on_a_cpu_do_not_grow_with_its_memory(monkeypatch):
    tiles = []
    for free in (2**36, 2**40):
        monkeypatch.setattr(swinir.inference.memory, "free_memory", lambda device, free=free: free)
        tiles.append(auto_tile(SMALL, 80000, 80000, 32, device=CPU))
    assert tiles[0] == tiles[1]


def test_free_memory_is_read_from_the_system(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       64 kB\nMemAvailable:   48 kB\n")
    monkeypatch.setattr(swinir.inference.memory, "MEMINFO", meminfo)
    monkeypatch.setattr(swinir.inference.memory, "CGROUPS", ())
    assert free_memory(CPU) == 48 * 1024


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("5000\n")
    used.write_text("2000\n")
    monkeypatch.setattr(swinir.inference.memory, "CGROUPS", ((str(limit), str(used)),))
    assert free_memory(CPU) == 3000
    used.write_text("6000\n")
    assert free_memory(CPU) == 0
    limit.write_text("max\n")
    assert free_memory(CPU) > 6000


def test_a_system_that_does_not_tell_counts_as_small(tmp_path, monkeypatch):
    monkeypatch.setattr(swinir.inference.memory, "CGROUPS", ())
    monkeypatch.setattr(swinir.inference.memory, "MEMINFO", tmp_path / "absent")
    assert free_memory(CPU) == swinir.inference.memory.UNKNOWN


CUDA = torch.device("cuda", 1)  # not the current one


@pytest.fixture
def recorded(monkeypatch):
    """A device, played by the CPU, with recordings of two networks, each of 1000 bytes; the networks with them."""
    cuda = FakeCuda(monkeypatch)
    cuda.networks = [Recordings(CUDA) for _ in range(2)]
    for recordings in cuda.networks:
        for _ in range(2):
            recordings.run(lambda x: x + 1, torch.zeros(3))
    return cuda


def test_memory_of_recordings_is_not_free(recorded):
    before = free_memory(CUDA)
    assert before == recorded.total - 2000
    assert release_memory(CUDA)
    assert free_memory(CUDA) == before + 2000
    assert recorded.emptied == [1]
    assert not release_memory(CUDA)


def test_recordings_are_dropped_where_they_make_tiles_smaller(recorded):
    pixels = bytes_per_pixel(SMALL) / 0.8
    recorded.total = int(64 * 64 * pixels) + 1000
    assert auto_tile(SMALL, 32, 32, 8, device=CUDA) is None
    assert len(recorded.graphs) == 2  # in no one's way
    assert auto_tile(SMALL, 64, 64, 8, device=CUDA) is None
    assert not recorded.graphs
    assert auto_tile(SMALL, 640, 640, 8, device=CUDA) == 64


@pytest.mark.gpu
def test_free_memory_of_a_gpu_includes_reserved_memory():
    before = free_memory(torch.device("cuda"))
    torch.empty(2**26, dtype=torch.uint8, device="cuda")  # freed at once, yet kept by the allocator
    assert free_memory(torch.device("cuda")) == pytest.approx(before, rel=0.02)


@pytest.mark.gpu
def test_a_tile_chosen_for_the_free_memory_of_a_gpu_fits_with_a_tenth_left(monkeypatch):
    """Whatever form the network takes; a fifth of the memory is left to kernels' workspaces."""
    free, device = 4 * 2**30, torch.device("cuda", torch.cuda.current_device())
    monkeypatch.setattr(swinir.inference.memory, "free_memory", lambda device: free)
    network = optimize(SwinIR(replace(SMALL, embed_dim=180, num_heads=(6, 6))).eval().to(device))
    lq = torch.rand(1, 3, 2400, 2400)
    restore(network, lq[..., :64, :64])
    release_memory(device)
    before, sizes = torch.cuda.memory_allocated(device), []
    torch.cuda.reset_peak_memory_stats(device)
    restore(network, lq, tile="auto", progress=lambda *step: sizes.append(step))
    peak = torch.cuda.max_memory_allocated(device) - before
    assert sizes[-1][1] > 1  # in tiles
    assert peak < 0.9 * free

"""Image arrays as networks read and write them: the same bits as by the conversions of whole images."""

import numpy as np
import pytest
import torch
from networks import live
from pictures import SMALL, smooth, to_tensor, to_uint8

import swinir.inference.arrays
import swinir.inference.forward
from swinir.bench.variants import FunctionNetwork
from swinir.image_io.picture import from_unit, to_unit
from swinir.inference.arrays import NetworkInput, NetworkOutput, restore_array
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore
from swinir.models.swinir import NetworkConfig

WHOLE = (..., slice(None), slice(None))
CONFIG = NetworkConfig(**SMALL, upsampler="pixelshuffledirect", upscale=2)
COLOR = live(CONFIG)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_of_a_file_becomes_the_float_that_it_becomes_elsewhere(dtype):
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 64, 1).repeat(3, axis=2)
    read = NetworkInput(values, COLOR)[WHOLE]
    assert torch.equal(read, to_tensor(to_unit(values)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_output_is_rounded_as_it_is_elsewhere(dtype):
    generator = np.random.default_rng(0)
    values = generator.uniform(0, 1, (40, 30, 3)).astype(np.float32)
    if dtype != np.float32:  # values next to a half, and halves themselves
        largest = np.iinfo(dtype).max
        halves = (generator.integers(0, largest, (20, 30, 3)) + np.float32(0.5)) / np.float32(largest)
        values[:20] = np.nextafter(halves, generator.choice([-1, 2], halves.shape), dtype=np.float32)
        values[:10] = halves[:10]
    samples = np.empty(values.shape, dtype)
    NetworkOutput(samples, 3)[WHOLE] = to_tensor(values)
    assert np.array_equal(samples, from_unit(values, dtype))


def test_output_is_rounded_before_it_leaves_the_device(monkeypatch):
    copied, samples = [], np.empty((8, 8, 3), np.uint8)
    monkeypatch.setattr(swinir.inference.arrays, "to_host", lambda part: copied.append(part.dtype) or part)
    NetworkOutput(samples, 3)[WHOLE] = torch.rand(1, 3, 8, 8)
    assert copied == [torch.uint8]


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": 12, "tile_overlap": 4}, {"tile": 16, "tile_overlap": 4, "tile_blend": "mean"}],
    ids=["whole", "cut", "mean"],
)
def test_an_array_is_restored_to_the_bits_of_its_tensor(options):
    for changes in (options, options | {"self_ensemble": True}):
        lq = smooth(17, 22)
        expected = to_uint8(restore(COLOR, to_tensor(lq / np.float32(255)), **changes))
        assert np.array_equal(restore_array(COLOR, lq, RunOptions(**changes)), expected)
        noisy = (lq / np.float32(255) * 1.2 - 0.1).astype(np.float32)  # as noise leaves it
        expected = to_uint8(restore(COLOR, to_tensor(noisy), check=False, **changes))
        assert np.array_equal(restore_array(COLOR, noisy, RunOptions(**changes)), expected)


def test_an_array_is_computed_in_the_models_dtype():
    lq = smooth(9, 10)
    network = live(CONFIG, torch.float64)
    assert np.array_equal(restore_array(network, lq), to_uint8(restore(network, to_tensor(lq / np.float32(255)))))


def test_an_array_of_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"lq must be \(H, W, 3\), or grey \(H, W, 1\), got \(9, 9, 2\)"):
        restore_array(COLOR, smooth(9, 9, 2))


def test_a_grey_array_is_the_mean_of_three_equal_channels_through_a_network_for_color():
    lq = smooth(13, 18, 1)
    restored = restore(COLOR, to_tensor(np.repeat(lq, 3, axis=2) / np.float32(255)))
    assert np.array_equal(restore_array(COLOR, lq), to_uint8(restored.mean(1, keepdim=True)))


def test_memory_may_run_out_while_arrays_are_copied(monkeypatch):
    """Recordings make room at first, then tiles that are still too large are divided."""
    options, lq, events, copy = RunOptions(16, 4), smooth(22, 30), [], swinir.inference.arrays.to_device
    kept = ["recordings"]
    network = FunctionNetwork("nearest", COLOR, torch.nn.Upsample(scale_factor=2))

    def upload(x, device):
        if kept or x.shape[0] > 12:
            events.append("full")
            raise torch.OutOfMemoryError("CUDA out of memory")
        return copy(x, device)

    def download(x):
        if kept:
            raise RuntimeError("CUDA error: out of memory")
        return x

    def release(device):
        events.append("release")
        return bool(kept and kept.pop())

    monkeypatch.setattr(swinir.inference.forward, "release_memory", release)
    with monkeypatch.context() as patch:
        patch.setattr(swinir.inference.arrays, "to_host", download)
        exact = restore_array(network, lq)
    assert events == ["release"]
    kept.append("recordings")
    monkeypatch.setattr(swinir.inference.arrays, "to_device", upload)
    tiled = restore_array(network, lq, options)
    assert events[1:5] == ["full", "release", "full", "release"]
    assert np.array_equal(tiled, exact)
    assert np.array_equal(exact[::2, ::2], lq)

"""From samples to rows: metrics, files, and failures that stay single rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import live

from swinir.evaluation import evaluate as module
from swinir.evaluation.evaluate import evaluate, measure
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.samples import find_samples
from swinir.image_io.image import read, write
from swinir.inference.options import RunOptions
from swinir.metrics.full_reference import psnr, ssim
from swinir.models.swinir import NetworkConfig
from swinir.tasks import TASKS

TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(1,), num_heads=(3,), img_size=16)
SR = Protocol(TASKS["lightweight_sr"], scale=2)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.fixture
def samples(tmp_path):
    """Three pairs of a x2 benchmark."""
    for name in ("lq", "gt"):
        (tmp_path / name).mkdir()
    for i, name in enumerate("abc"):
        write(tmp_path / "gt" / f"{name}.png", noise(32, 40, seed=i))
        write(tmp_path / "lq" / f"{name}x2.png", noise(16, 20, seed=i))
    return find_samples(SR, tmp_path / "lq", tmp_path / "gt")


def test_rows_hold_size_metrics_and_the_file_written(samples, tmp_path):
    rows = list(evaluate(live(TINY), samples, SR, folder=tmp_path))
    assert [row.status for row in rows] == ["ok"] * 3
    for row, sample in zip(rows, samples, strict=True):
        restored = read(row.output)
        assert row.output == str(tmp_path / f"{sample.name}_SwinIR.png")
        assert (row.height, row.width) == restored.shape[:2] == (32, 40)
        assert row.psnr == psnr(restored[2:-2, 2:-2], read(sample.gt)[2:-2, 2:-2])
        assert row.ssim == ssim(restored[2:-2, 2:-2], read(sample.gt)[2:-2, 2:-2])
        assert row.psnrb is row.psnrb_y is None


def test_without_a_folder_nothing_is_written(samples, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    (row, *_) = evaluate(live(TINY), samples, SR)
    assert row.output is None
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_file_is_a_failed_row_and_the_rest_goes_on(samples, tmp_path):
    samples[1].lq.write_bytes(b"nonsense")
    rows = list(evaluate(live(TINY), samples, SR, folder=tmp_path))
    assert [row.status for row in rows] == ["ok", "failed", "ok"]
    assert "bx2.png: not an image" in rows[1].error
    assert rows[1].psnr is rows[1].output is None
    assert not (tmp_path / "b_SwinIR.png").exists()


def test_a_result_that_is_not_finite_is_a_failed_row(samples, tmp_path):
    network = live(TINY)
    with torch.no_grad():
        network.conv_first.bias[0] = math.nan
    rows = list(evaluate(network, samples, SR, folder=tmp_path))
    assert [row.status for row in rows] == ["failed"] * 3
    assert "NaN or infinite values" in rows[0].error
    assert not list(tmp_path.glob("*_SwinIR.png"))


# PyTorch has no class of its own for a CPU that runs out of memory.
NO_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory"),
    "CPU": RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "NumPy": MemoryError("Unable to allocate 9 TiB"),
}


@pytest.mark.parametrize(
    ("error", "tile", "advice"),
    [(NO_MEMORY["GPU"], None, 256), (NO_MEMORY["CPU"], 96, 48), (NO_MEMORY["NumPy"], 8, 8)],
    ids=NO_MEMORY,
)
def test_running_out_of_memory_is_a_failed_row_that_suggests_a_tile(samples, monkeypatch, error, tile, advice):
    restore_array, errors = module.restore_array, [error]

    def fail_once(*args, **options):
        if errors:
            raise errors.pop()
        return restore_array(*args, **options)

    monkeypatch.setattr(module, "restore_array", fail_once)
    rows = list(evaluate(live(TINY), samples, replace(SR, options=RunOptions(tile, 0, "mean"))))
    assert [row.status for row in rows] == ["failed", "ok", "ok"]
    assert rows[0].error == f"{samples[0].gt}: out of memory; try --tile {advice}"


def test_a_mistake_of_the_program_is_not_taken_for_a_bad_image(samples, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(module, "restore_array", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        list(evaluate(live(TINY), samples, SR))


def test_metrics_that_a_small_image_cannot_have_are_left_out():
    a, b = noise(8, 8, seed=1), noise(8, 8, seed=2)
    values = measure(a, b, Protocol(TASKS["color_jpeg_car"]))
    assert values["ssim"] is values["ssim_y"] is values["psnrb"] is None
    assert values["psnr"] == psnr(a, b)


@pytest.mark.parametrize(
    ("task", "channels", "names"),
    [
        ("classical_sr", 3, {"psnr", "ssim", "psnr_y", "ssim_y"}),
        ("gray_dn", 1, {"psnr", "ssim"}),
        ("jpeg_car", 1, {"psnr", "ssim", "psnrb"}),
        ("color_jpeg_car", 3, {"psnr", "ssim", "psnrb", "psnr_y", "ssim_y", "psnrb_y"}),
    ],
)
def test_a_task_has_the_metrics_of_the_released_program(task, channels, names):
    a, b = noise(32, 32, channels, seed=1), noise(32, 32, channels, seed=2)
    assert measure(a, b, Protocol(TASKS[task], scale=TASKS[task].scales[0])).keys() == names

"""From folders to rows: pairs, inputs, failures that stay single rows, means, and the files of results."""

import csv
import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from swinir.evaluation import evaluate as module
from swinir.evaluation.evaluate import (
    Protocol,
    Row,
    Sample,
    evaluate,
    find_samples,
    find_set,
    load_sample,
    means,
    measure,
    to_tensor,
    to_uint8,
    write_csv,
    write_json,
)
from swinir.image_io.image import read, write
from swinir.inference.options import RunOptions
from swinir.metrics.full_reference import psnr, ssim
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TASKS, get_task
from swinir.testsets import BENCHMARK_SETS

TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(1,), num_heads=(3,), img_size=16)
SR = Protocol(TASKS["lightweight_sr"], scale=2)


def picture(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SwinIR(TINY).eval()


@pytest.fixture
def pairs(tmp_path):
    """Three pairs of a x2 benchmark: (folder_lq, folder_gt)."""
    for name in ("lq", "gt"):
        (tmp_path / name).mkdir()
    for i, name in enumerate(("a", "b", "c")):
        write(tmp_path / "gt" / f"{name}.png", picture(32, 40, seed=i))
        write(tmp_path / "lq" / f"{name}x2.png", picture(16, 20, seed=i))
    return tmp_path / "lq", tmp_path / "gt"


def test_pairs_are_joined_by_the_name_with_the_scale(pairs):
    lq, gt = pairs
    samples = find_samples(SR, lq, gt)
    assert [(s.name, s.lq, s.gt) for s in samples] == [(n, lq / f"{n}x2.png", gt / f"{n}.png") for n in "abc"]
    assert not any(s.problem for s in samples)


def test_a_partner_may_have_another_suffix(pairs):
    lq, gt = pairs
    cv2.imwrite(str(lq / "ax2.bmp"), picture(16, 20))
    (lq / "ax2.png").unlink()
    assert find_samples(SR, lq, gt)[0].lq == lq / "ax2.bmp"


def test_a_partner_of_the_same_suffix_is_preferred(pairs):
    lq, gt = pairs
    cv2.imwrite(str(lq / "ax2.bmp"), picture(16, 20))
    assert find_samples(SR, lq, gt)[0].lq == lq / "ax2.png"


def test_a_missing_partner_is_named_and_the_others_stay(pairs):
    lq, gt = pairs
    (lq / "bx2.png").unlink()
    samples = find_samples(SR, lq, gt)
    assert [bool(s.problem) for s in samples] == [False, True, False]
    assert samples[1].problem == f"{gt / 'b.png'}: no low-quality partner {lq / 'bx2.png'}"


def test_files_whose_results_would_share_a_name_are_told_apart(tmp_path):
    write(tmp_path / "a.png", picture(16, 16))
    cv2.imwrite(str(tmp_path / "a.bmp"), picture(16, 16))
    first, second = find_samples(Protocol(TASKS["color_dn"]), None, tmp_path)
    assert not first.problem
    assert str(tmp_path / "a.png") in second.problem
    assert str(tmp_path / "a.bmp") in second.problem


@pytest.mark.parametrize(
    ("task", "lq", "gt", "roles"),
    [
        ("color_dn", None, "x", [(False, True)]),
        ("color_dn", "x", None, [(True, False)]),
        ("color_dn", "x", "x", [(False, True)]),
        ("jpeg_car", None, "x", [(False, True)]),
        ("real_sr", "x", None, [(True, False)]),
        ("real_sr", "x", "x", [(True, False)]),
        ("classical_sr", "x", None, [(True, False)]),
    ],
)
def test_the_task_and_the_folders_given_decide_what_a_file_is(tmp_path, task, lq, gt, roles):
    write(tmp_path / "a.png", picture(16, 16))
    folders = [tmp_path if folder else None for folder in (lq, gt)]
    samples = find_samples(Protocol(TASKS[task], scale=TASKS[task].scales[0]), *folders)
    assert [(s.lq is not None, s.gt is not None) for s in samples] == roles


def test_missing_options_and_empty_folders_are_refused_by_name(tmp_path):
    for task, option in (("color_dn", "--folder_gt"), ("real_sr", "--folder_lq"), ("classical_sr", "--folder_lq")):
        with pytest.raises(ValueError, match=f"{task} needs {option}"):
            find_samples(Protocol(TASKS[task]), None, None)
    with pytest.raises(ValueError, match=f"no images in {tmp_path}; look at --folder_gt"):
        find_samples(Protocol(TASKS["color_dn"]), None, tmp_path)
    write(tmp_path / "a.png", picture(16, 16))
    with pytest.raises(ValueError, match="needs --folder_lq beside --folder_gt"):
        find_samples(SR, None, tmp_path)


def test_input_of_super_resolution_is_the_file_and_the_reference_is_cropped_to_it(tmp_path):
    gt, lq = picture(35, 41), picture(16, 20)
    write(tmp_path / "gt.png", gt)
    write(tmp_path / "lq.png", lq)
    ours, reference = load_sample(Sample("a", tmp_path / "lq.png", tmp_path / "gt.png"), SR)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, lq.astype(np.float32) / 255)
    assert np.array_equal(reference, gt[:32, :40])


def test_input_of_denoising_is_the_reference_with_the_benchmarks_noise(tmp_path):
    gt = picture(9, 7)
    write(tmp_path / "gt.png", gt)
    ours, reference = load_sample(Sample("a", None, tmp_path / "gt.png"), Protocol(TASKS["color_dn"], noise=25))
    noise = np.random.RandomState(0).normal(0, 25 / 255, gt.shape)
    assert np.array_equal(ours[..., ::-1], (gt[..., ::-1].astype(np.float32) / 255 + noise).astype(np.float32))
    assert np.array_equal(reference, gt)


def test_grey_denoising_turns_colour_files_grey(tmp_path):
    gt = picture(9, 7)
    write(tmp_path / "gt.png", gt)
    _, reference = load_sample(Sample("a", None, tmp_path / "gt.png"), Protocol(TASKS["gray_dn"]))
    assert np.array_equal(reference[..., 0], cv2.imread(str(tmp_path / "gt.png"), cv2.IMREAD_GRAYSCALE))


def test_input_of_jpeg_tasks_is_the_reference_compressed(tmp_path):
    gt = picture(20, 24)
    write(tmp_path / "gt.png", gt)
    ours, reference = load_sample(Sample("a", None, tmp_path / "gt.png"), Protocol(TASKS["color_jpeg_car"], jpeg=10))
    data = cv2.imencode(".jpg", gt[..., ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, 10])[1]
    assert np.array_equal(ours[..., ::-1], cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / 255)
    assert np.array_equal(reference, gt)


def test_grey_jpeg_takes_the_studio_range_luma_of_colour_files_and_grey_ones_as_they_are(tmp_path):
    gt = picture(20, 24)
    write(tmp_path / "colour.png", gt)
    write(tmp_path / "grey.png", gt[..., :1])
    protocol = Protocol(TASKS["jpeg_car"])
    _, of_colour = load_sample(Sample("a", None, tmp_path / "colour.png"), protocol)
    _, of_grey = load_sample(Sample("a", None, tmp_path / "grey.png"), protocol)
    exact = gt @ np.array([65.481, 128.553, 24.966]) / 255 + 16
    assert np.abs(of_colour[..., 0] - exact).max() <= 0.501
    assert np.array_equal(of_grey, gt[..., :1])


def test_an_input_that_is_a_file_of_its_own_is_left_as_it_is(tmp_path):
    noisy = picture(9, 7)
    write(tmp_path / "noisy.png", noisy)
    ours, reference = load_sample(Sample("a", tmp_path / "noisy.png", None), Protocol(TASKS["color_dn"]))
    assert np.array_equal(ours, noisy.astype(np.float32) / 255)
    assert reference is None


@pytest.mark.parametrize("size", [(31, 40), (32, 39), (32, 52), (64, 80)])
def test_a_partner_of_the_wrong_size_is_named_with_both_sizes(tmp_path, size):
    write(tmp_path / "gt.png", picture(*size))
    write(tmp_path / "lq.png", picture(16, 20))
    with pytest.raises(ValueError, match=r"20x16 at scale 2 does not match .*gt.png") as caught:
        load_sample(Sample("a", tmp_path / "lq.png", tmp_path / "gt.png"), SR)
    assert f"{size[1]}x{size[0]}" in str(caught.value)
    assert str(tmp_path / "lq.png") in str(caught.value)


def test_rows_hold_size_metrics_and_the_file_written(pairs, network, tmp_path):
    samples = find_samples(SR, *pairs)
    rows = list(evaluate(network, samples, SR, folder=tmp_path))
    assert [row.status for row in rows] == ["ok"] * 3
    for row, sample in zip(rows, samples, strict=True):
        restored = read(row.output)
        assert row.output == str(tmp_path / f"{sample.name}_SwinIR.png")
        assert (row.height, row.width) == restored.shape[:2] == (32, 40)
        assert row.psnr == psnr(restored[2:-2, 2:-2], read(sample.gt)[2:-2, 2:-2])
        assert row.ssim == ssim(restored[2:-2, 2:-2], read(sample.gt)[2:-2, 2:-2])
        assert row.psnrb is row.psnrb_y is None


def test_without_a_folder_nothing_is_written(pairs, network, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    (row, *_) = evaluate(network, find_samples(SR, *pairs), SR)
    assert row.output is None
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unreadable_file_is_a_failed_row_and_the_rest_goes_on(pairs, network, tmp_path):
    (pairs[0] / "bx2.png").write_bytes(b"nonsense")
    rows = list(evaluate(network, find_samples(SR, *pairs), SR, folder=tmp_path))
    assert [row.status for row in rows] == ["ok", "failed", "ok"]
    assert "bx2.png: not an image" in rows[1].error
    assert rows[1].psnr is None
    assert rows[1].output is None
    assert not (tmp_path / "b_SwinIR.png").exists()


def test_a_result_that_is_not_finite_is_a_failed_row(pairs, network, tmp_path):
    with torch.no_grad():
        network.conv_first.bias[0] = math.nan
    rows = list(evaluate(network, find_samples(SR, *pairs), SR, folder=tmp_path))
    assert [row.status for row in rows] == ["failed"] * 3
    assert "NaN or infinite values" in rows[0].error
    assert not list(tmp_path.glob("*_SwinIR.png"))


# PyTorch has no class of its own for a CPU that runs out of memory.
NO_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory"),
    "CPU": RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "NumPy": MemoryError("Unable to allocate 9 TiB"),
}


@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
@pytest.mark.parametrize(("tile", "advice"), [(None, 256), (96, 48), (8, 8)])
def test_running_out_of_memory_is_a_failed_row_that_suggests_a_tile(pairs, network, monkeypatch, tile, advice, error):
    restore, calls = module.restore, []

    def fail_once(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise error
        return restore(*args, **options)

    monkeypatch.setattr(module, "restore", fail_once)
    protocol = replace(SR, options=RunOptions(tile, 0, "mean"))
    rows = list(evaluate(network, find_samples(protocol, *pairs), protocol))
    assert [row.status for row in rows] == ["failed", "ok", "ok"]
    assert rows[0].error == f"{pairs[1] / 'a.png'}: out of memory; try --tile {advice}"


def test_a_mistake_of_the_program_is_not_taken_for_a_bad_image(pairs, network, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(module, "restore", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        list(evaluate(network, find_samples(SR, *pairs), SR))


def test_metrics_that_a_small_image_cannot_have_are_left_out():
    a, b = picture(8, 8, seed=1), picture(8, 8, seed=2)
    values = measure(a, b, Protocol(TASKS["color_jpeg_car"]))
    assert values["ssim"] is values["ssim_y"] is values["psnrb"] is None
    assert values["psnr"] == psnr(a, b)


@pytest.mark.parametrize(
    ("task", "channels", "names"),
    [
        ("classical_sr", 3, {"psnr", "ssim", "psnr_y", "ssim_y"}),
        ("gray_dn", 1, {"psnr", "ssim"}),
        ("color_dn", 3, {"psnr", "ssim", "psnr_y", "ssim_y"}),
        ("jpeg_car", 1, {"psnr", "ssim", "psnrb"}),
        ("color_jpeg_car", 3, {"psnr", "ssim", "psnrb", "psnr_y", "ssim_y", "psnrb_y"}),
    ],
)
def test_a_task_has_the_metrics_of_the_released_program(task, channels, names):
    a, b = picture(32, 32, channels, seed=1), picture(32, 32, channels, seed=2)
    assert measure(a, b, Protocol(TASKS[task], scale=TASKS[task].scales[0])).keys() == names


def test_means_are_over_the_rows_that_have_the_metric():
    rows = [
        Row("a", "ok", psnr=20.0, ssim=0.5),
        Row("b", "failed", error="x"),
        Row("c", "ok", psnr=30.0, ssim=None),
        Row("d", "ok", psnr=40.0, ssim=0.7),
    ]
    assert means(rows) == {"psnr": 30.0, "ssim": pytest.approx(0.6)}
    assert means([]) == {}


ROWS = [
    Row("a", "ok", width=4, height=3, psnr=math.inf, ssim=1.0, seconds=0.5, output="a_SwinIR.png"),
    Row("b, with a comma", "failed", error='b.png: "broken"'),
]


def test_json_is_strict_and_holds_facts_rows_and_means(tmp_path):
    write_json(tmp_path / "x.json", ROWS, {"task": "color_dn", "tile": None})

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert content["task"] == "color_dn"
    assert content["tile"] is None
    assert content["images"][0]["psnr"] == "inf"
    assert content["images"][1]["error"] == 'b.png: "broken"'
    assert content["means"] == {"psnr": "inf", "ssim": 1.0}


def test_csv_has_a_line_for_each_image_and_one_for_the_means(tmp_path):
    write_csv(tmp_path / "x.csv", ROWS, {"task": "color_dn"})
    with (tmp_path / "x.csv").open(newline="") as file:
        first, second, last = csv.DictReader(file)
    assert (first["image"], first["psnr"], first["ssim"], first["task"]) == ("a", "inf", "1.0", "color_dn")
    assert (second["image"], second["psnr"], second["error"]) == ("b, with a comma", "", 'b.png: "broken"')
    assert (last["image"], last["psnr"], last["ssim"], last["task"]) == ("mean", "inf", "1.0", "color_dn")


def test_tensors_and_images_are_each_others_inverse():
    image = picture(5, 7)
    assert np.array_equal(to_uint8(to_tensor(image.astype(np.float32) / 255)), image)


def test_bytes_are_rounded_to_the_nearest():
    values = torch.tensor([[[[0.0, 0.49 / 255, 0.51 / 255, 254.49 / 255, 254.51 / 255, 1.0]]]])
    assert to_uint8(values)[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_a_benchmark_set_is_found_as_its_task_wants_it(tmp_path):
    pair, one, raw = tmp_path / "Set5", tmp_path / "McMaster", tmp_path / "RealSRSet+5images"
    for folder, name in ((pair / "HR", "a"), (pair / "LR_bicubic" / "X2", "ax2"), (one, "b"), (raw, "c")):
        folder.mkdir(parents=True)
        write(folder / f"{name}.png", np.zeros((8, 8, 3), np.uint8))

    def found(task, name, **level):
        (sample,) = find_set(Protocol(get_task(task), **level), BENCHMARK_SETS[name], tmp_path)
        return sample.lq and sample.lq.name, sample.gt and sample.gt.name

    assert found("classical_sr", "Set5", scale=2) == ("ax2.png", "a.png")
    assert found("color_dn", "McMaster") == (None, "b.png")
    assert found("real_sr", "RealSRSet+5images", scale=4) == ("c.png", None)


@pytest.mark.parametrize(("task", "level"), [("classical_sr", 3), ("gray_dn", 25), ("jpeg_car", 10)])
def test_the_level_is_the_one_that_the_task_counts(task, level):
    assert Protocol(get_task(task), scale=3, noise=25, jpeg=10).level == level

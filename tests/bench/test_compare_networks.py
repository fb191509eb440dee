"""The comparison of networks: metrics as the tester's, turns, memory, and networks that fail."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from comparisons import write_set5
from pictures import write_expert

from swinir.bench import compare_networks as module
from swinir.bench.compare_networks import choose_metrics, compare, labels
from swinir.cli.main import main
from swinir.degradations.resize import imresize
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.samples import find_samples
from swinir.image_io.image import read
from swinir.inference.external import load_external
from swinir.inference.options import RunOptions
from swinir.metrics.full_reference import psnr
from swinir.models.complexity import count_macs, count_parameters
from swinir.report.comparison import notes
from swinir.tasks import TASKS
from swinir.weights.checkpoint import load_model

CPU = torch.device("cpu")
SR = Protocol(TASKS["classical_sr"], scale=2)


@pytest.fixture
def sets(tmp_path):
    return write_set5(tmp_path / "sets")


def samples(sets):
    return find_samples(SR, sets / "Set5" / "LR_bicubic" / "X2", sets / "Set5" / "HR")


def run(sets, names, protocol=SR, metrics=("psnr", "psnr_y"), **options):
    return compare(names, samples(sets), protocol, device=CPU, metrics=metrics, **{"memory": False} | options)


def test_each_network_is_measured_as_the_tester_does(sets, tmp_path):
    weights = write_expert(tmp_path / "x2.pth")
    found = run(sets, ["bicubic", str(weights)])
    assert [row.model for row in found.models] == ["bicubic", "x2"]
    report = tmp_path / "report.json"
    folders = ["--folder_lq", sets / "Set5" / "LR_bicubic" / "X2", "--folder_gt", sets / "Set5" / "HR"]
    words = ["test", "--task", "lightweight_sr", "--scale", 2, "--model_path", weights, *folders, "--json", report]
    assert main([*map(str, words), "--no_save", "--device", "cpu"]) == 0
    means = json.loads(report.read_text())["means"]
    assert found.models[1].metrics == {name: pytest.approx(means[name]) for name in ("psnr", "psnr_y")}
    config = load_model(weights).config
    row = found.models[1]
    assert (row.parameters, row.macs) == (count_parameters(config), count_macs(config, 256, 256))
    assert row.macs_720p == count_macs(config, 360, 640, norms=True)
    assert any(note.startswith("720p: GMACs for an output of 1280x720") for note in notes(found, {}))


def test_bicubic_is_measured_against_the_truth(sets):
    (row,) = run(sets, ["bicubic"], metrics=("psnr",)).models
    values = [psnr(imresize(read(s.lq), 2), read(s.gt), crop_border=2) for s in samples(sets)]
    assert row.metrics["psnr"] == pytest.approx(np.mean(values))


def test_bicubic_on_set5_is_what_papers_print(public_folder):
    root = public_folder("testsets") / "Set5"
    pairs = find_samples(SR, root / "LR_bicubic" / "X2", root / "HR")
    found = compare(["bicubic"], pairs, SR, device=CPU, metrics=("psnr_y", "ssim_y"), memory=False)
    assert {name: round(value, 4) for name, value in found.models[0].metrics.items()} == {
        "psnr_y": pytest.approx(33.67, abs=0.01),
        "ssim_y": pytest.approx(0.9303, abs=0.0001),
    }


def test_a_network_that_fails_costs_its_row_alone(sets, tmp_path):
    wrong = write_expert(tmp_path / "x3.pth", upscale=3)
    found = run(sets, [str(wrong), "bicubic", str(tmp_path / "none.pth")])
    assert [row.status for row in found.models] == ["failed", "ok", "failed"]
    assert found.models[0].error == "x3.pth enlarges by 3, not by 2; name one of that scale"
    assert "no such file" in found.models[2].error
    assert {row.model for row in found.images} == {"bicubic"}


def test_a_network_that_runs_out_of_memory_takes_no_more_turns(sets, monkeypatch):
    calls = []

    def load(name, *rest):
        loaded = load_external("bicubic", *rest)
        return loaded if name == "bicubic" else replace(loaded, model=Greedy(loaded.model))

    class Greedy:
        """Bicubic, with memory for the first run and one image."""

        device, dtype, precision = CPU, torch.float32, "fp32"

        def __init__(self, model):
            self.model, self.config = model, model.config

        def __call__(self, x):
            calls.append(x.shape)
            if len(calls) > 2:
                raise MemoryError("too much")
            return self.model(x)

    monkeypatch.setattr(module, "load_external", load)
    found = run(sets, ["greedy", "bicubic"])
    assert [row.status for row in found.models] == ["failed", "ok"]
    assert "out of memory; try --tile" in found.models[0].error
    assert len(calls) == 3
    assert len([row for row in found.images if row.model == "bicubic"]) == 3


def test_networks_take_turns_on_each_image(sets, tmp_path):
    told = []
    run(sets, ["bicubic", str(write_expert(tmp_path / "x2.pth"))], progress=told.append, repeats=2)
    turns = [text.split(" by ") for text in told if " by " in text]
    assert turns == [[image, name] for _ in range(2) for image in "012" for name in ("bicubic", "x2")]


def test_the_time_is_the_median_over_images_and_rounds(sets, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("swinir.evaluation.evaluate.time.perf_counter", lambda: (next(clock) // 2) ** 2 / 10 * 1.0)
    found = run(sets, ["bicubic"], repeats=2)
    areas = {row.image: row.megapixels for row in found.images}
    assert areas == {"0": 96 * 120 / 1e6, "1": 104 * 96 / 1e6, "2": 100 * 140 / 1e6}
    rates = [seconds / row.megapixels for row in found.images for seconds in row.seconds]
    assert len(rates) == 6
    assert found.models[0].seconds_per_megapixel == pytest.approx(np.median(rates))


def test_an_image_that_cannot_be_read_is_left_out_for_all(sets):
    (sets / "Set5" / "HR" / "1.png").write_bytes(b"no image")
    found = run(sets, ["bicubic"])
    assert list(found.unread) == ["1"]
    assert found.models[0].status == "ok"
    assert [row.image for row in found.images] == ["0", "2"]


def test_memory_is_measured_in_another_process_on_the_largest_image(sets, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "Remote", lambda work, *args: seen.append((work, args)) or (x for x in [5_000_000]))
    found = run(sets, ["bicubic"], memory=True)
    assert found.models[0].peak_mb == 5
    assert found.largest == seen[0][1][1].name == "2"
    assert seen[0][0] is module._peak


def test_a_network_killed_for_want_of_memory_is_not_tried_here(sets, monkeypatch):
    def killed(*_):
        raise MemoryError("the process was killed, likely for want of memory; try a smaller size or tile")
        yield

    monkeypatch.setattr(module, "Remote", killed)
    monkeypatch.setattr(module, "restore_array", None)
    (row,) = run(sets, ["bicubic"], memory=True).models
    assert (row.status, row.error[:22]) == ("failed", "the process was killed")


def test_precision_and_tiles_are_those_that_each_network_supports(sets, tmp_path):
    names = ["bicubic", str(write_expert(tmp_path / "x2.pth", window_size=8, img_size=16))]
    found = run(sets, names, Protocol(SR.task, 2, options=RunOptions(30, 8, "mean", "bf16")))
    assert [(row.precision, row.tile) for row in found.models] == [("fp32", 30), ("bf16", 24)]


def test_injected_distances_are_columns(sets):
    def network(restored, gt):
        return (restored - gt).abs().mean()

    found = run(sets, ["bicubic"], metrics=("lpips",), distances={"lpips": network})
    expected = []
    for sample in samples(sets):
        a, b = imresize(read(sample.lq), 2), read(sample.gt)
        expected.append(np.abs(a[2:-2, 2:-2].astype(float) - b[2:-2, 2:-2]).mean() / 255)
    assert found.models[0].metrics["lpips"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_metrics_of_images_too_small_for_them_are_absent_and_that_is_said(sets):
    found = run(sets, ["bicubic"], metrics=("niqe_private",))
    assert [row.metrics["niqe_private"] is None for row in found.images] == [True, True, False]
    assert any("NIQE (private): of 1 of the 3 images; the others are too small." in note for note in notes(found, {}))


@pytest.mark.parametrize(
    ("asked", "task", "reference", "columns"),
    [
        ([], "classical_sr", True, ("psnr", "psnr_y", "ssim", "ssim_y")),
        ([], "jpeg_car", True, ("psnr", "ssim", "psnrb")),
        ([], "real_sr", False, ("niqe_private",)),
        (["niqe", "psnr", "niqe"], "gray_dn", True, ("niqe_private", "psnr")),
    ],
)
def test_columns_follow_from_metrics_and_task(asked, task, reference, columns):
    assert choose_metrics(asked, Protocol(TASKS[task]), reference=reference) == columns


@pytest.mark.parametrize(
    ("asked", "reference", "message"),
    [
        (["psnr", "fid"], True, "unknown metric 'fid'; choose from psnr, ssim, psnrb, lpips, dists, niqe"),
        (["lpips"], False, "LPIPS needs references"),
        (["psnrb"], True, "PSNR-B is measured for JPEG artifact removal, not for classical_sr"),
    ],
)
def test_metrics_that_cannot_be_are_refused(asked, reference, message):
    with pytest.raises(ValueError, match=message):
        choose_metrics(asked, SR, reference=reference)


def test_labels_are_short_unless_that_confuses():
    assert labels(["bicubic", "a/x.pth", "b/x.pth", "c/RealESRGAN.x2.pth"], SR) == [
        "bicubic",
        "a/x.pth",
        "b/x.pth",
        "RealESRGAN.x2",
    ]
    assert labels(["bicubic"], Protocol(TASKS["color_dn"])) == ["input"]
    with pytest.raises(ValueError, match="x is named twice"):
        labels(["x", "y", "x"], SR)

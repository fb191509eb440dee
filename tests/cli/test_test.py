"""The tester as a user meets it: words in; text, files and an exit code out."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from swinir.cli.main import main
from swinir.cli.test import expand_bare_tile
from swinir.image_io.image import read, write
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TASKS
from swinir.weights import zoo
from swinir.weights.checkpoint import write_checkpoint

TESTER = Path(__file__).parents[2] / "main_test_swinir.py"
DENOISE = ["--task", "color_dn", "--folder_gt", "gt"]
SUPER = ["--task", "classical_sr", "--scale", "2", "--folder_lq", "lq", "--folder_gt", "gt"]
RESULTS = {
    "classical_sr": "swinir_classical_sr_x2",
    "lightweight_sr": "swinir_lightweight_sr_x2",
    "real_sr": "swinir_real_sr_x2",
    "gray_dn": "swinir_gray_dn_noise15",
    "color_dn": "swinir_color_dn_noise15",
    "jpeg_car": "swinir_jpeg_car_jpeg40",
    "color_jpeg_car": "swinir_color_jpeg_car_jpeg40",
    "real_photo": "swinir_real_photo",
}
LABELS = {
    "classical_sr": ["PSNR", "SSIM", "PSNR_Y", "SSIM_Y"],
    "lightweight_sr": ["PSNR", "SSIM", "PSNR_Y", "SSIM_Y"],
    "real_sr": [],
    "gray_dn": ["PSNR", "SSIM"],
    "color_dn": ["PSNR", "SSIM", "PSNR_Y", "SSIM_Y"],
    "jpeg_car": ["PSNR", "SSIM", "PSNRB"],
    "color_jpeg_car": ["PSNR", "SSIM", "PSNRB", "PSNR_Y", "SSIM_Y", "PSNRB_Y"],
    "real_photo": ["PSNR", "SSIM", "PSNR_Y", "SSIM_Y"],
}
AVERAGES = {"PSNR": "PSNR/SSIM(RGB)", "PSNR_Y": "PSNR_Y/SSIM_Y", "PSNRB": "PSNRB", "PSNRB_Y": "PSNRB_Y"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A tiny checkpoint for each task, by name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, task in TASKS.items():
        small = {"embed_dim": 12, "depths": (1,), "num_heads": (2,), "num_feat": 8}
        network = replace(task.network_for(task.scales[0]), img_size=2 * task.network.window_size, **small)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = SwinIR(network).state_dict()
        write_checkpoint(folder / f"{name}.pth", state, network, key=task.weights_key, task=name)
    return {name: str(folder / f"{name}.pth") for name in TASKS}


def picture(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with two images `gt/{a,b}.png` of 32x40 and their partners of half the size in `lq`."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a", "b")):
        for folder, suffix, size in (("gt", "", (32, 40)), ("lq", "x2", (16, 20))):
            Path(folder).mkdir(exist_ok=True)
            write(Path(folder) / f"{name}{suffix}.png", picture(*size, seed=i))
    return tmp_path


@pytest.fixture
def run(here, checkpoints, capsys):
    """`run(*words)` gives (exit code, stdout, stderr) of the tester with the checkpoint of its task."""

    def call(*words, checkpoint=None):
        words = list(words)
        task = words[words.index("--task") + 1] if "--task" in words else "color_dn"
        if "--model_path" not in words:
            words += ["--model_path", checkpoints.get(checkpoint or task, "")]
        code = main(["test", "--device", "cpu", *words] if "--device" not in words else ["test", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def refused(outcome):
    """The message of a run refused as a whole: exit code 2, one line on stderr, no traceback."""
    code, out, err = outcome
    assert code == 2
    assert "Testing" not in out
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert lines[0].startswith("swinir: ")
    return lines[0].removeprefix("swinir: ")


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("Testing ")]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_writes_its_images_and_prints_its_metrics_and_no_others(run, here, task):
    folders = {"real_sr": ["--folder_lq", "lq"]}.get(task, ["--folder_gt", "gt"])
    if task in ("classical_sr", "lightweight_sr", "real_photo"):
        folders += ["--folder_lq", "gt" if task == "real_photo" else "lq"]
    code, out, err = run("--task", task, "--scale", str(TASKS[task].scales[0]), *folders)
    assert (code, err) == (0, "")
    names = ["ax2", "bx2"] if task == "real_sr" else ["a", "b"]
    folder = here / "results" / RESULTS[task]
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}_SwinIR.png" for name in names]
    gray = task in ("gray_dn", "jpeg_car")
    assert all(read(path).shape == (32, 40, 1 if gray else 3) for path in folder.iterdir())
    lines = lines_of(out)
    assert [line.split()[:3] for line in lines] == [["Testing", str(i), name] for i, name in enumerate(names)]
    assert all(re.findall(r"(\w+): ", line) == LABELS[task] for line in lines)
    averages = re.findall(r"^-- Average (\S+): -?[0-9.]+ dB", out, re.MULTILINE)
    assert averages == [label for metric, label in AVERAGES.items() if metric in LABELS[task]]
    assert (f"results/{RESULTS[task]}" in out) == bool(LABELS[task])
    assert "2 done, 0 failed" in out


@pytest.mark.parametrize("folder", ["gt", "lq/../gt", "link"])
def test_results_are_not_written_among_the_images_that_are_tested(run, here, folder):
    (here / "link").symlink_to("gt")
    before = sorted((here / "gt").iterdir())
    assert "be tested next time; name another folder" in refused(run(*DENOISE, "--save_dir", folder))
    assert sorted((here / "gt").iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "gt"], "gt is a folder; name a file in it"),
        (["--csv", "/proc/x.csv"], "cannot write /proc/x.csv: "),
        (["--save_dir", "gt/a.png"], "cannot make the folder gt/a.png: it is a file; name another"),
        (["--save_dir", "/proc/x"], "cannot make the folder /proc/x: "),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_before_the_work(run, words, message):
    if "/proc" in words[1] and not Path("/proc/self").exists():
        pytest.skip("no folder here that nobody can write into")
    assert message in refused(run(*DENOISE, *words))


def test_other_weights_under_a_known_name_are_announced(run, here, checkpoints):
    entry = next(e for e in zoo.bundled() if e.parts.task == "color_dn" and e.parts.covers(25))
    shutil.copy(checkpoints["color_dn"], entry.file)
    code, _, err = run(*DENOISE, "--noise", "25", "--limit", "1", "--no_save", "--model_path", entry.file)
    assert code == 0
    (line,) = (line for line in err.splitlines() if "known weights" in line)
    assert line.startswith(f"note: {entry.file} has the name of known weights but is another file: ")
    assert f"instead of {entry.bytes}" in line


def test_the_level_is_part_of_the_result_folder(run, here):
    assert run(*DENOISE, "--noise", "50", "--limit", "1")[0] == 0
    assert run("--task", "jpeg_car", "--jpeg", "10", "--folder_gt", "gt", "--limit", "1")[0] == 0
    assert sorted(p.name for p in (here / "results").iterdir()) == [
        "swinir_color_dn_noise50",
        "swinir_jpeg_car_jpeg10",
    ]


def test_printed_averages_are_those_of_the_images(run):
    _, out, _ = run(*SUPER)
    each = [[float(v) for v in re.findall(r": (-?[0-9.]+?)(?: dB|;|\.$)", line)] for line in lines_of(out)]
    mean = np.mean(each, axis=0)
    rgb = re.search(r"RGB\): ([0-9.]+) dB; (-?[0-9.]+)", out)
    luma = re.search(r"SSIM_Y: ([0-9.]+) dB; (-?[0-9.]+)$", out, re.MULTILINE)
    printed = [float(v) for v in (*rgb.groups(), *luma.groups())]
    assert printed == pytest.approx(mean, abs=0.011)


def test_a_bare_tile_means_400(run, here):
    assert expand_bare_tile(["test", "--tile", "--noise", "15"]) == ["test", "--tile", "400", "--noise", "15"]
    assert expand_bare_tile(["test", "--tile"]) == ["test", "--tile", "400"]
    assert expand_bare_tile(["test", "--tile", "64", "--tile=64"]) == ["test", "--tile", "64", "--tile=64"]
    code, _, err = run(*DENOISE, "--json", "x.json", "--limit", "1", "--tile")
    assert (code, err) == (0, "")
    assert json.loads((here / "x.json").read_text())["tile"] == 400


@pytest.mark.parametrize("overlap", ["24", "-1"])
def test_an_overlap_that_leaves_no_stride_is_refused(run, here, overlap):
    message = refused(run(*DENOISE, "--tile", "30", "--tile_overlap", overlap))
    assert f"got {overlap}; try --tile_overlap" in message
    assert not (here / "results").exists()


def test_tiles_are_rounded_to_whole_windows_with_a_notice(run, here):
    words = ["--task", "color_jpeg_car", "--folder_gt", "gt", "--tile", "30", "--tile_blend", "cut"]
    code, _, err = run(*words, "--tile_overlap", "10", "--json", "x.json")
    assert code == 0
    assert err.splitlines() == [
        "note: --tile 30 is no multiple of the window of 7; using 28",
        "note: --tile_overlap 10 is no multiple of the window of 7; using 14",
    ]
    content = json.loads((here / "x.json").read_text())
    assert (content["tile"], content["tile_overlap"], content["tile_blend"]) == (28, 14, "cut")
    message = "tile_overlap must be from 0 to 21 for tile 28 in windows of 7, got 22; try --tile_overlap 7"
    assert refused(run(*words, "--tile_overlap", "22")) == message


def test_tiles_are_averaged_unless_they_are_to_be_cut(run, here):
    words = [*DENOISE, "--tile", "16", "--tile_overlap", "8", "--limit", "1"]
    for name, more in (("plain", []), ("mean", ["--tile_blend", "mean"]), ("cut", ["--tile_blend", "cut"])):
        assert run(*words, *more, "--save_dir", name, "--json", f"{name}.json")[0] == 0
        blend = json.loads((here / f"{name}.json").read_text())["tile_blend"]
        assert blend == ("cut" if name == "cut" else "mean")
    plain, mean, cut = (read(here / name / "a_SwinIR.png") for name in ("plain", "mean", "cut"))
    assert np.array_equal(plain, mean)
    assert not np.array_equal(mean, cut)


def test_an_unreadable_image_is_named_and_the_others_and_their_averages_stay(run, here):
    averages = [line for line in run(*DENOISE, "--no_save")[1].splitlines() if "Average" in line]
    (here / "gt" / "aa.png").write_text("not an image")
    code, out, err = run(*DENOISE, "--json", "x.json")
    assert code == 1
    assert [line.split()[2] for line in lines_of(out)] == ["a", "b"]
    assert "Testing 1 aa" in err
    assert "gt/aa.png: not an image" in err
    assert "2 done, 1 failed" in err
    assert averages
    assert [line for line in out.splitlines() if "Average" in line] == averages
    assert len(list((here / "results" / RESULTS["color_dn"]).iterdir())) == 2
    assert [row["status"] for row in json.loads((here / "x.json").read_text())["images"]] == ["ok", "failed", "ok"]


def test_an_empty_or_absent_folder_is_refused(run, here):
    (here / "empty").mkdir()
    assert "no images in empty; look at --folder_gt" in refused(run("--folder_gt", "empty"))
    assert "folder not found: nowhere" in refused(run("--folder_gt", "nowhere"))
    assert "not a folder: gt/a.png" in refused(run("--folder_gt", "gt/a.png"))
    assert "color_dn needs --folder_gt" in refused(run())
    assert "classical_sr needs --folder_lq" in refused(run(*SUPER[:4], "--folder_gt", "gt"))


def test_a_model_of_any_scale_is_tested_at_any_scale_it_was_trained_for(run, here):
    network = NetworkConfig(
        upscale=3, upsampler="any", embed_dim=12, depths=(1,), num_heads=(2,), img_size=16, window_size=8
    )
    write_checkpoint(here / "any.pth", SwinIR(network).state_dict(), network, task="lightweight_sr")
    words = ["--task", "lightweight_sr", "--folder_gt", "gt", "--model_path", "any.pth"]
    code, _, err = run(*words, "--scale", "2.5", "--json", "x.json")
    assert (code, err) == (0, "")
    facts = json.loads((here / "x.json").read_text())
    assert facts["scale"] == 2.5
    assert [(row["height"], row["width"]) for row in facts["images"]] == [(30, 40)] * 2
    assert read(here / "results" / "swinir_lightweight_sr_x2.5" / "a_SwinIR.png").shape == (30, 40, 3)
    assert "its scale is at most 3, the task needs 3.5" in refused(run(*words, "--scale", "3.5"))
    assert "its scale is 2, the task needs 2.5" in refused(run(*words[:4], "--scale", "2.5"))
    assert "and any between 1 and the last by a model of any scale, got 9" in refused(run(*words, "--scale", "9"))


def test_an_absent_checkpoint_is_refused(run):
    message = refused(run(*DENOISE, "--model_path", "model_zoo/nowhere.pth"))
    assert "no checkpoint at model_zoo/nowhere.pth" in message


def test_a_file_that_is_no_checkpoint_is_refused(run, here):
    (here / "x.pth").write_bytes(b"404: Not Found")
    assert refused(run(*DENOISE, "--model_path", "x.pth")).startswith("x.pth: ")
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("words", "checkpoint", "message"),
    [
        (
            ["--task", "classical_sr", "--scale", "4", "--folder_lq", "lq"],
            "classical_sr",
            "its scale is 2, the task needs 4",
        ),
        (["--task", "color_dn", "--folder_gt", "gt"], "gray_dn", "its channels is 1, the task needs 3"),
        (["--task", "color_dn", "--folder_gt", "gt"], "color_jpeg_car", "its image range is 255.0, the task needs 1.0"),
        (["--task", "classical_sr", "--scale", "2", "--folder_lq", "lq"], "lightweight_sr", "'pixelshuffledirect'"),
        (["--task", "color_dn", "--folder_gt", "gt"], "real_sr", "its scale is 2, the task needs 1"),
    ],
)
def test_a_checkpoint_for_another_task_is_refused(run, here, words, checkpoint, message):
    assert message in refused(run(*words, checkpoint=checkpoint))
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "denoise", "--folder_gt", "gt"], "unknown task 'denoise'; choose one of classical_sr"),
        (["--task", "real_sr", "--scale", "3", "--folder_lq", "lq"], "real_sr takes scale 2, 4, got 3"),
        ([*DENOISE, "--scale", "2"], "color_dn takes scale 1, got 2"),
        ([*DENOISE, "--noise", "-1"], "--noise must be from 0 to 255, got -1"),
        ([*DENOISE, "--jpeg", "0"], "--jpeg must be from 1 to 100, got 0"),
        ([*DENOISE, "--precision", "fp16"], "precision must be one of fp32, bf16, auto, got 'fp16'"),
        ([*DENOISE, "--tile_blend", "ramp"], "tile_blend must be one of mean, cut, got 'ramp'"),
        ([*DENOISE, "--device", "nonsense"], "device 'nonsense' is unknown; choose cpu"),
        ([*DENOISE, "--json", "nowhere/x.json"], "folder not found: "),
        ([*DENOISE, "--large_model"], "color_dn has no large model; leave --large_model out"),
        (
            ["--task", "real_sr", "--scale", "2", "--folder_lq", "lq", "--large_model"],
            "real_sr.pth is 12 channels wide, --large_model means 240; leave it out",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_any_image(run, here, words, message):
    assert message in refused(run(*words))
    assert not (here / "results").exists()


@pytest.mark.parametrize("words", [["--nonsense"], ["--scale", "two"], ["--limit", "0"], ["--noise"]])
def test_words_that_do_not_parse_are_wrong_usage(run, words):
    code, out, err = run(*DENOISE, *words)
    assert code == 2
    assert words[0] in err
    assert "Testing" not in out


def test_no_save_writes_nothing_and_save_dir_takes_the_place_of_results(run, here):
    before = sorted(here.rglob("*"))
    assert run(*DENOISE, "--no_save")[0] == 0
    assert sorted(here.rglob("*")) == before
    code, out, _ = run(*DENOISE, "--save_dir", "deep/er")
    assert code == 0
    assert sorted(p.name for p in (here / "deep" / "er").iterdir()) == ["a_SwinIR.png", "b_SwinIR.png"]
    assert "deep/er" in out
    assert not (here / "results").exists()


def test_json_and_csv_hold_what_was_printed_and_what_it_depends_on(run, here, checkpoints):
    code, out, _ = run(*DENOISE, "--noise", "25", "--json", "x.json", "--csv", "x.csv")
    assert code == 0
    content = json.loads((here / "x.json").read_text())
    facts = {"task": "color_dn", "noise": 25, "jpeg": None, "scale": 1, "precision": "fp32"}
    facts |= {"checkpoint": "color_dn.pth", "checkpoint_key": "params"}
    assert facts.items() <= content.items()
    assert content["torch"] == torch.__version__
    assert re.fullmatch("[0-9a-f]{64}", content["checkpoint_sha256"])
    with (here / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a", "b", "mean"]
    for image, row, line in zip(content["images"], rows, lines_of(out), strict=False):
        assert float(row["psnr"]) == image["psnr"]
        assert f"PSNR: {image['psnr']:.2f} dB; SSIM: {image['ssim']:.4f}; PSNR_Y: {image['psnr_y']:.2f}" in line
        assert image["output"] == f"results/swinir_color_dn_noise25/{image['image']}_SwinIR.png"


@pytest.mark.parametrize("task", ["gray_dn", "color_jpeg_car", "classical_sr"])
def test_images_without_a_reference_are_restored_without_metrics(run, here, task):
    code, out, err = run("--task", task, "--scale", str(TASKS[task].scales[0]), "--folder_lq", "gt")
    assert (code, err) == (0, "")
    assert "PSNR" not in out
    assert "Average" not in out
    assert len(list((here / "results" / RESULTS[task]).iterdir())) == 2


def test_a_checkpoint_named_for_another_level_is_noticed(run, here, checkpoints):
    name = "005_colorDN_DFWB_s128w8_SwinIR-M_noise25.pth"
    (here / name).write_bytes(Path(checkpoints["color_dn"]).read_bytes())
    for level, notice in (("15", f"note: {name} is the model for noise25, the images are made at 15\n"), ("25", "")):
        code, _, err = run(*DENOISE, "--model_path", name, "--noise", level, "--limit", "1")
        assert (code, err) == (0, notice)


def test_a_model_for_a_range_of_levels_serves_all_of_them(run, here, checkpoints):
    name = "005_colorDN_TK410_s32w8_SwinIR-T_noise10-30.pth"
    (here / name).write_bytes(Path(checkpoints["color_dn"]).read_bytes())
    outside = f"note: {name} is the model for noise10-30, the images are made at 31\n"
    for level, notice in (("10", ""), ("30", ""), ("31", outside)):
        assert run(*DENOISE, "--model_path", name, "--noise", level, "--limit", "1")[::2] == (0, notice)


@pytest.mark.parametrize(("task", "model"), [("gray_dn", "color_dn"), ("jpeg_car", "color_jpeg_car")])
def test_grey_images_go_through_a_model_for_color(run, here, task, model):
    code, _, err = run("--task", task, "--folder_gt", "gt", checkpoint=model)
    assert (code, err.splitlines()) == (
        0,
        [f"note: {model}.pth is for color: grey images go in as three equal channels, their mean comes out"],
    )
    assert read(here / "results" / RESULTS[task] / "a_SwinIR.png").shape == (32, 40, 1)


def test_a_low_quality_folder_that_is_not_used_is_noticed(run):
    code, _, err = run(*DENOISE, "--folder_lq", "lq")
    assert code == 0
    assert err == "note: color_dn makes its input from --folder_gt; --folder_lq is not used\n"


def test_self_ensemble_changes_the_result(run, here):
    run(*DENOISE, "--limit", "1", "--save_dir", "plain")
    run(*DENOISE, "--limit", "1", "--save_dir", "plus", "--self_ensemble")
    assert not np.array_equal(read(here / "plain" / "a_SwinIR.png"), read(here / "plus" / "a_SwinIR.png"))


def test_the_released_command_line_is_understood(here):
    shown = subprocess.run([sys.executable, TESTER, "--help"], capture_output=True, text=True, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, "")
    options = "task scale noise jpeg training_patch_size large_model model_path folder_lq folder_gt tile tile_overlap"
    assert all(f"--{option}" in shown.stdout for option in options.split())


def test_without_a_model_a_bundled_one_of_the_task_and_level_is_used(here, capsys):
    assert main(["test", *DENOISE, "--noise", "25", "--device", "cpu", "--no_save", "--limit", "1"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch("note: no --model_path; using color_dn_noise.*_tiny, which is bundled\n", err)
    assert "colorDN" in out


@pytest.mark.parametrize(
    ("here_is", "task", "used"),
    [
        (["colorDN_noise0-55", "grayDN_noise25"], "gray_dn", "gray_dn_noise25"),
        (["colorDN_noise0-55", "grayDN_noise0-30"], "gray_dn", "gray_dn_noise0-30"),
        (["colorDN_noise25", "colorDN_noise0-55", "colorDN_noise50-55"], "gray_dn", "color_dn_noise0-55"),
        (["colorDN_noise0-55", "colorDN_noise25"], "color_dn", "color_dn_noise25"),
        (["colorDN_noise25", "realPhoto_x1"], "gray_dn", None),
    ],
)
def test_without_a_model_the_one_of_least_range_is_used(here, monkeypatch, capsys, here_is, task, used):
    index = ""
    for words in here_is:
        name = f"001_{words.replace('_', '_X_s8w8_SwinIR-T_')}.pth"
        Path(name).touch()
        index += f'[[weights]]\nfile = "{name}"\nbytes = 0\nsha256 = ""\nparameters = 1\n'
    Path("index.toml").write_text(index)
    monkeypatch.setattr(zoo, "bundled_folder", lambda: here)
    assert main(["test", "--task", task, "--noise", "25", "--folder_gt", "gt", "--device", "cpu"]) == 2  # empty files
    err = capsys.readouterr().err
    assert (f"note: no --model_path; using {used}_tiny, which is bundled" in err) == (used is not None)
    assert ("run `swinir zoo download gray_dn_noise25_DFWB`" in err) == (used is None)


def test_without_any_model_the_released_one_is_named_with_its_size(here, capsys):
    assert main(["test", "--device", "cpu", *SUPER, "--training_patch_size", "48"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no model of classical_sr x2 is on this machine" in line
    assert "run `swinir zoo download classical_sr_x2_DIV2K` (" in line
    assert " MB), or add --model_path" in line


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_run_with_a_summary(here, checkpoints, kind, code):
    data = (here / "gt" / "a.png").read_bytes()
    for i in range(2000):
        (here / "gt" / f"c{i:04d}.png").write_bytes(data)
    words = [*DENOISE, "--model_path", checkpoints["color_dn"], "--device", "cpu", "--no_save", "--json", "x.json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, TESTER, *words], **pipes) as process:
        while not process.stdout.readline().startswith("Testing 0"):
            assert process.poll() is None
        process.send_signal(kind)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "-- Average PSNR/SSIM(RGB)" in out
    assert "Traceback" not in err
    done, left = re.search(r"^(\d+) done, 0 failed, (\d+) not reached$", err, re.MULTILINE).groups()
    assert int(done) + int(left) == 2002
    content = json.loads((here / "x.json").read_text())
    assert not content["complete"]
    assert len(content["images"]) == int(done) > 0


def test_signal_handlers_are_left_as_they_were(run):
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(kind) for kind in kinds]
    assert run(*DENOISE, "--no_save")[0] == 0
    assert run("--nonsense")[0] == 2
    assert [signal.getsignal(kind) for kind in kinds] == before


RELEASED = "004_grayDN_DFWB_s128w8_SwinIR-M_noise25.pth"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The folder of a local server that stands for the release page; one small grey image waits in `gt`."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SWINIR_ZOO_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gt").mkdir()
    write(tmp_path / "gt" / "a.png", np.full((9, 9, 1), 80, np.uint8))
    yield served
    server.shutdown()
    server.server_close()


def test_a_released_checkpoint_that_is_missing_is_downloaded_once(mirror, tmp_path, capsys):
    network = TASKS["gray_dn"].network_for()
    write_checkpoint(mirror / RELEASED, SwinIR(network).state_dict(), network)
    path = tmp_path / "model_zoo" / "swinir" / RELEASED
    command = ["test", "--task", "gray_dn", "--noise", "25", "--folder_gt", "gt"]
    assert main([*command, "--model_path", f"model_zoo/swinir/{RELEASED}"]) == 0
    assert path.read_bytes() == (mirror / RELEASED).read_bytes()
    assert f"downloading model model_zoo/swinir/{RELEASED}" in capsys.readouterr().out
    (mirror / RELEASED).unlink()
    assert main([*command, "--model_path", RELEASED.removesuffix(".pth")]) == 0
    assert "downloading" not in capsys.readouterr().out


def test_a_released_checkpoint_that_cannot_be_had_is_one_line_with_address_and_place(mirror, tmp_path, capsys):
    path = f"model_zoo/swinir/{RELEASED}"
    assert main(["test", "--task", "gray_dn", "--noise", "25", "--folder_gt", "gt", "--model_path", path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert RELEASED in line
    assert path in line
    assert "SHA-256" in line
    assert not (tmp_path / "model_zoo").exists()

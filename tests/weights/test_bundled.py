"""Bundled models: whole, small, as good as documented; and the demo."""

import json
import re
from pathlib import Path

import pytest
import torch

from swinir.cli.main import main
from swinir.image_io.image import read
from swinir.tasks import TASKS
from swinir.testsets import BENCHMARK_SETS
from swinir.weights import zoo
from swinir.weights.checkpoint import load_model

ROOT = Path(__file__).parents[2]
EXPERTS = zoo.bundled()


def test_there_is_an_expert():
    assert "lightweight_sr_x1-4_tiny" in {entry.alias for entry in EXPERTS}


@pytest.mark.parametrize("entry", EXPERTS, ids=lambda e: e.alias)
def test_expert_is_whole_small_and_documented(entry):
    assert zoo.verify(zoo.locate(entry.alias)).how == "sha256"
    assert zoo.verify(zoo.locate(entry.alias)).ok
    model = load_model(entry.alias, device="cpu")
    assert sum(p.numel() for p in model.parameters()) == entry.parameters <= 300_000
    assert entry.bytes <= 1_500_000
    assert (ROOT / entry.config).is_file()
    assert entry.alias in (ROOT / "model_zoo" / "README.md").read_text(encoding="utf-8")


ROUNDING = {"psnr": (2, 0.011), "psnr_y": (2, 0.011), "psnrb": (2, 0.011), "ssim": (4, 0.00011), "ssim_y": (4, 0.00011)}
STATEMENT = r"([\w+-]+)(?: (noise|jpeg|x)(\d+))? ([\d.]+)(?:/([\d.]+))?(?:/([\d.]+))?"


def statements():
    """An entry, a set, a level and the stated metrics; Set14 needs low-quality images that are not public."""
    for entry in (entry for entry in EXPERTS if entry.parts.task != "real_sr"):
        for words in entry.published.split(", "):
            name, _, level, *stated = re.fullmatch(STATEMENT, words).groups()
            if name != "Set14":
                level = int(level) if level else entry.parts.level
                yield pytest.param(entry, name, level, [*filter(None, stated)], id=f"{entry.alias}, {words}")


def columns(task):
    """The metrics that a row states, in their order."""
    if task.crop_scale:
        return ("psnr_y", "ssim_y")
    return ("psnr",) if task.degradation == "noise" else ("psnr", "ssim", *["psnrb"] * task.psnrb)


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "name", "level", "stated"), list(statements()))
def test_expert_reaches_what_its_row_says(entry, name, level, stated, public_folder, tmp_path, monkeypatch):
    benchmark, root = BENCHMARK_SETS[name], public_folder("testsets")
    gray = [task for task in TASKS.values() if task.gray and entry.parts.task in (task.name, *task.served_by)]
    task = gray[0] if benchmark.gray else TASKS[entry.parts.task]
    folders = ["--folder_gt", str(benchmark.gt_folder(root))]
    if task.degradation is None:
        folders += ["--folder_lq", str(benchmark.lq_folder(root, level))]
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(2)
    option = f"--{task.degradation or 'scale'}"
    command = ["test", "--task", task.name, option, str(level), "--model_path", entry.alias, *folders]
    assert main([*command, "--device", "cpu", "--no_save", "--json", "r.json"]) == 0
    measured = json.loads((tmp_path / "r.json").read_text())["means"]
    for metric, value in zip(columns(task), stated, strict=True):
        digits, tolerance = ROUNDING[metric]
        assert round(measured[metric], digits) == pytest.approx(float(value), abs=tolerance)


def test_the_demo_shows_a_gain(tmp_path, capsys):
    picture = tmp_path / "new" / "demo.png"
    assert main(["demo", "--output", str(picture), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    rows = {
        name: [float(v) for v in re.findall(r"\d+\.\d+", line)]
        for name, line in re.findall(r"^(\w+) +(.*)$", out, re.M)
    }
    bicubic, restored = rows["bicubic"], rows["SwinIR"]
    assert len(bicubic) == len(restored) == 4
    assert restored[0] > bicubic[0] + 2
    assert restored[2] > bicubic[2] + 2
    assert restored[1] > bicubic[1]
    assert restored[3] > bicubic[3]
    assert read(picture).shape[1] > 4 * 500

"""Training pairs of a teacher, with bicubic enlargement as the teacher."""

import numpy as np
import pytest
from reproductions import write_weights
from scripted import ROOT, load_script
from training import smooth_image
from typer.testing import CliRunner

from swinir.degradations.resize import imresize
from swinir.image_io.image import read, write

SIDE, MARGIN = 16, 4


@pytest.fixture
def run(tmp_path):
    app = load_script("scripts/teacher_pairs.py").app
    (tmp_path / "photographs").mkdir()
    write(tmp_path / "photographs" / "a.png", smooth_image(140, 160, 0))

    def run(*more, teacher="bicubic", folder="pairs"):
        recipe = ("--config", ROOT / "configs" / "real_sr" / "tiny_x4_psnr.toml", "--set", "data.holdout=0")
        data = ("--set", f"data.train={tmp_path / 'photographs'}", "--side", SIDE)
        return CliRunner().invoke(app, [str(a) for a in (teacher, tmp_path / folder, *recipe, *data, *more)])

    return run


def test_a_pair_is_the_middle_of_a_degraded_patch_and_of_the_teachers_output(run, tmp_path):
    assert run("--margin", 0, "--side", SIDE + 2 * MARGIN, "--count", 1, folder="whole").exit_code == 0
    assert run("--margin", MARGIN, "--count", 1).exit_code == 0
    whole = read(tmp_path / "whole" / "lq" / "000000.png")
    outer = {"lq": whole, "gt": imresize(whole, 4), "clean": read(tmp_path / "whole" / "clean" / "000000.png")}
    for name, image in outer.items():
        cut = MARGIN * (1 if name == "lq" else 4)
        assert np.array_equal(read(tmp_path / "pairs" / name / "000000.png"), image[cut:-cut, cut:-cut]), name


def test_an_interrupted_run_goes_on_with_the_same_pairs(run, tmp_path):
    run("--count", 3)
    pairs = {path: path.read_bytes() for path in (tmp_path / "pairs").rglob("*.png")}
    assert len(pairs) == 9
    lost, kept = tmp_path / "pairs" / "gt" / "000001.png", tmp_path / "pairs" / "gt" / "000002.png"
    lost.unlink()
    written = kept.stat().st_mtime_ns
    assert run("--count", 3).exit_code == 0
    assert {path: path.read_bytes() for path in pairs} == pairs
    assert kept.stat().st_mtime_ns == written


def test_a_wrong_teacher_is_refused_in_one_line(run, tmp_path):
    refused = run(teacher=write_weights(tmp_path / "x2.pth", scale=2))
    assert refused.exit_code == 2
    assert "enlarges by 2, not by 4" in refused.output

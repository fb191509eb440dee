"""The study of unseen degradations, with stand-ins for the models."""

import numpy as np
import pytest
from scripted import load_script
from training import smooth_image
from typer.testing import CliRunner

from swinir.degradations.resize import imresize
from swinir.image_io.image import read, write
from swinir.metrics.full_reference import psnr


@pytest.fixture(scope="module")
def script():
    return load_script("scripts/study_degradations.py")


@pytest.fixture
def textured():
    image = smooth_image(64, 64, 3).astype(int) + np.random.default_rng(0).integers(-25, 26, (64, 64, 3))
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("decibel", [18, 30])
def test_white_noise_has_the_psnr_asked_for(script, textured, decibel):
    assert psnr(script.noise_of(textured, decibel), textured) == pytest.approx(decibel, abs=0.1)


def test_jpeg_has_about_the_psnr_asked_for(script, textured):
    assert psnr(script.jpeg_of(textured, 25), textured) == pytest.approx(25, abs=0.3)


@pytest.mark.parametrize("axis", [0, 1])
def test_reductions_keep_their_place(script, axis):
    ramp = np.repeat(20 + 2 * np.mgrid[:96, :96][axis][..., None], 3, axis=2).astype(np.uint8)
    for name, degrade in script.REDUCTIONS.items():
        lq = degrade(ramp)
        assert lq.shape == (24, 24, 3), name
        if name != "BSRGAN's":
            error = (imresize(lq, 4).astype(float) - ramp)[16:-16, 16:-16]
            assert abs(error.mean()) < 0.5, name  # symmetric kernels keep the ramp, and half a pixel is 1


def test_a_row_for_each_degradation_and_two_sheets(script, textured, tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif", reason="HEIC is in the extra `heic`")
    enlarging = (script.BICUBIC, script.REAL)
    monkeypatch.setattr(script, "SIDE", 48)
    monkeypatch.setattr(script, "run", lambda name, lq: imresize(lq, 4) if name in enlarging else lq)
    monkeypatch.setattr(script, "restore", lambda path: script.Restored(script.to_rgb(read(path)), ()))
    (tmp_path / "clean").mkdir()
    write(tmp_path / "clean" / "1.png", textured)
    result = CliRunner().invoke(script.app, [str(tmp_path / "clean"), str(tmp_path)])
    assert result.exit_code == 0, result.output
    cells = [line.strip("| ").split(" | ") for line in result.output.splitlines() if line.startswith("|")]
    rows = {row[0]: row[1:] for row in cells}
    for name in script.UNSEEN:  # a model that does nothing gains and loses nothing
        assert rows[name][2:] == ["+0.00", "+0.00", "0.00", "+0.00", "+0.00", "1 of 1"]
    for name in script.REDUCTIONS:
        assert rows[name][0] == rows[name][1] == rows[name][3]
    assert rows["MATLAB's bicubic"][2] == "0.00"
    for name, cases in (("unseen-degradations", script.UNSEEN), ("unseen-reductions", script.SHOWN)):
        sheet = read(tmp_path / f"{name}.webp")
        assert sheet.shape[:2] == (len(cases) * (48 + 20), 4 * 52 - 4)

"""The contact sheet of degradations: its layout, and one line for a user's mistake."""

import numpy as np
import pytest
from scripted import load_script
from typer.testing import CliRunner

from swinir.degradations.resize import imresize
from swinir.image_io.image import read, write


@pytest.fixture(scope="module")
def run():
    app = load_script("scripts/show_degradations.py").app
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 50, 3)), ("b", (20, 90, 3)), ("c", (33, 36, 1))):
        write(tmp_path / f"{name}.png", rng.integers(0, 256, size).astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("kind", ["bsrgan_plus", "realesrgan", "photo", "noise", "jpeg"])
def test_rows_are_images_and_columns_are_draws(run, folder, kind):
    out = folder.parent / f"{kind}.png"
    done = run(folder, out, "--kind", kind, "--patch", 32, "--samples", 3)
    assert done.exit_code == 0
    assert done.output.strip() == f"{out}: 2 images, 3 degraded versions each"  # one is too small
    sheet = read(out)
    assert sheet.shape == (32 * 2 + 4, 32 * 4 + 3 * 4, 3)
    assert np.array_equal(sheet[:32, :32], read(folder / "a.png")[4:36, 9:41])
    assert np.all(sheet[32:36] == 255)
    assert np.all(sheet[:, 32:36] == 255)


def test_draws_are_enlarged_by_repeating_pixels(run, folder):
    out = folder.parent / "sheet.png"
    run(folder, out, "--kind", "bicubic", "--patch", 32, "--samples", 1, "--scale", 2)
    sheet = read(out)
    gt, draw = sheet[:32, :32], sheet[:32, 36:]
    expected = np.rint(imresize(gt / 255, 0.5).clip(0, 1) * 255)
    assert np.array_equal(draw[::2, ::2], draw[1::2, 1::2])
    assert np.abs(draw[::2, ::2] - expected).max() <= 1


def test_the_seed_decides_the_draws(run, folder):
    outs = [folder.parent / f"{i}.png" for i in range(3)]
    for out, seed in zip(outs, (3, 3, 4), strict=True):
        assert run(folder, out, "--patch", 32, "--seed", seed).exit_code == 0
    assert np.array_equal(read(outs[0]), read(outs[1]))
    assert not np.array_equal(read(outs[0]), read(outs[2]))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "out.png"), "folder not found: nowhere"),
        ((".", "out.jpg"), "out.jpg: the output must be a .png file in an existing folder"),
        ((".", "nowhere/out.png"), "nowhere/out.png: the output must be a .png file in an existing folder"),
        ((".", "out.png", "--patch", 34), "--patch must be a multiple of the scale 4, got 34; try 32"),
        ((".", "out.png", "--patch", 400), "no image of at least 400x400; pass a smaller --patch"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, folder, monkeypatch, args, message):
    monkeypatch.chdir(folder)
    done = run(*args)
    assert done.exit_code == 2
    assert message in done.output
    assert done.output.count("\n") == 1

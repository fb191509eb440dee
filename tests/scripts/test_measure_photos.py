"""The script that measures and shows the restoration of photographs, with a stand-in for the models."""

import numpy as np
import pytest
from scripted import load_script
from typer.testing import CliRunner

from swinir.image_io.image import read, write


@pytest.fixture(scope="module")
def script():
    return load_script("scripts/measure_photos.py")


@pytest.fixture
def brightened(script, monkeypatch):
    """A stand-in for restoring: ten levels brighter, except for grey images, which are left alone."""

    def restore(image):
        pixels = image if isinstance(image, np.ndarray) else script.to_rgb(read(image))
        if np.ptp(pixels.astype(int), axis=2).max() == 0:
            return script.Restored(pixels, ())
        return script.Restored((pixels.astype(int) + 10).clip(0, 255).astype(np.uint8), ("007_x_SwinIR-T_x1.pth",))

    monkeypatch.setattr(script, "restore", restore)
    return restore


def run(script, *words):
    return CliRunner().invoke(script.app, [str(word) for word in words])


def plain(*color, side=64):
    return np.full((side, side, 3), color, np.uint8)


def test_pairs_are_compared_before_and_after(script, brightened, tmp_path):
    for folder, levels in (("noisy", (100, 90, 80)), ("clean", (110, 100, 90))):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.png", plain(*levels))
        write(
            tmp_path / folder / "grey.png",
            plain(60 if folder == "noisy" else 50, *[60 if folder == "noisy" else 50] * 2),
        )
    result = run(script, "pairs", tmp_path / "noisy", tmp_path / "clean", "--means", "3")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[1] == ["a.png", "28.13", "inf", "007_x_x1"]  # ten levels: 20 log10(255 / 10)
    assert lines[2] == ["grey.png", "28.13", "28.13", "left", "alone"]
    assert lines[-1][:4] == ["non-local", "means,", "strength", "3"]
    assert float(lines[-1][4]) == pytest.approx(28.13, abs=1)  # nothing to smooth; colours are rounded twice


def test_a_photograph_without_its_clean_one_is_named(script, brightened, tmp_path):
    for folder, name in (("noisy", "a"), ("clean", "b")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"{name}.png", plain(1, 2, 3))
    result = run(script, "pairs", tmp_path / "noisy", tmp_path / "clean")
    assert result.exit_code == 2
    assert "must hold one image named a, found 0" in " ".join(result.output.replace("│", " ").split())


def test_textures_are_sorted_and_losses_counted(script, brightened, tmp_path):
    rng = np.random.default_rng(0)
    fur = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name, image in (("wall", plain(90, 80, 70)), ("fur", fur)):
        write(tmp_path / f"{name}.png", image)
    result = run(script, "textures", tmp_path, "--images", 1)
    assert result.exit_code == 0, result.output
    rows = result.output.splitlines()
    assert rows[1].startswith("fur.png")
    assert "0 of 1 clean photographs left alone" in rows[2]
    assert "MORE THAN 0.1" in rows[3]


def test_a_gallery_shows_the_crops_of_input_output_and_clean_image(script, brightened, tmp_path):
    gradient = np.zeros((70, 80, 3), np.uint8)
    gradient[..., 0], gradient[..., 1] = np.mgrid[:70, :80]
    (tmp_path / "clean").mkdir()
    write(tmp_path / "a.png", gradient)
    write(tmp_path / "clean" / "a.png", gradient)
    sheet = tmp_path / "sheet.png"
    result = run(
        script, "gallery", sheet, tmp_path / "a.png", "--at", "7,5", "--side", 32, "--clean", tmp_path / "clean"
    )
    assert result.exit_code == 0, result.output
    pixels, top, step = read(sheet), script.LABEL, 32 + script.GAP
    assert pixels.shape == (32 + top, 3 * 32 + 2 * script.GAP, 3)
    crops = [pixels[top:, n * step : n * step + 32] for n in range(3)]
    assert np.array_equal(crops[0], gradient[5:37, 7:39])
    assert np.array_equal(crops[1], gradient[5:37, 7:39] + 10)
    assert np.array_equal(crops[2], crops[0])


def test_examples_come_with_their_clean_images(script, tmp_path):
    result = run(script, "examples", tmp_path)
    assert result.exit_code == 0, result.output
    for name in script.EXAMPLES:
        (clean,) = (tmp_path / "examples_clean").glob(f"{name}.*")
        (file,) = (tmp_path / "examples").glob(f"{name}.*")
        error = np.abs(read(file).astype(int) - read(clean)).mean()
        assert 1 < error < 80, name

"""`restore_image`, `plan_image`: one call equal to the command, for files, Pillow images and arrays."""

import numpy as np
import pytest
import torch
from pictures import smooth, write, write_expert
from PIL import Image

import swinir
from swinir.cli.main import main
from swinir.image_io.reader import read_picture


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model that enlarges by 2."""
    monkeypatch.chdir(tmp_path)
    write_expert("x2.pth")
    return tmp_path


def by_command(name, *words):
    """The file that the command makes of a file."""
    assert main(["restore", name, "-o", "out", "--device", "cpu", "--suffix", "", *words]) == 0
    return f"out/{name}"


def noisy(height=64, width=64):
    noise = np.random.default_rng(0).normal(0, 25, (height, width, 3))
    return (smooth(height, width) * 0.4 + 70 + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "words", "options"),
    [
        ("a.png", {"pixels": smooth(20, 24)}, ["-n", "x2.pth"], {"model": "x2.pth"}),
        ("a.png", {"pixels": noisy()}, ["--scale", "1.5"], {"scale": 1.5}),
        ("a.tif", {"pixels": smooth(20, 24, 1, np.uint16)}, ["-s", "2"], {"scale": 2}),
        ("a.png", {"pixels": smooth(20, 24), "alpha": smooth(20, 24, 1)[..., 0]}, ["-s", "2"], {"scale": 2}),
        ("a.jpg", {"pixels": noisy()}, ["--noise", "0", "--jpeg", "10"], {"noise": 0, "jpeg": 10}),
        ("a.png", {"pixels": smooth(64, 64)}, [], {}),
    ],
    ids=["model", "noise and scale", "16-bit gray", "alpha", "jpeg", "unchanged"],
)
def test_a_file_becomes_the_bytes_that_the_command_writes(folder, name, content, words, options):
    write(name, **content)
    expected = by_command(name, *words)
    assert swinir.restore_image(name, output=f"ours_{name}", device="cpu", **options).name == f"ours_{name}"
    assert (folder / f"ours_{name}").read_bytes() == (folder / expected).read_bytes()


def test_a_path_without_output_gives_a_pillow_image(folder):
    write("a.png", smooth(20, 24))
    image = swinir.restore_image("a.png", model="x2.pth", device="cpu")
    assert isinstance(image, Image.Image)
    assert np.array_equal(np.asarray(image), read_picture(by_command("a.png", "-n", "x2.pth")).pixels)


def test_a_pillow_image_of_a_jpeg_is_restored_as_its_file(folder):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(smooth(48, 64)).save("a.jpg", quality=10, exif=exif)
    with Image.open("a.jpg") as opened:
        restored = swinir.restore_image(opened, device="cpu")
        plan = swinir.plan_image(opened, device="cpu")
    assert plan.measured.jpeg_source == "file"
    assert restored.size == (48, 64)
    assert restored.getexif().get(0x112, 1) == 1
    expected = swinir.restore_image("a.jpg", device="cpu")
    assert np.array_equal(np.asarray(restored), np.asarray(expected))


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("P", "RGB"), ("LA", "LA"), ("RGBA", "RGBA"), ("I;16", "I;16"), ("F", "F")]
)
def test_pillow_images_come_back_in_a_mode_of_their_kind(folder, mode, expected):
    gray = smooth(20, 24, 1)[..., 0]
    given = {"I;16": Image.fromarray(gray.astype(np.uint16)), "F": Image.fromarray(gray / np.float32(255))}
    image = given.get(mode) or Image.fromarray(gray).convert(mode)
    restored = swinir.restore_image(image, model="x2.pth", device="cpu")
    assert (restored.mode, restored.size) == (expected, (48, 40))


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float64])
def test_an_array_gives_an_array_of_its_dtype_axes_and_channels(folder, channels, dtype):
    image = smooth(20, 24, channels or 1)
    image = (image / 255).astype(dtype) if np.dtype(dtype).kind == "f" else image.astype(dtype)
    restored = swinir.restore_image(image[..., 0] if channels is None else image, model="x2.pth", device="cpu")
    assert restored.dtype == dtype
    assert restored.shape == ((40, 48) if channels is None else (40, 48, channels))


def test_an_array_has_the_values_of_its_file(folder):
    pixels = smooth(20, 24, 3, np.uint16)
    write("a.png", pixels)
    restored = swinir.restore_image(pixels, model="x2.pth", device="cpu")
    assert np.array_equal(restored, read_picture(by_command("a.png", "-n", "x2.pth")).pixels)


def test_an_unchanged_array_is_written(folder):
    pixels = smooth(64, 64)
    assert np.array_equal(read_picture(swinir.restore_image(pixels, output="new.png", device="cpu")).pixels, pixels)


def test_the_plan_says_what_was_estimated_and_which_models_run(folder):
    plan = swinir.plan_image(noisy(), scale=2, device="cpu")
    assert plan.measured.noise_level == pytest.approx(25, abs=3)
    assert ["color" in plan.models[0], "lightweight" in plan.models[1]] == [True, True]
    assert plan.size == (128, 128)
    assert any("Noise: standard deviation" in line for line in plan.findings)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((8, 8, 3), 200.0), r"must be in \[0, 1\], got 200 to 200; divide values in \[0, 255\] by 255"),
        (np.full((8, 8), np.nan), r"must be in \[0, 1\], got nan"),
        (np.zeros((8, 8, 3), np.int64), "must be uint8, uint16 or of floats"),
        (np.zeros((8, 8, 5), np.uint8), r"\(H, W, C\) with 1 to 4 channels, got shape \(8, 8, 5\)"),
        (Image.new("CMYK", (8, 8)), r"mode CMYK is not supported; use image.convert\('RGB'\)"),
        ("absent.png", "absent.png"),
    ],
)
def test_values_that_would_become_nonsense_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        swinir.restore_image(image, device="cpu")


def test_a_tensor_is_refused_with_the_function_that_takes_it():
    with pytest.raises(TypeError, match=r"got Tensor; swinir\.restore takes tensors"):
        swinir.restore_image(torch.zeros(1, 3, 8, 8))


def test_pixels_that_pillow_cannot_hold_are_refused_with_the_way_out(folder):
    write("a.png", smooth(20, 24, 3, np.uint16))
    with pytest.raises(ValueError, match="Pillow holds no color or alpha of uint16; name a file by output="):
        swinir.restore_image("a.png", model="x2.pth", device="cpu")


def test_a_file_is_never_replaced_by_its_own_output(folder):
    write("a.png", smooth(20, 24))
    with pytest.raises(ValueError, match=r"a\.png is the input itself"):
        swinir.restore_image("a.png", model="x2.pth", output="a.png", device="cpu")


def test_a_model_that_was_written_again_is_read_again(folder):
    before = swinir.restore_image(smooth(20, 24), model="x2.pth", device="cpu")
    write_expert("x2.pth", num_heads=(1,))
    after = swinir.restore_image(smooth(20, 24), model="x2.pth", device="cpu")
    assert not np.array_equal(before, after)


def test_models_are_listed_with_what_a_choice_needs():
    rows = {row.name: row for row in swinir.list_models()}
    tiny = rows["lightweight_sr_x1-4_tiny"]
    assert (tiny.task, tiny.level, tiny.scale, tiny.state) == ("lightweight_sr", "x1-4", 4, "bundled")
    assert tiny.parameters > 100_000
    assert tiny.megabytes > 0.3
    released = rows["classical_sr_x4_DF2K"]
    assert (released.scale, released.megabytes) == (4, pytest.approx(67, abs=1))
    assert {row.task for row in swinir.list_models("gray_dn")} == {"gray_dn"}


def test_the_package_shows_its_public_names():
    assert set(swinir.__all__) | {"__version__"} == set(dir(swinir))

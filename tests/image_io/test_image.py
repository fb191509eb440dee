"""What image files come in as, what is refused and how, and that a failed write leaves nothing behind."""

import cv2
import numpy as np
import pytest
from PIL import Image

from swinir.image_io.image import ImageError, list_images, read, to_gray, to_rgb, write

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 17, 3)).astype(np.uint8)
GREY = RGB[..., :1]
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (40, 56, 3)).astype(np.uint8), (0, 0), 3)
ORIENTATION = 0x112


def reason(path, **options):
    """The message of the refusal, after checks that hold for every refusal."""
    with pytest.raises(ImageError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "rgb"])
def test_what_is_written_is_read_back(tmp_path, image):
    write(tmp_path / "x.png", image)
    assert np.array_equal(read(tmp_path / "x.png"), image)


def test_a_written_file_is_what_opencv_reads_as_bgr(tmp_path):
    write(tmp_path / "x.png", RGB)
    assert np.array_equal(cv2.imread(str(tmp_path / "x.png")), RGB[..., ::-1])


def test_a_grey_file_has_one_channel(tmp_path):
    write(tmp_path / "x.png", GREY)
    assert Image.open(tmp_path / "x.png").mode == "L"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("grey", [True, False], ids=["grey", "colour"])
def test_reading_8_bit_files_equals_opencv(tmp_path, suffix, grey):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(SMOOTH[..., 0] if grey else SMOOTH).save(path)
    expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read(path), expected[..., None] if grey else expected[..., ::-1])


def test_16_bit_grey_keeps_the_high_byte(tmp_path):
    samples = RNG.integers(0, 65536, (9, 11)).astype(np.uint16)
    for suffix in ("png", "tif", "pgm"):
        cv2.imwrite(str(tmp_path / f"x.{suffix}"), samples)
        assert np.array_equal(read(tmp_path / f"x.{suffix}"), (samples // 256)[..., None])


def test_16_bit_colour_keeps_the_high_byte(tmp_path):
    samples = RNG.integers(0, 65536, (9, 11, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), samples)
    assert np.array_equal(read(tmp_path / "x.png"), (samples // 256)[..., ::-1])


def test_alpha_is_dropped(tmp_path):
    alpha = RNG.integers(0, 256, (13, 17, 1)).astype(np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], 2), "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(np.concatenate([GREY, alpha], 2), "LA").save(tmp_path / "la.png")
    assert np.array_equal(read(tmp_path / "rgba.png"), RGB)
    assert np.array_equal(read(tmp_path / "la.png"), GREY)


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:] = (200, 20, 100, 0)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "x.jpg", quality=100)
    assert read(tmp_path / "x.jpg") == pytest.approx(np.broadcast_to((55, 235, 155), (16, 16, 3)), abs=3)


# How to store an upright image so that the flag's viewer shows it upright (EXIF 2.3, 4.6.4 A).
STORED = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.transpose(1, 0, 2),
    6: lambda u: np.rot90(u, 1),
    7: lambda u: u[::-1, ::-1].transpose(1, 0, 2),
    8: lambda u: np.rot90(u, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_an_oriented_jpeg_equals_opencv(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(SMOOTH).save(tmp_path / "x.jpg", exif=exif)
    assert np.array_equal(read(tmp_path / "x.jpg"), cv2.imread(str(tmp_path / "x.jpg"))[..., ::-1])


def test_floating_point_samples_are_refused(tmp_path):
    Image.fromarray(np.ones((5, 5), np.float32)).save(tmp_path / "x.tif")
    assert reason(tmp_path / "x.tif").startswith("floating-point samples are not supported")


def test_the_limit_is_an_argument(tmp_path):
    write(tmp_path / "x.png", RGB)
    assert "17x13 is more than the limit" in reason(tmp_path / "x.png", max_pixels=17 * 13 - 1)
    assert read(tmp_path / "x.png", max_pixels=17 * 13).shape == RGB.shape


def test_a_folder_lists_its_images_sorted_and_nothing_else(tmp_path):
    for name in ("b.png", "a.JPG", "c.tif", "B.webp", ".hidden.png", "._b.png", "notes.txt", "noextension", "png"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.png").touch()
    assert [p.name for p in list_images(tmp_path)] == ["B.webp", "a.JPG", "b.png", "c.tif"]


def test_a_folder_that_is_not_there_or_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder not found: .*nowhere"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"not a folder: .*file"):
        list_images(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("x.jpg", RGB, "written as .png, got .jpg"),
        ("x", RGB, "written as .png, got no suffix"),
        ("x.png", RGB.astype(np.float32), "uint8, got float32"),
        ("x.png", RGB[..., 0], r"\(H, W, 1 or 3\)"),
        ("x.png", np.zeros((4, 4, 4), np.uint8), r"\(H, W, 1 or 3\)"),
        ("x.png", np.zeros((4, 4, 2), np.uint8), r"\(H, W, 1 or 3\)"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, image, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def fail_halfway(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x.png", RGB)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    write(tmp_path / "x.png", RGB)
    monkeypatch.setattr("pathlib.Path.write_bytes", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x.png", GREY)
    assert np.array_equal(read(tmp_path / "x.png"), RGB)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_file_that_cannot_be_replaced_leaves_no_part_behind(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "x.png", RGB)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_writing_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere" / "x.png", RGB)


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    write(tmp_path / "x.png", RGB)
    (tmp_path / "y").touch()
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_a_colour_png_becomes_the_grey_image_that_opencv_reads(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), RGB[..., ::-1].copy())
    assert np.array_equal(to_gray(RGB)[..., 0], cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_GRAYSCALE))


def test_images_with_the_wanted_channels_are_passed_on():
    assert np.array_equal(to_rgb(GREY), np.concatenate([GREY] * 3, 2))
    assert to_rgb(RGB) is RGB
    assert to_gray(GREY) is GREY

"""JPEG quality: tables against Pillow's and OpenCV's files, compression put into known images."""

import io

import cv2
import numpy as np
import pytest
from estimates import PHOTOGRAPHS, SETS, add_noise, photograph, pillows_file, read_all, share, tables_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, JpegPresets

from swinir.degradations.estimate_jpeg import jpeg_quality, pixel_jpeg_quality
from swinir.degradations.jpeg import jpeg

QUALITIES = range(1, 101)

# JPEG by the file


@pytest.mark.parametrize("channels", [1, 3])
def test_quality_of_pillows_files_is_exact(channels):
    image = np.full((8, 8, channels), 90, np.uint8)
    assert [jpeg_quality(tables_of(pillows_file(image, quality=q))) for q in QUALITIES] == list(QUALITIES)


@pytest.mark.parametrize("channels", [1, 3])
def test_quality_of_opencvs_files_is_exact(channels):
    image = np.full((8, 8, channels), 90, np.uint8)
    files = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, q])[1].tobytes() for q in QUALITIES]
    assert [jpeg_quality(tables_of(file)) for file in files] == list(QUALITIES)


def test_tables_in_the_files_own_order_are_understood():
    data = pillows_file(np.full((8, 8, 1), 90, np.uint8), quality=35)
    start = data.index(b"\xff\xdb") + 5  # marker, length, number of the table
    assert jpeg_quality({0: list(data[start : start + 64])}) == 35


@given(st.floats(2, 95))  # beyond, steps fall below 1
def test_a_multiple_of_the_standard_table_has_the_quality_of_that_multiple(quality):
    standard = np.array(tables_of(pillows_file(np.zeros((8, 8, 1), np.uint8), quality=50))[0])
    multiple = 50 / quality if quality < 50 else (100 - quality) / 50
    steps = np.rint(standard * multiple * 256) / 256  # finer than whole steps, and uncut
    assert jpeg_quality({0: steps}) == pytest.approx(quality, rel=0.02)


@pytest.mark.parametrize(
    "names", [("low", "medium", "high", "maximum"), ("web_low", "web_medium", "web_high", "web_very_high")]
)
def test_other_encoders_tables_are_in_their_order(names):
    image = np.full((16, 16, 3), 90, np.uint8)
    found = [
        jpeg_quality(tables_of(pillows_file(image, qtables=JpegPresets.presets[n]["quantization"]))) for n in names
    ]
    assert found == sorted(found)
    assert 20 < found[0] < found[-1] < 100


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "needs a quantisation table"),
        ({0: [1] * 63}, "64 positive numbers"),
        ({0: [0] * 64}, "64 positive numbers"),
    ],
)
def test_tables_that_are_none_are_refused(tables, message):
    with pytest.raises(ValueError, match=message):
        jpeg_quality(tables)


# JPEG by the pixels


@pytest.mark.parametrize("quality", [5, 10, 20, 30, 40, 60, 80, 90])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_quality_is_found_in_pixels(name, quality):
    assert pixel_jpeg_quality(jpeg(photograph(name), quality)) == pytest.approx(quality, abs=3)


@pytest.mark.parametrize("quality", [10, 40, 80])
@pytest.mark.parametrize("corner", [(0, 1), (3, 0), (7, 5)])
def test_quality_is_found_in_pixels_of_a_cropped_image(corner, quality):
    image = jpeg(photograph("astronaut"), quality)[corner[0] :, corner[1] :]
    assert pixel_jpeg_quality(image) == pytest.approx(quality, abs=3)


@pytest.mark.parametrize("name", ["low", "medium", "high", "web_low", "web_medium", "web_high"])
def test_pixels_tell_of_other_encoders_tables_what_the_file_does(name):
    data = pillows_file(photograph("astronaut"), qtables=JpegPresets.presets[name]["quantization"])
    found = pixel_jpeg_quality(np.asarray(Image.open(io.BytesIO(data))))
    assert found == pytest.approx(jpeg_quality(tables_of(data)), abs=20)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_pixels_without_a_past_show_none(name):
    assert pixel_jpeg_quality(photograph(name)) is None


@pytest.mark.parametrize("level", [15, 25, 50])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_noise_is_no_compression_and_hides_an_earlier_one(name, level):
    assert pixel_jpeg_quality(add_noise(photograph(name), level)) is None
    assert pixel_jpeg_quality(add_noise(jpeg(photograph(name), 40), level)) is None


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64, 1)),
        np.full((64, 64, 3), 255),
        np.zeros((3, 200, 1)),
        np.tile(np.arange(256), (64, 1))[..., None],
        (np.indices((96, 96)).sum(0) // 4 % 2 * 200 + 20)[..., None],
        np.random.default_rng(0).integers(0, 256, (96, 96, 3)),
    ],
    ids=["black", "white", "sliver", "ramp", "checkerboard", "random"],
)
def test_drawings_are_neither_compressed_nor_fail(image):
    assert pixel_jpeg_quality(image.astype(np.uint8)) is None


# The public test sets


@pytest.fixture(scope="module")
def public_images(public_folder):
    return lambda name: read_all(public_folder(f"testsets/{name}"))


@pytest.mark.slow
@pytest.mark.parametrize("quality", [10, 20, 30, 40, 80])
@pytest.mark.parametrize("name", SETS)
def test_quality_is_found_in_the_pixels_of_public_images(public_images, name, quality):
    found = [pixel_jpeg_quality(jpeg(i, quality)) for i in public_images(name)]
    assert all(f is not None and abs(f - quality) <= 3 for f in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS[:4])
def test_public_images_without_a_past_show_none(public_images, name):
    images = public_images(name)
    assert share((pixel_jpeg_quality(i) or 100) >= 90 for i in images) >= 0.95
    assert [pixel_jpeg_quality(add_noise(i, level)) for i in images for level in (15, 50)] == [None] * 2 * len(images)

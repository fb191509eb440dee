"""PNG written: what Pillow, OpenCV and zlib make of it; the reader is tested with the other formats."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from makers import FILES, RGB16, SMOOTH, chunk
from PIL import Image

from swinir.image_io import png
from swinir.image_io.picture import Metadata

PIXELS = st.sampled_from((np.uint8, np.uint16)).flatmap(
    lambda dtype: arrays.arrays(dtype, st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)))
)


@given(PIXELS)
@settings(max_examples=200, deadline=None)
def test_opencv_reads_what_is_written(image):
    found = cv2.imdecode(np.frombuffer(png.encode(image), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.dtype == image.dtype
    channels = image.shape[2]
    if channels == 1:
        assert np.array_equal(found, image[..., 0])
    elif channels == 2:  # which OpenCV gives as colour
        assert np.array_equal(found[..., [0, 3]], image)
    else:
        assert np.array_equal(found[..., [2, 1, 0, 3][:channels]], image)


def test_pictures_of_many_blocks_are_whole():
    image = np.tile(RGB16, (40, 40, 1))
    found = cv2.imdecode(np.frombuffer(png.encode(image), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(found[..., ::-1], image)


def test_a_photograph_takes_no_more_than_with_pillow():
    data = io.BytesIO()
    Image.fromarray(SMOOTH).save(data, "PNG")
    assert len(png.encode(SMOOTH)) <= 1.05 * len(data.getvalue())


def test_metadata_is_what_pillow_finds():
    file = Image.open(io.BytesIO(png.encode(SMOOTH, Metadata(b"MM\0*\0\0\0\x08\0\0\0\0\0\0", b"profile" * 50,
                                                              "<é>".encode(), (300, 72)))))  # fmt: skip
    file.load()
    assert file.info["exif"].removeprefix(b"Exif\0\0") == b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
    assert file.info["icc_profile"] == b"profile" * 50
    assert file.info["xmp"] == "<é>".encode()
    assert file.info["dpi"] == pytest.approx((300, 72), abs=0.02)


def test_a_plain_file_is_passed_on_as_it_is():
    assert png.still(FILES["png"]) is FILES["png"]


def test_image_data_comes_last_and_the_unneeded_goes():
    data = FILES["png"]
    extra = chunk(b"tEXt", b"Comment\0text") + chunk(b"eXIf", b"MM\0*") + chunk(b"vpAg", bytes(9))
    kept = png.still(data[:-12] + extra + data[-12:])
    names = [found.kind for found in png.chunks(kept)]
    assert names[0] == b"IHDR"
    assert names[1] == b"eXIf"
    assert set(names[2:-1]) == {b"IDAT"}
    assert names[-1] == b"IEND"


@pytest.mark.parametrize("method", [5, 255])
def test_an_unknown_filter_is_refused(method):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    raw = bytes(5) + bytes([method]) + bytes(4)
    with pytest.raises(ValueError, match="unknown filter"):
        png.samples(png.SIGNATURE + head + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def test_image_data_that_is_no_deflate_is_refused():
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="damaged"):
        png.samples(png.SIGNATURE + head + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b""))

"""Deep TIFF files as tifffile and OpenCV write them, and ours as they read them; EXIF copied and corrected."""

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from makers import FILES, RGB16, RNG, SMOOTH, by_opencv, by_pillow, by_tifffile, exif, facts
from PIL import Image

from swinir.image_io import tiff
from swinir.image_io.containers import ContainerError
from swinir.image_io.exif import EXIF, described, directory, of_size, upright
from swinir.image_io.picture import Metadata

GREY16 = RGB16[..., 0]
RGBA16 = np.concatenate([RGB16, RGB16[..., :1]], axis=2)
FLOATS = RNG.random((19, 23, 3)).astype(np.float32)


def read(data):
    tiff.inspect(data)
    return tiff.samples(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 4},
        {"tile": (16, 16)},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": 2},
        {"compression": "zlib", "predictor": 2, "tile": (16, 32)},
    ],
    ids=str,
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_of_16_bits_is_exact(order, bigtiff, options, planar):
    samples = RGB16 if planar == "contig" else np.ascontiguousarray(RGB16.transpose(2, 0, 1))
    data = by_tifffile(samples, photometric="rgb", planarconfig=planar, byteorder=order, bigtiff=bigtiff, **options)
    assert np.array_equal(read(data), RGB16)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lzw_with_differences_as_opencv_writes_it_is_exact(channels):
    image = {1: GREY16, 3: RGB16, 4: RGBA16}[channels]
    stored = image if channels < 4 else image[..., [2, 1, 0, 3]]
    data = by_opencv(image, ".tiff") if channels < 4 else cv2.imencode(".tiff", stored)[1].tobytes()
    assert directory(data).integer(data, tiff.COMPRESSION) == 5
    found = read(data)
    assert np.array_equal(found[..., :3], image[..., :3] if channels > 1 else image[..., None])


def test_grey_whose_white_is_zero_is_turned():
    data = by_tifffile(GREY16, photometric="miniswhite")
    assert np.array_equal(read(data)[..., 0], 65535 - GREY16)


def test_alpha_beside_the_colours_is_kept_and_other_channels_are_not():
    def kept(kind):
        return read(by_tifffile(RGBA16, photometric="rgb", extrasamples=[kind]))

    assert np.array_equal(kept("unassalpha"), RGBA16)
    assert np.array_equal(kept("unspecified"), RGB16)


def test_colours_multiplied_by_alpha_are_divided_again():
    alpha = RNG.integers(1000, 65536, (19, 23, 1))
    stored = np.round(RGB16 * (alpha / 65535))
    data = by_tifffile(
        np.concatenate([stored, alpha], 2).astype(np.uint16), photometric="rgb", extrasamples=["assocalpha"]
    )
    found = read(data)
    assert np.array_equal(found[..., 3:], alpha)
    assert (abs(found[..., :3].astype(int) - RGB16) <= 65535 / alpha).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}], ids=str)
def test_floats_from_0_to_1_are_kept(dtype, options):
    found = read(by_tifffile(FLOATS.astype(dtype), photometric="rgb", **options))
    assert found.dtype == np.float32
    assert np.array_equal(found, FLOATS.astype(dtype).astype(np.float32))


def test_the_differences_of_floats_are_summed():
    # Adobe's technical note 3: bytes of a row apart by significance, the highest first, then differences of bytes.
    rows = np.ascontiguousarray(FLOATS.astype(">f4")).view(np.uint8).reshape(19, 23 * 3, 4).transpose(0, 2, 1)
    flat = rows.reshape(19, -1, 3)
    stored = np.diff(flat, axis=1, prepend=np.zeros((19, 1, 3), np.uint8))
    packed = zlib.compress(stored.tobytes())
    numbers = {256: 23, 257: 19, 259: 8, 262: 2, 273: 8 + 2 + 12 * 11 + 4, 277: 3, 278: 19, 279: len(packed), 317: 3}
    numbers |= {258: 32, 339: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(numbers.items()))
    data = b"II*\0" + struct.pack("<IH", 8, len(numbers)) + entries + bytes(4) + packed
    assert np.array_equal(read(data), FLOATS)


@pytest.mark.parametrize(
    ("bad", "message"), [(np.nan, "NaN"), (1.5, "to 1.5"), (-0.25, "of -0.25"), (np.inf, "infinite")]
)
def test_other_floats_are_refused(bad, message):
    floats = FLOATS.copy()
    floats[3, 4, 1] = bad
    with pytest.raises(ContainerError, match=message):
        read(by_tifffile(floats, photometric="rgb"))


def test_files_of_8_bits_are_left_to_pillow():
    assert read(FILES["tiff"]) is None


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"])
def test_grey_of_16_bits_is_exact_by_every_compression_of_bytes(compression):
    assert np.array_equal(read(by_pillow(GREY16, "TIFF", compression=compression))[..., 0], GREY16)


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"])
def test_damaged_strips_are_read_or_refused_and_nothing_else(compression):
    data = bytearray(by_pillow(GREY16, "TIFF", compression=compression))
    place = directory(bytes(data)).integer(bytes(data), tiff.STRIPS)
    data[place + 40 : place + 400] = bytes(360)
    with contextlib.suppress(ContainerError):
        assert read(bytes(data)).shape == (19, 23, 1)


IMAGES = st.sampled_from((np.uint8, np.uint16, np.float32)).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)),
        elements=st.floats(0, 1, width=32) if dtype is np.float32 else None,
    )
)


@given(IMAGES)
@settings(max_examples=150, deadline=None)
def test_tifffile_reads_what_is_written(image):
    with tifffile.TiffFile(io.BytesIO(tiff.encode(image))) as file:
        page = file.pages[0]
        assert page.photometric.name == ("RGB" if image.shape[2] > 2 else "MINISBLACK")
        assert page.extrasamples == ((2,) if image.shape[2] in (2, 4) else ())
        found = page.asarray()
    assert found.dtype == image.dtype
    assert np.array_equal(found.reshape(image.shape), image)


def test_pictures_of_many_strips_are_whole():
    image = np.tile(RGB16, (30, 30, 1))
    assert np.array_equal(tifffile.imread(io.BytesIO(tiff.encode(image))), image)


def test_metadata_is_what_pillow_finds():
    block = upright(exif(6))
    file = Image.open(io.BytesIO(tiff.encode(SMOOTH, Metadata(block, b"profile" * 50, b"<xmp>", (300, 72)))))
    assert np.array_equal(np.asarray(file), SMOOTH)
    assert file.info["icc_profile"] == b"profile" * 50
    assert file.info["xmp"] == b"<xmp>"
    assert file.info["dpi"] == pytest.approx((300, 72))
    found, (tags, taken, place) = file.getexif(), facts(block)
    assert (found[0x10F], found[0x132]) == (tags[0x10F], tags[0x132])
    assert dict(found.get_ifd(0x8769)) == taken
    assert dict(found.get_ifd(0x8825)) == place


# EXIF.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_stands_upright_and_is_otherwise_the_same(orientation):
    block = exif(orientation)
    found = upright(block)
    assert len(found) == len(block)
    assert facts(found) == facts(exif(1))


def test_exif_tells_the_size_it_is_given():
    tags, taken, place = facts(of_size(exif(), 4000, 3000))
    assert (taken[0xA002], taken[0xA003]) == (4000, 3000)
    assert (tags, place) == (facts(exif())[0], facts(exif())[2])


def test_exif_whose_entries_share_their_values_does_not_fill_the_memory():
    size = 20_000
    entries = b"".join(struct.pack("<HHII", 40_000 + n, 7, size, 8) for n in range(1000))
    page = struct.pack("<HHII", EXIF, 4, 1, 100)
    data = b"II*\0" + struct.pack("<IH", 8, 1) + page + bytes(4)
    data = data.ljust(100, b"\0") + struct.pack("<H", 1000) + entries + bytes(4 + size)
    with pytest.raises(ContainerError, match="damaged EXIF"):
        described(data)


@given(st.binary(max_size=200), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_damaged_exif_is_refused_or_read_and_nothing_else(noise, place):
    block = bytearray(exif())
    block[place : place + len(noise)] = noise
    for damaged in (bytes(block), noise, bytes(block)[:place]):
        try:
            of_size(upright(damaged), 5, 6)
        except ContainerError:
            continue

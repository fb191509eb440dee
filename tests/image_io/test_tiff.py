"""TIFF files as tifffile, OpenCV and Pillow write them, ours as they read them, and EXIF copied and corrected."""

import contextlib
import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from makers import RGB16, RNG, SMOOTH, by_opencv, by_pillow, by_tifffile, exif, facts
from PIL import Image

from swinir.image_io.errors import ImageError
from swinir.image_io.exif import EXIF, append, described, upright
from swinir.image_io.picture import Metadata, Picture
from swinir.image_io.reader import read_picture
from swinir.image_io.writer import write_picture

GREY16 = RGB16[..., 0]
RGBA16 = np.concatenate([RGB16, RGB16[..., :1]], axis=2)
FLOATS = RNG.random((19, 23, 3)).astype(np.float32)


@pytest.fixture
def read(tmp_path):
    def reading(data):
        (tmp_path / "x").write_bytes(data)
        return read_picture(tmp_path / "x")

    return reading


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("predictor", [None, 2])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 4}, {"tile": (16, 32)}, {"planarconfig": "separate"}], ids=str)
def test_colour_of_16_bits_is_exact(read, order, bigtiff, predictor, layout):
    samples = RGB16 if "planarconfig" not in layout else np.ascontiguousarray(RGB16.transpose(2, 0, 1))
    packed = {"compression": "zlib", "predictor": predictor} if predictor else {}
    data = by_tifffile(samples, photometric="rgb", byteorder=order, bigtiff=bigtiff, **packed, **layout)
    assert np.array_equal(read(data).pixels, RGB16)


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_compressions_of_bytes_are_exact(read, compression):
    assert np.array_equal(read(by_pillow(SMOOTH, "TIFF", compression=compression)).pixels, SMOOTH)
    assert np.array_equal(read(by_pillow(GREY16, "TIFF", compression=compression)).pixels[..., 0], GREY16)


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax_is_black_and_white(read, compression):
    bits = SMOOTH[..., 0] > 127
    assert np.array_equal(read(by_pillow(bits, "TIFF", compression=compression)).pixels[..., 0], bits * np.uint8(255))


def test_lzw_with_differences_as_opencv_writes_it_is_exact(read):
    assert np.array_equal(read(by_opencv(RGB16, ".tiff")).pixels, RGB16)
    found = read(cv2.imencode(".tiff", RGBA16[..., [2, 1, 0, 3]])[1].tobytes())
    assert np.array_equal(found.pixels, RGB16)


@pytest.mark.parametrize("image", [SMOOTH[..., 0], GREY16], ids=["8", "16"])
def test_grey_whose_white_is_zero_is_turned(read, image):
    found = read(by_tifffile(image, photometric="miniswhite")).pixels[..., 0]
    assert np.array_equal(found, np.iinfo(image.dtype).max - image)


def test_alpha_beside_the_colours_is_kept_and_other_channels_are_not(read):
    found = read(by_tifffile(RGBA16, photometric="rgb", extrasamples=["unassalpha"]))
    assert np.array_equal(found.pixels, RGB16)
    assert np.array_equal(found.alpha, RGBA16[..., 3])
    found = read(by_tifffile(RGBA16, photometric="rgb", extrasamples=["unspecified"]))
    assert np.array_equal(found.pixels, RGB16)
    assert found.alpha is None


def test_colours_multiplied_by_alpha_are_divided_again(read):
    alpha = RNG.integers(1000, 65536, (19, 23, 1))
    stored = np.concatenate([np.round(RGB16 * (alpha / 65535)), alpha], 2).astype(np.uint16)
    found = read(by_tifffile(stored, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.array_equal(found.alpha, alpha[..., 0])
    assert (abs(found.pixels.astype(int) - RGB16) <= 65535 / alpha + 1).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}], ids=str)
def test_floats_from_0_to_1_are_kept(read, dtype, options):
    found = read(by_tifffile(FLOATS.astype(dtype), photometric="rgb", **options)).pixels
    assert found.dtype == np.float32
    assert np.array_equal(found, FLOATS.astype(dtype).astype(np.float32))


def test_integers_of_32_bits_that_fit_into_16_are_read(read):
    assert np.array_equal(read(by_tifffile(GREY16.astype(np.int32))).pixels[..., 0], GREY16)


IMAGES = st.sampled_from((np.uint8, np.uint16, np.float32)).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)),
        elements=st.floats(0, 1, width=32) if dtype is np.float32 else None,
    )
)


@given(IMAGES)
@settings(max_examples=100, deadline=None)
def test_tifffile_reads_what_is_written(tmp_path_factory, image):
    path, colors = tmp_path_factory.getbasetemp() / "x.tif", 1 if image.shape[2] < 3 else 3
    write_picture(path, Picture(image[..., :colors], image[..., colors] if image.shape[2] > colors else None))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.photometric.name == ("RGB" if image.shape[2] > 2 else "MINISBLACK")
        assert page.extrasamples == ((2,) if image.shape[2] in (2, 4) else ())
        found = page.asarray()
    assert found.dtype == image.dtype
    assert np.array_equal(found.reshape(image.shape), image)


def test_metadata_is_what_pillow_finds(tmp_path):
    block = upright(exif(6))
    write_picture(tmp_path / "x.tif", Picture(SMOOTH, metadata=Metadata(block, None, b"<xmp>", (300, 72))))
    file = Image.open(tmp_path / "x.tif")
    assert np.array_equal(np.asarray(file), SMOOTH)
    assert file.info["xmp"] == b"<xmp>"
    assert file.info["dpi"] == pytest.approx((300, 72))
    found, (tags, taken, place) = file.getexif(), facts(block)
    assert (found[0x10F], found[0x132]) == (tags[0x10F], tags[0x132])
    assert dict(found.get_ifd(0x8769)) == {tag: value for tag, value in taken.items() if tag not in (0xA002, 0xA003)}
    assert dict(found.get_ifd(0x8825)) == place


def test_letters_that_are_not_ascii_are_kept(tmp_path):
    artist = "李雷".encode() + b"\0"
    block = b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 315, 2, len(artist), 26) + bytes(4) + artist
    write_picture(tmp_path / "x.tif", Picture(SMOOTH, metadata=Metadata(block)))
    assert artist in read_picture(tmp_path / "x.tif").metadata.exif


def test_a_file_of_more_than_4_gib_is_a_bigtiff_without_exif(tmp_path, monkeypatch):
    monkeypatch.setattr("swinir.image_io.writer._MOST_CLASSIC", 5000)
    about = Metadata(upright(exif()), None, b"<xmp/>", (300.0, 200.0))
    notes = write_picture(tmp_path / "x.tif", Picture(SMOOTH, metadata=about))
    assert notes == ("a TIFF file of more than 4 GiB has no place for its EXIF",)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.is_bigtiff
    found = read_picture(tmp_path / "x.tif")
    assert np.array_equal(found.pixels, SMOOTH)
    assert found.metadata == Metadata(None, None, b"<xmp/>", pytest.approx((300.0, 200.0)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_stands_upright_and_is_otherwise_the_same(orientation):
    block = exif(orientation)
    found = upright(block)
    assert len(found) == len(block)
    assert facts(found) == facts(exif(1))


def test_exif_whose_entries_share_their_values_does_not_fill_the_memory():
    size = 20_000
    entries = b"".join(struct.pack("<HHII", 40_000 + n, 7, size, 8) for n in range(1000))
    page = struct.pack("<HHII", EXIF, 4, 1, 100)
    data = b"II*\0" + struct.pack("<IH", 8, 1) + page + bytes(4)
    data = data.ljust(100, b"\0") + struct.pack("<H", 1000) + entries + bytes(4 + size)
    with pytest.raises(ImageError, match="damaged EXIF"):
        described(data)


@given(st.binary(max_size=200), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_damaged_exif_is_refused_or_copied_and_nothing_else(tmp_path_factory, noise, place):
    block = bytearray(exif())
    block[place : place + len(noise)] = noise
    path = tmp_path_factory.getbasetemp() / "damaged.tif"
    path.write_bytes(by_pillow(SMOOTH, "TIFF"))
    for damaged in (bytes(block), noise, bytes(block)[:place]):
        with contextlib.suppress(ImageError):
            append(path, upright(damaged))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(path.read_bytes()))), SMOOTH)

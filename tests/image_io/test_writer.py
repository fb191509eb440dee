"""What comes back of a picture that is written: samples, alpha, metadata; and what the user is told of the rest."""

import errno
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from makers import RGB16, RNG, SMOOTH, exif, facts
from PIL import Image, ImageCms
from reading import memory

from swinir.image_io.canvas import Workspace
from swinir.image_io.exif import upright
from swinir.image_io.picture import Metadata, Picture
from swinir.image_io.reader import read_picture
from swinir.image_io.writer import FORMATS, can_hold, write_picture

ALPHA = RNG.integers(0, 256, SMOOTH.shape[:2]).astype(np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ABOUT = Metadata(upright(exif()), PROFILE, b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>', (300.0, 200.0))
SUFFIXES = [suffix for row in FORMATS for suffix in row.suffixes]


@st.composite
def pictures(draw):
    """Small ones of every kind."""
    dtype = draw(st.sampled_from((np.uint8, np.uint16, np.float32)))
    height, width, channels = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from((1, 3)))
    values = st.floats(0, 1, width=32) if dtype is np.float32 else None
    pixels = draw(arrays.arrays(dtype, (height, width, channels), elements=values))
    alpha = draw(st.none() | arrays.arrays(dtype, (height, width), elements=values))
    return Picture(pixels, alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp"])
@given(picture=pictures())
@settings(max_examples=60, deadline=None)
def test_what_a_lossless_format_can_hold_comes_back_as_it_was(tmp_path_factory, suffix, picture):
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    row = can_hold(suffix)
    notes = write_picture(path, picture)
    found = read_picture(path)
    fits = picture.pixels.dtype.type in row.dtypes
    assert any("rounded" in note for note in notes) != fits
    if fits and (row.alpha or picture.alpha is None):
        expected = picture.pixels
        if found.pixels.shape != expected.shape:  # WebP has no grey
            assert row.name == "WEBP"
            expected = np.repeat(expected, 3, 2)
        assert np.array_equal(found.pixels, expected)
        opaque = picture.alpha is None or (picture.alpha == np.iinfo(np.uint8).max).all()
        if picture.alpha is not None and not (row.name == "WEBP" and opaque):
            assert np.array_equal(found.alpha, picture.alpha)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_written_and_read(tmp_path, suffix, channels):
    write_picture(tmp_path / f"x{suffix}", Picture(SMOOTH[..., :channels]))
    found = read_picture(tmp_path / f"x{suffix}")
    assert found.format == can_hold(suffix).name
    assert found.notes == ()
    assert abs(found.pixels - SMOOTH[..., :channels].astype(int)).mean() < 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_in_capitals_is_the_same(tmp_path, suffix):
    write_picture(tmp_path / f"x{suffix.upper()}", Picture(SMOOTH))
    assert read_picture(tmp_path / f"x{suffix.upper()}").format == can_hold(suffix).name


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_metadata_comes_back(tmp_path, suffix):
    assert write_picture(tmp_path / f"x{suffix}", Picture(SMOOTH, metadata=ABOUT)) == ()
    found = read_picture(tmp_path / f"x{suffix}").metadata
    (tags, taken, place), (expected, expected_taken, expected_place) = facts(found.exif), facts(ABOUT.exif)
    assert {tag: tags[tag] for tag in (0x10F, 0x132)} == {tag: expected[tag] for tag in (0x10F, 0x132)}
    if suffix == ".tif":  # where sizes are no matter of EXIF
        del expected_taken[0xA002], expected_taken[0xA003]
    assert expected_taken.items() <= taken.items()  # libexif adds entries that the standard demands
    assert place == expected_place
    assert tags.get(0x112, 1) == 1
    assert found.icc == PROFILE
    assert found.xmp == ABOUT.xmp
    if "dpi" in can_hold(suffix).metadata:
        assert found.dpi == pytest.approx((300, 200), abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_without_metadata_the_profile_stays_for_the_colours(tmp_path, suffix):
    write_picture(tmp_path / f"x{suffix}", Picture(SMOOTH, metadata=ABOUT), keep_metadata=False)
    assert read_picture(tmp_path / f"x{suffix}").metadata == Metadata(icc=PROFILE)


def test_exif_tells_the_size_of_the_picture_it_is_written_with(tmp_path):
    larger = Picture(np.repeat(np.repeat(SMOOTH, 2, 0), 2, 1), metadata=ABOUT)
    write_picture(tmp_path / "x.jpg", larger)
    _, taken, _ = facts(read_picture(tmp_path / "x.jpg").metadata.exif)
    assert (taken[0xA002], taken[0xA003]) == (128, 96)


def test_a_profile_for_other_channels_is_left_out(tmp_path):
    notes = write_picture(tmp_path / "x.png", Picture(SMOOTH[..., :1], metadata=ABOUT))
    assert notes == ("its profile is for images of another kind and left out",)
    assert read_picture(tmp_path / "x.png").metadata.icc is None


def test_what_a_format_has_no_place_for_is_told(tmp_path):
    notes = write_picture(tmp_path / "x.bmp", Picture(RGB16, metadata=ABOUT))
    assert notes == (
        "BMP holds 8 bits a sample: they were rounded to that",
        "BMP has no place for its EXIF",
        "BMP has no place for its profile",
        "BMP has no place for its XMP",
    )


def test_metadata_too_long_for_jpeg_is_left_out(tmp_path):
    notes = write_picture(tmp_path / "x.jpg", Picture(SMOOTH, metadata=Metadata(xmp=b"x" * 70_000)))
    assert notes == ("its XMP of 70,000 bytes is too long for JPEG and left out",)


def test_damaged_exif_is_left_out(tmp_path):
    notes = write_picture(tmp_path / "x.jpg", Picture(SMOOTH, metadata=Metadata(exif=b"nonsense")))
    assert notes == ("its EXIF is damaged and left out",)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_what_is_transparent_is_laid_on_white_where_there_is_no_alpha(tmp_path, suffix):
    pixels, alpha = np.full((16, 16, 3), 100, np.uint8), np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 51
    notes = write_picture(tmp_path / f"x{suffix}", Picture(pixels, alpha))
    assert "laid on white" in notes[0]
    found = read_picture(tmp_path / f"x{suffix}").pixels
    assert found[:, :8] == pytest.approx(255, abs=2)
    assert found[:, 8:] == pytest.approx(0.2 * 100 + 0.8 * 255, abs=2)


def test_an_opaque_alpha_is_dropped_in_silence(tmp_path):
    assert write_picture(tmp_path / "x.jpg", Picture(SMOOTH, np.full_like(ALPHA, 255))) == ()


def test_16_bits_are_rounded_to_8_and_not_cut(tmp_path):
    values = np.array([[[0], [128], [129], [385], [386], [65535]]], np.uint16)
    write_picture(tmp_path / "x.bmp", Picture(values))
    assert read_picture(tmp_path / "x.bmp").pixels.ravel().tolist() == [0, 0, 1, 1, 2, 255]


def test_quality_decides_the_size_of_a_file(tmp_path):
    for suffix in (".jpg", ".webp", ".avif"):
        sizes = []
        for quality in (10, 50, 90):
            write_picture(tmp_path / f"x{suffix}", Picture(SMOOTH), quality=quality)
            sizes.append((tmp_path / f"x{suffix}").stat().st_size)
        assert sizes[0] < sizes[1] < sizes[2], suffix


def test_jpeg_is_written_with_its_colours_in_full_resolution(tmp_path):
    write_picture(tmp_path / "x.jpg", Picture(SMOOTH))
    assert {layer[1:3] for layer in Image.open(tmp_path / "x.jpg").layer} == {(1, 1)}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.gif", {}, r"written as \.png, \.jpg, .*, got \.gif"),
        ("x", {}, "got no suffix"),
        ("x.png", {"quality": 90}, "for JPEG, WebP and AVIF only, not PNG, got 90"),
        ("x.jpg", {"quality": 0}, "from 1 to 100, got 0"),
        ("x.jpg", {"quality": 101}, "from 1 to 100, got 101"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        write_picture(tmp_path / name, Picture(SMOOTH), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "side"), [(".jpg", 65_501), (".webp", 16_384), (".avif", 16_385)])
def test_a_picture_too_large_for_a_format_is_refused(tmp_path, suffix, side):
    with pytest.raises(ValueError, match=f"got {side}x1; write .png"):
        write_picture(tmp_path / f"x{suffix}", Picture(np.zeros((1, side, 1), np.uint8)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(1, 1), (1, 19), (19, 1), (10_000, 3)])
def test_sizes_at_the_edge_are_written(tmp_path, suffix, size):
    write_picture(tmp_path / f"x{suffix}", Picture(np.full((*size, 3), 77, np.uint8)))
    assert read_picture(tmp_path / f"x{suffix}").pixels == pytest.approx(77, abs=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    write_picture(tmp_path / "x.png", Picture(SMOOTH))
    before = (tmp_path / "x.png").read_bytes()

    full = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115 - a target keeps it
    new_target = pyvips.Target.new_to_descriptor
    monkeypatch.setattr("pyvips.Target.new_to_descriptor", lambda _: new_target(full.fileno()))
    with pytest.raises(OSError, match="No space left") as caught:
        write_picture(tmp_path / "x.png", Picture(SMOOTH[::-1].copy()))
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "x.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    full.close()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_mapped_image_is_encoded_from_its_file(tmp_path, suffix):
    mapped = Workspace(tmp_path, memory_limit=0).array(SMOOTH.shape, np.uint8)
    mapped[:] = SMOOTH
    write_picture(tmp_path / f"mapped{suffix}", Picture(mapped))
    write_picture(tmp_path / f"plain{suffix}", Picture(SMOOTH))
    assert (tmp_path / f"mapped{suffix}").read_bytes() == (tmp_path / f"plain{suffix}").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_a_mapped_image_is_not_in_main_memory_while_it_is_encoded(tmp_path):
    workspace = Workspace(tmp_path, memory_limit=0)
    mapped = workspace.array((6000, 6000, 3), np.uint8)  # 108 MB
    mapped[:] = 7
    workspace.release()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    write_picture(tmp_path / "x.tif", Picture(mapped), workspace=workspace)
    assert memory("VmHWM") - before < 60_000_000
    assert np.array_equal(read_picture(tmp_path / "x.tif").pixels, mapped)


def test_writing_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_picture(tmp_path / "nowhere" / "x.png", Picture(SMOOTH))


@pytest.mark.parametrize("name", ["two words.png", "two\nlines.png", "-n.png", "ß日本.png", "x" * 251 + ".png"])
def test_files_of_any_name_are_written(tmp_path, name):
    write_picture(tmp_path / name, Picture(SMOOTH))
    assert Image.open(io.BytesIO((tmp_path / name).read_bytes())).size == (64, 48)

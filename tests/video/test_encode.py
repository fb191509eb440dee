"""Encoders' options, and what an output can hold."""

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

av = pytest.importorskip("av")

from clips import moving, write_clip  # noqa: E402

from swinir.video.clip import ClipError, inspect  # noqa: E402
from swinir.video.encode import ENCODERS, Encoding, container_of, rehearse  # noqa: E402


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    base = Fraction(1, 1000)
    write_clip(path, moving(3), time_base=base, gaps=(40,), subtitle="Hello", attachment=("a.ttf", "font/ttf", b"ab"))
    return inspect(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "h264"}, "codec must be one of libx264, libx265, libsvtav1, got 'h264'"),
        ({"crf": 52}, "crf of libx264 must be from 0 to 51, got 52"),
        ({"codec": "libsvtav1", "crf": 64}, "from 0 to 63, got 64"),
        ({"preset": "quick"}, "preset of libx264 must be one of ultrafast"),
        ({"codec": "libsvtav1", "preset": "slow"}, "preset of libsvtav1 must be one of 0, 1"),
    ],
)
def test_options_that_an_encoder_does_not_have_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Encoding(**options)


def test_defaults_are_those_of_the_table(clip):
    assert Encoding().options(clip) == {"crf": "18", "preset": "medium"}
    assert Encoding("libsvtav1", 30, "8").options(clip) == {"crf": "30", "preset": "8"}


CODES = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
NUMBERS = "G(0.265000,0.690000)B(0.150000,0.060000)R(0.680000,0.320000)WP(0.312700,0.329000)L(1000.000000,0.000100)"


@pytest.mark.parametrize(
    ("codec", "parameters"),
    [
        ("libx264", f"mastering-display={CODES}:cll=1000,400"),
        ("libx265", f"master-display={CODES}:max-cll=1000,400:log-level=error"),
        ("libsvtav1", f"mastering-display={NUMBERS}:content-light=1000,400"),
    ],
)
def test_static_hdr_metadata_is_told_to_each_encoder(clip, codec, parameters):
    points = [n for value in (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450) for n in (value, 50000)]
    display = struct.pack("22i", *points, 1, 10000, 10000000, 10000, 1, 1)
    light = struct.pack("2I", 1000, 400)
    hdr = replace(clip, hdr={"MASTERING_DISPLAY_METADATA": display, "CONTENT_LIGHT_LEVEL": light})
    (given,) = (value for key, value in Encoding(codec).options(hdr).items() if key.endswith("-params"))
    assert given == parameters


@pytest.mark.parametrize("codec", ENCODERS)
def test_an_output_that_holds_everything_passes(clip, codec):
    rehearse(clip, (48, 64), Path("a.mkv"), Encoding(codec))


def test_streams_that_the_output_cannot_hold_are_refused_with_a_way_out(clip):
    with pytest.raises(ClipError, match=r"^a.mp4: .*; name an output that ends in .mkv$"):
        rehearse(clip, (48, 64), Path("a.mp4"), Encoding())


def test_a_depth_that_the_encoder_cannot_hold_is_refused(clip):
    with pytest.raises(ClipError, match="libsvtav1 cannot encode yuv422p10le; choose another --codec"):
        rehearse(replace(clip, pixel_format="yuv422p10le"), (48, 64), Path("a.mkv"), Encoding("libsvtav1"))


def test_outputs_of_other_formats_are_refused():
    assert container_of(Path("A.MOV")) == "mov"
    with pytest.raises(ValueError, match=r"a\.avi must end in one of \.mp4"):
        container_of(Path("a.avi"))

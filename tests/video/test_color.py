"""RGB of Y'CbCr frames against the formulas of BT.601, BT.709 and BT.2020."""

import numpy as np
import pytest

av = pytest.importorskip("av")

from clips import moving  # noqa: E402

from swinir.video.color import FULL, LIMITED, from_rgb, planar, to_rgb  # noqa: E402

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
FORMATS = ("yuv420p", "yuvj420p", "nv12", "yuv420p10le", "p010le", "yuv422p", "yuv444p", "yuv444p10le", "gray")


def uniform(name, codes):
    """A frame of one color, whose planes or pairs of samples hold the codes."""
    frame = av.VideoFrame(32, 16, name)
    wide = av.VideoFormat(name).components[0].bits > 8
    shift = 6 if name == "p010le" else 0
    contents = (codes[:1], codes[1:]) if len(frame.planes) == 2 else (codes[:1], codes[1:2], codes[2:])
    for plane, content in zip(frame.planes, contents, strict=False):
        samples = np.frombuffer(plane, np.uint16 if wide else np.uint8)
        samples[:] = np.resize(np.array(content) << shift, samples.shape)
    return frame


def by_formula(codes, depth, matrix, color_range):
    """R'G'B' in [0, 1], from ITU-R BT.709 section 3 and its likes, solved for the primaries."""
    unit = 2 ** (depth - 8)
    black, luma_steps, chroma_steps = 16 * unit, 219 * unit, 224 * unit
    if color_range == FULL:
        black, luma_steps, chroma_steps = 0, 2**depth - 1, 2**depth - 1
    luma = (codes[0] - black) / luma_steps
    blue, red = ((code - 128 * unit) / chroma_steps for code in codes[1:])
    kr, kb = WEIGHTS[matrix]
    first, last = luma + red * 2 * (1 - kr), luma + blue * 2 * (1 - kb)
    return np.array([first, (luma - kr * first - kb * last) / (1 - kr - kb), last])


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("name", FORMATS)
def test_rgb_is_that_of_the_standard_and_the_way_back_returns_the_codes(name, matrix, color_range):
    if name == "yuvj420p" and color_range == LIMITED:
        pytest.skip("the name says full range")
    depth = av.VideoFormat(name).components[0].bits
    unit = 2 ** (depth - 8)
    codes = (
        100 * unit + unit - 1,
        128 * unit if name == "gray" else 141 * unit,
        128 * unit if name == "gray" else 117 * unit,
    )
    rgb = to_rgb(uniform(name, codes), matrix, color_range)
    assert rgb.shape == (16, 32, 3)
    assert np.abs(rgb[8, 16] / 65535 - by_formula(codes, depth, matrix, color_range)).max() < 1e-5
    back = from_rgb(rgb, planar(av.VideoFormat(name)), matrix, color_range)
    for plane, code in zip(back.planes, codes, strict=False):
        samples = np.frombuffer(plane, np.uint8 if depth == 8 else np.uint16).reshape(plane.height, -1)
        assert (samples[:, : plane.width] == code).all()


@pytest.mark.parametrize(("name", "within"), [("yuv444p", 0.0), ("yuv420p", 0.1), ("gray", 0.0)])
def test_a_photograph_comes_back_from_rgb(name, within):
    pixels = moving(1)[0].astype(np.uint16) * 257
    frame = from_rgb(pixels, name, 1, LIMITED)
    again = from_rgb(to_rgb(frame, 1, LIMITED), name, 1, LIMITED)
    for plane, other in zip(frame.planes, again.planes, strict=True):
        assert np.abs(np.frombuffer(plane, np.uint8).astype(int) - np.frombuffer(other, np.uint8)).mean() <= within


@pytest.mark.parametrize("name", ["rgb24", "yuva420p", "pal8", "gbrp10le", "rgba", "ya8", "grayf32le"])
def test_rgb_and_alpha_have_no_planar_form(name):
    assert planar(av.VideoFormat(name)) is None


@pytest.mark.parametrize("name", ["yuv444p", "gray"])
def test_padded_rows_of_narrow_frames_are_read_by_their_depth(name):
    padded = next(width for width in range(2, 64) if av.VideoFrame(width, 4, name).planes[0].line_size >= 2 * width)
    frame = av.VideoFrame(padded, 4, name)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 128
    assert to_rgb(frame, 1, FULL) == pytest.approx(np.full((4, padded, 3), 128 * 257), abs=1)

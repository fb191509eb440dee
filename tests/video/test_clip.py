"""Clips as they are read: times and tags, and refusals in one line."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")

from clips import TICK, moving, write_clip  # noqa: E402

from swinir.video.clip import SAMPLES, ClipError, Tags, frames, inspect, refusing  # noqa: E402
from swinir.video.color import FULL, LIMITED  # noqa: E402


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of 20 frames at uneven times, with sound, and its times."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return path, write_clip(path, moving(20), rotation=90, aspect=Fraction(4, 3), matrix=6, primaries=5, transfer=6)


def refusal(path, **how):
    with pytest.raises(ClipError) as caught:
        inspect(path, **how)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_times_and_tags_are_read(clip):
    path, times = clip
    found = inspect(path)
    assert found.pts == tuple(times)
    assert (found.time_base, found.width, found.height, found.pixel_format) == (TICK, 64, 48, "yuv420p")
    assert found.tags == Tags(6, LIMITED, 5, 6)
    assert found.aspect == Fraction(4, 3)
    assert found.display_matrix[:5] == (0, -65536, 0, 65536, 0)
    assert 2 <= len(found.samples) <= SAMPLES
    assert [frame.pts for frame in frames(found)] == times


def test_the_beginning_is_taken_alone(clip):
    path, times = clip
    found = inspect(path, seconds=0.3)
    assert found.pts == tuple(pts for pts in times if pts * TICK < Fraction("0.3"))
    assert not found.whole


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (720, 1)])
def test_a_clip_without_a_matrix_has_the_one_that_players_take(tmp_path, height, matrix):
    write_clip(tmp_path / "a.mp4", [np.zeros((height, 16, 3), np.uint8)] * 2, matrix=2, color_range=2, sound=False)
    assert inspect(tmp_path / "a.mp4").tags == Tags(matrix, FULL, 1, 1)


def test_a_cut_file_is_refused_before_any_work(clip, tmp_path):
    data = clip[0].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert "truncated or damaged" in refusal(tmp_path / "cut.mp4")


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_file_that_ends_before_its_time_is_refused(tmp_path, name):
    write_clip(tmp_path / name, moving(50), time_base=Fraction(1, 1000), gaps=(40,), first=name == "a.mp4")
    whole = (tmp_path / name).read_bytes()
    inspect(tmp_path / name)
    (tmp_path / name).write_bytes(whole[: len(whole) * 6 // 10])
    assert "damaged" in refusal(tmp_path / name)


def test_damage_in_the_middle_is_refused_with_its_time(clip, tmp_path):
    data = bytearray(clip[0].read_bytes())
    middle = data.index(b"mdat") + len(data) // 4
    data[middle : middle + 3000] = bytes(byte ^ 0x5A for byte in data[middle : middle + 3000])
    (tmp_path / "a.mp4").write_bytes(data)
    assert "is damaged after 0." in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("content", [b"", b"hello" * 99, b"\0" * 999])
def test_a_file_that_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert "cannot be read as a video" in refusal(tmp_path / "a.mp4")


def test_a_wrong_header_is_refused(clip, tmp_path):
    data = clip[0].read_bytes()
    (tmp_path / "a.mp4").write_bytes(b"\0" * 64 + data[64:])
    assert "cannot be read as a video" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif"])
def test_an_image_is_sent_to_its_command(tmp_path, name):
    Image.fromarray(moving(1)[0]).save(tmp_path / name)
    assert "is an image; `swinir restore` takes it" in refusal(tmp_path / name)


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mka"), "w", format="matroska") as output:
        voice = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), "s16", "stereo")
        frame.sample_rate, frame.pts = 48000, 0
        output.mux(voice.encode(frame))
        output.mux(voice.encode())
    assert "has no video streams; name a video" in refusal(tmp_path / "a.mka")


def test_a_clip_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        output.start_encoding()
    assert "damaged" in refusal(tmp_path / "a.mkv")


def test_interlaced_frames_are_refused(tmp_path):
    interlaced = {"crf": "20", "x264-params": "tff=1"}
    write_clip(tmp_path / "a.mp4", moving(5), options=interlaced, sound=False)
    assert "is interlaced at 0.00 s; deinterlace it" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "yuva420p"), ("ffv1", "gbrp10le"), ("gif", "rgb8")])
def test_rgb_and_alpha_are_refused(tmp_path, codec, pixel_format):
    path = tmp_path / ("a.gif" if codec == "gif" else "a.mkv")
    base = Fraction(1, 100 if codec == "gif" else 1000)
    write_clip(
        path, moving(3), codec=codec, pixel_format=pixel_format, options={}, time_base=base, gaps=(40,), sound=False
    )
    assert "Y'CbCr without alpha is taken" in refusal(path)


def test_two_videos_in_one_file_are_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        streams = [output.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height = 64, 48
        for stream in streams:
            output.mux(
                stream.encode(av.VideoFrame.from_ndarray(moving(1)[0], format="rgb24").reformat(format="yuv420p"))
            )
            output.mux(stream.encode())
    assert "has 2 video streams; keep one" in refusal(tmp_path / "a.mkv")


def test_frames_larger_than_allowed_are_refused(clip):
    assert "64x48, more than --max-pixels 0.003" in refusal(clip[0], max_pixels=3000)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "not there; check the path" in refusal(tmp_path / "none.mp4")
    assert "a folder; name a clip in it" in refusal(tmp_path)


def test_a_file_that_changes_meanwhile_is_noticed(clip, tmp_path):
    write_clip(tmp_path / "a.mp4", moving(4), sound=False)
    found = inspect(tmp_path / "a.mp4")
    write_clip(tmp_path / "a.mp4", moving(3), sound=False)
    with pytest.raises(ClipError, match="was changed while it was restored"):
        list(frames(found))


def test_errors_of_programming_are_no_refusals(tmp_path):
    with pytest.raises(KeyError), refusing(tmp_path):
        _ = {}["key"]

"""Whole clips: frames by the one path, what is kept of the source, kills and continuations."""

import errno
import gc
import json
import os
import signal
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

av = pytest.importorskip("av")

from clips import decoded, moving, packets, write_clip  # noqa: E402
from forks import in_another_process, signal_self  # noqa: E402
from pictures import write_expert  # noqa: E402

import swinir  # noqa: E402
from swinir.degradations.estimate import Findings, Noise  # noqa: E402
from swinir.inference.options import RunOptions  # noqa: E402
from swinir.locks import BusyError  # noqa: E402
from swinir.photos.batch import Policy  # noqa: E402
from swinir.photos.jobs import Output  # noqa: E402
from swinir.photos.loaded_models import LoadedModels  # noqa: E402
from swinir.photos.manifest import OutputError  # noqa: E402
from swinir.photos.restore_photo import Decision, Treatment  # noqa: E402
from swinir.video import restore_clip as module  # noqa: E402
from swinir.video.color import to_rgb  # noqa: E402
from swinir.video.encode import Encoding  # noqa: E402
from swinir.video.restore_clip import VideoOptions, plan_clip, restore_clip, typical  # noqa: E402

FAST = Encoding(preset="ultrafast")
LOSSLESS = Encoding(crf=0, preset="ultrafast")


def restore(source, output, *, encoding=FAST, treatment=None, policy=None, **options):
    """Restore a clip, and return its record."""
    models = LoadedModels(torch.device("cpu"), 1e9)
    treatment = treatment or Treatment(run=RunOptions())
    job = plan_clip(source, output, Output())
    return restore_clip(job, treatment, models, VideoOptions(encoding, **options), policy or Policy())


@pytest.fixture
def stub(monkeypatch):
    """A network that doubles each pixel; the list of frames that went through it."""
    passed = []

    def double(picture, *_args, **_more):
        passed.append(picture.pixels)
        return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))

    def decide(picture, *_):
        height, width = picture.pixels.shape[:2]
        return Decision((), (2 * height, 2 * width))

    monkeypatch.setattr(module, "restore_photo", double)
    monkeypatch.setattr(module, "decide", decide)
    monkeypatch.setattr(module, "estimate", lambda _: Findings(Noise(0.0), None, None, gray=False))
    monkeypatch.setattr(module, "FRAMES", 4)
    return passed


def seconds(path):
    return [frame.pts * frame.time_base for frame in decoded(path)]


def colors(path):
    return {(f.colorspace, f.color_range, f.color_primaries, f.color_trc, f.format.name) for f in decoded(path)}


def test_times_sound_chapters_rotation_aspect_and_tags_stay(tmp_path, stub):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(10), rotation=90, chapters=True, aspect=Fraction(4, 3), matrix=6, primaries=5, transfer=6)
    assert restore(source, target).status == "restored"
    assert len(stub) == 10
    assert seconds(target) == seconds(source)
    assert packets(target, "audio") == packets(source, "audio")
    assert colors(target) == colors(source) == {(6, 1, 5, 6, "yuv420p")}
    assert {(frame.width, frame.height, frame.rotation) for frame in decoded(target)} == {(128, 96, 90)}
    with av.open(str(source)) as before, av.open(str(target)) as after:
        assert after.chapters() == before.chapters() != []
        assert after.metadata["title"] == "A clip"
        assert after.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert after.streams.audio[0].language == "fra"
    assert not (tmp_path / "out.mp4.parts").exists()


def test_subtitles_and_attachments_stay_in_matroska(tmp_path, stub):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    font = ("a.ttf", "font/ttf", b"letters")
    write_clip(
        source, moving(6), time_base=Fraction(1, 1000), gaps=(40, 33, 51), start=300, subtitle="Hello", attachment=font
    )
    restore(source, target)
    assert seconds(target) == seconds(source)
    assert packets(target, "subtitles") == packets(source, "subtitles")
    with av.open(str(target)) as found:
        (attachment,) = (stream for stream in found.streams if stream.type == "attachment")
        assert (attachment.name, attachment.mimetype, attachment.data) == font


@pytest.mark.parametrize(("codec", "preset"), [("libx264", "ultrafast"), ("libx265", "ultrafast"), ("libsvtav1", "12")])
def test_ten_bits_and_hdr_metadata_stay(tmp_path, stub, codec, preset):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    parameters = f"log-level=error:master-display={display}:max-cll=1000,400"
    deep = [image.astype(np.uint16) * 257 for image in moving(5)]
    write_clip(source, deep, codec="libx265", pixel_format="yuv420p10le", options={"x265-params": parameters},
               matrix=9, primaries=9, transfer=16, sound=False)  # fmt: skip
    assert restore(source, target, encoding=Encoding(codec, preset=preset)).status == "restored"
    assert colors(target) == {(9, 1, 9, 16, "yuv420p10le")}
    assert seconds(target) == seconds(source)
    kinds = {data.type.name for data in decoded(target)[0].side_data}
    assert {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} <= kinds


def test_frames_are_those_that_the_command_for_images_makes(tmp_path):
    model = write_expert(tmp_path / "x2.pth")
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(3, 24, 32), pixel_format="yuv444p", sound=False)
    result = restore(source, target, encoding=LOSSLESS, treatment=Treatment(model=str(model), run=RunOptions()))
    assert result.experts[0][0] == str(model)
    assert (result.output_width, result.output_height) == (64, 48)
    for before, after in zip(decoded(source), decoded(target), strict=True):
        expected = swinir.restore_image(to_rgb(before, 1, 1), model=model, tile=None, precision="fp32", device="cpu")
        error = np.abs(to_rgb(after, 1, 1).astype(float) - expected) / 257
        # Codes of luma and blue are rounded by half a step: 0.5 * 255 / 219 + 0.5 * 255 / 224 * 1.8556.
        assert error.max() < 1.65


def test_full_range_and_gray_stay(tmp_path, stub):
    for name, pixel_format, color_range in (("a.mp4", "yuvj420p", 2), ("b.mp4", "gray", 1)):
        source, target = tmp_path / name, tmp_path / f"out_{name}"
        write_clip(source, moving(2), pixel_format=pixel_format, color_range=color_range, sound=False)
        restore(source, target, encoding=LOSSLESS)
        assert {f[1] for f in colors(target)} == {color_range}
        before, after = (to_rgb(decoded(path)[0], 1, color_range) for path in (source, target))
        assert np.abs(after[::2, ::2].astype(float) - before).mean() / 257 < 0.8


def test_the_beginning_alone_is_restored_with_its_sound(tmp_path, stub):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(20))
    restore(source, target, seconds=0.3)
    assert seconds(target) == [time for time in seconds(source) if time < Fraction("0.3")]
    assert 0.25 < max(float(time) for time, _, _ in packets(target, "audio")) < 0.4


def test_a_clip_that_needs_no_repair_is_copied(tmp_path, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, [np.full((48, 64, 3), 90, np.uint8)] * 3)
    monkeypatch.setattr(module, "estimate", lambda _: Findings(Noise(0.0), None, None, gray=False))
    assert restore(source, target).status == "unchanged"
    assert target.read_bytes() == source.read_bytes()


def test_flicker_is_noted_in_the_record(tmp_path, stub):
    source = tmp_path / "in.mp4"
    write_clip(source, moving(1) * 6, sound=False)
    result = restore(source, tmp_path / "out.mp4")
    assert any(note.startswith("Flicker on static pixels: 0.0") for note in result.notes)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["begun", "restored"]


def test_odd_sizes_become_even_where_chroma_is_halved(tmp_path, stub, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(2), sound=False)
    monkeypatch.setattr(module, "decide", lambda *_: Decision((), (73, 97)))

    def blacken(picture, decision, *_args, **_more):
        return replace(picture, pixels=np.zeros((*decision.size, 3), np.uint16))

    monkeypatch.setattr(module, "restore_photo", blacken)
    result = restore(source, target)
    assert (result.output_height, result.output_width) == (72, 96)
    assert "96x72 instead of 97x73: sides are even in yuv420p" in result.notes


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("operations", [0, 4, 9, 14, 20, 27])
def test_a_killed_clip_goes_on_after_its_last_segment(tmp_path, stub, operations, steady):
    """The kill comes at a file operation after the first of three segments is finished."""
    source, target = tmp_path / "in.mp4", tmp_path / "killed" / "out.mp4"
    write_clip(source, moving(11), sound=False)
    restore(source, tmp_path / "whole" / "out.mp4", encoding=LOSSLESS, steady=steady)
    first = target.with_name("out.mp4.parts") / "000000.json"

    def killed():
        signal_self(signal.SIGKILL, operations, first.exists)
        return restore(source, target, encoding=LOSSLESS, steady=steady) and 0

    gc.collect()  # decoders of this process, whose threads the fork does not have
    assert in_another_process(killed) == -signal.SIGKILL
    finished = sum(path.name != "request.json" for path in first.parent.glob("*.json"))
    assert 1 <= finished <= 3
    stub.clear()
    assert restore(source, target, encoding=LOSSLESS, steady=steady).status == "restored"
    assert len(stub) == max(0, 11 - 4 * finished)
    assert target.read_bytes() == (tmp_path / "whole" / "out.mp4").read_bytes()
    assert sorted(os.listdir(target.parent)) == ["out.mp4", "results.jsonl"]


def test_a_damaged_segment_is_made_again(tmp_path, stub, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(11), sound=False)

    def fail(*_):
        raise OSError("no join")

    with monkeypatch.context() as patch:
        patch.setattr(module, "join", fail)
        assert restore(source, target).status == "failed"
    second = tmp_path / "out.mp4.parts" / "000001.mp4"
    second.write_bytes(second.read_bytes()[:-9])
    stub.clear()
    assert restore(source, target).status == "restored"
    assert len(stub) >= 7
    assert len(decoded(target)) == 11


def test_segments_of_other_settings_are_refused_and_replaced_when_asked(tmp_path, stub, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(6), sound=False)
    with monkeypatch.context() as patch:
        patch.setattr(module, "join", lambda *_: os.fsync(-1))
        restore(source, target)
    refused = restore(source, target, encoding=Encoding(crf=30, preset="ultrafast"))
    assert refused.status == "failed"
    assert "out.mp4.parts has segments of another input or other settings; --overwrite starts again" in refused.error
    again = restore(source, target, encoding=Encoding(crf=30, preset="ultrafast"), policy=Policy("overwrite"))
    assert again.status == "restored"


def test_existing_outputs_are_kept_by_the_rules_for_images(tmp_path, stub):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(4), sound=False)
    assert restore(source, target).status == "restored"
    assert restore(source, target).error == "done before"
    other = Encoding(crf=30, preset="ultrafast")
    refused = restore(source, target, encoding=other)
    assert "was made from another input or with other settings; --overwrite makes it again" in refused.error
    assert restore(source, target, encoding=other, policy=Policy("skip")).status == "skipped"
    assert restore(source, target, encoding=other, policy=Policy("overwrite")).status == "restored"


def test_an_output_that_another_run_makes_is_refused(tmp_path, stub, monkeypatch):
    source = tmp_path / "in.mp4"
    write_clip(source, moving(2), sound=False)
    monkeypatch.setattr("swinir.locks.FolderLock.claim", lambda *_: False)
    with pytest.raises(BusyError, match=r"out.mp4 is being made by another run"):
        restore(source, tmp_path / "out.mp4")


def test_a_broken_clip_is_recorded_as_failed(tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"nothing")
    result = restore(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert result.status == "failed"
    assert "in.mp4: cannot be read as a video" in result.error
    assert not (tmp_path / "out.mp4.parts").exists()


def test_models_are_chosen_by_the_frame_of_median_noise_and_jpeg_of_most_frames():
    found = [Findings(Noise(level), quality, None, gray=True) for level, quality in ((9, 40), (2, None), (5, 60))]
    chosen = typical(found)
    assert (chosen.noise_level, chosen.jpeg_quality, chosen.gray) == (5, 40, True)
    assert typical([*found, replace(found[1], gray=False), found[1]]).jpeg_quality is None


@pytest.mark.extras
def test_sound_and_frames_end_together_after_ten_thousand_frames(tmp_path, stub, monkeypatch):
    monkeypatch.setattr(module, "FRAMES", 500)
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    images = [np.full((16, 16, 3), 16 * shade, np.uint8) for shade in range(16)] * 625
    ntsc = Fraction(1, 30000)
    write_clip(source, images, options={"preset": "ultrafast"}, time_base=ntsc, gaps=(1001, 1001, 1301), sound=8000)
    assert restore(source, target).status == "restored"
    times = [seconds(path) for path in (source, target)]
    ends = [sum(packets(path, "audio")[-1][:2]) for path in (source, target)]
    assert len(stub) == len(times[1]) == 10_000
    assert abs((times[0][-1] - ends[0]) - (times[1][-1] - ends[1])) < Fraction(1, 1000)
    assert max(abs(a - b) for a, b in zip(*times, strict=True)) < Fraction(1, 1000)


@pytest.mark.parametrize(
    ("name", "target"), [("a.mp4", "a_x2.mp4"), ("a.MOV", "a_x2.MOV"), ("a.webm", "a_x2.mkv"), ("a.avi", "a_x2.mkv")]
)
def test_an_output_in_a_folder_keeps_a_format_that_holds_every_encoder(tmp_path, name, target):
    assert plan_clip(tmp_path / name, tmp_path, Output(request="_x2")).target == tmp_path / target


def test_a_transport_stream_keeps_its_times_and_sound_in_mp4(tmp_path, stub):
    source, target = tmp_path / "in.ts", tmp_path / "out.mp4"
    write_clip(source, moving(10), time_base=Fraction(1, 90000), gaps=(3600, 4000))
    assert restore(source, target).status == "restored"
    offsets = []
    for path in (source, target):
        times, sound = seconds(path), packets(path, "audio")
        offsets.append((sound[0][0] - times[0], [time - times[0] for time in times]))
    assert offsets[0][1] == offsets[1][1]
    assert abs(offsets[0][0] - offsets[1][0]) < Fraction(1, 1000)
    with av.open(str(target)) as found:
        assert sum(frame.samples for frame in found.decode(audio=0)) > 15000


def test_a_full_disk_stops_the_run_and_the_segments_stay(tmp_path, stub, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, moving(11), sound=False)
    encode = module.encode

    def fill(path, *more):
        if len(stub) >= 8:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        encode(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(module, "encode", fill)
        with pytest.raises(OutputError, match="make room, and run the same command again"):
            restore(source, target)
    stub.clear()
    assert restore(source, target).status == "restored"
    assert len(stub) == 3

"""Video clips made of photographs that come with scikit-image: crops that move, with sound, text and tags."""

from fractions import Fraction

import av
import numpy as np
from skimage import data

TICK = Fraction(1, 15360)
UNEVEN = (512, 700, 300)  # ticks between frames, in turn
SOUND = 48000  # samples a second, unless `sound` is another number


def moving(number, height=48, width=64, step=1):
    """(H, W, 3) uint8 frames of a crop that moves over a photograph."""
    photo = data.astronaut()
    return [np.ascontiguousarray(photo[step * i : step * i + height, 150 : 150 + width]) for i in range(number)]


def write_clip(
    path,
    images,
    *,
    codec="libx264",
    pixel_format="yuv420p",
    options=None,
    gaps=UNEVEN,
    time_base=TICK,
    start=0,
    matrix=1,
    color_range=1,
    primaries=1,
    transfer=1,
    sound=True,
    rotation=None,
    chapters=False,
    aspect=None,
    subtitle=None,
    attachment=None,
    first=False,
):
    """Write uint8 or uint16 RGB images as a clip, by PyAV's own conversion; return the time of each, in ticks.

    `gaps` are ticks between frames, in turn; with `first` the index of an MP4 stands before its frames.
    """
    deep = images[0].dtype == np.uint16
    with av.open(str(path), "w", options={"movflags": "faststart"} if first else {}) as output:
        stream = output.add_stream(codec, rate=25, options={"crf": "10"} if options is None else options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.time_base = stream.time_base = time_base
        context.colorspace, context.color_range = matrix, color_range
        context.color_primaries, context.color_trc = primaries, transfer
        if aspect:
            context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        rate = SOUND if sound is True else sound
        voice = output.add_stream("aac", rate=rate) if sound else None
        if voice:
            voice.metadata["language"] = "fra"
        text = output.add_mux_stream("subrip", time_base=Fraction(1, 1000)) if subtitle else None
        if attachment:
            output.add_attachment(*attachment)
        if chapters:
            seconds = Fraction(1, 1000)
            output.set_chapters(
                [{"id": 1, "start": 0, "end": 700, "time_base": seconds, "metadata": {"title": "Beginning"}},
                 {"id": 2, "start": 700, "end": 1500, "time_base": seconds, "metadata": {"title": "End"}}]
            )  # fmt: skip
        output.metadata["title"] = "A clip"
        times, now, converted = [], start, {}
        for number, image in enumerate(images):
            frame = converted.get(id(image))
            if frame is None:
                frame = av.VideoFrame.from_ndarray(image, format="rgb48le" if deep else "rgb24")
                frame = frame.reformat(
                    format=pixel_format,
                    dst_colorspace={1: "itu709", 9: "bt2020"}.get(matrix, "itu601"),
                    src_color_range="JPEG",
                    dst_color_range=color_range,
                )
                converted[id(image)] = frame
            frame.pts, frame.time_base = now, time_base
            times.append(now)
            now += gaps[number % len(gaps)]
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if voice:
            _add_sound(output, voice, rate, float((now - start) * time_base))
        if text:
            packet = av.Packet(subtitle.encode())
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 100
            packet.duration = 500
            output.mux(packet)
    return times


def _add_sound(output, voice, rate, seconds):
    """A tone that lasts for some seconds."""
    for start in range(0, int(seconds * rate), 1024):
        wave = np.sin(np.arange(start, start + 1024) / 20)
        frame = av.AudioFrame.from_ndarray(np.repeat((wave * 9000).astype(np.int16), 2)[None], "s16", "stereo")
        frame.sample_rate, frame.pts = rate, start
        output.mux(voice.encode(frame))
    output.mux(voice.encode())


def decoded(path):
    """All frames of a clip."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def packets(path, kind):
    """(time in seconds, duration, bytes) of each packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base, bytes(packet))
            for packet in container.demux(**{kind: 0})
            if packet.size
        ]

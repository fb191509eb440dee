"""Frames into segments, and segments with the other streams of the source into one file.

Each segment is encoded on its own, so it begins with a key frame and refers to no other. Packets of all segments get
the times of the source's frames when they are joined.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer, OutputContainer

from swinir.image_io.errors import named
from swinir.video.clip import Clip, ClipError, is_cover, main_stream

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_OF_THE_FILE = ("encoder", "major_brand", "minor_version", "compatible_brands")  # metadata that the muxer makes
_LATER = 1000  # ticks, more than a segment has frames
_UNITS = (50000,) * 8 + (10000,) * 2  # of coordinates and luminances in H.265


class Encoder(NamedTuple):
    """Defaults and limits of --crf and --preset, and FFmpeg's names of the parameters for HDR."""

    crf: int
    largest_crf: int
    preset: str
    presets: tuple[str, ...]
    parameters: str
    display: str
    light: str


_SPEEDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
ENCODERS = {
    "libx264": Encoder(18, 51, "medium", _SPEEDS, "x264-params", "mastering-display", "cll"),
    "libx265": Encoder(20, 51, "medium", _SPEEDS, "x265-params", "master-display", "max-cll"),
    "libsvtav1": Encoder(
        24, 63, "6", tuple(map(str, range(14))), "svtav1-params", "mastering-display", "content-light"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Encoding:
    """The encoder of the output.

    Attributes:
        codec: of `ENCODERS`.
        crf: constant quality, lower is better; None is the encoder's default here.
        preset: name or number, slower is smaller; None likewise.

    Raises:
        ValueError: for values that the encoder does not have.
    """

    codec: str = "libx264"
    crf: float | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.codec not in ENCODERS or self.codec not in av.codecs_available:
            here = ", ".join(codec for codec in ENCODERS if codec in av.codecs_available)
            raise ValueError(f"codec must be one of {here}, got {self.codec!r}")
        encoder = ENCODERS[self.codec]
        if self.crf is not None and not 0 <= self.crf <= encoder.largest_crf:
            raise ValueError(f"crf of {self.codec} must be from 0 to {encoder.largest_crf}, got {self.crf:g}")
        if self.preset not in (None, *encoder.presets):
            choices = ", ".join(encoder.presets)
            raise ValueError(f"preset of {self.codec} must be one of {choices}, got {self.preset!r}")

    def options(self, clip: Clip) -> dict[str, str]:
        """Return FFmpeg's options for a clip."""
        encoder, private = ENCODERS[self.codec], self._hdr(clip)
        if self.codec == "libx265":
            private.append("log-level=error")
        crf = encoder.crf if self.crf is None else self.crf
        options = {"crf": f"{crf:g}", "preset": self.preset or encoder.preset}
        return options | ({encoder.parameters: ":".join(private)} if private else {})

    def _hdr(self, clip: Clip) -> list[str]:
        """The encoder's parameters for the mastering display and the content's light."""
        words, encoder = [], ENCODERS[self.codec]
        display, light = clip.hdr.get("MASTERING_DISPLAY_METADATA"), clip.hdr.get("CONTENT_LIGHT_LEVEL")
        if display is not None:
            *numbers, has_primaries, has_luminance = struct.unpack("22i", display)
            if has_primaries and has_luminance:
                values = [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
                shown = [f"{float(value):.6f}" for value in values]
                if self.codec != "libsvtav1":  # in units of the standard
                    shown = [str(round(value * unit)) for value, unit in zip(values, _UNITS, strict=True)]
                red, green, blue, white, (least, most) = zip(shown[::2], shown[1::2], strict=True)
                points = (("G", green), ("B", blue), ("R", red), ("WP", white), ("L", (most, least)))
                words.append(f"{encoder.display}=" + "".join(f"{name}({a},{b})" for name, (a, b) in points))
        if light is not None:
            most, average = struct.unpack_from("2I", light)
            words.append(f"{encoder.light}={most},{average}")
        return words


def encode(path: Path, frames: Iterable[av.VideoFrame], clip: Clip, size: tuple[int, int], encoding: Encoding) -> None:
    """Encode frames of (height, width) into a file with one stream, whose packets keep their order and no times."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = _add_video(container, clip, size, encoding)
        packets = (packet for frame in chain(frames, [None]) for packet in stream.encode(frame))
        first = None
        # `join` asks for their order alone. libx265 gives short segments times of decoding after those of showing.
        for number, packet in enumerate(packets):
            first = packet.pts if first is None else first
            packet.pts, packet.dts = packet.pts - first + _LATER, number
            container.mux_one(packet)


def _add_video(output: OutputContainer, clip: Clip, size: tuple[int, int], encoding: Encoding) -> av.VideoStream:
    """Add a stream of frames of (height, width) with the clip's times and tags."""
    stream = output.add_stream(encoding.codec, rate=clip.rate, options=encoding.options(clip))
    stream.height, stream.width = size
    stream.pix_fmt = clip.pixel_format
    context = stream.codec_context
    context.time_base = stream.time_base = clip.time_base
    context.colorspace, context.color_range = clip.tags.matrix, clip.tags.color_range
    context.color_primaries, context.color_trc = clip.tags.primaries, clip.tags.transfer
    if clip.aspect:
        context.sample_aspect_ratio = clip.aspect
    return stream


def rehearse(clip: Clip, size: tuple[int, int], target: Path, encoding: Encoding) -> None:
    """Raise a ClipError, before any work, if the output cannot hold the frames or a stream of the source."""
    if clip.pixel_format not in {form.name for form in av.Codec(encoding.codec, "w").video_formats or ()}:
        raise ClipError(
            f"{named(clip.path)}: {encoding.codec} cannot encode {clip.pixel_format}; choose another --codec"
        )
    with av.open(str(clip.path)) as source, av.open(BytesIO(), "w", format=container_of(target)) as output:
        try:
            _add_video(output, clip, size, encoding)
            _copied(source, output)
            output.start_encoding()
        except (ValueError, av.FFmpegError) as error:
            raise ClipError(f"{named(target)}: {error}; name an output that ends in .mkv") from error


def container_of(target: Path) -> str:
    """Return FFmpeg's name of the format of an output; a ValueError for a suffix that has none."""
    if target.suffix.lower() not in CONTAINERS:
        raise ValueError(f"{named(target)} must end in one of {', '.join(CONTAINERS)}")
    return CONTAINERS[target.suffix.lower()]


def join(path: Path, segments: Sequence[Path], clip: Clip, target: Path) -> None:
    """Join segments and the other streams of the source, as they are, in one file.

    Args:
        path: the file to write, in the format of `target`.
    """
    options = {"movflags": "+faststart"} if container_of(target) in ("mp4", "mov") else {}
    with (
        av.open(str(clip.path)) as source,
        av.open(str(segments[0])) as first,
        av.open(str(path), "w", format=container_of(target), options=options) as output,
    ):
        template, original = first.streams.video[0], main_stream(source)
        stream = output.add_stream_from_template(template, opaque=True)
        stream.time_base = clip.time_base
        if clip.display_matrix:
            stream.set_display_matrix(clip.display_matrix)
        if template.codec_context.name == "hevc" and container_of(target) in ("mp4", "mov"):
            stream.codec_context.codec_tag = "hvc1"  # which Apple's players ask for
        _take_over(original, stream)
        copies = _copied(source, output)
        output.metadata.update({key: value for key, value in source.metadata.items() if key not in _OF_THE_FILE})
        output.set_chapters(source.chapters())
        video = _timed(segments, clip, stream)
        for packet in merge(video, _other_packets(source, copies, clip), key=_time):
            output.mux_one(packet)


def _copied(source: InputContainer, output: OutputContainer) -> dict[int, av.stream.Stream]:
    """Add a stream for each of sound, text, covers and attachments; by the index in the source."""
    copies = {}
    for stream in source.streams:
        if stream.type == "attachment" and output.format.name != "matroska":
            raise ValueError(f"{output.format.name!r} format does not support attachments ({stream.name})")
        if stream.type in ("audio", "subtitle", "attachment") or (stream.type == "video" and is_cover(stream)):
            copies[stream.index] = output.add_stream_from_template(stream, opaque=True)
            _take_over(stream, copies[stream.index])
    return copies


def _take_over(stream: av.stream.Stream, copy: av.stream.Stream) -> None:
    """Take over title, language and role of a stream."""
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition


def _other_packets(source: InputContainer, copies: dict[int, av.stream.Stream], clip: Clip) -> Iterator[av.Packet]:
    """Packets of the copied streams up to the end of the clip."""
    streams = [stream for stream in source.streams if stream.index in copies and stream.type != "attachment"]
    for packet in source.demux(streams) if streams else ():
        if packet.dts is None or (not clip.whole and _time(packet) >= clip.end):
            continue
        packet.stream = copies[packet.stream.index]
        yield packet


def _timed(segments: Sequence[Path], clip: Clip, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets of all segments with the times of the source's frames, and times of decoding that rise."""
    orders = [_presentation_order(segment) for segment in segments]
    delay = max(position - place for order in orders for position, place in enumerate(order))
    step = round(1 / (clip.rate * clip.time_base)) or 1
    ends = (*clip.pts[1:], clip.pts[-1] + clip.last)
    # A frame is decoded `delay` frames before its turn.
    decoding = chain((clip.pts[0] - step * early for early in range(delay, 0, -1)), clip.pts)
    before = 0
    for segment, order in zip(segments, orders, strict=True):
        with av.open(str(segment)) as container:
            packets = (packet for packet in container.demux(video=0) if packet.size)
            for packet, place in zip(packets, order, strict=True):
                packet.stream, packet.time_base = stream, clip.time_base
                packet.pts, packet.dts = clip.pts[before + place], next(decoding)
                packet.duration = ends[before + place] - packet.pts
                yield packet
        before += len(order)


def _presentation_order(segment: Path) -> list[int]:
    """Place of each packet's frame among the frames of the segment."""
    with av.open(str(segment)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    places = {pts: place for place, pts in enumerate(sorted(times))}
    return [places[pts] for pts in times]


def _time(packet: av.Packet) -> Fraction:
    return packet.dts * packet.time_base

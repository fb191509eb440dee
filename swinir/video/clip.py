"""A clip in its file: decoded and checked whole before any work, then read frame by frame.

Whatever cannot be kept is refused or noted here, in one line that names it.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from swinir.image_io.errors import DAMAGED, absence, named
from swinir.video.color import BT601, BT709, FULL, LIMITED, MATRICES, UNSPECIFIED, planar

SAMPLES = 6  # frames at even distances that models are chosen by, at most
SLACK = 0.5  # seconds that a file may end before the time in its header
HD = 720  # rows from which on players take an unspecified matrix for BT.709, and for BT.601 below
_IMAGE_BRANDS = ("avif", "heic", "heix", "mif1", "msf1")
_KEPT = {"DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}
_ABOUT_CODING = {"MOTION_VECTORS", "VIDEO_ENC_PARAMS", "SEI_UNREGISTERED", "VIDEO_HINT", "FILM_GRAIN_PARAMS", "PANSCAN"}
_DYNAMIC = {  # with the bitstream filter of FFmpeg that removes it
    "DOVI_METADATA": ("Dolby Vision", "dovi_rpu=strip=1"),
    "DOVI_RPU_BUFFER": ("Dolby Vision", "dovi_rpu=strip=1"),
    "DYNAMIC_HDR_PLUS": ("HDR10+", "filter_units=remove_types=39"),
    "DYNAMIC_HDR_VIVID": ("HDR Vivid", "filter_units=remove_types=39"),
}


class ClipError(ValueError):
    """A clip that is refused; the message is one line that names the file and the reason."""


@dataclass(frozen=True)
class Tags:
    """Colour of a clip, by the numbers of ITU-T H.273.

    Attributes:
        matrix: of the conversion to RGB; where the file has none, the one that players take.
        color_range: LIMITED or FULL.
        primaries, transfer: as in the file.
    """

    matrix: int
    color_range: int
    primaries: int
    transfer: int


@dataclass(frozen=True)
class Clip:
    """The frames of a file, and what the output keeps of it.

    Attributes:
        pts: presentation time of each frame in `time_base`, rising.
        last: duration of the last frame, likewise.
        rate: frames a second on average.
        pixel_format: planar, such as "yuv420p10le".
        aspect: of one pixel, width over height; None if unspecified.
        display_matrix: nine integers of the rotation that players apply; None without.
        hdr: static HDR metadata by name, as FFmpeg's structures.
        samples: frames at even distances.
        notes: a line for each thing that the output will not have.
        whole: False if only the beginning was asked for.
    """

    path: Path
    pts: tuple[int, ...]
    last: int
    time_base: Fraction
    rate: Fraction
    width: int
    height: int
    pixel_format: str
    tags: Tags
    aspect: Fraction | None
    display_matrix: tuple[int, ...] | None
    hdr: dict[str, bytes]
    samples: tuple[av.VideoFrame, ...]
    notes: tuple[str, ...]
    whole: bool

    @property
    def end(self) -> Fraction:
        """Time at which the last frame ends, in seconds."""
        return (self.pts[-1] + self.last) * self.time_base


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn refusals and errors of FFmpeg within the block into a ClipError that names the file."""
    try:
        yield
    except ClipError as error:
        raise ClipError(f"{named(path)}: {error}") from error
    except av.FFmpegError as error:
        raise ClipError(f"{named(path)}: cannot be read as a video: {error.strerror}; {DAMAGED}") from error


def inspect(path: Path, seconds: float | None = None, max_pixels: float = math.inf) -> Clip:
    """Decode a clip and check each frame.

    Args:
        seconds: take this much from the first frame on; None takes all.
        max_pixels: larger frames are refused.

    Raises:
        ClipError: for a file that is no video, is damaged or cut, and for what cannot be restored or kept.
    """
    if not path.is_file():
        raise ClipError(f"{named(path)} is {'a folder; name a clip in it' if path.is_dir() else absence(path)}")
    pts: list[int] = []
    samples: list[av.VideoFrame] = []
    lost: set[str] = set()
    stride, whole, first = 1, True, None
    with refusing(path), av.open(str(path)) as container:
        stream = main_stream(container)
        for frame in _decoded(container, stream):
            if first is None:
                first = frame
                _check_first(frame, max_pixels)
            elif seconds is not None and (frame.pts - pts[0]) * frame.time_base >= seconds:
                whole = False
                break
            lost |= _check(frame, first, pts[-1] if pts else -math.inf)
            if len(pts) % stride == 0:
                samples.append(frame)
            if len(samples) > SAMPLES:
                samples, stride = samples[::2], stride * 2
            pts.append(frame.pts)
            last = frame
        if first is None:
            raise ClipError(f"has no frames; {DAMAGED}")
        kept = {data.type.name: bytes(data) for data in first.side_data if data.type.name in _KEPT}
        display = kept.pop("DISPLAYMATRIX", None)
        span = (pts[-1] - pts[0]) * first.time_base
        rate = ((len(pts) - 1) / span if span else Fraction(25)).limit_denominator(1001)
        return Clip(
            path=path,
            pts=tuple(pts),
            last=last.duration or round(1 / (rate * last.time_base)),
            time_base=first.time_base,
            rate=rate,
            width=first.width,
            height=first.height,
            pixel_format=str(planar(first.format)),
            tags=_tags(first),
            aspect=stream.sample_aspect_ratio,
            display_matrix=struct.unpack("9i", display) if display else None,
            hdr=kept,
            samples=tuple(samples),
            notes=(
                *_streams_left_out(container),
                *(f"{name.lower()} of the frames is not kept" for name in sorted(lost)),
            ),
            whole=whole,
        )


def frames(clip: Clip) -> Iterator[av.VideoFrame]:
    """Decode the frames of a clip again, in their order."""
    with refusing(clip.path), av.open(str(clip.path)) as container:
        stream = main_stream(container)
        stream.thread_type = "AUTO"
        decoded = container.decode(stream)
        for pts in clip.pts:
            frame = next(decoded, None)
            if frame is None or frame.pts != pts:
                raise ClipError("was changed while it was restored; start again")
            yield frame


def main_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Return the stream to restore; a ClipError for images, files without one, and files with several."""
    images = container.format.name.startswith("image2") or container.format.name.endswith("_pipe")
    if images or container.metadata.get("major_brand", "").strip() in _IMAGE_BRANDS:
        raise ClipError("is an image; `swinir restore` takes it")
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    if len(streams) != 1:
        raise ClipError(f"has {len(streams) or 'no'} video streams; " + (
            "keep one, as with `ffmpeg -i IN -map 0:v:0 -map 0:a -c copy OUT`" if streams else "name a video"
        ))  # fmt: skip
    return streams[0]


def is_cover(stream: av.stream.Stream) -> bool:
    """Tell whether a video stream is an attached image."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decode a stream and read all others; a ClipError where the file is damaged or ends before its time."""
    stream.thread_type = "AUTO"
    packets, end, time = 0, Fraction(0), 0.0
    for packet in container.demux():
        if packet.is_corrupt:
            raise ClipError(f"is damaged or cut after {time:.2f} s; {DAMAGED}")
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream is not stream:
            continue
        packets += packet.size > 0
        try:
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ClipError(f"is damaged after {time:.2f} s; {DAMAGED}")
                if frame.pts is None:
                    raise ClipError(
                        "has frames without a time; put it into a container, as with `ffmpeg -i IN OUT.mp4`"
                    )
                time = frame.time
                yield frame
        except av.FFmpegError as error:
            raise ClipError(f"is damaged after {time:.2f} s ({error.strerror}); {DAMAGED}") from error
    declared = Fraction((container.start_time or 0) + (container.duration or 0), av.time_base)
    if packets < len(stream.index_entries) or (container.duration and end < declared - Fraction(SLACK)):
        raise ClipError(f"ends at {float(end):.2f} s of {float(declared):.2f} s; {DAMAGED}")


def _check_first(frame: av.VideoFrame, max_pixels: float) -> None:
    """Check what all frames have in common; a ClipError names what cannot be restored or kept."""
    if planar(frame.format) is None:
        raise ClipError(f"has frames in {frame.format.name}; Y'CbCr without alpha is taken, "
                        "convert it, as with `ffmpeg -i IN -pix_fmt yuv444p OUT`")  # fmt: skip
    if _tags(frame).matrix not in MATRICES:
        raise ClipError(f"has colours of matrix {frame.colorspace} (ITU-T H.273), which is none of R'G'B'; convert it")
    if frame.width * frame.height > max_pixels:
        raise ClipError(f"has frames of {frame.width}x{frame.height}, more than --max-pixels {max_pixels / 1e6:g}")


def _check(frame: av.VideoFrame, first: av.VideoFrame, before: float) -> set[str]:
    """Check a frame against the first and the time before; return the kinds of its side data that are not kept."""
    if _form(frame) != _form(first):
        raise ClipError(f"changes from {_form(first)} to {_form(frame)} at {frame.time:.2f} s; cut it there")
    if frame.pts <= before:
        raise ClipError(f"has times that do not rise at {frame.time:.2f} s; repair it, as with `ffmpeg -i IN OUT`")
    if frame.interlaced_frame:
        raise ClipError(f"is interlaced at {frame.time:.2f} s; deinterlace it, as with `ffmpeg -i IN -vf bwdif OUT`")
    lost = {data.type.name for data in frame.side_data} - _KEPT - _ABOUT_CODING
    for name in lost & _DYNAMIC.keys():
        kind, remover = _DYNAMIC[name]
        way_out = f"remove it, as with `ffmpeg -i IN -c copy -bsf:v {remover} OUT`"
        raise ClipError(f"has {kind} metadata, which describes the original pixels and cannot be kept; {way_out}")
    return lost


def _form(frame: av.VideoFrame) -> str:
    return f"{frame.width}x{frame.height} {frame.format.name}, colours {frame.colorspace}/{frame.color_range}"


def _tags(frame: av.VideoFrame) -> Tags:
    matrix = frame.colorspace
    if matrix == UNSPECIFIED:
        matrix = BT709 if frame.height >= HD else BT601
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    return Tags(matrix, FULL if full else LIMITED, frame.color_primaries, frame.color_trc)


def _streams_left_out(container: av.container.InputContainer) -> list[str]:
    """A line for each stream that is no picture, sound or text; those that hold chapters are discarded by FFmpeg."""
    return [
        f"{stream.type} stream {stream.index} ({stream.name or 'unknown'}) is not kept"
        for stream in container.streams
        if stream.type in ("data", "unknown") and stream.discard != av.stream.Discard.all
    ]

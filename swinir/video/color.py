"""Y'CbCr frames as RGB arrays and back, with the matrix and range of the clip.

swscale resizes chroma. The matrix is ours: swscale's own conversion to RGB (FFmpeg 8.0, all flags for accuracy, 8 to 16
bits and floats) was 0.5 of 255 too dark on average and up to 0.9, and the way back did not undo it.
"""

import threading

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from swinir.image_io.picture import from_unit, to_unit

# Weights of red and blue in luma, by the number of the matrix in ITU-T H.273; constant luminance and others are no
# matrices of R'G'B'.
MATRICES = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
            9: (0.2627, 0.0593)}  # fmt: skip
BT709, UNSPECIFIED, BT601 = 1, 2, 6
FULL = int(ColorRange.JPEG)
LIMITED = int(ColorRange.MPEG)
# Chroma by Lanczos: down and up again, it changes chroma less than bicubic and bilinear interpolation.
_CHROMA = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_kept = threading.local()  # a reformatter of each thread, which prepares itself once for frames of one form
_SUBSAMPLING = {(16, 16): "444", (8, 16): "422", (8, 8): "420", (16, 8): "440", (4, 16): "411", (4, 4): "410"}


def planar(pixel_format: av.VideoFormat) -> str | None:
    """Return the planar form of a pixel format, such as "yuv420p10le" for p010le; None for RGB, alpha and floats."""
    parts = pixel_format.components
    if pixel_format.is_rgb or len(parts) not in (1, 3) or pixel_format.has_palette or parts[0].bits > 16:
        return None
    depth = "" if parts[0].bits == 8 else f"{parts[0].bits}le"
    if len(parts) == 1:
        return f"gray{depth}" if pixel_format.name.startswith("gray") else None
    sampling = _SUBSAMPLING.get((pixel_format.chroma_width(16), pixel_format.chroma_height(16)))
    known = pixel_format.name.startswith(("yuv", "yuyv", "uyvy", "nv", "p0", "p2", "p4", "y2"))
    return f"yuv{sampling}p{depth}" if sampling and known else None


def to_rgb(frame: av.VideoFrame, matrix: int, color_range: int) -> np.ndarray:
    """Convert a frame to (H, W, 3) uint16 R'G'B'; values beyond black and white are clipped.

    Args:
        matrix: number in `MATRICES`.
        color_range: LIMITED or FULL.
    """
    name, depth = planar(frame.format), frame.format.components[0].bits
    assert name is not None
    as_they_are = name.startswith(("gray", "yuv444"))
    whole = _resized(frame, name if as_they_are else "yuv444p16le", color_range)
    shift = 0 if as_they_are else 16 - depth
    luma, *chroma = (samples.astype(np.float32) / 2.0**shift for samples in _planes(whole))
    black, luma_steps, chroma_steps = _steps(depth, color_range)
    luma = (luma - black) / luma_steps
    blue, red = (
        ((part - 2.0 ** (depth - 1)) / chroma_steps for part in chroma) if chroma else np.zeros((2, 1, 1), np.float32)
    )
    kr, kb = MATRICES[matrix]
    rgb = np.empty((*luma.shape, 3), np.float32)
    rgb[..., 0] = luma + 2 * (1 - kr) * red
    rgb[..., 2] = luma + 2 * (1 - kb) * blue
    rgb[..., 1] = (luma - kr * rgb[..., 0] - kb * rgb[..., 2]) / (1 - kr - kb)
    return from_unit(rgb, np.uint16)


def from_rgb(pixels: np.ndarray, pixel_format: str, matrix: int, color_range: int) -> av.VideoFrame:
    """Convert (H, W, 3) uint16 R'G'B' to a frame of a planar format, rounded."""
    height, width, _ = pixels.shape
    depth = av.VideoFormat(pixel_format).components[0].bits
    rgb, (kr, kb) = to_unit(pixels), MATRICES[matrix]
    luma = rgb @ np.array([kr, 1 - kr - kb, kb], np.float32)
    blue, red = (rgb[..., 2] - luma) / (2 * (1 - kb)), (rgb[..., 0] - luma) / (2 * (1 - kr))
    black, luma_steps, chroma_steps = _steps(depth, color_range)
    middle, most = 2.0 ** (depth - 1), 2**depth - 1
    codes = [luma * luma_steps + black, blue * chroma_steps + middle, red * chroma_steps + middle]
    gray = pixel_format.startswith("gray")
    whole = av.VideoFrame(width, height, pixel_format if gray else f"yuv444p{'' if depth == 8 else f'{depth}le'}")
    for samples, values in zip(_planes(whole), codes[:1] if gray else codes, strict=True):
        samples[:] = values.round().clip(0, most)
    return _resized(whole, pixel_format, color_range)


def _steps(depth: int, color_range: int) -> tuple[float, float, float]:
    """Code of black, and steps from black to white and over the range of chroma."""
    if color_range == FULL:
        return 0.0, 2.0**depth - 1, 2.0**depth - 1
    return 16.0 * 2 ** (depth - 8), 219.0 * 2 ** (depth - 8), 224.0 * 2 ** (depth - 8)


def _resized(frame: av.VideoFrame, pixel_format: str, color_range: int) -> av.VideoFrame:
    """The frame in another pixel format, with its matrix and range."""
    if not hasattr(_kept, "reformatter"):
        _kept.reformatter = VideoReformatter()
    return _kept.reformatter.reformat(
        frame,
        format=pixel_format,
        src_colorspace="itu709",  # on both sides: no matrix is applied
        dst_colorspace="itu709",
        src_color_range=color_range,
        dst_color_range=color_range,
        interpolation=_CHROMA,
        threads=1,
    )


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """(H, W) view of each plane of a planar frame."""
    dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    return [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]

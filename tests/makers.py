"""Picture files made by other programs' code or by hand, for tests of the reader."""

import io
import struct
import zlib

import cv2
import numpy as np
import tifffile
from PIL import Image

RNG = np.random.default_rng(3)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8), (0, 0), 2)
RGB16 = RNG.integers(0, 65536, (19, 23, 3)).astype(np.uint16)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def by_pillow(image, name, **options):
    """The bytes of an (H, W), (H, W, C) uint8 array, or of a Pillow image, as a file."""
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, name, **options)
    return data.getvalue()


def by_tifffile(image, **options):
    data = io.BytesIO()
    tifffile.imwrite(data, image, **options)
    return data.getvalue()


def by_opencv(image, suffix):
    """Of an RGB or grey array."""
    ok, data = cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image)
    assert ok
    return data.tobytes()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples, color, *, depth=16, extra=b"", interlaced=False):
    """A PNG file of (H, W, C) samples with no filter; `extra` stands before the image data."""
    height, width, _ = samples.shape
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    raw = b""
    for top, left, down, right in passes if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::right]
        if part.size:
            raw += b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in part)
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    return SIGNATURE + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def exif(orientation=1, **more):
    """An EXIF structure with a maker, a date, an exposure, a place; big-endian as cameras write it."""
    found = Image.Exif()
    found.endian = ">"
    found[0x112] = orientation
    found[0x10F] = "Maker"
    found[0x132] = "2024:05:06 07:08:09"
    found.get_ifd(0x8769).update({0x829A: 0.5, 0xA002: 64, 0xA003: 48})
    found.get_ifd(0x8825).update({1: "N", 2: (50.0, 30.0, 15.0)})
    return found.tobytes().removeprefix(b"Exif\0\0")


def facts(block):
    """What an EXIF structure says: its first directory, the one of the exposure, the one of the place."""
    found = Image.Exif()
    found.load(b"Exif\0\0" + block)
    tags = {tag: value for tag, value in found.items() if tag not in (0x8769, 0x8825)}
    return tags, dict(found.get_ifd(0x8769)), dict(found.get_ifd(0x8825))


# One of each format, of SMOOTH or its grey, by format and variant.
FILES = {
    "png": by_pillow(SMOOTH, "PNG"),
    "png16": by_opencv(SMOOTH.astype(np.uint16) * 257, ".png"),
    "jpeg": by_pillow(SMOOTH, "JPEG", quality=90),
    "jpeg_progressive": by_pillow(SMOOTH, "JPEG", quality=90, progressive=True),
    "webp": by_pillow(SMOOTH, "WEBP", lossless=True),
    "webp_lossy": by_pillow(SMOOTH, "WEBP"),
    "tiff": by_pillow(SMOOTH, "TIFF"),
    "tiff_lzw": by_pillow(SMOOTH, "TIFF", compression="tiff_lzw"),
    "tiff16": by_opencv(SMOOTH.astype(np.uint16) * 257, ".tiff"),
    "tiff_tiles": by_tifffile(SMOOTH, photometric="rgb", tile=(16, 16)),
    "avif": by_pillow(SMOOTH, "AVIF"),
    "bmp": by_pillow(SMOOTH, "BMP"),
    "gif": by_pillow(Image.fromarray(SMOOTH).quantize(16), "GIF"),
    "ppm": by_pillow(SMOOTH, "PPM"),
    "pgm": by_pillow(SMOOTH[..., 0], "PPM"),
    "pgm16": by_opencv(SMOOTH[..., 0].astype(np.uint16) * 257, ".pgm"),
}

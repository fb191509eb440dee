"""Checks of a TIFF file before libvips decodes it.

libtiff takes gigabytes for a tile larger than its image, and
minutes for millions of tiles. libvips does not say which channel is alpha.
"""

from swinir.image_io.errors import DAMAGED, require
from swinir.image_io.exif import Bytes, directory

_WIDTH, _HEIGHT, _PHOTOMETRIC, _STRIPS, _CHANNELS, _STRIP_ROWS, _STRIP_BYTES = 256, 257, 262, 273, 277, 278, 279
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA = 284, 322, 323, 324, 325, 338
_FEWEST_PIXELS = 64  # of a tile or strip, on average
_FEW_PARTS = 2**16


def check(data: Bytes) -> tuple[bool, int]:
    """Look for damage that libtiff does not see.

    Returns:
        True if the first channel beside the colours is alpha; the rows of a tile, or of the image if it has strips.

    Raises:
        ImageError: for tiles or strips that are not all in the file, or of absurd size or number.
    """
    page = directory(data)
    require(_PHOTOMETRIC in page.entries, "a TIFF file without PhotometricInterpretation; save it again, as PNG")
    width, height = page.integer(data, _WIDTH), page.integer(data, _HEIGHT)
    require(width and height, f"a TIFF file of {width}x{height} pixels")
    tiled = _TILES in page.entries
    if tiled:
        wide, high = page.integer(data, _TILE_WIDTH), page.integer(data, _TILE_HEIGHT)
    else:
        wide, high = width, min(height, page.integer(data, _STRIP_ROWS, height))
    require(wide and high, "a TIFF file with strips or tiles of no size")
    require(wide * high <= 2 * (width + 1024) * (height + 1024), "a TIFF file with tiles far larger than its image")
    planes = page.integer(data, _CHANNELS, 1) if page.integer(data, _PLANAR, 1) == 2 else 1
    parts = planes * -(-height // high) * -(-width // wide)
    require(
        parts <= max(_FEW_PARTS, planes * width * height // _FEWEST_PIXELS),
        f"a TIFF file of {parts:,} tiles or strips for {width}x{height} pixels; save it again in larger ones",
    )
    starts = page.integers(data, _TILES if tiled else _STRIPS)
    lengths = page.integers(data, _TILE_BYTES if tiled else _STRIP_BYTES)
    require(len(starts) >= parts, DAMAGED)
    if len(lengths) or parts > 1:  # some writers leave out how long a single strip is
        require(len(lengths) >= parts and bool((starts[:parts] + lengths[:parts] <= len(data)).all()), DAMAGED)
    return page.integer(data, _EXTRA) in (1, 2), high if tiled else height

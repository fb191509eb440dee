"""A picture before and after, of one size, as data that a page can hold."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from swinir.image_io.image import to_rgb
from swinir.image_io.picture import Picture
from swinir.report.rows import to_8_bits

QUALITY = 95  # with full resolution of colours: the page is for looking at details


@dataclass(frozen=True)
class Inlined:
    """A JPEG as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def shown_size(picture: Picture, max_side: int) -> tuple[int, int]:
    """Width and height of a picture whose longest side is limited."""
    height, width = picture.pixels.shape[:2]
    factor = min(1.0, max_side / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def inline(picture: Picture, size: tuple[int, int]) -> Inlined:
    """A picture at a (width, height), by antialiased bicubic interpolation; what is transparent lies on white."""
    image = Image.fromarray(to_rgb(to_8_bits(picture.pixels)))
    if picture.alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=Image.fromarray(to_8_bits(picture.alpha)))
        image = white
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    icc = picture.metadata.icc
    fits = icc is not None and icc[16:20] == b"RGB " and picture.pixels.shape[2] == 3
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, subsampling=0, icc_profile=icc if fits else None)
    return Inlined("data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(), *size)

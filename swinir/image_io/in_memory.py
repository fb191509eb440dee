"""NumPy arrays and Pillow images as a `Picture`, and back into the kind they were."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from swinir.image_io.picture import Metadata, Picture

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # modes of Pillow
_FLOAT = "F"
_MODES = ("L", "LA", "RGB", "RGBA")


def from_array(array: np.ndarray) -> Picture:
    """Take an array as an image.

    Args:
        array: (H, W), or (H, W, C) of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels; uint8, uint16, or
            floats in [0, 1].

    Raises:
        ValueError: for another shape or type, floats outside [0, 1], and NaN.
    """
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise ValueError(f"an array must be (H, W) or (H, W, C) with 1 to 4 channels, got shape {array.shape}")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # NaN, too
            raise ValueError(
                f"an array of floats must be in [0, 1], got {low:g} to {high:g}; divide values in [0, 255] by 255"
            )
        array = array.astype(np.float32, copy=False)
    elif array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an array must be uint8, uint16 or of floats in [0, 1], got {array.dtype}; convert it")
    if not array.flags.writeable:  # PyTorch warns of such arrays
        array = array.copy()
    channels = array[..., None] if array.ndim == 2 else array
    colors = channels.shape[2] - (channels.shape[2] in (2, 4))
    alpha = None if colors == channels.shape[2] else np.ascontiguousarray(channels[..., colors])
    return Picture(np.ascontiguousarray(channels[..., :colors]), alpha)


def to_array(picture: Picture, like: np.ndarray) -> np.ndarray:
    """Return (H, W) or (H, W, C) with the number of axes, the channels and the dtype of `like`."""
    parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha[..., None]]
    array = np.concatenate(parts, axis=2) if len(parts) > 1 else picture.pixels
    return (array[..., 0] if like.ndim == 2 else array).astype(like.dtype, copy=False)


def from_pil(image: Image.Image) -> Picture:
    """Take a Pillow image as the reader takes its file: upright, palettes as colors, the tables of a JPEG.

    Raises:
        ValueError: for modes other than 1, L, LA, P, RGB, RGBA, I;16, I of 16 bits and F in [0, 1].
    """
    tables: Mapping[int, list[int]] = getattr(image, "quantization", {}) if image.format == "JPEG" else {}
    image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "P" or (image.mode in ("L", "RGB") and "transparency" in image.info):
        colors = "L" if image.mode == "L" else "RGB"
        image = image.convert(f"{colors}A" if "transparency" in image.info else colors)
    if image.mode in _SIXTEEN_BITS:
        array = np.asarray(image)
        if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
            raise ValueError(f"a Pillow image of mode {image.mode} must have values of 16 bits, got {array.max()}")
        array = array.astype(np.uint16)
    elif image.mode in (*_MODES, _FLOAT):
        array = np.asarray(image)
    else:
        raise ValueError(f"a Pillow image of mode {image.mode} is not supported; use image.convert('RGB')")
    picture = from_array(array)
    exif = image.info.get("exif") or b""
    metadata = Metadata(exif.removeprefix(b"Exif\0\0") or None, image.info.get("icc_profile"), None, _dpi(image.info))
    quantization = tuple(tuple(tables[number]) for number in sorted(tables)) or None
    return Picture(picture.pixels, picture.alpha, metadata, jpeg_tables=quantization)


def _dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    found = info.get("dpi")
    return (float(found[0]), float(found[1])) if found else None


def to_pil(picture: Picture) -> Image.Image:
    """Return an image of mode L, LA, RGB, RGBA, I;16 or F, with profile, EXIF and resolution in `info`.

    Raises:
        ValueError: for 16 bits or floats with color or alpha, which Pillow cannot hold.
    """
    pixels = picture.pixels
    channels = pixels.shape[2] + (picture.alpha is not None)
    if pixels.dtype != np.uint8 and channels > 1:
        raise ValueError(
            f"Pillow holds no color or alpha of {pixels.dtype}; name a file by output=, or give a NumPy array"
        )
    image = Image.fromarray(to_array(picture, pixels[..., 0] if channels == 1 else pixels))
    about = {"exif": picture.metadata.exif, "icc_profile": picture.metadata.icc, "dpi": picture.metadata.dpi}
    image.info.update({name: value for name, value in about.items() if value is not None})
    return image

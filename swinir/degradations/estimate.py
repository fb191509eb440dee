"""Blind estimates for an image: noise level, JPEG quality, and whether it is grey.

pixels, JPEG tables -> sense -> Findings, from which `swinir.photos.select_models` selects models
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from swinir.degradations.estimate_input import LUMA, merge_equal_channels
from swinir.degradations.estimate_jpeg import jpeg_quality, pixel_jpeg_quality
from swinir.degradations.estimate_white_noise import LEAST_SIDE, white_noise_level

_CLEAN = 2.0  # level by the network, below which the estimator of white noise is not asked; it takes long
_SHARED = 3.0  # the network's level over that of white noise, from which on pixels share noise
# Expected error of the network, from which on it may take texture for noise; measured on CBSD68 and McMaster, clean and
# as JPEG 90.
_UNSURE = 1.1
_TEXTURE = 6.0  # the level of white noise over the network's, from which on texture deceives its estimator
_UNEVEN = 1.3  # shadows over highlights, or the other way, from which on both are told


@dataclass(frozen=True)
class Noise:
    """Noise of one image, as standard deviations in units of 1/255.

    All are levels of noise that is independent between channels. Noise that channels share is as strong on luma.

    Attributes:
        level: of the whole image.
        correlated: True if neighbouring pixels share noise: a camera's, film grain, noise under JPEG or resized.
        shadows, highlights: level in dark and in bright parts; None where it is not known.
        sure: False for what may be texture as well.
    """

    level: float
    correlated: bool = False
    shadows: float | None = None
    highlights: float | None = None
    sure: bool = True

    def explain(self) -> str:
        """Return one sentence."""
        parts = ""
        if self.shadows is not None and self.highlights is not None:
            least, most = sorted((self.shadows, self.highlights))
            if self.level >= 1 and most > _UNEVEN * least:
                parts = f" ({self.shadows:.1f} in shadows, {self.highlights:.1f} in highlights)"
        shared = ", shared by neighbouring pixels as after demosaicing, resizing or JPEG" if self.correlated else ""
        doubt = "" if self.sure else "; it may be texture"
        return f"Noise: standard deviation {self.level:.1f} of 255{parts}{shared}{doubt}."


@dataclass(frozen=True)
class Findings:
    """Estimates for one image.

    Attributes:
        noise: level and kind of the noise.
        jpeg_quality: quality of the JPEG compression in libjpeg's scale, 1 to 100; None without traces of JPEG.
        jpeg_source: "file" for quantisation tables, "pixels" for an estimate; None without a quality.
        gray: True for one channel, or three equal ones.
    """

    noise: Noise
    jpeg_quality: float | None
    jpeg_source: Literal["file", "pixels"] | None
    gray: bool

    @property
    def noise_level(self) -> float:
        """Level of the noise, by which models are chosen."""
        return self.noise.level

    def explain(self) -> list[str]:
        """Return one sentence for each estimate."""
        sources = {
            "file": f"JPEG: the file says quality {self.jpeg_quality or 0:.0f}.",
            "pixels": f"JPEG: the pixels show an earlier compression at quality {self.jpeg_quality or 0:.0f}.",
            None: "JPEG: no sign of compression.",
        }
        return [
            self.noise.explain(),
            sources[self.jpeg_source],
            "Colour: none, it is grey." if self.gray else "Colour: yes.",
        ]


def sense(image: np.ndarray, jpeg_tables: Mapping[int, Sequence[int]] | None = None) -> Findings:
    """Estimate noise level and JPEG quality of an (H, W, 1) or (H, W, 3) RGB uint8 image.

    Args:
        image: the decoded pixels.
        jpeg_tables: quantisation tables of a JPEG file, as `jpeg_quality` takes them. Without tables, the quality is
            estimated from the pixels.

    Raises:
        ValueError: for another shape or dtype, or tables that are none.
    """
    image = merge_equal_channels(image)
    noise, gray = estimate_noise(image), image.shape[2] == 1
    if jpeg_tables:
        return Findings(noise, jpeg_quality(jpeg_tables), "file", gray)
    quality = pixel_jpeg_quality(image)
    return Findings(noise, quality, None if quality is None else "pixels", gray)


def estimate_noise(image: np.ndarray) -> Noise:
    """Estimate the noise of an (H, W, 1) or (H, W, 3) RGB uint8 image.

    A small network sees noise of any kind and tells it from texture; the estimator of white noise is more precise where
    its assumptions hold, which the network confirms. The level is 0 for images with a side of less than 20 pixels.
    """
    from swinir.degradations.estimate_noise import measure_noise  # needs torch

    image = merge_equal_channels(image)
    if min(image.shape[:2]) < LEAST_SIDE:
        return Noise(0.0)
    measured = measure_noise(image)
    scale = 1.0 if image.shape[2] == 1 else 1 / float(np.linalg.norm(LUMA))
    level = measured.luma * scale
    shadows, highlights = (None if part is None else part * scale for part in (measured.shadows, measured.highlights))
    shared = Noise(level, level >= _CLEAN, shadows, highlights)
    white = white_noise_level(image) if level >= _CLEAN else 0.0
    if level > _SHARED * white:
        return replace(shared, sure=measured.error <= _UNSURE)
    return Noise(white) if white <= _TEXTURE * level else replace(shared, correlated=False)

"""Blind estimates for an image: noise level, JPEG quality, and whether it is grey.

pixels, JPEG tables -> sense -> Findings, from which `swinir.photos.select_models` selects models
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from swinir.degradations.estimate_input import LUMA, merge_equal_channels
from swinir.degradations.estimate_jpeg import jpeg_quality, pixel_jpeg_quality
from swinir.degradations.estimate_white_noise import noise_level


@dataclass(frozen=True)
class Noise:
    """Noise of one image, in units of 1/255.

    Attributes:
        level: standard deviation of noise independent between pixels and channels; of correlated noise, the level of
            independent noise that is as strong on luma.
        correlated: True if neighbouring pixels share noise: a camera's, film grain, noise under JPEG or resized.
        shadows, highlights: standard deviation on luma in dark and in bright parts; None where it is not known.
    """

    level: float
    correlated: bool = False
    shadows: float | None = None
    highlights: float | None = None

    @property
    def on_luma(self) -> float:
        """Standard deviation on luma."""
        return self.level * float(np.linalg.norm(LUMA))


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
        noise = f"Noise: standard deviation {self.noise_level:.1f} of 255."
        sources = {
            "file": f"JPEG: the file says quality {self.jpeg_quality or 0:.0f}.",
            "pixels": f"JPEG: the pixels show an earlier compression at quality {self.jpeg_quality or 0:.0f}.",
            None: "JPEG: no sign of compression.",
        }
        return [noise, sources[self.jpeg_source], "Colour: none, it is grey." if self.gray else "Colour: yes."]


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
    noise, gray = Noise(noise_level(image)), image.shape[2] == 1
    if jpeg_tables:
        return Findings(noise, jpeg_quality(jpeg_tables), "file", gray)
    quality = pixel_jpeg_quality(image)
    return Findings(noise, quality, None if quality is None else "pixels", gray)

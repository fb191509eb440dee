"""Degradations of photographs at their own size: noise of cameras, film and electronics, JPEG, and both together.

The training data of the models for real photographs. One kind of noise is drawn, or none, then JPEG, once or twice.

Only noise and compression are to be learned, not sharpening. Real pairs of noisy and clean photographs, whose clean
image is a mean of many exposures, share the softness of the lens and of demosaicing. Therefore camera noise is half
the difference between two developments with opposite noise, and the image keeps its detail and its brightness. A
noise-free development of a sharp photograph at its own size is far from it: 25 dB in the median of 20 training images.
A small share shows the artefacts of edge-aware demosaicing at twice the size, 38 dB. For the same reason, smoothing by
a camera's noise reduction, its sharpening, and resizing after the camera act on the noise alone. They make it as
coarse as real noise.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from swinir.degradations.camera import Camera, camera_noise, random_camera
from swinir.degradations.jpeg import Subsampling
from swinir.degradations.sampling import Range, check_options, draw_integer, draw_log_uniform, pick
from swinir.degradations.steps import (
    INTERPOLATIONS,
    GaussianNoise,
    Interpolation,
    Jpeg,
    PoissonNoise,
    Round,
    Size,
    Step,
    apply_steps,
    check_gt,
    luma,
    resample,
)

_BLOCK = 16  # side of the blocks of 4:2:0, of which the grid of a second compression may be shifted


@dataclass(frozen=True)
class PhotoOptions:
    """Probabilities and ranges of the chain.

    Names ending in `_prob` are probabilities, in `_probs` those of alternatives, in `_range` limits, both included, of
    a uniform draw.

    Attributes:
        noise_probs: camera noise, film grain, Gaussian noise, Poisson noise, no noise.
        shot_range: shot noise of the camera as a variance per unit of signal; its logarithm is uniform.
        tone_prob: of a camera with a tone curve.
        demosaiced_prob: of camera noise with the artefacts of edge-aware demosaicing, at twice the size, in the image.
        resample_prob: of camera noise that is made at another size and resampled.
        resample_range: that size over the image's; the logarithm is uniform.
        smooth_prob: of noise reduction in the camera, which leaves coarse noise of the same strength.
        luma_sigma_range, chroma_sigma_range: its Gaussian blurs of the noise, in pixels.
        chroma_gain_range: factor on the chroma noise of a camera, as most suppress it; its logarithm is uniform.
        sharpen_prob: of sharpening in the camera.
        sharpen_range: its strength, that of an unsharp mask of the noise.
        grain_range: level of film grain in the mid-tones, in units of 1/255.
        grain_sigma_range: its Gaussian blur, in pixels.
        grain_fade_range: share of the grain that is missing in black and white.
        noise_range: level of Gaussian noise, in units of 1/255.
        poisson_exponent_range: counts at white are 10 to the power of this.
        gray_noise_prob: share of grain, Gaussian and Poisson noise that is the same in all channels.
        camera_jpeg_prob, noise_jpeg_prob, jpeg_prob: of JPEG after camera noise, after other noise, and without noise.
        camera_quality_range: qualities of most cameras.
        camera_low_prob: share of camera noise that is compressed with any quality of `quality_range`.
        quality_range: qualities of JPEG everywhere else.
        double_prob: of compressing twice.
        aligned_prob: share of compressions whose blocks begin at the corner of the patch.
        full_chroma_prob: share of compressions without chroma subsampling.
    """

    noise_probs: tuple[float, float, float, float, float] = (0.58, 0.1, 0.1, 0.04, 0.18)
    shot_range: Range = (3e-5, 0.01)
    tone_prob: float = 0.5
    demosaiced_prob: float = 0.1
    resample_prob: float = 0.5
    resample_range: Range = (0.6, 1.6)
    smooth_prob: float = 0.7
    luma_sigma_range: Range = (0.0, 1.0)
    chroma_sigma_range: Range = (0.0, 2.5)
    chroma_gain_range: Range = (0.1, 1.2)
    sharpen_prob: float = 0.25
    sharpen_range: Range = (0.2, 1.0)
    grain_range: Range = (2, 25)
    grain_sigma_range: Range = (0.5, 1.2)
    grain_fade_range: Range = (0.0, 0.8)
    noise_range: Range = (0, 50)
    poisson_exponent_range: Range = (2.0, 4.0)
    gray_noise_prob: float = 0.4
    camera_jpeg_prob: float = 0.75
    noise_jpeg_prob: float = 0.6
    jpeg_prob: float = 0.75
    camera_quality_range: Range = (70, 99)
    camera_low_prob: float = 0.2
    quality_range: Range = (10, 95)
    double_prob: float = 0.2
    aligned_prob: float = 0.5
    full_chroma_prob: float = 0.3

    def __post_init__(self) -> None:
        check_options(self)


def photo(
    gt: np.ndarray, rng: np.random.Generator, *, scale: int = 1, options: PhotoOptions = PhotoOptions()
) -> np.ndarray:
    """Degrade an image at random.

    Args:
        gt: (H, W, 3) RGB float32 in [0, 1].
        rng: the only source of randomness.
        scale: 1, for the chain keeps the size.
        options: probabilities and ranges.

    Returns:
        (H, W, 3) RGB float32 in [0, 1], multiples of 1/255, registered.

    Raises:
        ValueError: for another scale, or an image that does not fit.
    """
    if scale != 1:
        raise ValueError(f"the chain photo keeps the size of images, got scale {scale}; set it to 1")
    check_gt(gt, scale)
    return apply_steps(plan_photo(gt.shape[:2], rng, options=options), gt, rng)


def plan_photo(size: Size, rng: np.random.Generator, *, options: PhotoOptions = PhotoOptions()) -> list[Step]:
    """Draw the steps for an image of (height, width)."""
    kind = pick(rng, ("camera", "grain", "gaussian", "poisson", "none"), options.noise_probs)
    if kind == "camera":
        noise: Step = _random_camera_noise(size, rng, options)
        low = rng.random() < options.camera_low_prob
        qualities = options.quality_range if low else options.camera_quality_range
        return [noise, *_random_jpeg(rng, options.camera_jpeg_prob, qualities, options)]
    if kind == "none":
        return _random_jpeg(rng, options.jpeg_prob, options.quality_range, options)
    gray = bool(rng.random() < options.gray_noise_prob)
    if kind == "grain":
        noise = FilmGrain(
            gray,
            level=rng.uniform(*options.grain_range),
            sigma=rng.uniform(*options.grain_sigma_range),
            fade=rng.uniform(*options.grain_fade_range),
        )
    elif kind == "gaussian":
        noise = GaussianNoise("gray" if gray else "color", rng.uniform(*options.noise_range))
    else:
        noise = PoissonNoise(gray, peak=10 ** rng.uniform(*options.poisson_exponent_range))
    return [noise, *_random_jpeg(rng, options.noise_jpeg_prob, options.quality_range, options)]


def _random_jpeg(rng: np.random.Generator, prob: float, qualities: Range, options: PhotoOptions) -> list[Step]:
    """No compression, one, or two; in any case values are multiples of 1/255 afterwards."""
    if rng.random() >= prob:
        return [Round()]
    count = 2 if rng.random() < options.double_prob else 1
    steps: list[Step] = []
    for _ in range(count):
        subsampling: Subsampling = "4:4:4" if rng.random() < options.full_chroma_prob else "4:2:0"
        aligned = rng.random() < options.aligned_prob
        shift = (0, 0) if aligned else (int(rng.integers(_BLOCK)), int(rng.integers(_BLOCK)))
        steps.append(Jpeg(draw_integer(rng, qualities), subsampling, shift))
    return steps


def _random_camera_noise(size: Size, rng: np.random.Generator, options: PhotoOptions) -> "PhotoNoise":
    demosaiced = rng.random() < options.demosaiced_prob
    edge_aware = demosaiced or rng.random() < 0.5
    camera = replace(
        random_camera(rng, options.shot_range),
        demosaicing="edge_aware" if edge_aware else "bilinear",
        tone_curve=bool(rng.random() < options.tone_prob),
    )
    made_at = size
    if demosaiced:
        made_at = 2 * size[0], 2 * size[1]
    elif rng.random() < options.resample_prob:
        factor = draw_log_uniform(rng, options.resample_range)
        made_at = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    smooth = rng.random() < options.smooth_prob
    return PhotoNoise(
        camera,
        demosaiced=demosaiced,
        size=made_at,
        interpolation=pick(rng, INTERPOLATIONS),
        luma_sigma=rng.uniform(*options.luma_sigma_range) if smooth else 0.0,
        chroma_sigma=rng.uniform(*options.chroma_sigma_range) if smooth else 0.0,
        chroma_gain=draw_log_uniform(rng, options.chroma_gain_range),
        sharpening=rng.uniform(*options.sharpen_range) if rng.random() < options.sharpen_prob else 0.0,
    )


@dataclass(frozen=True)
class PhotoNoise:
    """Camera noise that was smoothed, sharpened and resampled after the camera's development.

    Attributes:
        camera: the camera and exposure.
        demosaiced: True for an image with the artefacts of demosaicing.
        size: at which the noise is made.
        interpolation: of the noise back to the image's size.
        luma_sigma, chroma_sigma: Gaussian blurs of the noise, in pixels, after which it is as strong as before.
        chroma_gain: factor on chroma noise.
        sharpening: strength of an unsharp mask of the noise.
    """

    camera: Camera
    demosaiced: bool
    size: Size
    interpolation: Interpolation = "bilinear"
    luma_sigma: float = 0.0
    chroma_sigma: float = 0.0
    chroma_gain: float = 1.0
    sharpening: float = 0.0

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = image.shape[:2]
        source = image if self.size == size else resample(image, self.size, "area" if self.size < size else "bilinear")
        noise = camera_noise(source, self.camera, rng, demosaiced=self.demosaiced) - source
        if self.size != size:
            noise = resample(noise, size, self.interpolation)
        gray = luma(noise)
        chroma = _smoothed(noise - gray, self.chroma_sigma)
        gray = _smoothed(gray, self.luma_sigma)
        if self.sharpening:
            gray = gray + np.float32(self.sharpening) * (gray - _blurred(gray, 1.0))
        return np.clip(image + gray + np.float32(self.chroma_gain) * chroma, 0, 1)


@dataclass(frozen=True)
class FilmGrain:
    """Gaussian noise that is blurred, and weaker in dark and bright parts.

    Attributes:
        gray: True for the same noise in all channels.
        level: standard deviation at half brightness, in units of 1/255.
        sigma: of the blur, in pixels.
        fade: share of the level that is missing in black and white.
    """

    gray: bool
    level: float
    sigma: float
    fade: float = 0.0

    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        white = rng.standard_normal((*image.shape[:2], 1 if self.gray else 3), dtype=np.float32)
        # A Gaussian kernel scales the deviation of white noise by the norm of its taps.
        taps = cv2.getGaussianKernel(_kernel_size(self.sigma), self.sigma)
        grain = _blurred(white, self.sigma) * np.float32(self.level / 255 / (taps * taps).sum())
        distance = 2 * luma(image) - 1
        return np.clip(image + grain * (1 - np.float32(self.fade) * distance * distance), 0, 1)


def _kernel_size(sigma: float) -> int:
    return 2 * math.ceil(3 * sigma) + 1


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W, C) blurred by a Gaussian of a standard deviation in pixels."""
    side = _kernel_size(sigma)
    return cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101).reshape(values.shape)


def _smoothed(noise: np.ndarray, sigma: float) -> np.ndarray:
    """Blurred noise, as strong as before."""
    if sigma < 0.25:  # less than a hundredth of a pixel's weight goes to its neighbours
        return noise
    blurred = _blurred(noise, sigma)
    return blurred * (noise.std() / max(blurred.std(), np.float32(1e-6)))

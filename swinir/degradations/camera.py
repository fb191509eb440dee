"""Noise of a digital camera after its own processing: unprocess, mosaic, add sensor noise, develop again.

A plain model after Brooks et al., "Unprocessing Images for Learned Raw Denoising" (CVPR 2019): the display's
gamma, colour correction, white balance and exposure are inverted, a Bayer mosaic of the scene receives shot
and read noise, and the same steps lead back. What remains is noise that is stronger in dark parts, correlated
between neighbours and channels, and a slight blur; colours stay what they were. The colour matrices are our
own, as those of the paper are measured from cameras. The paper's tone curve, a smooth step, is a choice.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Demosaicing = Literal["bilinear", "edge_aware"]
_GAMMA = 2.2
# Share of a channel's response that comes from each colour when channels are mixed fully; rows sum to 1.
_CROSSTALK = np.array([[0.30, 0.50, 0.20], [0.25, 0.40, 0.35], [0.10, 0.50, 0.40]])
# Bilinear interpolation of a mosaic in which one pixel of four, or two of four, are known.
_ONE_OF_FOUR = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 4
_TWO_OF_FOUR = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4


@dataclass(frozen=True)
class Camera:
    """One camera and exposure.

    Attributes:
        red_gain, blue_gain: white balance, as factors against green.
        exposure: factor from sensor values to image values.
        crosstalk: 0 for a sensor that sees RGB itself, 1 for one that mixes channels most.
        phase: (row, column) of the red pixel in each 2 x 2 of the mosaic, 0 or 1 each.
        shot: variance per unit of signal, the sensor's full scale being 1.
        read: variance independent of the signal.
        demosaicing: bilinear, or OpenCV's that interpolates green along edges, on 16 bits.
        tone_curve: True for a curve after the gamma that is steeper in the mid-tones.
    """

    red_gain: float = 2.0
    blue_gain: float = 1.7
    exposure: float = 1.25
    crosstalk: float = 0.5
    phase: tuple[int, int] = (0, 0)
    shot: float = 0.0
    read: float = 0.0
    demosaicing: Demosaicing = "bilinear"
    tone_curve: bool = False


def random_camera(rng: np.random.Generator, shot_range: tuple[float, float] = (1e-4, 0.012)) -> Camera:
    """Gains and noise distributed as in Brooks et al., Section 3; crosstalk and phase are ours, uniform.

    Correcting a crosstalk of 0.4 to 0.6 makes noise 1.4 to 2.2 times as strong, much as cameras' own matrices do.
    """
    log_shot = rng.uniform(math.log(shot_range[0]), math.log(shot_range[1]))
    log_read = 2.18 * log_shot + 1.20 + rng.normal(0, 0.26)
    return Camera(
        red_gain=rng.uniform(1.9, 2.4),
        blue_gain=rng.uniform(1.5, 1.9),
        exposure=1 / min(max(rng.normal(0.8, 0.1), 0.4), 1.2),
        crosstalk=rng.uniform(0.4, 0.6),
        phase=(int(rng.integers(2)), int(rng.integers(2))),
        shot=math.exp(log_shot),
        read=math.exp(log_read),
    )


def camera_noise(image: np.ndarray, camera: Camera, rng: np.random.Generator, *, demosaiced: bool = True) -> np.ndarray:
    """Add camera noise to an image.

    Args:
        image: (H, W, 3) RGB float32 in [0, 1].
        camera: the camera and exposure.
        rng: source of the noise.
        demosaiced: False leaves out the camera's changes to the image itself, such as the blur and the false colours
            of demosaicing: half the difference of two developments with opposite noise is added to the image. The
            mean of many such images is the image, as clean photographs are means of many noisy ones: the curve that
            brightens shadows moves the mean of noise otherwise.

    Returns:
        The noisy image; same shape, dtype and range.
    """
    gains = np.array([camera.red_gain, 1.0, camera.blue_gain]) * camera.exposure
    to_sensor = ((1 - camera.crosstalk) * np.eye(3) + camera.crosstalk * _CROSSTALK) / gains[:, None]
    encoded = np.maximum(image, 0)
    linear = cv2.pow(_inverse_smoothstep(encoded) if camera.tone_curve else encoded, _GAMMA)
    mosaic = _mosaic(cv2.transform(linear, to_sensor), camera.phase)

    deviation = np.sqrt(np.float32(camera.shot) * mosaic + np.float32(camera.read))
    noise = deviation * rng.standard_normal(mosaic.shape, dtype=np.float32)
    from_sensor = np.linalg.inv(to_sensor)
    developed = _develop(np.clip(mosaic + noise, 0, 1), camera, from_sensor)
    if demosaiced:
        return developed
    opposite = _develop(np.clip(mosaic - noise, 0, 1), camera, from_sensor)
    return np.clip(image + (developed - opposite) / 2, 0, 1)


def _develop(mosaic: np.ndarray, camera: Camera, from_sensor: np.ndarray) -> np.ndarray:
    """(H, W) sensor values to an (H, W, 3) image."""
    demosaic = _demosaic if camera.demosaicing == "bilinear" else _demosaic_along_edges
    linear = cv2.transform(demosaic(mosaic, camera.phase), from_sensor)
    encoded = cv2.pow(np.clip(linear, 0, 1), 1 / _GAMMA)
    return encoded * encoded * (3 - 2 * encoded) if camera.tone_curve else encoded


def _inverse_smoothstep(values: np.ndarray) -> np.ndarray:
    """Invert 3 x^2 - 2 x^3 on [0, 1] (Brooks et al., Section 3.1)."""
    return 0.5 - np.sin(np.arcsin(1 - 2 * np.minimum(values, 1)) / 3)


def _mosaic(sensor: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) to (H, W): the one colour that each pixel of an RGGB sensor sees."""
    mosaic = sensor[..., 1].copy()
    row, column = phase
    for channel, y, x in ((0, row, column), (2, 1 - row, 1 - column)):
        mosaic[y::2, x::2] = sensor[y::2, x::2, channel]
    return mosaic


def _demosaic(mosaic: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """(H, W) to (H, W, 3), bilinear. Mirrored borders keep the pattern as the edge is not repeated."""
    row, column = phase
    red, blue, green = np.zeros_like(mosaic), np.zeros_like(mosaic), mosaic.copy()
    for plane, y, x in ((red, row, column), (blue, 1 - row, 1 - column)):
        plane[y::2, x::2] = mosaic[y::2, x::2]
        green[y::2, x::2] = 0
    planes = ((red, _ONE_OF_FOUR), (green, _TWO_OF_FOUR), (blue, _ONE_OF_FOUR))
    return cv2.merge([cv2.filter2D(p, -1, k, borderType=cv2.BORDER_REFLECT_101) for p, k in planes])


_EDGE_AWARE = {
    (0, 0): cv2.COLOR_BayerRGGB2RGB_EA,
    (0, 1): cv2.COLOR_BayerGRBG2RGB_EA,
    (1, 0): cv2.COLOR_BayerGBRG2RGB_EA,
    (1, 1): cv2.COLOR_BayerBGGR2RGB_EA,
}


def _demosaic_along_edges(mosaic: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """(H, W) to (H, W, 3) by OpenCV's edge-aware method, which gets two mirrored pixels at each border."""
    mirrored = cv2.copyMakeBorder(mosaic * np.float32(65535), 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    return cv2.demosaicing(np.rint(mirrored).astype(np.uint16), _EDGE_AWARE[phase])[2:-2, 2:-2].astype(
        np.float32
    ) / np.float32(65535)

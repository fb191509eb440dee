"""NIQE (Mittal, Soundararajan and Bovik, 2013): the distance of an image's statistics from those of photographs.

No reference is needed. Local contrasts of a photograph, normalised by their surroundings, follow generalised Gaussian
distributions whose parameters noise, blur and artifacts change. The parameters of an image, patch by patch, are
compared with those of pristine photographs, as two Gaussian distributions in 36 dimensions. Lower is better.

The features are those of the authors' program, so its parameters give its numbers: 5.7296 for Set14's baboon. These
parameters, of the pristine photographs of 2013, are not here; `load` reads their file, as the authors or the package
BasicSR distribute it. The bundled ones were fitted by the paper's procedure to other photographs: their numbers are
called private, and are comparable with one another only.
"""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.special import gammaln

from swinir.atomic import atomic_path
from swinir.degradations.resize import imresize
from swinir.image_io.color import luma
from swinir.image_io.image import to_rgb

PATCH = 96  # side of the patches at full size, and half of it at half size
SHARP = 0.75  # photographs are described by patches whose contrast exceeds this share of their sharpest patch's
NUM_FEATURES = 36
BUNDLED = Path(__file__).with_name("niqe_photographs.npz")
# Of damaged files, and of files of something else.
UNREADABLE = (
    *(StopIteration, TypeError, ValueError, EOFError, NotImplementedError),
    *(MatReadError, BadZipFile, zlib.error),
)
# SHA-256 of the published mean and covariance, as float64.
PUBLISHED = "f6284a2b53fd40bbc960472b76ec55b67a299a0270294b804c847e99b8cc1e30"
# Names of mean and covariance in the files of this package, the authors and BasicSR.
_NAMES = (("mean", "covariance"), ("mu_prisparam", "cov_prisparam"), ("mu_pris_param", "cov_pris_param"))
_WINDOW, _SIGMA = 7, 7 / 6  # of the local mean and contrast
_FLOOR = 1.0  # added to the contrast, in grey levels
_NOTHING = 1e-6  # grey levels: rounding errors in flat areas, whose sign would count otherwise


@dataclass(frozen=True)
class Pristine:
    """Statistics of pristine photographs.

    Attributes:
        mean: (36,) of their patches' features.
        covariance: (36, 36) likewise.
        num_images, num_patches: that they were fitted to; 0 where a file does not tell.
    """

    mean: np.ndarray
    covariance: np.ndarray
    num_images: int = 0
    num_patches: int = 0

    @property
    def published(self) -> bool:
        """True for the parameters of 2013, whose numbers are comparable with published ones."""
        values = np.vstack([self.mean, self.covariance]).astype("<f8")
        return hashlib.sha256(values.tobytes()).hexdigest() == PUBLISHED


def niqe(image: np.ndarray, pristine: Pristine | None = None, *, crop_border: int = 0) -> float:
    """Return NIQE of an (H, W, 1 or 3) uint8 image on luma, with the bundled parameters by default.

    Raises:
        ValueError: for an image without a patch of 96x96 pixels inside the border, or without any contrast.
    """
    pristine = pristine or bundled()
    inside = slice(crop_border, -crop_border or None)
    found, _ = features(image[inside, inside])
    whole = found[np.isfinite(found).all(axis=1)]
    if not len(whole):
        raise ValueError("NIQE needs contrast in at least one patch, and the image has none")
    covariance = np.cov(whole, rowvar=False) if len(whole) > 1 else np.zeros_like(pristine.covariance)
    difference = np.nanmean(found, axis=0) - pristine.mean
    pooled = np.linalg.pinv((covariance + pristine.covariance) / 2)
    return float(np.sqrt(difference @ pooled @ difference))


def fit(images: Iterable[np.ndarray]) -> Pristine:
    """Fit the parameters to pristine photographs, (H, W, 1 or 3) uint8, by their sharp patches; small ones are skipped.

    Raises:
        ValueError: when there are fewer sharp patches than features.
    """
    found, num_images = [], 0
    for image in images:
        if min(image.shape[:2]) < PATCH:
            continue
        values, sharpness = features(image)
        values = values[sharpness > SHARP * sharpness.max()]
        found.append(values[np.isfinite(values).all(axis=1)])
        num_images += bool(len(found[-1]))
    patches = np.concatenate(found) if found else np.empty((0, NUM_FEATURES))
    if len(patches) <= NUM_FEATURES:
        raise ValueError(f"{len(patches)} sharp patches of {PATCH}x{PATCH} are too few to fit; give more photographs")
    return Pristine(patches.mean(axis=0), np.cov(patches, rowvar=False), num_images, len(patches))


def save(path: Path, pristine: Pristine) -> None:
    """Write parameters as .npz."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(pristine))


def load(path: Path) -> Pristine:
    """Read parameters that `save` wrote, the authors' .mat or BasicSR's .npz.

    Raises:
        ValueError: for a file of something else.
    """
    try:
        content = loadmat(path) if path.suffix == ".mat" else dict(np.load(path, allow_pickle=False))
        mean, covariance = next((content[a], content[b]) for a, b in _NAMES if a in content and b in content)
        counts = (int(content.get(name, 0)) for name in ("num_images", "num_patches"))
        pristine = Pristine(mean.astype(np.float64).reshape(-1), covariance.astype(np.float64), *counts)
    except UNREADABLE as error:
        raise ValueError(
            f"{path}: not a file of NIQE parameters (modelparameters.mat, niqe_pris_params.npz, or one that "
            "scripts/fit_niqe.py wrote)"
        ) from error
    if pristine.mean.shape != (NUM_FEATURES,) or covariance.shape != (NUM_FEATURES, NUM_FEATURES):
        raise ValueError(f"{path}: parameters of shape {mean.shape} and {covariance.shape}, expected 36 and 36x36")
    return pristine


@lru_cache(maxsize=1)
def bundled() -> Pristine:
    """Return the parameters that come with the package."""
    return load(BUNDLED)


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 36 features and the sharpness of each patch of an (H, W, 1 or 3) uint8 image.

    18 at full size, then 18 at half size: shape and scale of the normalised contrast's distribution, then shape, mean
    and both scales of those of the products of neighbours, across, down and along both diagonals; the last pixel of a
    patch's row or column has the first as its neighbour.

    Returns:
        (P, 36) float64, NaN where a patch is flat; (P,) mean contrast in grey levels.

    Raises:
        ValueError: for an image smaller than a patch.
    """
    rows, columns = (side // PATCH for side in image.shape[:2])
    if not rows or not columns:
        raise ValueError(f"NIQE needs at least {PATCH}x{PATCH} pixels, got {image.shape[1]}x{image.shape[0]}")
    whole = luma(to_rgb(image[: rows * PATCH, : columns * PATCH]))[..., 0].astype(np.float64).round()
    normalised, contrast = normalise(whole)
    half, _ = normalise(imresize(whole, 0.5))
    sharpness = _patches(contrast, PATCH).mean(axis=(1, 2))
    return np.hstack([_describe(_patches(normalised, PATCH)), _describe(_patches(half, PATCH // 2))]), sharpness


def normalise(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) in grey levels: the difference from its local mean over the local contrast, and that contrast."""
    kernel = cv2.getGaussianKernel(_WINDOW, _SIGMA)

    def local(x: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REPLICATE)

    # Of deviations from the image's mean: squares of grey levels would lose digits.
    centred = gray - gray.mean()
    contrast = np.sqrt(np.abs(local(centred**2) - local(centred) ** 2))
    difference = gray - local(gray)
    difference[np.abs(difference) < _NOTHING] = 0
    return difference / (contrast + _FLOOR), contrast


def _patches(x: np.ndarray, side: int) -> np.ndarray:
    """(H, W) of whole patches to (P, side, side)."""
    rows, columns = x.shape[0] // side, x.shape[1] // side
    return x.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _describe(patches: np.ndarray) -> np.ndarray:
    """(P, S, S) to (P, 18)."""
    shape, left, right = fit_aggd(patches.reshape(len(patches), -1))
    columns = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        products = patches * np.roll(patches, shift, axis=(1, 2))
        shape, left, right = fit_aggd(products.reshape(len(patches), -1))
        mean = (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape))
        columns += [shape, mean, left, right]
    return np.stack(columns, axis=1)


def fit_aggd(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Asymmetric generalised Gaussian distributions by their moments (Lasmar, Stitou and Berthoumieu, 2009).

    The density falls as exp(-(|x| / scale)**shape), with a scale for each side of zero.

    Args:
        samples: (P, N), of P distributions.

    Returns:
        shape from 0.2 to 10 in thousandths, left scale and right scale, (P,) each; NaN without samples on both sides
        of zero.
    """
    below, above = np.minimum(samples, 0), np.maximum(samples, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt((below**2).sum(axis=1) / (below < 0).sum(axis=1))
        right = np.sqrt((above**2).sum(axis=1) / (above > 0).sum(axis=1))
        skew = left / right
        ratio = np.abs(samples).mean(axis=1) ** 2 / (samples**2).mean(axis=1)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    ratios, shapes = _shapes()
    above_ratio = np.searchsorted(ratios, ratio).clip(1, len(ratios) - 1)
    nearest = above_ratio - (ratio - ratios[above_ratio - 1] <= ratios[above_ratio] - ratio)
    shape = np.where(np.isfinite(ratio), shapes[nearest], np.nan)
    widening = np.exp((gammaln(1 / shape) - gammaln(3 / shape)) / 2)  # from standard deviation to scale
    return shape, left * widening, right * widening


@lru_cache(maxsize=1)
def _shapes() -> tuple[np.ndarray, np.ndarray]:
    """The squared mean of |x| over the mean of x**2, rising, and the shape of the generalised Gaussian that has it."""
    shapes = np.arange(0.2, 10.0005, 0.001)
    return np.exp(2 * gammaln(2 / shapes) - gammaln(1 / shapes) - gammaln(3 / shapes)), shapes

"""Diagnosis of a low-quality image by its ground truth: how it was reduced, turned, shifted, recolored.

The image is compared with the benchmark's own reduction of the ground truth. If they differ, the module searches for
the turn, the order of channels or the shift, and the way of reducing, that give the image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from skimage.registration import phase_cross_correlation

from swinir.metrics.full_reference import psnr
from swinir.testsets.conversions import MATLAB_BICUBIC, REDUCERS
from swinir.testsets.pairs import fits, reduced

Image = np.ndarray
MAX_SHIFT = 16  # low-quality pixels; a larger shift is taken for another image
MARGIN = 4  # low-quality pixels at the edges, which depend on how the image was extended
CERTAIN = 50.0  # dB from which an explanation is accepted; the same kernel in two programs agrees to more
ROUNDED = 52.0  # dB from which two images differ by rounding alone
CLEARER = 3.0  # dB by which a more complicated explanation must be better
ALIKE = 0.5  # correlation below which two images show different scenes
ENOUGH = 384  # low-quality pixels per axis that explanations are tried on

TURNS: dict[str, Callable[[Image], Image]] = {
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "turned by 90 degrees to the left": lambda image: np.rot90(image),
    "turned by 90 degrees to the right": lambda image: np.rot90(image, -1),
    "with rows and columns swapped": lambda image: image.swapaxes(0, 1),
    "with rows and columns swapped and turned by 180 degrees": lambda image: image.swapaxes(0, 1)[::-1, ::-1],
}
INVERSE = {
    "turned by 90 degrees to the left": "turned by 90 degrees to the right",
    "turned by 90 degrees to the right": "turned by 90 degrees to the left",
}
ORDERS = [order for order in permutations(range(3)) if order != (0, 1, 2)]


@dataclass(frozen=True)
class Diagnosis:
    """Difference between a low-quality image and the benchmark's reduction of its ground truth.

    Attributes:
        psnr: of the two in dB; inf if they are equal.
        levels: their largest difference, of 255.
        share: of the values that differ.
        turn: key of TURNS that was applied to the image, or "".
        order: of the ground truth's channels in it, such as "BGR", or "".
        shift: (right, down) of its content, in ground-truth pixels.
        made_by: names of the reducers that give it after turn, order and shift; empty if none does.
        explained: PSNR of that explanation in dB, without the edges.
        alike: False if the two show different scenes.
    """

    psnr: float
    levels: int = 0
    share: float = 0.0
    turn: str = ""
    order: str = ""
    shift: tuple[int, int] = (0, 0)
    made_by: tuple[str, ...] = ()
    explained: float = 0.0
    alike: bool = True

    @property
    def exact(self) -> bool:
        """True if there is no difference."""
        return self.levels == 0

    @property
    def rounding_only(self) -> bool:
        """True for MATLAB's bicubic, neither turned nor shifted, that was rounded in another way."""
        straight = (self.turn, self.order, self.shift) == ("", "", (0, 0))
        return (
            straight
            and self.levels <= 2
            and any(name.startswith(f"{MATLAB_BICUBIC}, rounded") for name in self.made_by)
        )


def diagnose(gt: Image, lq: Image, scale: int) -> Diagnosis:
    """Compare an (h, w, C) uint8 low-quality image with its (H, W, C) ground truth.

    Raises:
        ValueError: for sizes or channels that do not fit.
    """
    if not fits(gt.shape, lq.shape, scale) or gt.shape[2] != lq.shape[2]:
        raise ValueError(f"{lq.shape} does not fit a ground truth of {gt.shape} at scale {scale}")
    gt = gt[: lq.shape[0] * scale, : lq.shape[1] * scale]
    ours = reduced(gt, scale)
    difference = np.abs(ours.astype(np.int16) - lq)
    found = Diagnosis(psnr(lq, ours), int(difference.max()), float((difference > 0).mean()))
    return found if found.exact else _explain(gt, lq, scale, found)


def _explain(gt: Image, lq: Image, scale: int, found: Diagnosis) -> Diagnosis:
    """Choose the best explanation: plain, turned or recolored, shifted; a later one must be clearly better."""
    gt, lq = _middle(gt, lq, scale)
    ours = reduced(gt, scale)
    best = replace(found, explained=-np.inf)
    for guesses in ([found], _unmoved(lq, ours, found), _moved(gt, lq, scale, ours, found)):
        likely = max(guesses, key=lambda guess: guess.explained, default=found)
        guess = _with_reducers(_applied(gt, likely, scale), lq, scale, likely)
        if guess.explained > best.explained + CLEARER:
            best = guess
    return replace(best, alike=_correlation(reduced(_applied(gt, best, scale), scale), lq) > ALIKE)


def _middle(gt: Image, lq: Image, scale: int) -> tuple[Image, Image]:
    """Crop a large pair to its middle, which turns keep in place."""
    first = [max(0, -(-(side - ENOUGH) // 2)) for side in lq.shape[:2]]
    last = [side - start for start, side in zip(first, lq.shape[:2], strict=True)]
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return gt[tuple(slice(p.start * scale, p.stop * scale) for p in part)], lq[part]


def _with_reducers(gt: Image, lq: Image, scale: int, guess: Diagnosis) -> Diagnosis:
    """Complete a guess by the reducers that give the image from a ground truth changed by the guess."""
    scores = {name: _inner(way(gt, scale), lq, guess, scale) for name, way in REDUCERS.items()}
    top = max(scores.values())
    names = tuple(name for name, score in scores.items() if score == top) if top >= CERTAIN else ()
    # An image that was turned before it was reduced was rounded after the other axis first.
    if MATLAB_BICUBIC in names or (guess.turn and scores[MATLAB_BICUBIC] > ROUNDED):
        names = (MATLAB_BICUBIC,)
    return replace(guess, made_by=names, explained=top)


def _orders(found: Diagnosis, channels: int) -> list[Diagnosis]:
    return [replace(found, order="".join("RGB"[c] for c in order)) for order in (ORDERS if channels == 3 else [])]


def _unmoved(lq: Image, ours: Image, found: Diagnosis) -> Iterator[Diagnosis]:
    """Guesses with other orders of channels, and with turns."""
    for guess in _orders(found, lq.shape[2]):
        yield replace(guess, explained=_inner(_reordered(ours, guess.order), lq))
    for turn, do in TURNS.items():
        if do(ours).shape == lq.shape:
            yield replace(found, turn=turn, explained=_inner(do(ours), lq))


def _moved(gt: Image, lq: Image, scale: int, ours: Image, found: Diagnosis) -> Iterator[Diagnosis]:
    """Guesses with shifts, and with shifts of swapped channels."""
    for guess in (found, *(guess for guess in _orders(found, lq.shape[2]) if guess.order == "BGR")):
        for shift in _shifts(_reordered(ours, guess.order), lq, scale):
            moved = replace(guess, shift=shift)
            yield replace(moved, explained=_inner(reduced(_applied(gt, moved, scale), scale), lq, moved, scale))


def _shifts(ours: Image, lq: Image, scale: int) -> Iterator[tuple[int, int]]:
    """Shifts in ground-truth pixels around the one that phase correlation finds."""
    a, b = (image.mean(axis=2) for image in (ours, lq))
    # Without a window the edges of the image, which do not move, keep the peak at zero.
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in a.shape))
    a, b = ((image - image.mean()) * window for image in (a, b))
    if not (a.any() and b.any()):  # a flat image has no position
        return
    down, right = phase_cross_correlation(b, a, upsample_factor=20, normalization=None)[0] * scale
    near = [(round(float(right)) + dx, round(float(down)) + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    limit = MAX_SHIFT * scale
    yield from (shift for shift in near if shift != (0, 0) and max(map(abs, shift)) <= limit)


def _reordered(image: Image, order: str) -> Image:
    return image[..., ["RGB".index(c) for c in order]] if order else image


def _applied(gt: Image, guess: Diagnosis, scale: int) -> Image:
    """Apply the order of channels, turn and shift of a guess to the ground truth."""
    image = _reordered(gt, guess.order)
    image = TURNS[guess.turn](image) if guess.turn else image
    right, down = guess.shift
    return np.roll(image, (down, right), axis=(0, 1)) if guess.shift != (0, 0) else image


def _inner(one: Image, other: Image, guess: Diagnosis | None = None, scale: int = 1) -> float:
    """PSNR without the edges and without the pixels that a shift moves in."""
    moved = max(map(abs, guess.shift)) if guess else 0
    border = MARGIN + -(-moved // scale)
    return psnr(one, other, crop_border=min(border, (min(one.shape[:2]) - 1) // 2))


def _correlation(one: Image, other: Image) -> float:
    a, b = (image - image.mean() for image in (one, other))
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread else 0.0


def describe(found: Diagnosis) -> str:
    """Describe a diagnosis in one line."""
    parts = []
    if not found.alike:
        return f"shows another scene than its ground truth ({found.psnr:.1f} dB from its reduction)"
    if found.order:
        parts.append(f"has its channels in the order {found.order}")
    if found.turn:
        parts.append(f"is {found.turn}")
    if found.shift != (0, 0):
        right, down = found.shift
        ways = [f"{abs(n)} to the {w}" for n, w in ((right, "right" if right > 0 else "left"),) if n]
        ways += [f"{abs(n)} {w}" for n, w in ((down, "down" if down > 0 else "up"),) if n]
        parts.append(f"is shifted by {' and '.join(ways)} (pixels of the ground truth)")
    if found.made_by != (MATLAB_BICUBIC,):
        parts.append("is not by MATLAB's bicubic" + _maker(found))
    if not parts:
        where = ", though not in its middle" if found.explained == np.inf else ""
        parts.append(f"differs from {MATLAB_BICUBIC}{where}")
    return f"{', '.join(parts)}; {found.psnr:.1f} dB and up to {found.levels} levels from the expected image"


def _maker(found: Diagnosis) -> str:
    if not found.made_by:
        return " nor by any other known method"
    names = " or ".join(found.made_by)
    return f" but by {names}" if found.explained == np.inf else f" but, to {found.explained:.0f} dB, by {names}"

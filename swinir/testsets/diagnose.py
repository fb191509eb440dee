"""What is wrong with a low-quality image, by its ground truth: how it was reduced, turned, shifted, recoloured.

The benchmark's own reduction of the ground truth is held against it. Where they differ, every explanation at hand is
tried: which way of turning, order of channels and shift, and with it which way of reducing, gives the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from skimage.registration import phase_cross_correlation

from swinir.metrics.full_reference import psnr
from swinir.testsets.pairs import fits, reduced
from swinir.testsets.resamplers import MATLABS, REDUCERS

Image = np.ndarray
MAX_SHIFT = 16  # low-quality pixels; farther is taken for another picture
MARGIN = 4  # low-quality pixels at the edges that ways of mirroring them may change
TOLD = 50.0  # dB from which an explanation is taken for the cause; two programs' same kernel agree to more
ROUNDED = 52.0  # dB from which two images differ by little else than rounding
CLEARER = 3.0  # dB by which a more complicated explanation must be the better one
ALIKE = 0.5  # correlation below which two images show different things
ENOUGH = 384  # low-quality pixels an axis that explanations are tried on

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
    """How a low-quality image differs from the benchmark's reduction of its ground truth.

    Attributes:
        psnr: of the two in dB; inf if they are equal.
        levels: their largest difference, of 255.
        share: of the values that differ.
        turn: a key of TURNS that the image looks like, or "".
        order: of the ground truth's channels in it, such as "BGR", or "".
        shift: (right, down) that its content lies from where it should, in ground-truth pixels.
        made_by: names of the ways of reducing that give it, with the above; none if none does.
        explained: PSNR of the explanation, in dB, without the edges.
        alike: whether the two show the same thing at all.
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
        """Whether there is no difference at all."""
        return self.levels == 0

    @property
    def rounding_only(self) -> bool:
        """Whether it is MATLAB's bicubic, straight, and rounded in another way."""
        straight = (self.turn, self.order, self.shift) == ("", "", (0, 0))
        return straight and self.levels <= 2 and any(name.startswith(f"{MATLABS}, rounded") for name in self.made_by)


def diagnose(gt: Image, lq: Image, scale: int) -> Diagnosis:
    """Hold an (h, w, C) uint8 low-quality image against its (H, W, C) ground truth, of a size that fits.

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
    """The simplest of the best explanations: straight, with other channels or turned, shifted; reduced every way."""
    gt, lq = _middle(gt, lq, scale)
    ours = reduced(gt, scale)
    best = replace(found, explained=-np.inf)
    for guesses in ([found], _unmoved(lq, ours, found), _moved(gt, lq, scale, ours, found)):
        likeliest = max(guesses, key=lambda guess: guess.explained, default=found)
        guess = _by_every_way(_applied(gt, likeliest, scale), lq, scale, likeliest)
        if guess.explained > best.explained + CLEARER:
            best = guess
    return replace(best, alike=_correlation(reduced(_applied(gt, best, scale), scale), lq) > ALIKE)


def _middle(gt: Image, lq: Image, scale: int) -> tuple[Image, Image]:
    """Enough of a large pair, with the same middle, so that it can be turned."""
    first = [max(0, -(-(side - ENOUGH) // 2)) for side in lq.shape[:2]]
    last = [side - start for start, side in zip(first, lq.shape[:2], strict=True)]
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return gt[tuple(slice(p.start * scale, p.stop * scale) for p in part)], lq[part]


def _by_every_way(gt: Image, lq: Image, scale: int, guess: Diagnosis) -> Diagnosis:
    """A guess with the ways of reducing that give the file, of a ground truth changed by the guess."""
    scores = {name: _inner(way(gt, scale), lq, guess, scale) for name, way in REDUCERS.items()}
    top = max(scores.values())
    names = tuple(name for name, score in scores.items() if score == top) if top >= TOLD else ()
    # Turned before it was reduced, a file was rounded after the other axis first.
    if MATLABS in names or (guess.turn and scores[MATLABS] > ROUNDED):
        names = (MATLABS,)
    return replace(guess, made_by=names, explained=top)


def _orders(found: Diagnosis, channels: int) -> list[Diagnosis]:
    return [replace(found, order="".join("RGB"[c] for c in order)) for order in (ORDERS if channels == 3 else [])]


def _unmoved(lq: Image, ours: Image, found: Diagnosis) -> Iterator[Diagnosis]:
    """With other channels, and turned."""
    for guess in _orders(found, lq.shape[2]):
        yield replace(guess, explained=_inner(_reordered(ours, guess.order), lq))
    for turn, do in TURNS.items():
        if do(ours).shape == lq.shape:
            yield replace(found, turn=turn, explained=_inner(do(ours), lq))


def _moved(gt: Image, lq: Image, scale: int, ours: Image, found: Diagnosis) -> Iterator[Diagnosis]:
    """Shifted, and shifted with other channels."""
    for guess in (found, *(guess for guess in _orders(found, lq.shape[2]) if guess.order == "BGR")):
        for shift in _shifts(_reordered(ours, guess.order), lq, scale):
            moved = replace(guess, shift=shift)
            yield replace(moved, explained=_inner(reduced(_applied(gt, moved, scale), scale), lq, moved, scale))


def _shifts(ours: Image, lq: Image, scale: int) -> Iterator[tuple[int, int]]:
    """Shifts in ground-truth pixels near the one that phase correlation finds, the likeliest first."""
    a, b = (image.mean(axis=2) for image in (ours, lq))
    # A window, or the picture's edges, which do not move, hold the peak at zero.
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in a.shape))
    a, b = ((image - image.mean()) * window for image in (a, b))
    if not (a.any() and b.any()):  # a flat picture is nowhere
        return
    down, right = phase_cross_correlation(b, a, upsample_factor=20, normalization=None)[0] * scale
    near = [(round(float(right)) + dx, round(float(down)) + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    limit = MAX_SHIFT * scale
    yield from (shift for shift in near if shift != (0, 0) and max(map(abs, shift)) <= limit)


def _reordered(image: Image, order: str) -> Image:
    return image[..., ["RGB".index(c) for c in order]] if order else image


def _applied(gt: Image, guess: Diagnosis, scale: int) -> Image:
    """The ground truth as it would be if it explained the file without a fault."""
    image = _reordered(gt, guess.order)
    image = TURNS[guess.turn](image) if guess.turn else image
    right, down = guess.shift
    return np.roll(image, (down, right), axis=(0, 1)) if guess.shift != (0, 0) else image


def _inner(one: Image, other: Image, guess: Diagnosis | None = None, scale: int = 1) -> float:
    """PSNR without the edges, and without what a shift brings in there."""
    moved = max(map(abs, guess.shift)) if guess else 0
    border = MARGIN + -(-moved // scale)
    return psnr(one, other, crop_border=min(border, (min(one.shape[:2]) - 1) // 2))


def _correlation(one: Image, other: Image) -> float:
    a, b = (image - image.mean() for image in (one, other))
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread else 0.0


def describe(found: Diagnosis) -> str:
    """A diagnosis in a clause or two, for a person."""
    parts = []
    if not found.alike:
        return f"shows something else than its ground truth ({found.psnr:.1f} dB from its reduction)"
    if found.order:
        parts.append(f"has its channels in the order {found.order}")
    if found.turn:
        parts.append(f"is {found.turn}")
    if found.shift != (0, 0):
        right, down = found.shift
        ways = [f"{abs(n)} to the {w}" for n, w in ((right, "right" if right > 0 else "left"),) if n]
        ways += [f"{abs(n)} {w}" for n, w in ((down, "down" if down > 0 else "up"),) if n]
        parts.append(f"is shifted by {' and '.join(ways)} (pixels of the ground truth)")
    if found.made_by != (MATLABS,):
        parts.append("is not by MATLAB's bicubic" + _maker(found))
    if not parts:
        where = ", though not in its middle" if found.explained == np.inf else ""
        parts.append(f"differs from {MATLABS}{where}")
    return f"{', '.join(parts)}; {found.psnr:.1f} dB and up to {found.levels} levels from what it should be"


def _maker(found: Diagnosis) -> str:
    if not found.made_by:
        return " nor by any way known here"
    names = " or ".join(found.made_by)
    return f" but by {names}" if found.explained == np.inf else f" but, to {found.explained:.0f} dB, by {names}"

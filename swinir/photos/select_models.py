"""Model selection: from estimates and wishes to the passes through networks, with a reason for each.

    Findings, Wish, models on this machine -> select_models -> Selection of Passes

Noise that went through a camera, and noise with compression, are repaired in one pass. Otherwise compression, the last
degradation of a photograph, is repaired first and noise next; enlargement needs clean images. Needs no torch to import.
The thresholds were measured by `scripts/measure_choice.py gain` with the bundled models.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Literal

from swinir.degradations.estimate import Findings
from swinir.weights.zoo import RELEASED, SIZE_WORDS, TASK_IN_NAME, ZooEntry

LEAST_NOISE = 4.0  # there the denoiser improves nine images of ten, real_photo eight
BEST_JPEG = 70.0  # there the model for JPEG improves nine images of ten; Set5 has a "clean" one of quality 75
# Enough for real_photo where JPEG is repaired in any case: 0.6 dB better than the model for JPEG at 1.7.
FAINT_NOISE = 1.5
UNCOMPRESSED = 100.0
NOISY_JPEG = 90.0  # compression below this quality changes noise, so that models for white noise miss it
NEAR = 1.5  # a model for one level serves levels up to this factor away

Purpose = Literal["photo", "jpeg", "noise", "x"]
# The tasks that serve each purpose unless one is named; real_sr invents details, and is used only when named.
_TASKS: dict[Purpose, tuple[str, ...]] = {
    "photo": ("real_photo",),
    "jpeg": ("color_jpeg_car", "jpeg_car"),
    "noise": ("color_dn", "gray_dn"),
    "x": ("classical_sr", "lightweight_sr"),
}


@dataclass(frozen=True)
class Wish:
    """The user's wishes for model selection.

    Attributes:
        scale: factor of enlargement; 1 keeps the size.
        task: name of a task; only its models serve its purpose, and nothing else is repaired unless asked for.
        noise: noise level to remove instead of the estimate; 0 leaves noise alone. It decides the model; models for
            any level are not told it.
        jpeg: JPEG quality to repair instead of the estimate, likewise; 100 leaves compression alone.

    Raises:
        ValueError: for a wish that cannot be fulfilled.
    """

    scale: float = 1
    task: str | None = None
    noise: float | None = None
    jpeg: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.scale < math.inf:
            raise ValueError(f"scale must be at least 1, got {self.scale}; images are enlarged, never reduced")
        if self.task is not None and self.task not in TASK_IN_NAME:
            raise ValueError(f"unknown task {self.task!r}; choose one of {', '.join(TASK_IN_NAME)}")
        if self.noise is not None and not 0 <= self.noise <= 255:
            raise ValueError(f"noise must be from 0 to 255, got {self.noise}")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f"jpeg must be from 1 to 100, got {self.jpeg}")
        if self.purpose == "x" and self.scale == 1:
            raise ValueError(f"{self.task} enlarges; ask for a scale above 1 with it")
        if self.purpose == "photo" and (self.noise, self.jpeg) != (None, None):
            raise ValueError(f"{self.task} repairs noise and compression together; leave noise and jpeg out")

    @property
    def purpose(self) -> Purpose | None:
        """The purpose of the task that is named."""
        if self.task is None:
            return None
        return "photo" if self.task in _TASKS["photo"] else TASK_IN_NAME[self.task][1]


@dataclass(frozen=True)
class Pass:
    """One pass through a network.

    Attributes:
        model: its row in the zoo; `model.parts` has task and level.
        reason: one sentence.
        any_scale: the scale that a network of any scale is run at; None for others.
    """

    model: ZooEntry
    reason: str
    any_scale: float | None = None

    @property
    def scale(self) -> float:
        """The factor by which the pass enlarges."""
        if self.any_scale is not None:
            return self.any_scale
        return self.model.parts.level if self.model.parts.kind == "x" else 1


@dataclass(frozen=True)
class Selection:
    """Passes in their order; none for an image that needs no repair.

    A model for grey images takes one channel: of a colour image, each channel on its own. A model for colour images
    takes three: of a grey image, the same one thrice.

    Attributes:
        passes: through the networks.
        left_alone: a sentence for each degradation that is not repaired, with the reason.
    """

    passes: tuple[Pass, ...]
    left_alone: tuple[str, ...] = ()

    @property
    def factor(self) -> float:
        """The enlargement by all passes: the scale asked for or more."""
        return math.prod(step.scale for step in self.passes)

    def explain(self) -> list[str]:
        """Return the selection as plain sentences."""
        return [*(f"{step.model.alias}: {step.reason}" for step in self.passes), *self.left_alone]


@dataclass(frozen=True)
class _Fault:
    """A kind of degradation: its name, the level that means none, and the weakest that models improve."""

    purpose: Purpose
    name: str
    none: float
    limit: float
    help: str  # sentence about the limit


_JPEG = _Fault("jpeg", "JPEG quality", UNCOMPRESSED, BEST_JPEG, f"models help up to {BEST_JPEG:g}")
_NOISE = _Fault("noise", "noise", 0.0, LEAST_NOISE, f"models help from {LEAST_NOISE:g} on")


def select_models(findings: Findings, wish: Wish, models: Sequence[ZooEntry]) -> Selection:
    """Choose among the models on this machine, which `swinir.weights.zoo.present` lists.

    Raises:
        ValueError: when no model serves a needed pass, with the command that downloads one.
    """
    quality = findings.jpeg_quality or UNCOMPRESSED
    needs = {_JPEG: _level_to_repair(_JPEG, quality, wish.jpeg, wish)}
    needs[_NOISE] = _noise_to_remove(findings, wish, under_jpeg=needs[_JPEG][0] is not None)
    passes: list[Pass] = []
    left_alone: list[str] = []
    if why := _one_pass(findings, wish, needs[_NOISE], quality if wish.jpeg is None else wish.jpeg, models):
        passes.append(Pass(min(_family("photo", 1, findings, wish, models), key=_rank), f"{why}."))
        needs = {}
    for fault, (level, why) in needs.items():
        if level is None:
            left_alone.append(f"{fault.name} is left alone: {why}.")
            continue
        model = min(_family(fault.purpose, level, findings, wish, models), key=partial(_fit, level, findings))
        first, last = model.parts.level, model.parts.level_to
        levels = first if last is None else f"any level from {first} to {last} and is not told which"
        passes.append(Pass(model, f"{why}; the best model here is for {levels}."))
    if wish.scale > 1:
        passes += _enlargement(wish.scale, _family("x", wish.scale, findings, wish, models))
    return Selection(tuple(passes), tuple(left_alone))


def _level_to_repair(fault: _Fault, measured: float, asked: float | None, wish: Wish) -> tuple[float | None, str]:
    """The level to repair, or None, and the reason."""
    if asked is not None:
        return (None, "as asked") if asked == fault.none else (asked, f"{fault.name} {asked:g} was asked for")
    if wish.task is not None and wish.purpose != fault.purpose:
        return None, f"only {wish.task} was asked for"
    if wish.task is not None:
        return measured, f"{wish.task} was asked for, and {fault.name} measured as {measured:.0f}"
    if measured == fault.none:
        return None, "no sign of it"
    if abs(measured - fault.none) < abs(fault.limit - fault.none):
        return None, f"{_told(measured, fault.limit)} was found, and {fault.help}"
    return measured, f"{fault.name} {measured:.0f} was found"


def _noise_to_remove(findings: Findings, wish: Wish, *, under_jpeg: bool) -> tuple[float | None, str]:
    """The level of noise to remove, or None, and the reason; with JPEG, faint noise and possible texture go, too."""
    fault = replace(_NOISE, limit=FAINT_NOISE) if under_jpeg else _NOISE
    level, why = _level_to_repair(fault, findings.noise_level, wish.noise, wish)
    asked = wish.noise is not None or wish.task is not None
    if level is None or asked or under_jpeg or findings.noise.sure:
        return level, why
    return None, f"{level:.0f} was found, but it may be texture; --task real_photo removes it"


def _told(level: float, limit: float) -> str:
    """Return a level with as many digits as tell it from the limit."""
    return next(text for digits in (0, 1, 2, 17) if float(text := f"{level:.{digits}f}") != limit)


def _one_pass(
    findings: Findings, wish: Wish, noise: tuple[float | None, str], quality: float, models: Sequence[ZooEntry]
) -> str:
    """The reason for one pass that repairs noise and compression together; "" where there is none."""
    if wish.purpose == "photo":
        return f"{wish.task} was asked for"
    level, why = noise
    if level is None or wish.task is not None or not any(model.parts.task in _TASKS["photo"] for model in models):
        return ""
    reasons = ["neighbouring pixels share it"] * findings.noise.correlated
    reasons += [f"JPEG quality {quality:.0f} is repaired in the same pass"] * (quality < NOISY_JPEG)
    return "; ".join([why, *reasons]) if reasons else ""


def _fit(level: float, findings: Findings, model: ZooEntry) -> tuple[bool, float, tuple[int, int, bool], float]:
    """Key for the best model, the least: by channels, by level beyond a factor of NEAR, by network, by level.

    Models for any level take grey images as colour.
    """
    parts = model.parts
    strange = _strange(model, findings) and not (findings.gray and parts.level_to is not None)
    distance = _distance(min(max(level, parts.level), parts.level_to or parts.level), level)
    return strange, max(0.0, distance - math.log(NEAR)), _rank(model), distance


def _strange(model: ZooEntry, findings: Findings) -> bool:
    """Tell whether a network has other channels than the image."""
    from swinir.tasks import TASKS

    return TASKS[model.parts.task].gray != findings.gray


def _distance(level: float, wanted: float) -> float:
    """Distance by ratio, since JPEG's quantisation steps go with 1 / quality."""
    return abs(math.log(max(level, 1) / max(wanted, 1)))


def _rank(model: ZooEntry) -> tuple[int, int, bool]:
    """Key for the best of several models of one level, the least: large networks, large patches, GAN before PSNR."""
    return -(model.parameters or 0), -model.parts.patch, model.parts.objective == "PSNR"


def _family(
    purpose: Purpose, level: float, findings: Findings, wish: Wish, models: Sequence[ZooEntry]
) -> list[ZooEntry]:
    """Models that serve a purpose: those of the task named, or else of all suitable tasks."""
    tasks = (wish.task,) if wish.task is not None and wish.purpose == purpose else _TASKS[purpose]
    family = [model for model in models if model.parts.task in tasks]
    if family:
        return family
    released = [model for model in RELEASED if model.parts.task in tasks]
    remedy = "reinstall the package"
    if released:
        nearest = min(released, key=lambda m: (_strange(m, findings), _distance(m.parts.level, level), _rank(m)))
        remedy = f"run `swinir zoo download {nearest.alias}`"
    raise ValueError(f"no model of {' or '.join(tasks)} is on this machine; {remedy}")


def _enlargement(scale: float, family: Sequence[ZooEntry]) -> list[Pass]:
    """Choose passes that reach the scale: by a model of any scale, unless others reach it exactly or are larger."""
    asked = f"enlargement by {scale:g} was asked for"
    ranges = [model for model in family if model.parts.level_to is not None]
    steps = _fixed_steps(scale, [model for model in family if model.parts.level_to is None])
    if ranges:
        free = min(ranges, key=_rank)
        smallest = min(map(_size, steps), default=-1)
        exact = math.prod(model.parts.level for model in steps) == scale
        if smallest < _size(free) or (smallest == _size(free) and not exact):
            factors = split_scale(scale, free.parts.level_to or 1)
            count = len(factors)
            return [Pass(free, f"{asked}; pass {n} of {count}.", factor) for n, factor in enumerate(factors, 1)]
    return [Pass(model, f"{asked}; pass {number} of {len(steps)}.") for number, model in enumerate(steps, 1)]


def _size(model: ZooEntry) -> int:
    return list(SIZE_WORDS).index(model.parts.size)


def _fixed_steps(scale: float, family: Sequence[ZooEntry]) -> list[ZooEntry]:
    """Choose the best models of the fewest scales that reach a scale."""
    best = {model.parts.level: model for model in sorted(family, key=_rank, reverse=True)}
    return [best[factor] for factor in fewest_factors(scale, best)] if best else []


def fewest_factors(scale: float, factors: Collection[int]) -> tuple[int, ...]:
    """Choose the fewest factors that reach a scale, of the smallest product; small ones first, on small images."""
    count = 1
    while max(factors) ** count < scale:
        count += 1
    reach = (chosen for chosen in combinations_with_replacement(sorted(factors), count) if math.prod(chosen) >= scale)
    return min(reach, key=math.prod)


def split_scale(scale: float, most: float) -> list[float]:
    """Split a scale into the fewest factors up to `most`.

    All but the last are whole, so that the size of the output is exact, and as small as can be, since later passes
    compute all pixels that earlier ones made.
    """
    factors: list[float] = []
    while scale > most:
        passes = 2
        while most**passes < scale:
            passes += 1
        factors.append(max(2, math.ceil(scale / most ** (passes - 1))))
        scale /= factors[-1]
    return [*factors, scale]

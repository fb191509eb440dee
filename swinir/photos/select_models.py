"""Model selection: from estimates and wishes to the passes through networks, with a reason for each.

    Findings, Wish, models on this machine -> select_models -> Selection of Passes

Compression is the last degradation of a photograph, so it is repaired first; noise next; enlargement needs clean
images. Needs no torch to import. The thresholds were measured by `scripts/measure_choice.py gain` with the bundled
models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement

from swinir.degradations.estimate import Findings
from swinir.weights.zoo import RELEASED, TASK_IN_NAME, Kind, ZooEntry

LEAST_NOISE = 7.0  # there the model for 15 improves nine images of ten, at 5 half of them
BEST_JPEG = 70.0  # there the models for 40 improve 17 images of 20, at 80 six
UNCOMPRESSED = 100.0
# The same noise in three channels has, along their mean, thrice the variance that the model was trained for.
GRAY_NOISE_IN_COLOR = math.sqrt(3)


@dataclass(frozen=True)
class Wish:
    """The user's wishes for model selection.

    Attributes:
        scale: factor of enlargement; 1 keeps the size.
        task: name of a task; only its models serve its purpose, and nothing else is repaired unless asked for.
        noise: noise level to remove instead of the estimate; 0 leaves noise alone.
        jpeg: JPEG quality to repair instead of the estimate; 100 leaves compression alone.

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
        if self.task is not None and self.scale == 1 and self.kind == "x":
            raise ValueError(f"{self.task} enlarges; ask for a scale above 1 with it")

    @property
    def kind(self) -> Kind | None:
        """The kind of degradation that the task repairs."""
        return None if self.task is None else TASK_IN_NAME[self.task][1]


@dataclass(frozen=True)
class Pass:
    """One pass through a network.

    Attributes:
        model: its row in the zoo; `model.parts` has task and level.
        reason: one sentence.
    """

    model: ZooEntry
    reason: str

    @property
    def scale(self) -> int:
        """The factor by which the pass enlarges."""
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
    def factor(self) -> int:
        """The enlargement by all passes: the scale asked for or more."""
        return math.prod(step.scale for step in self.passes)

    def explain(self) -> list[str]:
        """Return the selection as plain sentences."""
        return [*(f"{step.model.alias}: {step.reason}" for step in self.passes), *self.left_alone]


@dataclass(frozen=True)
class _Fault:
    """A degradation of an image: its estimated level, the level asked for, and the level that means none."""

    kind: Kind
    name: str
    tasks: tuple[str, ...]
    measured: float
    asked: float | None
    none: float
    is_strong: bool  # enough for models to improve the image
    limit: float
    help: str  # sentence about the limit
    in_color: float = 1.0  # factor of a grey image's level in a model for colour


# Added to the distance of a model for other channels, by whether the image is grey. A model for colour does as well
# as one for grey if its level is a little nearer; one for grey cannot use what channels have in common.
_ILL_SUITED = {True: 0.1, False: 10.0}
_ENLARGING = ("classical_sr", "lightweight_sr")  # real_sr invents details, and is used only when named


def select_models(findings: Findings, wish: Wish, models: Sequence[ZooEntry]) -> Selection:
    """Choose among the models on this machine, which `swinir.weights.zoo.present` lists.

    Raises:
        ValueError: when no model serves a needed pass, with the command that downloads one.
    """
    passes: list[Pass] = []
    left_alone: list[str] = []
    for fault in _faults(findings, wish):
        level, why = _level_to_repair(fault, wish)
        if level is None:
            left_alone.append(f"{fault.name} is left alone: {why}.")
            continue
        family = _family(fault.kind, fault.tasks, level, findings, wish, models)
        model = min(family, key=partial(_fit, fault=fault, level=level, findings=findings))
        passes.append(
            Pass(model, f"{why}; the best model here is for {model.parts.level}{_mismatch(model, findings)}.")
        )
    if wish.scale > 1:
        family = _family("x", _ENLARGING, wish.scale, findings, wish, models)
        passes += _enlargement(wish.scale, family, findings)
    return Selection(tuple(passes), tuple(left_alone))


def _faults(findings: Findings, wish: Wish) -> tuple[_Fault, ...]:
    """List the degradations of an image in the order in which they are repaired."""
    quality, noise = findings.jpeg_quality or UNCOMPRESSED, findings.noise_level
    return (
        _Fault(
            kind="jpeg",
            name="JPEG quality",
            tasks=("color_jpeg_car", "jpeg_car"),
            measured=quality,
            asked=wish.jpeg,
            none=UNCOMPRESSED,
            is_strong=quality <= BEST_JPEG,
            limit=BEST_JPEG,
            help=f"models help up to {BEST_JPEG:g}",
        ),
        _Fault(
            kind="noise",
            name="noise",
            tasks=("color_dn", "gray_dn"),
            measured=noise,
            asked=wish.noise,
            none=0.0,
            is_strong=noise >= LEAST_NOISE,
            limit=LEAST_NOISE,
            help=f"models help from {LEAST_NOISE:g} on",
            in_color=GRAY_NOISE_IN_COLOR,
        ),
    )


def _level_to_repair(fault: _Fault, wish: Wish) -> tuple[float | None, str]:
    """The level to repair, or None, and the reason."""
    if fault.asked is not None:
        asked = fault.asked
        return (None, "as asked") if asked == fault.none else (asked, f"{fault.name} {asked:g} was asked for")
    if wish.task is not None and wish.kind != fault.kind:
        return None, f"only {wish.task} was asked for"
    if wish.task is not None:
        return fault.measured, f"{wish.task} was asked for, and {fault.name} measured as {fault.measured:.0f}"
    if fault.measured == fault.none:
        return None, "no sign of it"
    if not fault.is_strong:
        return None, f"{_told(fault.measured, fault.limit)} was found, and {fault.help}"
    return fault.measured, f"{fault.name} {fault.measured:.0f} was found"


def _told(level: float, limit: float) -> str:
    """Return a level with as many digits as tell it from the limit."""
    return next(text for digits in (0, 1, 2, 17) if float(text := f"{level:.{digits}f}") != limit)


def _fit(model: ZooEntry, fault: _Fault, level: float, findings: Findings) -> tuple[float, tuple[int, int, bool]]:
    """Key for the best model, the least: by level first, then by network."""
    if _suits(model, findings):
        return _distance(model.parts.level, level), _rank(model)
    met = level * fault.in_color if findings.gray else level
    return _distance(model.parts.level, met) + _ILL_SUITED[findings.gray], _rank(model)


def _suits(model: ZooEntry, findings: Findings) -> bool:
    """Tell whether the image has the channels of the network."""
    from swinir.tasks import TASKS

    return TASKS[model.parts.task].gray == findings.gray


def _distance(level: float, wanted: float) -> float:
    """Distance by ratio, since JPEG's quantisation steps go with 1 / quality.

    Measured: the models for noise 15 and 25 are equally good at 20, those for JPEG 10 and 40 at 18 (grey) and 23.
    """
    return abs(math.log(max(level, 1) / max(wanted, 1)))


def _rank(model: ZooEntry) -> tuple[int, int, bool]:
    """Key for the best of several models of one level, the least: large networks, large patches, GAN before PSNR."""
    return -(model.parameters or 0), -model.parts.patch, model.parts.objective == "PSNR"


def _family(
    kind: Kind, tasks: tuple[str, ...], level: float, findings: Findings, wish: Wish, models: Sequence[ZooEntry]
) -> list[ZooEntry]:
    """Models that serve a purpose: those of the task named, or else of all suitable tasks."""
    from swinir.tasks import TASKS

    if wish.task is not None and wish.kind == kind:
        tasks = (wish.task,)
    family = [model for model in models if model.parts.task in tasks]
    if family:
        return family
    best = min(tasks, key=lambda task: TASKS[task].gray != findings.gray)
    released = [model for model in RELEASED if model.parts.task == best]
    alias = min(released, key=lambda model: (_distance(model.parts.level, level), _rank(model))).alias
    raise ValueError(f"no model of {' or '.join(tasks)} is on this machine; run `swinir zoo download {alias}`")


def _mismatch(model: ZooEntry, findings: Findings) -> str:
    """Part of a sentence for a network whose channels are not those of the image."""
    if _suits(model, findings):
        return ""
    return ", and takes the grey image as colour" if findings.gray else ", and takes each channel on its own"


def _enlargement(scale: float, family: Sequence[ZooEntry], findings: Findings) -> list[Pass]:
    """Choose the fewest passes that reach the scale, with the smallest output; small factors first, on small images."""
    best = {model.parts.level: model for model in sorted(family, key=_rank, reverse=True)}
    count = 1
    while max(best) ** count < scale:
        count += 1
    reach = (factors for factors in combinations_with_replacement(sorted(best), count) if math.prod(factors) >= scale)
    factors = min(reach, key=math.prod)
    asked = f"enlargement by {scale:g} was asked for"
    return [
        Pass(best[factor], f"{asked}; pass {number} of {count}{_mismatch(best[factor], findings)}.")
        for number, factor in enumerate(factors, 1)
    ]

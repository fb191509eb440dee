"""Which experts a picture needs: from findings and wishes to an ordered plan, with a reason for each step.

    Findings, Wish, experts on this machine -> make_plan -> Plan of Steps

Compression came last, so it is undone first; noise next; enlarging is for clean pictures. Needs no torch to import.
The thresholds were measured by `scripts/measure_choice.py gain` with the bundled experts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement

from swinir.degradations.estimate import Findings
from swinir.weights.zoo import RELEASED, TASK_IN_NAME, Kind, ZooEntry

LEAST_NOISE = 7.0  # there the expert for 15 gains on nine pictures of ten, at 5 on half of them
BEST_JPEG = 70.0  # there the experts for 40 gain on 17 pictures of 20, at 80 on six
UNCOMPRESSED = 100.0


@dataclass(frozen=True)
class Wish:
    """What the user asks for.

    Attributes:
        scale: how much larger the result shall be; 1 keeps the size.
        task: name of a task; only its experts serve its purpose then, and nothing else is done unasked.
        noise: noise level to remove instead of the measured one; 0 leaves noise alone.
        jpeg: JPEG quality to repair instead of the measured one; 100 leaves compression alone.

    Raises:
        ValueError: naming what can't be asked for.
    """

    scale: float = 1
    task: str | None = None
    noise: float | None = None
    jpeg: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.scale < math.inf:
            raise ValueError(f"scale must be at least 1, got {self.scale}; pictures are enlarged, never reduced")
        if self.task is not None and self.task not in TASK_IN_NAME:
            raise ValueError(f"unknown task {self.task!r}; choose one of {', '.join(TASK_IN_NAME)}")
        if self.noise is not None and not 0 <= self.noise <= 255:
            raise ValueError(f"noise must be from 0 to 255, got {self.noise}")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f"jpeg must be from 1 to 100, got {self.jpeg}")
        if self.task is not None and self.scale == 1 and TASK_IN_NAME[self.task][1] == "x":
            raise ValueError(f"{self.task} enlarges; ask for a scale above 1 with it")


@dataclass(frozen=True)
class Step:
    """One pass through a network.

    Attributes:
        expert: its weights; `expert.parts` has task and level.
        reason: one sentence.
    """

    expert: ZooEntry
    reason: str

    @property
    def scale(self) -> int:
        """What the pass multiplies both sides by."""
        return self.expert.parts.level if self.expert.parts.kind == "x" else 1


@dataclass(frozen=True)
class Plan:
    """Passes in their order; none for a picture that is to be left as it is.

    An expert for grey pictures takes one channel: of a picture with colour, each channel on its own. An expert for
    colour takes three: of a grey picture, the same one thrice.

    Attributes:
        steps: the passes.
        left_alone: a sentence for each fault that is looked for and not repaired, with the reason.
    """

    steps: tuple[Step, ...]
    left_alone: tuple[str, ...] = ()

    @property
    def factor(self) -> int:
        """The enlargement that all passes reach: the scale asked for or more; the caller shrinks what exceeds it."""
        return math.prod(step.scale for step in self.steps)

    def explain(self) -> list[str]:
        """The plan as plain sentences."""
        return [*(f"{step.expert.alias}: {step.reason}" for step in self.steps), *self.left_alone]


@dataclass(frozen=True)
class _Repair:
    """One kind of fault: how it is measured, when a repair gains, and which tasks do it."""

    kind: Kind
    tasks: tuple[str, ...]
    name: str
    measured: Callable[[Findings], float]
    asked: Callable[[Wish], float | None]
    none: float  # the level that means no fault
    gains: Callable[[float], bool]
    limit: str
    thrice: float = 1.0  # what the level of a grey picture is multiplied by for an expert that gets it as colour


# In the order in which the faults are undone.
_REPAIRS = (
    _Repair(
        kind="jpeg",
        tasks=("color_jpeg_car", "jpeg_car"),
        name="JPEG quality",
        measured=lambda findings: findings.jpeg_quality or UNCOMPRESSED,
        asked=lambda wish: wish.jpeg,
        none=UNCOMPRESSED,
        gains=lambda quality: quality <= BEST_JPEG,
        limit=f"experts gain up to {BEST_JPEG:.0f}",
    ),
    _Repair(
        kind="noise",
        tasks=("color_dn", "gray_dn"),
        name="noise",
        measured=lambda findings: findings.noise_level,
        asked=lambda wish: wish.noise,
        none=0.0,
        gains=lambda level: level >= LEAST_NOISE,
        limit=f"experts gain from {LEAST_NOISE:.0f} on",
        # The same noise in three channels has, along their mean, thrice the variance that the expert was trained for.
        thrice=math.sqrt(3),
    ),
)
# Added to the distance of an expert for other channels, by whether the picture is grey. An expert for colour does as
# well as one for grey if its level is a little nearer; one for grey cannot know what channels have in common.
_ILL_SUITED = {True: 0.1, False: 10.0}
# real_sr is not among them: it invents details, and is for those who name it.
_ENLARGING = ("classical_sr", "lightweight_sr")


def make_plan(findings: Findings, wish: Wish, experts: Sequence[ZooEntry]) -> Plan:
    """Choose among the experts on this machine, which `swinir.weights.zoo.present` lists.

    Raises:
        ValueError: when a pass is needed that no expert serves, with the command that fetches one.
    """
    steps: list[Step] = []
    left_alone: list[str] = []
    for repair in _REPAIRS:
        level, why = _needed(repair, findings, wish)
        if level is None:
            left_alone.append(f"{repair.name} is left alone: {why}.")
            continue
        family = _family(repair.kind, repair.tasks, level, findings, wish, experts)
        expert = min(family, key=partial(_fit, repair=repair, level=level, findings=findings))
        reason = f"{why}; the best expert here is for {expert.parts.level}{_channels(expert, findings)}."
        steps.append(Step(expert, reason))
    if wish.scale > 1:
        family = _family("x", _ENLARGING, wish.scale, findings, wish, experts)
        steps += _passes(wish.scale, family, findings)
    return Plan(tuple(steps), tuple(left_alone))


def _needed(repair: _Repair, findings: Findings, wish: Wish) -> tuple[float | None, str]:
    """The level to repair, or None, and why."""
    asked, measured = repair.asked(wish), repair.measured(findings)
    if asked is not None:
        return (None, "as asked") if asked == repair.none else (asked, f"{repair.name} {asked:g} was asked for")
    if wish.task is not None and TASK_IN_NAME[wish.task][1] != repair.kind:
        return None, f"only {wish.task} was asked for"
    if wish.task is not None:
        return measured, f"{wish.task} was asked for, and {repair.name} measured as {measured:.0f}"
    if measured == repair.none:
        return None, "no sign of it"
    if not repair.gains(measured):
        return None, f"{measured:.0f} was found, and {repair.limit}"
    return measured, f"{repair.name} {measured:.0f} was found"


def _fit(entry: ZooEntry, repair: _Repair, level: float, findings: Findings) -> tuple[float, tuple[int, int, bool]]:
    """Less is better: by level first, then by network."""
    if _suits(entry, findings):
        return _distance(entry.parts.level, level), _rank(entry)
    met = level * repair.thrice if findings.gray else level
    return _distance(entry.parts.level, met) + _ILL_SUITED[findings.gray], _rank(entry)


def _suits(entry: ZooEntry, findings: Findings) -> bool:
    """Whether a picture's channels are the network's."""
    from swinir.tasks import TASKS

    return TASKS[entry.parts.task].gray == findings.gray


def _distance(level: float, wanted: float) -> float:
    """By ratio: JPEG's quantisation steps go with 1 / quality.

    Measured, experts for noise 15 and 25 are equal at 20, those for JPEG 10 and 40 at 18 (grey) and 23.
    """
    return abs(math.log(max(level, 1) / max(wanted, 1)))


def _rank(entry: ZooEntry) -> tuple[int, int, bool]:
    """Less is better, among experts of one level: large networks first, then large patches, GAN before PSNR."""
    return -(entry.parameters or 0), -entry.parts.patch, entry.parts.objective == "PSNR"


def _family(
    kind: Kind, tasks: tuple[str, ...], level: float, findings: Findings, wish: Wish, experts: Sequence[ZooEntry]
) -> list[ZooEntry]:
    """The experts that serve a purpose: of the task named, or else of any that does."""
    from swinir.tasks import TASKS

    if wish.task is not None and TASK_IN_NAME[wish.task][1] == kind:
        tasks = (wish.task,)
    family = [entry for entry in experts if entry.parts.task in tasks]
    if family:
        return family
    best = min(tasks, key=lambda task: TASKS[task].gray != findings.gray)
    released = [entry for entry in RELEASED if entry.parts.task == best]
    alias = min(released, key=lambda entry: (_distance(entry.parts.level, level), _rank(entry))).alias
    raise ValueError(f"no expert of {' or '.join(tasks)} is on this machine; run `swinir zoo download {alias}`")


def _channels(expert: ZooEntry, findings: Findings) -> str:
    """What to say where a picture's channels are not the network's."""
    if _suits(expert, findings):
        return ""
    return ", and takes the grey picture as colour" if findings.gray else ", and takes each channel on its own"


def _passes(scale: float, family: Sequence[ZooEntry], findings: Findings) -> list[Step]:
    """As few passes as reach the scale, and of these the smallest result; small factors first, on small pictures."""
    best = {entry.parts.level: entry for entry in sorted(family, key=_rank, reverse=True)}
    count = 1
    while max(best) ** count < scale:
        count += 1
    reach = (factors for factors in combinations_with_replacement(sorted(best), count) if math.prod(factors) >= scale)
    factors = min(reach, key=math.prod)
    asked = f"enlargement by {scale:g} was asked for"
    return [
        Step(best[factor], f"{asked}; pass {number} of {count}{_channels(best[factor], findings)}.")
        for number, factor in enumerate(factors, 1)
    ]

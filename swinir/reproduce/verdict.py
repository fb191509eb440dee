"""Verdict on a measured cell: a pure function of measured and published figures.

ours, published, reasons -> judge -> Verdict
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["reproduced", "explained", "differs", "another network", "other images", "not published"]
LEGEND: dict[Kind, str] = {
    "reproduced": "every figure agrees with the published one within the tolerance",
    "explained": "a figure does not agree, and a known reason accounts for it",
    "differs": "a figure does not agree, and no known reason accounts for it",
    "another network": "not the published architecture; only the difference is stated",
    "other images": "images of the set are missing or failed; the figures cannot be compared",
    "not published": "nothing was published for this cell",
}
EPSILON = 1e-9  # rounding error: 32.74 - 32.72 is slightly more than 0.02
# Evaluators in Python (BasicSR, mmagic) report this much more SSIM for the released weights than the paper.
SSIM_OFFSET = (0.0003, 0.0009)
SSIM_ROUNDING = 0.00005


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed difference from a published figure: in dB for PSNR and PSNR-B, in units of 1 for SSIM."""

    psnr: float = 0.02
    ssim: float = 0.001

    def __post_init__(self) -> None:
        for name, value in (("psnr", self.psnr), ("ssim", self.ssim)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"tolerance of {name} must be 0 or more, got {value}")

    def of(self, metric: str) -> float:
        """Tolerance of a metric."""
        return self.ssim if metric.startswith("ssim") else self.psnr

    def __str__(self) -> str:
        return f"PSNR {self.psnr:g} dB, SSIM {self.ssim:g}"


@dataclass(frozen=True)
class Reason:
    """A possible reason for a difference, with the figures that it predicts.

    Attributes:
        name: short name.
        text: the reason, as the end of a sentence that begins with "explained: ".
        ours: figures measured in another way; they must agree with the published ones in every metric.
        published: corrected published figures, for the metrics in doubt.
        whole: `published` must agree in every metric, too.
    """

    name: str
    text: str
    ours: Mapping[str, float] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False

    def __post_init__(self) -> None:
        if bool(self.ours) == bool(self.published):
            raise ValueError(f"reason {self.name!r} must predict either ours or the published figures")


@dataclass(frozen=True)
class Verdict:
    """The verdict on a cell.

    Attributes:
        kind: key of `LEGEND`.
        text: explanation; empty if the kind needs none.
        differences: ours minus published, for each metric that has both.
        off: metrics beyond the tolerance.
        reasons: names of the reasons that hold.
    """

    kind: Kind
    text: str = ""
    differences: Mapping[str, float] = field(default_factory=dict)
    off: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def judge(
    ours: Mapping[str, float],
    published: Mapping[str, float] | None,
    *,
    tolerance: Tolerance,
    reasons: Sequence[Reason] = (),
    another_network: str = "",
    other_images: str = "",
    remarks: Sequence[str] = (),
) -> Verdict:
    """Compare a cell with the published one.

    Args:
        ours: measured metrics by name; may have more than the published ones.
        published: published metrics; None or empty if there are none.
        reasons: possible reasons for a difference, the most likely first. A difference is explained if one reason,
            or several together, account for all metrics beyond the tolerance.
        another_network: difference of the network from the published one, if any.
        other_images: difference of the images from the set, if any.
        remarks: circumstances without proof; they are added to "differs".

    Raises:
        ValueError: if ours lacks a published metric, or a figure is NaN.
    """
    missing = [metric for metric in published or {} if metric not in ours]
    if missing:
        raise ValueError(f"no figure of ours for {', '.join(missing)}")
    if any(value != value for value in (*ours.values(), *(published or {}).values())):
        raise ValueError("a figure is NaN")
    if not published:
        return Verdict("not published", "; ".join(filter(None, (another_network, other_images))))
    differences = {metric: ours[metric] - value for metric, value in published.items()}
    off = tuple(metric for metric, d in differences.items() if abs(d) > tolerance.of(metric) + EPSILON)
    if other_images:
        return Verdict("other images", other_images, differences, off)
    if another_network:
        return Verdict("another network", another_network, differences, off)
    if not off:
        return Verdict("reproduced", "", differences)
    known = (*reasons, *_ssim_offset(ours, differences, off))
    holding = [(r, metrics) for r in known if (metrics := _explains(r, ours, published, off, tolerance))]
    for reason, metrics in holding:
        if metrics == off:
            return Verdict("explained", reason.text, differences, off, (reason.name,))
    chosen, left = [], off
    for reason, metrics in holding:
        if not reason.ours and set(metrics) & set(left):
            chosen.append(reason)
            left = tuple(metric for metric in left if metric not in metrics)
    names = tuple(reason.name for reason in chosen)
    if not left:
        return Verdict("explained", "; ".join(reason.text for reason in chosen), differences, off, names)
    parts = [f"no known reason for {' and '.join(map(title, left))}"]
    parts += [f"{reason.name}: {reason.text}" for reason in chosen]
    return Verdict("differs", "; ".join([*parts, *remarks]), differences, off, names)


def _explains(
    reason: Reason,
    ours: Mapping[str, float],
    published: Mapping[str, float],
    off: Sequence[str],
    tolerance: Tolerance,
) -> tuple[str, ...]:
    """Metrics beyond the tolerance that agree if the reason holds."""
    left, right = (reason.ours, published) if reason.ours else (ours, reason.published)
    agreeing = {
        metric: abs(left[metric] - right[metric]) <= tolerance.of(metric) + EPSILON
        for metric in published
        if metric in left and metric in right
    }
    if (reason.ours or reason.whole) and not all(agreeing.values()):
        return ()
    return tuple(metric for metric in off if agreeing.get(metric))


def _ssim_offset(ours: Mapping[str, float], differences: Mapping[str, float], off: Sequence[str]) -> list[Reason]:
    """A reason for SSIM that is higher by as much as other evaluators in Python report."""
    low, high = SSIM_OFFSET
    fitting = [
        metric
        for metric in off
        if metric.startswith("ssim") and low - SSIM_ROUNDING <= differences[metric] <= high + SSIM_ROUNDING
    ]
    if not fitting:
        return []
    found = ", ".join(f"{differences[metric]:+.4f}" for metric in fitting)
    text = f"evaluators in Python report SSIM {low} to {high} higher than the paper, here {found}"
    return [Reason("SSIM of Python evaluators", text, published={metric: ours[metric] for metric in fitting})]


def title(metric: str) -> str:
    """Title of a metric: PSNR on luma."""
    name, _, luma = metric.partition("_")
    return {"psnr": "PSNR", "ssim": "SSIM", "psnrb": "PSNR-B"}[name] + (" on luma" if luma else "")

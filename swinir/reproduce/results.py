"""Verdicts of measured cells: the published figures, reasons for a difference, and computational costs.

Measured -> conclude -> Result;  Table -> count_costs -> CostRow
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from swinir.models.complexity import (
    count_macs,
    count_macs_as_published,
    count_parameters,
    count_parameters_as_published,
)
from swinir.models.swinir import NetworkConfig
from swinir.reproduce.measure import MATLAB, NO_PADDING, Bench, Measured
from swinir.reproduce.plan import Cell
from swinir.reproduce.published import METHOD, PUBLISHED, Figures, Table, costs, figures, notes, published, third_party
from swinir.reproduce.verdict import Reason, Tolerance, Verdict, judge, title
from swinir.tasks import get_task
from swinir.weights import zoo

LIGHTWEIGHT = "lightweight_sr"  # the task whose costs were published
OUTPUT = 1280, 720  # size of the output, in pixels, that the Mult-Adds of Table 3 are for


@dataclass(frozen=True)
class Result:
    """A measured cell with the published figures and the verdict.

    Attributes:
        ours: measured metrics of the table.
        published: published figures; None if there are none.
        third_party: figures that others measured with the released weights.
    """

    measured: Measured
    ours: Mapping[str, float]
    published: Figures | None
    third_party: tuple[Figures, ...]
    verdict: Verdict

    @property
    def cell(self) -> Cell:
        """The measured cell."""
        return self.measured.cell


@dataclass(frozen=True)
class Failure:
    """A cell that could not be measured, and the error."""

    cell: Cell
    error: str


@dataclass(frozen=True)
class CostRow:
    """Parameters and multiply-adds of a network, complete and as the paper counts them.

    Attributes:
        parameters, parameters_as_published: complete number of parameters, and the number that the paper counts.
        macs: multiply-adds for an output of 1280x720.
        macs_as_published: multiply-adds that the paper counts; None for networks without such a count.
        published_k, published_g: published figures in 1e3 and 1e9; None for networks that are not the paper's.
        verdict: verdict on the published figures.
    """

    name: str
    level: int
    parameters: int
    parameters_as_published: int
    macs: int
    macs_as_published: int | None
    published_k: float | None = None
    published_g: float | None = None
    verdict: str = "another network"


def conclude(measured: Measured, tolerance: Tolerance, *, bench: Bench | None = None) -> Result:
    """Judge a cell.

    Args:
        bench: repeats the measurement in other ways if the cell differs; without it, only kept measurements are used.

    Raises:
        ValueError: if a metric of the table could not be measured on any image.
    """
    result = _judged(measured, tolerance)
    if bench is None or result.verdict.kind != "differs":
        return result
    psnr = [abs(d) for metric, d in result.verdict.differences.items() if metric.startswith("psnr")]
    return _judged(bench.alternatives(measured, max(psnr)), tolerance)


def _judged(measured: Measured, tolerance: Tolerance) -> Result:
    cell = measured.cell
    known, others = published(cell.table, cell.place), third_party(cell.table, cell.place)
    absent = [metric for metric in cell.table.metrics if metric not in measured.means]
    if absent:
        errors = [row.error for row in measured.failed]
        raise ValueError(f"no {', '.join(map(title, absent))} of any image{'; ' + errors[0] if errors else ''}")
    ours = {metric: measured.means[metric] for metric in cell.table.metrics}
    verdict = judge(
        measured.means,
        known.values if known else None,
        tolerance=tolerance,
        reasons=reasons(
            cell, measured.means, measured.alternatives, others if is_released(measured) is not False else ()
        ),
        another_network=_another_network(measured),
        other_images=_other_images(measured),
        remarks=_remarks(measured),
    )
    return Result(measured, ours, known, others, verdict)


def is_released(measured: Measured) -> bool | None:
    """Compare the weights with the released files; None for a released name whose hash is unknown."""
    weights, digest = measured.cell.weights, measured.facts["checkpoint_sha256"]
    if any(entry.sha256 == digest for entry in zoo.RELEASED):
        return True
    named = next((entry for entry in zoo.RELEASED if entry.file == weights.path.name), None)
    return None if named is not None and named.sha256 is None else False


def reasons(
    cell: Cell,
    means: Mapping[str, float],
    alternatives: Mapping[str, Mapping[str, float]],
    others: Sequence[Figures] = (),
) -> list[Reason]:
    """Possible reasons for a difference from the published figures, the most likely first.

    Args:
        means: all measured metrics.
        alternatives: metrics measured in other ways, by the way's name.
        others: figures that others measured with the same weights.
    """
    found = []
    for note in notes(cell.table):
        if note.values and note.holds(cell.place):
            found.append(Reason(note.name, note.text, published=note.values))
    for other in others:
        text = f"others measured {figures_text(cell.table, other.values)} with the same weights ({other.source})"
        found.append(Reason("third party", text, published=other.values))
    found += _other_channels(cell.table, means)
    for name, text in (
        (NO_PADDING, "measured without the additional window of padding"),
        (MATLAB, "the low-quality files are not MATLAB's bicubic; with MATLAB's bicubic"),
    ):
        values = {m: alternatives[name][m] for m in cell.table.metrics if m in alternatives.get(name, {})}
        if values:
            found.append(Reason(name, f"{text}, it is {figures_text(cell.table, values)}", ours=values))
    for row in _other_rows(cell, means):
        label = f"{row.data}{', with self-ensemble' if row.plus else ''}"
        text = (
            f"these are the published figures of another row, {METHOD} {label}: {figures_text(cell.table, row.values)}"
        )
        found.append(Reason("another row", text, published=row.values, whole=True))
    return found


def _other_channels(table: Table, means: Mapping[str, float]) -> list[Reason]:
    """Luma in place of color, or color in place of luma, if both were measured."""

    def swapped(metric: str) -> str:
        return metric.removesuffix("_y") if metric.endswith("_y") else f"{metric}_y"

    values = {metric: means[swapped(metric)] for metric in table.metrics if swapped(metric) in means}
    if not values or {swapped(metric) for metric in table.metrics} == set(table.metrics):
        return []
    channels = "red, green and blue" if table.metrics[0].endswith("_y") else "luma"
    text = f"the published figures are those over {channels}: {figures_text(table, values)} here"
    return [Reason("other channels", text, ours=values)]


def _other_rows(cell: Cell, means: Mapping[str, float]) -> Iterator[Figures]:
    """Published rows of the same level and set with other training data or self-ensemble that are much nearer.

    Published rows may differ by no more than the tolerance, so a row must be nearer by half.
    """
    metric, known = cell.table.metrics[0], published(cell.table, cell.place)
    for row in figures(cell.table):
        same = (row.method, row.level, row.set) == (METHOD, cell.level, cell.set.name) and row.source in PUBLISHED
        if same and known is not None and row.place != cell.place:
            distance = abs(means[metric] - row.values[metric])
            if distance <= abs(means[metric] - known.values[metric]) / 2:
                yield row


def _another_network(measured: Measured) -> str:
    if measured.published_network:
        return ""
    wanted = count_parameters(get_task(measured.cell.table.task).network_for(_scale(measured.cell)))
    return f"{thousands(measured.parameters)} parameters, the published {thousands(wanted)}"


def _scale(cell: Cell) -> int:
    return cell.level if cell.is_sr else 1


def _other_images(measured: Measured) -> str:
    known, found, failed = measured.cell.set.images, len(measured.rows), len(measured.failed)
    parts = [f"{found} image{'' if found == 1 else 's'} where the set has {known}"] if found != known else []
    return ", ".join([*parts, *([f"{failed} failed"] if failed else [])])


def _remarks(measured: Measured) -> list[str]:
    weights, facts = measured.cell.weights, measured.facts
    remarks = []
    if is_released(measured) is False:
        named = any(entry.file == weights.path.name for entry in zoo.RELEASED)
        remarks.append("SHA-256 is not that of the released file" if named else "not the released weights")
    if weights.data and weights.data != measured.cell.data:
        remarks.append(f"trained on {weights.data}")
    if weights.level is None:
        remarks.append("the file does not state its level")
    if facts["precision"] != "fp32":
        remarks.append(f"computed in {facts['precision']}")
    if facts["tile"]:
        remarks.append(f"in tiles of {facts['tile']}")
    return remarks


def thousands(number: float) -> str:
    """Short form of a number: 289k, 11.5M."""
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"


def figure_text(metric: str, value: float, *, sign: bool = False) -> str:
    """A figure with as many digits as are published."""
    digits = 4 if metric.startswith("ssim") else 2
    value = round(value, digits) + 0.0  # no -0
    return f"{value:{'+' if sign else ''}.{digits}f}"


def figures_text(table: Table, values: Mapping[str, float], *, sign: bool = False) -> str:
    """Figures of a cell in the table's order and with its digits: 32.72/0.9021."""
    return "/".join(figure_text(metric, values[metric], sign=sign) for metric in table.metrics if metric in values)


def count_costs(results: Sequence[Result]) -> list[CostRow]:
    """Parameters and multiply-adds of the published lightweight networks, and of other networks that were measured."""
    task = get_task(LIGHTWEIGHT)
    rows = [_cost(f"{METHOD} x{level}", level, task.network_for(level), is_published=True) for level in task.scales]
    seen = set()
    for result in results:
        cell = result.cell
        if not result.measured.published_network and cell.weights.name not in seen:
            seen.add(cell.weights.name)
            network = NetworkConfig.from_dict(result.measured.facts["network"])
            rows.append(_cost(cell.weights.name, cell.level, network, is_published=False))
    return rows


@cache
def _cost(name: str, level: int, network: NetworkConfig, *, is_published: bool) -> CostRow:
    known = next(cost for cost in costs() if (cost.method, cost.level) == (METHOD, level)) if is_published else None
    width, height = (-(-side // level) for side in OUTPUT)
    is_usual = network.upsampler == "pixelshuffledirect" and network.resi_connection == "1conv"
    row = CostRow(
        name,
        level,
        count_parameters(network),
        count_parameters_as_published(network),
        count_macs(network, height, width),
        count_macs_as_published(network) if is_usual else None,
    )
    if known is None:
        return row
    verdict = judge_costs(row, known.parameters_k, known.macs_g)
    return replace(row, published_k=known.parameters_k, published_g=known.macs_g, verdict=verdict)


def judge_costs(row: CostRow, published_k: float, published_g: float) -> str:
    """Compare counts, complete or as the paper counts, with the published figures to their last digit."""

    def agree(parameters: float, macs: float) -> bool:
        # 0.1: the paper sometimes truncates and sometimes rounds the last digit.
        return abs(parameters / 1e3 - published_k) < 1 and abs(macs / 1e9 - published_g) < 0.1

    if agree(row.parameters, row.macs):
        return "reproduced"
    if row.macs_as_published is not None and agree(row.parameters_as_published, row.macs_as_published):
        return "explained: counted as in the paper"
    return "differs"

"""From measured cells to verdicts: what was published, what may explain a difference, what it costs.

Measured -> conclude -> Result;  Table -> count_costs -> CostRow
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
OUTPUT = 1280, 720  # pixels that the table says its Mult-Adds are for


@dataclass(frozen=True)
class Result:
    """A cell beside what was published.

    Attributes:
        ours: the table's metrics as measured.
        published: None where there is nothing.
        third_party: what others measured with the released weights.
    """

    measured: Measured
    ours: Mapping[str, float]
    published: Figures | None
    third_party: tuple[Figures, ...]
    verdict: Verdict

    @property
    def cell(self) -> Cell:
        """What was measured."""
        return self.measured.cell


@dataclass(frozen=True)
class Failure:
    """A cell without a result, and why."""

    cell: Cell
    error: str


@dataclass(frozen=True)
class CostRow:
    """What a network costs, counted whole and in the paper's way.

    Attributes:
        parameters, parameters_as_published: numbers of learned values.
        macs: multiply-adds for an output of 1280x720.
        macs_as_published: in the paper's way; None for networks that it can't count.
        published_k, published_g: the paper's figures in 1e3 and 1e9; None for networks that are not the paper's.
        verdict: of the paper's figures.
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
        bench: measures the cell in other ways too when it differs; without it, what is kept of them is taken.

    Raises:
        ValueError: when a metric of the table could not be measured on any image.
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
    """Whether the weights are a released file's; None where its name says so and no hash is known."""
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
    """What may account for a cell's difference from the published one, the likeliest first.

    Args:
        means: all metrics that were measured.
        alternatives: what was measured in other ways.
        others: what others measured with the same weights.
    """
    found = []
    for note in notes(cell.table):
        if note.values and note.holds(cell.place):
            found.append(Reason(note.name, note.text, published=note.values))
    for other in others:
        text = f"others measured {_spelled(other.values)} with the same weights ({other.source})"
        found.append(Reason("third party", text, published=other.values))
    found += _other_channels(cell.table, means)
    for name, text in (
        (NO_PADDING, "measured without the further window of padding"),
        (MATLAB, "the low-quality files are not MATLAB's bicubic; with such ones, made on the spot"),
    ):
        values = {m: alternatives[name][m] for m in cell.table.metrics if m in alternatives.get(name, {})}
        if values:
            found.append(Reason(name, f"{text}, it is {_spelled(values)}", ours=values))
    for row in _other_rows(cell, means):
        label = f"{row.data}{', with self-ensemble' if row.plus else ''}"
        text = f"these are the published figures of another row, {METHOD} {label}: {_spelled(row.values)}"
        found.append(Reason("another row", text, published=row.values, whole=True))
    return found


def _other_channels(table: Table, means: Mapping[str, float]) -> list[Reason]:
    """Luma in the place of color and the other way round, as far as both were measured."""

    def swapped(metric: str) -> str:
        return metric.removesuffix("_y") if metric.endswith("_y") else f"{metric}_y"

    values = {metric: means[swapped(metric)] for metric in table.metrics if swapped(metric) in means}
    if not values or {swapped(metric) for metric in table.metrics} == set(table.metrics):
        return []
    channels = "red, green and blue" if table.metrics[0].endswith("_y") else "luma"
    text = f"the published figures are those over {channels}: {_spelled(values)} here"
    return [Reason("other channels", text, ours=values)]


def _other_rows(cell: Cell, means: Mapping[str, float]) -> Iterator[Figures]:
    """What was published for the same level and set with other training data, or with and without self-ensemble.

    Rows may be as near to each other as the tolerance; only those count that are much nearer than the cell's own.
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
        remarks.append("the file does not tell its level")
    if facts["precision"] != "fp32":
        remarks.append(f"computed in {facts['precision']}")
    if facts["tile"]:
        remarks.append(f"in tiles of {facts['tile']}")
    return remarks


def thousands(number: float) -> str:
    """289k, 11.5M."""
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"


def spelled_one(metric: str, value: float, *, sign: bool = False) -> str:
    """A figure with the digits it is published with."""
    digits = 4 if metric.startswith("ssim") else 2
    value = round(value, digits) + 0.0  # of no -0
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _spelled(values: Mapping[str, float]) -> str:
    return "/".join(spelled_one(metric, value) for metric, value in values.items())


def count_costs(results: Sequence[Result]) -> list[CostRow]:
    """Parameters and multiply-adds of the published lightweight networks, and of others that were measured."""
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
    """Whether counts agree with the paper's figures to their last digit, whole or counted in its way."""

    def agree(parameters: float, macs: float) -> bool:
        # 0.1: the paper truncates or rounds a digit as it comes.
        return abs(parameters / 1e3 - published_k) < 1 and abs(macs / 1e9 - published_g) < 0.1

    if agree(row.parameters, row.macs):
        return "reproduced"
    if row.macs_as_published is not None and agree(row.parameters_as_published, row.macs_as_published):
        return "explained: in the paper's way of counting"
    return "differs"

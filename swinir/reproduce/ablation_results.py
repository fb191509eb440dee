"""Results of a study: differences between points with their uncertainty, tables, JSON, and the plot's data."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swinir.report.text_table import TextTable
from swinir.reproduce.ablation_runs import Score
from swinir.reproduce.ablations import MODELS, PUBLISHED_SETTING, Study, X
from swinir.reproduce.plot import plot_study
from swinir.train.config import TrainConfig
from swinir.train.logger import write_facts

STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5% quantiles for 1 to 9 degrees of freedom


@dataclass(frozen=True)
class Difference:
    """PSNR of one point minus PSNR of another with the same seed: the mean in dB and its standard error.

    The error is None for fewer than two seeds; `published` is the paper's difference, if it has both points.
    """

    minuend: str
    subtrahend: str
    psnr_y: float
    error: float | None
    seeds: int
    published: float | None

    @property
    def interval(self) -> float | None:
        """Half the width of the 95% confidence interval (Student's t) in dB; None for fewer than two seeds."""
        return None if self.error is None else self.error * STUDENT[min(self.seeds - 1, len(STUDENT)) - 1]

    @property
    def shows(self) -> str:
        """The sign of a difference beyond that interval, "higher" or "lower"; else "undecided"."""
        if self.interval is None or abs(self.psnr_y) <= self.interval:
            return "undecided"
        return "higher" if self.psnr_y > 0 else "lower"


def spread(scores: Sequence[Score], model: str, x: X) -> tuple[float, float, int]:
    """Mean PSNR in dB over the seeds of a point, its standard deviation (0 for one seed), and the number of seeds."""
    values = [score.psnr_y for score in scores if (score.model, score.x) == (model, x)]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values)


def measured_points(scores: Sequence[Score], model: str) -> list[X]:
    """Points of a model that have a score, in their order."""
    return list(dict.fromkeys(score.x for score in scores if score.model == model))


def differences(study: Study, scores: Sequence[Score]) -> list[Difference]:
    """Compare the points of a study.

    Each point is compared with the reference; without a reference, with its left neighbour, and the last point with
    the first. SwinIR is compared with RCAN at each point.
    """
    xs = measured_points(scores, "swinir")
    pairs: list[tuple[X, X]] = []
    if study.reference is not None:
        pairs = [(x, study.reference) for x in xs if x != study.reference]
    elif study.vary is not None:
        pairs = list(zip(xs[1:], xs[:-1], strict=True)) + ([(xs[-1], xs[0])] if len(xs) > 2 else [])
    found = [_difference(study, scores, ("swinir", one), ("swinir", other)) for one, other in pairs]
    if study.rcan:
        found += [_difference(study, scores, ("swinir", x), ("rcan", x)) for x in xs]
    return [difference for difference in found if difference]


def _difference(study: Study, scores: Sequence[Score], one: tuple[str, X], other: tuple[str, X]) -> Difference | None:
    by_point = {(score.model, score.x, score.seed): score.psnr_y for score in scores}
    seeds = sorted(seed for model, x, seed in by_point if (model, x) == one and (*other, seed) in by_point)
    if not seeds:
        return None
    gaps = [by_point[(*one, seed)] - by_point[(*other, seed)] for seed in seeds]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
    known = _published(study)
    published = known[one] - known[other] if one in known and other in known else None
    names = [f"{MODELS[model]} {x}" for model, x in (one, other)]
    return Difference(names[0], names[1], statistics.fmean(gaps), error, len(gaps), published)


def _published(study: Study) -> dict[tuple[str, X], float]:
    return {(model, x): psnr for model, rows in study.published.items() for x, psnr in rows}


def describe_base(config: TrainConfig) -> str:
    """One line about a base configuration, for titles and legends."""
    network = config.network_config()
    return (
        f"base of {network.embed_dim} channels, {len(network.depths)} RSTBs of {network.depths[0]} STLs; "
        f"{config.schedule.iterations:,} iterations of {config.data.batch} patches of {config.data.patch}x"
        f"{config.data.patch}; {config.data.images} images; PSNR on {_validation_set(config)}, x{config.scale}"
    )


def _validation_set(config: TrainConfig) -> str:
    folder = config.data.validate_gt
    if folder is None:
        return f"{config.data.holdout} held-out images"
    return folder.parent.name if folder.name == "HR" else folder.name


def score_table(study: Study, scores: Sequence[Score]) -> TextTable:
    """Mean PSNR of each point over its seeds, and the published PSNR."""
    known, rows = _published(study), []
    for model in study.models:
        for x in measured_points(scores, model):
            mean, deviation, seeds = spread(scores, model, x)
            published = f"{known[model, x]:.2f}" if (model, x) in known else ""
            scatter = f"{deviation:.3f}" if seeds > 1 else ""
            rows.append((str(x), MODELS[model], published, f"{mean:.3f}", scatter, str(seeds)))
    titles = (study.axis, "network", "published dB", "measured dB", "standard deviation", "seeds")
    return TextTable(titles, rows, right=(2, 3, 4, 5))


def difference_table(study: Study, scores: Sequence[Score]) -> TextTable:
    """Differences between the points, measured and published."""
    rows = []
    for d in differences(study, scores):
        published = "" if d.published is None else f"{d.published:+.2f}"
        error = "" if d.error is None else f"{d.error:.3f}"
        rows.append((f"{d.minuend} - {d.subtrahend}", published, f"{d.psnr_y:+.3f}", error, str(d.seeds), d.shows))
    titles = ("difference", "published dB", "measured dB", "standard error", "seeds", "result")
    return TextTable(titles, rows, right=(1, 2, 3, 4))


def write_results(path: Path, study: Study, scale: str, base: TrainConfig, scores: Sequence[Score]) -> None:
    """Write scores, differences, the configuration, versions and devices as JSON, without the machine's folders."""
    results = {
        "study": study.name,
        "scale": scale,
        "setting": describe_base(base),
        "base": base.model_dump(
            mode="json", exclude={"data": {"train", "train_lq", "validate_gt", "validate_lq", "cache"}}
        ),
        "made_with": _environments([path.parent / name for name in dict.fromkeys(score.run for score in scores)]),
        "scores": [asdict(score) for score in scores],
        "differences": [asdict(d) | {"interval": d.interval, "shows": d.shows} for d in differences(study, scores)],
    }
    write_facts(path, results)


def _environments(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Versions and devices of some runs, each combination once."""
    names = ("commit", "swinir", "torch", "device", "machine", "processes")
    records = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders]
    return list({str(found): found for found in ({name: row.get(name) for name in names} for row in records)}.values())


def plot_results(path: Path, study: Study, base: TrainConfig, scores: Sequence[Score]) -> None:
    """Plot the scores, with their standard deviation over the seeds, and the published curves."""
    measured = {
        MODELS[model]: [(x, *spread(scores, model, x)[:2]) for x in measured_points(scores, model)]
        for model in study.models
        if measured_points(scores, model)
    }
    published = {MODELS[model]: [(x, psnr, 0.0) for x, psnr in rows] for model, rows in study.published.items()}
    counts = {spread(scores, score.model, score.x)[2] for score in scores}
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
    setting = describe_base(base) + (
        "; one seed" if seeds == "1" else f"; mean and standard deviation of {seeds} seeds"
    )
    plot_study(
        path,
        study.title,
        study.axis,
        measured,
        published,
        settings=(setting, PUBLISHED_SETTING),
        equal_spans=study.vary is not None,
    )

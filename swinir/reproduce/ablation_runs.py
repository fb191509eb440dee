"""The trainings behind a study: done or not, carried on, and read as rows; differences between points, by seed."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swinir.report.ablations import plot_study
from swinir.reproduce.ablations import MODELS, PUBLISHED_SETTING, Point, Study, X
from swinir.train.config import TrainConfig
from swinir.train.distributed import Processes
from swinir.train.initialize import build_network
from swinir.train.logger import Log, write_facts
from swinir.train.trainer import Trainer

# Keys that change how long a run takes and what it leaves to read, not what it learns.
INCIDENTAL = ("data.cache", "data.workers", "tensorboard", "save_every", "log_every", "keep")
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5% quantiles for 1 to 9 degrees of freedom
MAX_NAMED = 3  # differing keys spelled out in one message


@dataclass(frozen=True)
class Score:
    """What a run measured after so many steps, as means over the validation images.

    PSNR in dB and SSIM on Y, of the averaged weights; `x` as the study's axis counts.
    """

    model: str
    x: X
    seed: int
    psnr_y: float
    ssim_y: float
    steps: int
    parameters: int
    run: str


@dataclass(frozen=True)
class Difference:
    """PSNR of one point minus that of another with the same seed: the mean in dB and its standard error.

    The error is None for fewer than two seeds; `published` is the paper's difference, where it has both points.
    """

    minuend: str
    subtrahend: str
    psnr_y: float
    error: float | None
    seeds: int
    published: float | None

    @property
    def interval(self) -> float | None:
        """Half the width of the 95% confidence interval (Student's), in dB; None for fewer than two seeds."""
        return None if self.error is None else self.error * STUDENT[min(self.seeds - 1, len(STUDENT)) - 1]

    @property
    def shows(self) -> str:
        """Whether the first or the second is higher beyond that interval, or neither."""
        if self.interval is None or abs(self.psnr_y) <= self.interval:
            return "undecided"
        return "higher" if self.psnr_y > 0 else "lower"


def is_done(config: TrainConfig, folder: Path) -> bool:
    """Whether a run's folder holds its finished weights and its last validation.

    Raises:
        ValueError: when the folder's run had another configuration, naming what differs.
    """
    check_same(config, folder)
    return (folder / f"{config.name}.pth").is_file() and config.schedule.iterations in _validations(folder)


def check_same(config: TrainConfig, folder: Path) -> None:
    """Refuse to go on with, or to take for done, what was trained otherwise.

    Raises:
        ValueError: naming the keys that differ.
    """
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is damaged; remove {folder} to train it again") from error
    before, now = _flat(stored), _flat(config.model_dump(mode="json"))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and key not in INCIDENTAL]
    if changed:
        named = ", ".join(f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in changed[:MAX_NAMED])
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise ValueError(
            f"{folder} was trained with another configuration: {named}{more}; "
            "choose another folder with -o, or remove this one"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def train_run(config: TrainConfig, folder: Path, processes: Processes, *, log: Log, stop: Callable[[], bool]) -> bool:
    """Train a run from its start or its newest state to its end; False when `stop` ended it before."""
    trainer = Trainer(config, folder, processes=processes, log=log)
    trainer.resume()
    return trainer.fit(stop=stop)


def collect(study: Study, points: Sequence[Point], folder: Path) -> list[Score]:
    """Scores of the points whose runs are done under a folder; of a convergence, one for each of its validations."""
    scores = []
    for point in points:
        run = folder / point.config.name
        if not is_done(point.config, run):
            continue
        rows = _validations(run)
        steps = sorted(rows) if study.vary is None else [point.config.schedule.iterations]
        parameters = count_parameters(point.config)
        for step in steps:
            x = step if point.x is None else point.x
            psnr, ssim = rows[step]["psnr_y"], rows[step]["ssim_y"]
            scores.append(Score(point.model, x, point.seed, psnr, ssim, step, parameters, run.name))
    return scores


def count_parameters(config: TrainConfig) -> int:
    """Number of learned values of the network that a run trains."""
    return sum(p.numel() for p in build_network(config).parameters() if p.requires_grad)


def _validations(folder: Path) -> dict[int, dict[str, Any]]:
    """Rows of a run's validations by step."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row for row in rows if "psnr_y" in row}


def spread(scores: Sequence[Score], model: str, x: X) -> tuple[float, float, int]:
    """Mean PSNR in dB over the seeds of a point, its standard deviation (0 for one seed), and the number of seeds."""
    values = [score.psnr_y for score in scores if (score.model, score.x) == (model, x)]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values)


def places(scores: Sequence[Score], model: str) -> list[X]:
    """The points of a model that have a score, in their order."""
    return list(dict.fromkeys(score.x for score in scores if score.model == model))


def differences(study: Study, scores: Sequence[Score]) -> list[Difference]:
    """What the study's curve claims, step by step.

    Each point against the reference, or against its left neighbour and the last against the first; SwinIR against
    RCAN at each point.
    """
    xs = places(scores, "swinir")
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
    published = {(model, x): psnr for model, rows in study.published.items() for x, psnr in rows}
    theirs = published[one] - published[other] if one in published and other in published else None
    names = [f"{MODELS[model]} {x}" for model, x in (one, other)]
    return Difference(names[0], names[1], statistics.fmean(gaps), error, len(gaps), theirs)


def describe(config: TrainConfig) -> str:
    """The setting of a base configuration in a line, for legends."""
    network = config.network_config()
    return (
        f"base of {network.embed_dim} channels, {len(network.depths)} RSTBs of {network.depths[0]} STLs; "
        f"{config.schedule.iterations:,} iterations of {config.data.batch} patches of {config.data.patch}x"
        f"{config.data.patch}; {config.data.images} images; PSNR on {validation_set(config)}, x{config.scale}"
    )


def validation_set(config: TrainConfig) -> str:
    """The name of the set that a run is validated on: of its folder, or of that around one called HR."""
    folder = config.data.validate_gt
    if folder is None:
        return f"{config.data.holdout} held-out images"
    return folder.parent.name if folder.name == "HR" else folder.name


def curves(study: Study, scores: Sequence[Score]) -> dict[str, list[tuple[X, float, float]]]:
    """Points of each network, by its name: x, mean PSNR in dB over the seeds, and its standard deviation."""
    return {
        MODELS[model]: [(x, *spread(scores, model, x)[:2]) for x in places(scores, model)]
        for model in study.models
        if places(scores, model)
    }


def write_results(path: Path, study: Study, scale: str, base: TrainConfig, scores: Sequence[Score]) -> None:
    """Write scores, differences, the setting and what the runs beside `path` were made with as one JSON object.

    Folders of the machine stay out of it.
    """
    facts = {
        "study": study.name,
        "scale": scale,
        "setting": describe(base),
        "base": base.model_dump(
            mode="json", exclude={"data": {"train", "train_lq", "validate_gt", "validate_lq", "cache"}}
        ),
        "made_with": _made_with([path.parent / name for name in dict.fromkeys(score.run for score in scores)]),
        "scores": [asdict(score) for score in scores],
        "differences": [asdict(d) | {"interval": d.interval, "shows": d.shows} for d in differences(study, scores)],
    }
    write_facts(path, facts)


def _made_with(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Versions and devices of some runs, each combination once."""
    names = ("commit", "swinir", "torch", "device", "machine", "processes")
    facts = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders]
    return list({str(found): found for found in ({name: row.get(name) for name in names} for row in facts)}.values())


def plot_results(path: Path, study: Study, base: TrainConfig, scores: Sequence[Score]) -> None:
    """Draw the scores, with their standard deviation over the seeds, beside the published curve.

    Raises:
        ImportError: without matplotlib, saying how to install it.
    """
    published = {MODELS[model]: [(x, psnr, 0.0) for x, psnr in rows] for model, rows in study.published.items()}
    counts = {spread(scores, score.model, score.x)[2] for score in scores}
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
    ours = f"{describe(base)}; " + ("one seed" if seeds == "1" else f"mean and standard deviation of {seeds} seeds")
    plot_study(
        path,
        study.title,
        study.axis,
        curves(study, scores),
        published,
        settings=(ours, PUBLISHED_SETTING),
        equal_spans=study.vary is not None,
    )

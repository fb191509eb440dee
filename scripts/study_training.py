"""Compare trainings that differ in a few values: `python scripts/study_training.py train docs/training-study`.

The folder of a study has `study.toml`, with base configurations of `swinir train` and the arms, which change some of
their values, and `results.jsonl`, with one row for each finished training. `train` trains what has no row yet, and
resumes a training that was interrupted; `table` prints the tables of the rows.
"""

import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir train`

import torch  # isort: skip
from pydantic import Field
from torch import Tensor, nn

from swinir.bench.scales import reaching
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.results import means
from swinir.evaluation.samples import Sample, find_set, load_sample
from swinir.inference.forward import Runnable
from swinir.models.swinir import NetworkConfig, SwinIR, framed
from swinir.report.text_table import TextTable
from swinir.testsets import find_set as find_benchmark
from swinir.train.config import Section, TrainConfig, read_config, varied
from swinir.train.dataset import Degrader, TaskStream, noise_degrader
from swinir.train.distributed import Processes
from swinir.train.images import Wrap
from swinir.train.muon import BatchedMuon
from swinir.train.optimizer import Optimization
from swinir.train.trainer import TaskStep, Trainer

SIDE = 128  # of the middles of images that are restored
FULL_SCALE = 50  # noise level that the conditioned network sees as 1

Scores = dict[str, dict[str, float]]  # PSNR in dB by set and level
Rows = list[dict[str, Any]]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Base(Section):
    """What arms change: a training, the levels it is evaluated at, and a benchmark set.

    Levels are those of the noise or of JPEG, or scales.

    Attributes:
        offsets: from JPEG's grid, in pixels down and to the right, at which images are cut and evaluated too.
    """

    levels: tuple[int | float, ...]
    offsets: tuple[int, ...] = ()
    test_set: str
    config: dict[str, Any]  # of `TrainConfig`, without the name


class Arm(Section):
    """A training of a base with changed values, once for each seed.

    Attributes:
        convolutions: Muon trains the weights of convolutions too, as (out, in * height * width) matrices.
        conditioned: the true noise level is given, as a fourth channel of the input.
        test: evaluated on the benchmark set too.
        levels: in place of those of the base.
    """

    base: str
    set: dict[str, Any] = Field({})
    seeds: tuple[int, ...] = (0,)
    convolutions: bool = False
    conditioned: bool = False
    test: bool = False
    levels: tuple[int | float, ...] = ()


class Study(Section):
    """Bases and arms by name, and the names of the arms of each table; differences are to a table's first arm."""

    bases: dict[str, Base]
    arms: dict[str, Arm]
    tables: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]


class ConvolutionMuon(BatchedMuon):
    """Muon for linear layers and convolutions, whose weights it sees as (out, in * height * width) matrices."""

    def __init__(self, matrices: list[Tensor], convolutions: list[Tensor], **options: Any) -> None:
        # Views of the same memory, because Muon takes matrices only.
        self.views = [(nn.Parameter(weight.detach().flatten(1)), weight) for weight in convolutions]
        super().__init__([*matrices, *(view for view, _ in self.views)], **options)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters that have gradients."""
        for view, weight in self.views:
            view.grad = None if weight.grad is None else weight.grad.flatten(1)
        super().step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients."""
        super().zero_grad(set_to_none)
        for _, weight in self.views:
            weight.grad = None


class Conditioned(SwinIR):
    """SwinIR of (B, in_chans + 1, H, W), whose last channel is a constant map of the noise level."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.conv_level = nn.Conv2d(1, config.embed_dim, 3, 1, 1, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Restore the image in the first channels."""
        return framed(self.config, self.mean, x[:, :-1], partial(self._restore_at, x[:, -1:, :1, :1]))

    def _restore_at(self, level: Tensor, x: Tensor) -> Tensor:
        shallow = self.conv_first(x) + self.conv_level(level.expand(-1, -1, *x.shape[-2:]))
        deep = self.conv_after_body(self._deep_features(shallow)) + shallow
        with torch.autocast(x.device.type, enabled=False):
            return self.reconstruction()(deep.to(x.dtype), x)


class AtLevel(nn.Module):
    """A conditioned network for images of one noise level."""

    def __init__(self, network: Conditioned, level: float) -> None:
        super().__init__()
        self.network, self.config, self.level = network, network.config, level

    def forward(self, x: Tensor) -> Tensor:
        """Restore (B, in_chans, H, W)."""
        return self.network(torch.cat([x, torch.full_like(x[:, :1], self.level / FULL_SCALE)], 1))


def _add_noise_and_level(
    levels: tuple[float, float], gt: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Degrade (H, W, C) as the training for a range of levels does, with the same draws; (H, W, C + 1) results."""
    level = rng.uniform(*levels)
    lq, _ = noise_degrader(level).degrade(gt, rng)
    return np.concatenate([lq, np.full_like(lq[..., :1], level / FULL_SCALE)], -1), gt


class LevelStream(TaskStream):
    """Batches of a training for a range of noise levels, with the level as a last channel."""

    def load(self, progress: Wrap = lambda items: items) -> None:
        """Decode the images."""
        super().load(progress)
        levels = self.config.degradation.noise
        if not isinstance(levels, tuple):
            raise ValueError(f"a conditioned arm needs a range as degradation.noise, got {levels}")
        self.samples.degrader = Degrader(partial(_add_noise_and_level, levels))


class ConditionedStep(TaskStep):
    """Training step of a conditioned network, which has no file of its own."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config, self.configuration, self.init = config, config.model_dump(mode="json"), {}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)  # `build_network`'s draws come first
            network = Conditioned(config.network_config())
        self.optimization = Optimization(network, config, processes)

    def write(self, run: Path, step: int) -> None:
        """Write nothing."""


def add_convolutions(optimization: Optimization[Any]) -> None:
    """Move the convolutions' weights from Adam to Muon."""
    options, network = optimization.config.optimizer, optimization.network
    convolutions = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    linear = optimization.muon.param_groups[0]["params"] if optimization.muon else []
    taken = {id(p) for p in (*linear, *convolutions)}
    rest = [p for p in optimization.parameters if id(p) not in taken]
    optimization.optimizer = torch.optim.Adam(rest, lr=options.rest_lr or options.lr, betas=options.betas)
    optimization.muon = ConvolutionMuon(
        linear, convolutions, lr=options.lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    optimization._rates = [(optimization.optimizer, options.rest_lr or options.lr), (optimization.muon, options.lr)]


def make_trainer(arm: Arm, config: TrainConfig, run: Path) -> Trainer:
    """Return the trainer of one training, on one CPU."""
    processes = Processes(torch.device("cpu"))
    if arm.conditioned:
        stream = LevelStream(config, processes)
        trainer = Trainer(
            config, run, stream=stream, train_step=ConditionedStep(config, processes), processes=processes
        )
    else:
        trainer = Trainer(config, run, processes=processes)
    if arm.convolutions:
        add_convolutions(trainer.optimization)
    return trainer


def middle(sample: Sample, protocol: Protocol, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Load a sample as the tester does, and cut the middle of both images, at an offset from JPEG's grid."""
    lq, gt = load_sample(sample, protocol)
    assert gt is not None
    top, left = (max(0, side - SIDE) // 16 * 8 + offset for side in gt.shape[:2])
    cut = (slice(top, top + SIDE), slice(left, left + SIDE))
    return lq[cut], gt[cut]


def at_level(network: Any, level: float, protocol: Protocol) -> Runnable:
    """Return a trained network for a level; at another scale than its own, as `swinir restore` reaches it."""
    if isinstance(network, Conditioned):
        return AtLevel(network, level)  # type: ignore[return-value]
    return network if protocol.task.degradation else reaching(level, [network])


def scores(arm: Arm, base: Base, trainer: Trainer, testsets: Path | None) -> Scores:
    """Mean PSNR in dB of the averaged weights for each set and level: RGB, or Y where the level is a scale."""
    network, task = trainer.averaged(), trainer.config.task_row
    metric = "psnr" if task.degradation else "psnr_y"
    found: Scores = {}
    for level in arm.levels or base.levels:
        changed: dict[str, Any] = {task.degradation or "scale": level}
        protocol = replace(trainer.config.protocol, **changed)
        sets = {"held out": [Sample(source.name, lq=None, gt=source.gt) for source in trainer.stream.held_out]}
        if arm.test and testsets is not None:
            sets[base.test_set] = find_set(protocol, find_benchmark(base.test_set), testsets)
        for (name, samples), offset in itertools.product(sets.items(), (0, *base.offsets)):
            if not samples:
                continue
            load = partial(middle, offset=offset) if task.degradation else load_sample
            rows = list(evaluate(at_level(network, level, protocol), samples, protocol, load=load))
            failed = next((row.error for row in rows if row.error), None)
            if failed:
                raise ValueError(failed)
            found.setdefault(f"{name} +{offset}" if offset else name, {})[f"{level:g}"] = round(means(rows)[metric], 4)
    return found


def trainings(study: Study, names: Sequence[str]) -> Iterator[tuple[str, Arm, TrainConfig]]:
    """List the trainings of arms: first one seed of each, then the next."""
    unknown = [name for name in names if name not in study.arms]
    if unknown:
        raise ValueError(f"no arm {unknown[0]!r}; the arms are {', '.join(study.arms)}")
    arms = {name: arm for name, arm in study.arms.items() if not names or name in names}
    for number in range(max(len(arm.seeds) for arm in arms.values())):
        for name, arm in arms.items():
            if number < len(arm.seeds):
                base = TrainConfig.model_validate(study.bases[arm.base].config | {"name": "arm"})
                run = f"{name.replace(' ', '_')}_seed{arm.seeds[number]}"
                yield name, arm, varied(base, arm.set | {"name": run, "seed": arm.seeds[number]})


def read_rows(path: Path) -> Rows:
    """Read the rows of the finished trainings."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def learned(config: TrainConfig) -> dict[str, Any]:
    """Values of a configuration that decide its results, without the machine's folders."""
    return config.model_dump(mode="json", exclude={"data": {"train", "cache"}}, exclude_defaults=True)


def signature(arm: Arm, base: Base, config: TrainConfig) -> str:
    """Hash of everything that decides a training's results, to tell rows of a former study."""
    facts = [learned(config), arm.convolutions, arm.conditioned, arm.levels or base.levels, SIDE, *base.offsets]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def train_one(name: str, arm: Arm, base: Base, config: TrainConfig, run: Path, testsets: Path | None) -> dict[str, Any]:
    """Train, from the newest state if there is one, and return the row of results."""
    trainer = make_trainer(arm, config, run)
    trainer.resume()
    before, start = trainer.step, time.process_time()
    trainer.fit()
    seconds = time.process_time() - start
    curve = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "arm": name,
        "seed": config.seed,
        "signature": signature(arm, base, config),
        "psnr": scores(arm, base, trainer, testsets),
        "loss": [[row["step"], round(row["loss"], 6)] for row in curve],
        "cpu_seconds_per_step": round(seconds / (trainer.step - before), 4) if trainer.step > before else None,
    }


def spread(values: Sequence[float]) -> str:
    """Mean with the standard deviation, if there are several values; empty for none."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def gains(name: str, levels: Collection[str], rows: Rows, first: Rows) -> list[float]:
    """Differences to a table's first arm, seed by seed, in PSNR on a set, as the mean over levels that both have."""
    before = {row["seed"]: row["psnr"][name] for row in first if name in row["psnr"]}
    pairs = [(row["psnr"][name], before[row["seed"]]) for row in rows if name in row["psnr"] and row["seed"] in before]
    shared = [level for level in levels if all(level in score for pair in pairs for score in pair)]
    return [statistics.fmean(score[level] - other[level] for level in shared) for score, other in pairs if shared]


def make_table(rows: Rows, names: Sequence[str]) -> TextTable:
    """PSNR of arms that have rows, for each set and level, and the mean gain over the first arm; CPU time of a step.

    If arms have different levels, the gain at each level stands in parentheses.
    """
    by_arm = {name: found for name in names if (found := [row for row in rows if row["arm"] == name])}
    sets: dict[str, dict[str, None]] = {}
    for name, score in (pair for found in by_arm.values() for row in found for pair in row["psnr"].items()):
        sets.setdefault(name, {}).update(dict.fromkeys(score))
    first, lines = next(iter(by_arm.values()), []), []
    alike = {
        name: all(levels.keys() == row["psnr"].get(name, levels).keys() for found in by_arm.values() for row in found)
        for name, levels in sets.items()
    }
    for arm, found in by_arm.items():
        line = [arm, str(len(found))]
        for name, levels in sets.items():
            scored = [row["psnr"][name] for row in found if name in row["psnr"]]
            cells = [spread([score[level] for score in scored if level in score]) for level in levels]
            if alike[name]:
                cells.append("" if found is first else spread(gains(name, levels, found, first)))
            elif found is not first:
                cells = [
                    f"{cell} ({spread(gains(name, [level], found, first))})" if cell else ""
                    for cell, level in zip(cells, levels, strict=True)
                ]
            line += cells
        times = [row["cpu_seconds_per_step"] for row in found if row["cpu_seconds_per_step"]]
        lines.append((*line, f"{1000 * statistics.fmean(times):.0f}" if times else ""))
    columns = [f"{name} {column}" for name, levels in sets.items() for column in (*levels, *["gain"] * alike[name])]
    titles = ("arm", "seeds", *columns, "CPU ms a step")
    return TextTable(titles, lines, right=range(1, len(titles)))


Folder = Annotated[Path, typer.Argument(help="Folder of the study.")]


@app.command()
def train(
    folder: Folder,
    arms: Annotated[list[str] | None, typer.Option("--arm", help="Arm to train; may repeat. Default: all.")] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder for the trainings.")] = Path("runs/study"),
    images: Annotated[Path | None, typer.Option("--train", help="Folder of training images.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for decoded images.")] = None,
    testsets: Annotated[Path | None, typer.Option("--testsets", help="Folder of the benchmark sets.")] = None,
) -> None:
    """Train the arms that have no results yet."""
    study, results = read_config(folder / "study.toml", Study), folder / "results.jsonl"
    places = {"data.train": (images,)} if images else {}
    for name, arm, config in trainings(study, arms or ()):
        base = study.bases[arm.base]
        done = [row for row in read_rows(results) if (row["arm"], row["seed"]) == (name, config.seed)]
        if done and done[0]["signature"] != signature(arm, base, config):
            raise ValueError(f"{results}: {name!r} has results of another configuration; remove its rows")
        if not done:
            row = train_one(
                name, arm, base, varied(config, places | {"data.cache": cache}), runs / config.name, testsets
            )
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            typer.echo(f"{name}, seed {config.seed}: {row['psnr']}")


@app.command()
def table(folder: Folder) -> None:
    """Print a table of the results for each group of arms."""
    study, rows = read_config(folder / "study.toml", Study), read_rows(folder / "results.jsonl")
    for title, names in study.tables.items():
        typer.echo(f"### {title}\n\n{make_table(rows, names).markdown()}")


if __name__ == "__main__":
    app()

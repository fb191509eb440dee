"""Comparison of networks on the same images, by one protocol: quality, size, time and memory of each.

    names -> inference.external -> memory, in a process of its own -> turns, image by image -> rows

All networks go through `swinir.evaluation` with the same files, tiles and metrics.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePath
from statistics import median
from typing import Literal

import numpy as np
import torch

from swinir.bench.peak_memory import peak_bytes
from swinir.bench.processes import Remote
from swinir.bench.turns import Entrant, running, take_turns
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol, fit_tile
from swinir.evaluation.results import Row
from swinir.evaluation.samples import Sample, load_sample
from swinir.inference.arrays import restore_array
from swinir.inference.external import INTERPOLATION, Loaded, load_external
from swinir.inference.forward import optimize_for
from swinir.metrics.niqe import Pristine, bundled, niqe
from swinir.metrics.perceptual import DISTANCES, Network, distance
from swinir.models.optimized import resolve_precision

UNTOUCHED = "input"  # the label of interpolation where the size stays
WARM_UP = 64  # side of the part of an image that each network runs on before it is timed


@dataclass(frozen=True)
class Metric:
    """A column of quality: its title, digits and direction.

    Attributes:
        by_task: True for metrics that `swinir.evaluation.evaluate` measures.
        reference: True for metrics that need a ground truth.
    """

    title: str
    digits: int
    higher: bool
    by_task: bool = True
    reference: bool = True


METRICS = {
    "psnr": Metric("PSNR", 2, True),
    "ssim": Metric("SSIM", 4, True),
    "psnrb": Metric("PSNR-B", 2, True),
    "psnr_y": Metric("PSNR Y", 2, True),
    "ssim_y": Metric("SSIM Y", 4, True),
    "psnrb_y": Metric("PSNR-B Y", 2, True),
    **{name: Metric(entry.title, 4, False, by_task=False) for name, entry in DISTANCES.items()},
    "niqe": Metric("NIQE", 2, False, by_task=False, reference=False),
    "niqe_private": Metric("NIQE (private)", 2, False, by_task=False, reference=False),
}
NAMES = tuple(name for name in METRICS if not name.endswith(("_y", "_private")))  # to choose from


@dataclass(frozen=True)
class ImageRow:
    """One network on one image; metrics are None if the image is too small for them."""

    model: str
    image: str
    metrics: dict[str, float | None]
    megapixels: float
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class ModelRow:
    """One network on all images; None for values that were not measured or do not exist.

    Attributes:
        model: label in tables.
        name: name as given.
        status: "ok" or "failed".
        error: reason of the failure.
        architecture, parameters, macs, macs_720p, padding, sha256: as in `swinir.inference.external.Loaded`.
        precision, tile: of the runs.
        metrics: means over the images.
        seconds_per_megapixel: for a megapixel of output, the median of all images and rounds.
        peak_mb: peak memory beside weights and input, in 1e6 bytes, on the largest image.
    """

    model: str
    name: str
    status: str
    error: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    macs: int | None = None
    macs_720p: int | None = None
    padding: str | None = None
    sha256: str | None = None
    precision: str | None = None
    tile: int | Literal["auto"] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds_per_megapixel: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class Seen:
    """An image and the networks' outputs for it, (H, W, C) uint8; `lq` is smaller by the scale, `gt` may be absent."""

    image: str
    lq: np.ndarray
    gt: np.ndarray | None
    restored: dict[str, np.ndarray]
    metrics: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Comparison:
    """The results.

    Attributes:
        models: a row for each network, in the order of their names.
        images: a row for each network and image without failures.
        metrics: names of the columns of quality.
        unread: images that could not be used, with the reason.
        largest: the image that memory was measured on; "" if it was not.
        stopped: the exception that interrupted the rounds; rows are then of the images that all networks had done.
    """

    models: list[ModelRow]
    images: list[ImageRow]
    metrics: tuple[str, ...]
    unread: dict[str, str]
    largest: str
    stopped: BaseException | None = None


@dataclass
class _Competitor(Entrant):
    """A network while it is measured."""

    name: str = ""
    protocol: Protocol = field(kw_only=True)
    loaded: Loaded | None = None
    restored: np.ndarray | None = None
    rows: dict[str, ImageRow] = field(default_factory=dict)

    def release(self) -> None:
        self.loaded = self.restored = None


class _Reader:
    """`load_sample`, once for all networks that take their turns on a sample."""

    def __init__(self) -> None:
        self._sample: Sample | None = None
        self._pair: tuple[np.ndarray, np.ndarray | None] | None = None
        self._problem = ""

    def __call__(self, sample: Sample, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
        if sample is not self._sample:
            self._sample, self._pair, self._problem = sample, None, sample.problem
            try:
                self._pair = None if sample.problem else load_sample(sample, protocol)
            except (ValueError, OSError) as error:
                self._problem = " ".join(str(error).split())
        if self._pair is None:
            raise ValueError(self._problem)
        return self._pair


def choose_metrics(
    names: Sequence[str], protocol: Protocol, *, reference: bool, pristine: Pristine | None = None
) -> tuple[str, ...]:
    """Turn names of metrics into columns; without names, those of the task, or NIQE without references.

    NIQE has a column of its own for parameters that are not the published ones, as the bundled ones are.

    Raises:
        ValueError: for an unknown metric, and for one that the task or images without references do not have.
    """
    psnrb = ("psnrb",) if protocol.task.psnrb else ()
    asked = names or (("psnr", "ssim", *psnrb) if reference else ("niqe",))
    columns: list[str] = []
    for name in asked:
        if name not in NAMES:
            raise ValueError(f"unknown metric {name!r}; choose from {', '.join(NAMES)}")
        if METRICS[name].reference and not reference:
            raise ValueError(f"{METRICS[name].title} needs references, and there are none here; try --metrics niqe")
        if name == "psnrb" and not psnrb:
            raise ValueError(
                f"PSNR-B is measured for JPEG artifact removal, not for {protocol.task.name}; leave it out"
            )
        if name == "niqe" and not (pristine or bundled()).published:
            name = "niqe_private"
        columns += [name, f"{name}_y"] if METRICS[name].by_task and not protocol.task.gray else [name]
    return tuple(dict.fromkeys(columns))


def compare(
    names: Sequence[str],
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    device: torch.device,
    metrics: Sequence[str],
    distances: Mapping[str, Network] | None = None,
    pristine: Pristine | None = None,
    memory: bool = True,
    repeats: int = 1,
    progress: Callable[[str], None] | None = None,
    see: Callable[[Seen], None] | None = None,
) -> Comparison:
    """Measure each network on all samples; a network that fails becomes a row with the reason.

    Args:
        names: of networks, as `swinir.inference.external.load_external` takes them.
        metrics: from `choose_metrics`.
        distances: from `swinir.metrics.perceptual.load_distance`, for those among `metrics`.
        pristine: parameters of NIQE; the bundled ones by default.
        memory: measure memory too, which takes a new process for each network.
        repeats: rounds; metrics are those of the first.
        progress: called with a description of the next step.
        see: called with each image that at least one network restored, in the first round.
    """
    tell = progress or (lambda _: None)
    networks = [
        _Competitor(label, name=name, protocol=protocol)
        for name, label in zip(names, labels(names, protocol), strict=True)
    ]

    measuring = _Measuring(_Reader(), protocol, metrics, distances or {}, pristine, device, tell)
    take_turns(networks, measuring.load)
    unread = dict[str, str]()
    sizes = {sample.name: _pixels(measuring.read, sample, protocol, unread) for sample in samples}
    usable = [sample for sample in samples if sample.name not in unread]
    largest = max(usable, key=lambda sample: sizes[sample.name]) if usable else None
    if largest is not None:
        take_turns(networks, partial(measuring.warm_up, sample=largest, memory=memory))
    stopped: BaseException | None = None
    try:
        for number in range(repeats):
            measuring.round(networks, usable, see if number == 0 else None)
    except (KeyboardInterrupt, SystemExit) as stop:  # hours of work may be done
        stopped = stop
        _only_complete(networks)
    rows = [_row(network, metrics) for network in networks]
    images = [row for network in networks for row in network.rows.values()]
    return Comparison(rows, images, tuple(metrics), unread, largest.name if memory and largest else "", stopped)


def labels(names: Sequence[str], protocol: Protocol) -> list[str]:
    """Name networks for tables: files without folder and suffix, unless two would then be called the same.

    Raises:
        ValueError: for a network that is named twice.
    """
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{name} is named twice; name each network once")
    short = [PurePath(name).stem if PurePath(name).suffix else PurePath(name).name for name in names]
    found = [stem if short.count(stem) == 1 else name for stem, name in zip(short, names, strict=True)]
    return [UNTOUCHED if name == INTERPOLATION and protocol.scale == 1 else name for name in found]


def _suited(protocol: Protocol, loaded: Loaded, device: torch.device) -> Protocol:
    """Adapt the protocol to a network: precision that it supports, tiles in whole windows."""
    precision = resolve_precision(protocol.options.precision, device) if loaded.bf16 else "fp32"
    suited = replace(protocol, options=replace(protocol.options, precision=precision))
    return fit_tile(suited, loaded.model.config.window)


def _pixels(read: _Reader, sample: Sample, protocol: Protocol, unread: dict[str, str]) -> int:
    """Count the values of a sample's low-quality image; note a sample that cannot be read."""
    try:
        return read(sample, protocol)[0].size
    except ValueError as error:
        unread[sample.name] = str(error)
        return 0


def _corner(lq: np.ndarray) -> np.ndarray:
    return lq[:WARM_UP, :WARM_UP]


def _peak(name: str, sample: Sample, protocol: Protocol, device: torch.device) -> Generator[int | None, None, None]:
    """Yield the bytes that one restoration takes beside weights and input; for a process of its own."""
    model = optimize_for(load_external(name, protocol.task, protocol.scale, device).model, protocol.options)
    lq, _ = load_sample(sample, protocol)
    restore_array(model, _corner(lq), protocol.options)  # starts threads
    yield peak_bytes(lambda: restore_array(model, lq, protocol.options), device)


@dataclass(frozen=True)
class _Measuring:
    """The steps of the measurement, each for one network; `round` is for all of them."""

    read: _Reader
    protocol: Protocol
    metrics: Sequence[str]
    distances: Mapping[str, Network]
    pristine: Pristine | None
    device: torch.device
    tell: Callable[[str], None]

    def load(self, network: _Competitor) -> None:
        """Load the network, and adapt the protocol to it."""
        self.tell(f"loading {network.label}")
        loaded = load_external(network.name, self.protocol.task, self.protocol.scale, self.device)
        network.protocol = _suited(self.protocol, loaded, self.device)
        network.loaded = replace(loaded, model=optimize_for(loaded.model, network.protocol.options))

    def warm_up(self, network: _Competitor, sample: Sample, *, memory: bool) -> None:
        """Measure memory on the sample, in another process, and run the network here for the first time."""
        self.tell(f"{network.label}, alone" if memory else f"{network.label}, a first run")
        if memory:
            with closing(Remote(_peak, network.name, sample, network.protocol, self.device)) as alone:
                peak = next(alone)
            network.peak_mb = None if peak is None else peak / 1e6
        assert network.loaded is not None
        restore_array(network.loaded.model, _corner(self.read(sample, self.protocol)[0]), network.protocol.options)

    def round(
        self, networks: Sequence[_Competitor], samples: Sequence[Sample], see: Callable[[Seen], None] | None
    ) -> None:
        """Let every network that has not failed restore every sample."""
        for sample in samples:
            take_turns(networks, partial(self._restore, sample=sample))
            shown = {n.label: n.restored for n in running(networks) if n.restored is not None}
            if see is not None and shown:
                lq, gt = self.read(sample, networks[0].protocol)
                found = {n.label: n.rows[sample.name].metrics for n in running(networks)}
                see(Seen(sample.name, (lq.clip(0, 1) * 255).round().astype(np.uint8), gt, shown, found))

    def _restore(self, network: _Competitor, sample: Sample) -> None:
        """Add a row for a new image, and a further time to one that has its row."""
        self.tell(f"{sample.name} by {network.label}")

        def keep(_: Sample, restored: np.ndarray, gt: np.ndarray | None) -> None:
            network.restored = restored

        assert network.loaded is not None
        (row,) = evaluate(network.loaded.model, [sample], network.protocol, load=self.read, see=keep)
        if row.width is None or row.height is None or row.seconds is None:
            raise ValueError(row.error)
        known = network.rows.get(row.image)
        if known is not None:
            network.rows[row.image] = replace(known, seconds=(*known.seconds, row.seconds))
            return
        _, gt = self.read(sample, network.protocol)
        values = {name: self._metric(name, network, row, gt) for name in self.metrics}
        area = row.width * row.height / 1e6
        network.rows[row.image] = ImageRow(network.label, row.image, values, area, (row.seconds,))

    def _metric(self, name: str, network: _Competitor, row: Row, gt: np.ndarray | None) -> float | None:
        if METRICS[name].by_task:
            value: float | None = getattr(row, name)
            return value
        assert network.restored is not None
        border = network.protocol.task.crop_border(network.protocol.scale)
        try:
            if not METRICS[name].reference:
                return niqe(network.restored, self.pristine, crop_border=border)
            assert gt is not None
            return distance(self.distances[name], network.restored, gt, self.device, crop_border=border)
        except ValueError:  # too small
            return None


def _only_complete(networks: Sequence[_Competitor]) -> None:
    """Leave out the image that an interruption kept some networks from."""
    done = [set(network.rows) for network in running(networks)]
    for network in networks:
        network.rows = {name: row for name, row in network.rows.items() if all(name in rows for rows in done)}


def _row(network: _Competitor, metrics: Sequence[str]) -> ModelRow:
    loaded = network.loaded
    if network.error is not None or loaded is None:
        return ModelRow(network.label, network.name, "failed", network.error)
    rows = network.rows.values()
    rates = [seconds / row.megapixels for row in rows for seconds in row.seconds]
    found = {name: [v for row in rows if (v := row.metrics[name]) is not None] for name in metrics}
    return ModelRow(
        network.label,
        network.name,
        "ok",
        architecture=loaded.architecture,
        parameters=loaded.parameters,
        macs=loaded.macs,
        macs_720p=loaded.macs_720p,
        padding=loaded.padding,
        sha256=loaded.sha256,
        precision=network.protocol.options.precision,
        tile=network.protocol.options.tile,
        metrics={name: sum(values) / len(values) for name, values in found.items() if values},
        seconds_per_megapixel=median(rates) if rates else None,
        peak_mb=network.peak_mb,
    )

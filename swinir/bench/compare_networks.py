"""Several networks on the same images: quality, size, time and memory of each, under one protocol.

    names -> peers.load_external -> memory, alone -> turns, image by image -> rows

Every network goes through `swinir.evaluation`, with the same files, tiles and metrics. The networks take turns on each
image, so that whatever else keeps the machine busy slows all of them. One that fails is a row that says why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from statistics import median
from typing import Literal

import numpy as np
import torch

from swinir.bench.peak_memory import alone, peak_bytes
from swinir.evaluation.evaluate import evaluate, run
from swinir.evaluation.protocol import Protocol, fit_tile
from swinir.evaluation.results import Row
from swinir.evaluation.samples import Sample, load_sample
from swinir.inference.external import INTERPOLATION, Loaded, load_external
from swinir.inference.forward import optimize_for
from swinir.metrics.niqe import niqe
from swinir.metrics.perceptual import DISTANCES, Network, distance
from swinir.models.optimized import resolve_precision

UNTOUCHED = "input"  # what interpolation is called where the size stays
WARM_UP = 64  # side of the part of an image that each network runs on before it is timed


@dataclass(frozen=True)
class Metric:
    """How a column of quality is called and read; `by_task` those that `swinir.evaluation.evaluate` measures."""

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
}
NAMES = tuple(name for name in METRICS if not name.endswith("_y"))  # that can be asked for


@dataclass(frozen=True)
class ImageRow:
    """One network on one image; metrics are None where the image is too small for them."""

    model: str
    image: str
    metrics: dict[str, float | None]
    megapixels: float
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class ModelRow:
    """One network on all images; None where something was not measured or does not exist.

    Attributes:
        model: as tables call it.
        name: as it was given.
        status: "ok" or "failed".
        error: why it failed.
        architecture, parameters, macs, padding, sha256: as `swinir.inference.external.Loaded`.
        precision: that it ran in.
        tile: that it ran with.
        metrics: means over the images.
        seconds_per_megapixel: of output, the median of all images and rounds.
        peak_mb: memory at most, beside weights and input, in 1e6 bytes, on the largest image.
    """

    model: str
    name: str
    status: str
    error: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    macs: int | None = None
    padding: str | None = None
    sha256: str | None = None
    precision: str | None = None
    tile: int | Literal["auto"] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds_per_megapixel: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class Seen:
    """An image and what networks made of it, (H, W, C) uint8; `lq` is smaller by the scale, `gt` may be absent."""

    image: str
    lq: np.ndarray
    gt: np.ndarray | None
    restored: dict[str, np.ndarray]
    metrics: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        models: a row for each, in the order they were named.
        images: a row for each network and image that both went well.
        metrics: names of the columns of quality.
        unread: images that could not be used, and why.
        largest: the image that memory was measured on; "" where it was not.
        stopped: what interrupted the rounds; the rows are then those of the images that all networks had done.
    """

    models: list[ModelRow]
    images: list[ImageRow]
    metrics: tuple[str, ...]
    unread: dict[str, str]
    largest: str
    stopped: BaseException | None = None


@dataclass
class _Candidate:
    """A network on its way through the measurements; whatever fails first is its error, and it takes no more turns."""

    name: str
    label: str
    protocol: Protocol
    error: str | None = None
    loaded: Loaded | None = None
    peak_mb: float | None = None
    restored: np.ndarray | None = None
    rows: dict[str, ImageRow] = field(default_factory=dict)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of any network
            text = " ".join(str(error).split())
            known = isinstance(error, ValueError | OSError | ImportError | MemoryError)
            self.error = text if known and text else f"{type(error).__name__}: {text}"
            self.loaded = self.restored = None


class _Reader:
    """`load_sample`, once for all networks that take their turns on a sample."""

    def __init__(self) -> None:
        self._sample: Sample | None = None
        self._pair: tuple[np.ndarray, np.ndarray | None] | None = None
        self.problem = ""

    def __call__(self, sample: Sample, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
        if sample is not self._sample:
            self._sample, self._pair, self.problem = sample, None, sample.problem
            try:
                self._pair = None if self.problem else load_sample(sample, protocol)
            except (ValueError, OSError) as error:
                self.problem = " ".join(str(error).split())
        if self._pair is None:
            raise ValueError(self.problem)
        return self._pair


def choose_metrics(names: Sequence[str], protocol: Protocol, *, reference: bool) -> tuple[str, ...]:
    """The columns of the metrics asked for, those of the task (NIQE without references) where none is.

    Raises:
        ValueError: for an unknown metric, and for one that the task or a folder without references does not have.
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
    memory: bool = True,
    repeats: int = 1,
    progress: Callable[[str], None] | None = None,
    see: Callable[[Seen], None] | None = None,
) -> Comparison:
    """Measure each network on all samples.

    Args:
        names: of networks, as `swinir.inference.external.load_external` takes them.
        metrics: from `choose_metrics`.
        distances: from `swinir.metrics.perceptual.load_distance`, for those among `metrics`.
        memory: measure memory too, which takes a new process for each network.
        repeats: rounds; metrics are those of the first.
        progress: called with what comes next.
        see: called with each image that at least one network restored, in the first round.
    """
    tell = progress or (lambda _: None)
    candidates = [_Candidate(name, label, protocol) for name, label in zip(names, labels(names, protocol), strict=True)]
    for candidate in candidates:
        tell(f"loading {candidate.label}")
        with candidate.attempt():
            loaded = load_external(candidate.name, protocol.task, protocol.scale, device)
            candidate.protocol = _suited(protocol, loaded, device)
            candidate.loaded = replace(loaded, model=optimize_for(loaded.model, candidate.protocol.options))
    read, unread, largest = _Reader(), dict[str, str](), None
    sizes = {sample.name: _pixels(read, sample, protocol, unread) for sample in samples}
    usable = [sample for sample in samples if sample.name not in unread]
    if usable:
        largest = max(usable, key=lambda sample: sizes[sample.name])
        for candidate in _running(candidates):
            tell(f"{candidate.label}, alone" if memory else f"{candidate.label}, a first run")
            with candidate.attempt():
                if memory:
                    peak = alone(_peak, candidate.name, largest, candidate.protocol, device)
                    candidate.peak_mb = None if peak is None else peak / 1e6
                assert candidate.loaded is not None
                run(candidate.loaded.model, _corner(read(largest, protocol)[0]), candidate.protocol)
    stopped: BaseException | None = None
    try:
        for number in range(repeats):
            _round(candidates, usable, read, metrics, distances or {}, device, tell, see if number == 0 else None)
    except (KeyboardInterrupt, SystemExit) as stop:  # hours of work may be done
        stopped = stop
        _only_complete(candidates)
    rows = [_row(candidate, metrics) for candidate in candidates]
    images = [row for candidate in candidates for row in candidate.rows.values()]
    return Comparison(rows, images, tuple(metrics), unread, largest.name if memory and largest else "", stopped)


def labels(names: Sequence[str], protocol: Protocol) -> list[str]:
    """What tables call networks: files without folder and suffix where that tells them apart.

    Raises:
        ValueError: for a network that is named twice.
    """
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{name} is named twice; name each network once")
    short = [PurePath(name).stem if PurePath(name).suffix else PurePath(name).name for name in names]
    found = [stem if short.count(stem) == 1 else name for stem, name in zip(short, names, strict=True)]
    return [UNTOUCHED if name == INTERPOLATION and protocol.scale == 1 else name for name in found]


def _running(candidates: Sequence[_Candidate]) -> Iterator[_Candidate]:
    return (candidate for candidate in candidates if candidate.error is None)


def _suited(protocol: Protocol, loaded: Loaded, device: torch.device) -> Protocol:
    """The protocol in the precision that a network can have, and with tiles in whole windows of it."""
    precision = resolve_precision(protocol.options.precision, device) if loaded.bf16 else "fp32"
    suited = replace(protocol, options=replace(protocol.options, precision=precision))
    return fit_tile(suited, loaded.model.config.window)


def _pixels(read: _Reader, sample: Sample, protocol: Protocol, unread: dict[str, str]) -> int:
    """Of a sample's low-quality image; what cannot be read is noted."""
    try:
        return read(sample, protocol)[0].size
    except ValueError as error:
        unread[sample.name] = str(error)
        return 0


def _corner(lq: np.ndarray) -> np.ndarray:
    return lq[:WARM_UP, :WARM_UP]


def _peak(name: str, sample: Sample, protocol: Protocol, device: torch.device) -> int | None:
    """Bytes that one restoration takes beside weights and input; run in a process of its own."""
    model = optimize_for(load_external(name, protocol.task, protocol.scale, device).model, protocol.options)
    lq, _ = load_sample(sample, protocol)
    run(model, _corner(lq), protocol)  # prepares weights and starts threads
    return peak_bytes(lambda: run(model, lq, protocol), device)


def _round(
    candidates: Sequence[_Candidate],
    samples: Sequence[Sample],
    read: _Reader,
    metrics: Sequence[str],
    distances: Mapping[str, Network],
    device: torch.device,
    tell: Callable[[str], None],
    see: Callable[[Seen], None] | None,
) -> None:
    """Every network that still runs, on every sample."""
    turns = {candidate.label: _turns(candidate, samples, read) for candidate in _running(candidates)}
    for sample in samples:
        for candidate in _running(candidates):
            tell(f"{sample.name} by {candidate.label}")
            with candidate.attempt():
                row = next(turns[candidate.label])
                if row.status == "failed":
                    raise ValueError(row.error)
                _, gt = read(sample, candidate.protocol)
                _add(candidate, row, gt, metrics, distances, device)
        shown = {c.label: c.restored for c in _running(candidates) if c.restored is not None}
        if see is not None and shown:
            lq, gt = read(sample, candidates[0].protocol)
            found = {c.label: c.rows[sample.name].metrics for c in _running(candidates)}
            see(Seen(sample.name, (lq.clip(0, 1) * 255).round().astype(np.uint8), gt, shown, found))


def _only_complete(candidates: Sequence[_Candidate]) -> None:
    """Leave out the image that an interruption kept some networks from."""
    done = [set(candidate.rows) for candidate in _running(candidates)]
    for candidate in candidates:
        candidate.rows = {name: row for name, row in candidate.rows.items() if all(name in rows for rows in done)}


def _turns(candidate: _Candidate, samples: Sequence[Sample], read: _Reader) -> Iterator[Row]:
    def keep(_: Sample, restored: np.ndarray, gt: np.ndarray | None) -> None:
        candidate.restored = restored

    assert candidate.loaded is not None
    return evaluate(candidate.loaded.model, samples, candidate.protocol, load=read, see=keep)


def _add(
    candidate: _Candidate,
    row: Row,
    gt: np.ndarray | None,
    metrics: Sequence[str],
    distances: Mapping[str, Network],
    device: torch.device,
) -> None:
    """A row for a new image; another time for one that has its row."""
    assert row.width is not None
    assert row.height is not None
    assert row.seconds is not None
    known = candidate.rows.get(row.image)
    if known is not None:
        candidate.rows[row.image] = replace(known, seconds=(*known.seconds, row.seconds))
        return
    values = {name: _measured(name, candidate, row, gt, distances, device) for name in metrics}
    area = row.width * row.height / 1e6
    candidate.rows[row.image] = ImageRow(candidate.label, row.image, values, area, (row.seconds,))


def _measured(
    name: str,
    candidate: _Candidate,
    row: Row,
    gt: np.ndarray | None,
    distances: Mapping[str, Network],
    device: torch.device,
) -> float | None:
    if METRICS[name].by_task:
        value: float | None = getattr(row, name)
        return value
    assert candidate.restored is not None
    border = candidate.protocol.task.crop_border(candidate.protocol.scale)
    try:
        if name == "niqe":
            return niqe(candidate.restored, crop_border=border)
        assert gt is not None
        return distance(distances[name], candidate.restored, gt, device, crop_border=border)
    except ValueError:  # too small
        return None


def _row(candidate: _Candidate, metrics: Sequence[str]) -> ModelRow:
    loaded = candidate.loaded
    if candidate.error is not None or loaded is None:
        return ModelRow(candidate.label, candidate.name, "failed", candidate.error)
    rows = candidate.rows.values()
    rates = [seconds / row.megapixels for row in rows for seconds in row.seconds]
    found = {name: [v for row in rows if (v := row.metrics[name]) is not None] for name in metrics}
    return ModelRow(
        candidate.label,
        candidate.name,
        "ok",
        architecture=loaded.architecture,
        parameters=loaded.parameters,
        macs=loaded.macs,
        padding=loaded.padding,
        sha256=loaded.sha256,
        precision=candidate.protocol.options.precision,
        tile=candidate.protocol.options.tile,
        metrics={name: sum(values) / len(values) for name, values in found.items() if values},
        seconds_per_megapixel=median(rates) if rates else None,
        peak_mb=candidate.peak_mb,
    )

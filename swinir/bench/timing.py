"""Memory and time of the variants in one case, and the differences between their outputs.

Each variant has a process of its own. They run one after another, in rounds in which every variant runs once. Rows
hold medians and quartiles of the rounds.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from swinir.bench.matrix_rate import settle
from swinir.bench.peak_memory import peak_bytes
from swinir.bench.processes import Remote
from swinir.bench.subject import Case, Subject
from swinir.bench.turns import Entrant, running, take_turns
from swinir.bench.variants import Variant
from swinir.inference.forward import optimize_for
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore

REFERENCES = ("plain", "fp32")  # whose output the others are compared with: the first of them that ran
Quartiles = tuple[float, float, float]  # lower, median, upper


@dataclass(frozen=True)
class Timing:
    """Seconds of one run: on the clock, and of all threads on the CPU."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class FirstRun:
    """The first run of a variant.

    Attributes:
        output: (B, C, H, W) float32.
        seconds: on the clock, with what the network is optimized or compiled in.
        peak_mb: as in `VariantRow`.
    """

    output: np.ndarray
    seconds: float
    peak_mb: float | None


@dataclass(frozen=True)
class VariantRow:
    """The results of one variant in one case; None for values that were not measured or do not exist.

    Attributes:
        variant: its name.
        precision: "fp32" or "bf16".
        height, width, batch, tile, tile_overlap: of the case, in low-quality pixels; no overlap without tiles.
        megapixels: of the output, in 1e6.
        gflop: operations of the network on these images, in 1e9; see `Case.gflop`.
        status: "ok" or "failed".
        error: reason of the failure.
        peak_mb: peak memory beside weights and input, in 1e6 bytes; see `swinir.bench.peak_memory`.
        first_seconds: of the first run, in which the network is optimized or compiled.
        samples: seconds of the runs, round by round.
        seconds: lower quartile, median and upper quartile of the samples.
        cpu_seconds: the same for the time of all threads on the CPU.
        seconds_per_megapixel: the median, for each megapixel of output.
        gflops: operations a second, in 1e9, at the median.
        matrix_share: `gflops` as a share of the rate of matrix products in this precision.
        reference: the variant whose output this one's is compared with.
        max_difference, psnr: between the two, for values in [0, 1], and in dB (inf if they are equal).
        ratio_to: the first variant that ran.
        ratio: speed as a multiple of that variant's, the median of the rounds.
    """

    variant: str
    precision: str
    height: int
    width: int
    batch: int
    tile: int | None
    tile_overlap: int | None
    megapixels: float
    gflop: float
    status: str
    error: str | None = None
    peak_mb: float | None = None
    first_seconds: float | None = None
    samples: tuple[float, ...] | None = None
    seconds: Quartiles | None = None
    cpu_seconds: Quartiles | None = None
    seconds_per_megapixel: float | None = None
    gflops: float | None = None
    matrix_share: float | None = None
    reference: str | None = None
    max_difference: float | None = None
    psnr: float | None = None
    ratio_to: str | None = None
    ratio: float | None = None


Steps = Generator[FirstRun | Timing, None, None] | Remote[FirstRun | Timing]


@dataclass
class Candidate(Entrant):
    """A variant while it is measured."""

    variant: Variant = field(kw_only=True)
    steps: Steps | None = None
    first: FirstRun | None = None
    timings: list[Timing] = field(default_factory=list)

    def release(self) -> None:
        if self.steps is not None:
            self.steps.close()


def time_variants(
    subject: Subject,
    variants: Sequence[Variant],
    case: Case,
    *,
    device: torch.device,
    repeats: int = 5,
    matrix_gflops: Mapping[str, float] | None = None,
    start: Callable[..., Steps] = Remote,
    progress: Callable[[str], None] | None = None,
) -> Iterator[VariantRow]:
    """Measure each variant, and yield its row; one that cannot run becomes a row with the reason.

    An exception that interrupts the rounds, as Ctrl-C does, is raised after the rows of the complete rounds.

    Args:
        repeats: rounds, after a first run of each variant.
        matrix_gflops: for each precision, from `matrix_rate.matrix_gflops`; without it there are no shares.
        start: starts `measure` with its arguments, in a new process by default.
        progress: called with a description of the next step.
    """
    tell = progress or (lambda _: None)
    candidates = [Candidate(variant.name, variant=variant) for variant in variants]

    def run_first(candidate: Candidate) -> None:
        tell(f"{case.height}x{case.width}, {candidate.label}, first run")
        candidate.steps = start(measure, candidate.variant, subject, case, device)
        first = next(candidate.steps)
        assert isinstance(first, FirstRun)
        candidate.first, candidate.peak_mb = first, first.peak_mb

    def run_again(candidate: Candidate) -> None:
        tell(f"{case.height}x{case.width}, {candidate.label}, round {len(candidate.timings) + 1} of {repeats}")
        assert candidate.steps is not None
        timing = next(candidate.steps)
        assert isinstance(timing, Timing)
        candidate.timings.append(timing)

    stopped: BaseException | None = None
    try:
        for step in (run_first, *[run_again] * repeats):
            take_turns(candidates, step)
    except (KeyboardInterrupt, SystemExit) as stop:
        stopped = stop
    finally:
        for candidate in candidates:
            candidate.release()
    complete = min((len(candidate.timings) for candidate in running(candidates)), default=repeats)
    for candidate in candidates:
        del candidate.timings[complete:]
    if complete:
        yield from rows_of(candidates, subject, case, matrix_gflops or {})
    if stopped is not None:
        raise stopped


def options_of(variant: Variant, case: Case) -> RunOptions:
    """Build the options of `restore` for a variant in a case."""
    return RunOptions(case.tile, case.tile_overlap, precision=variant.precision, compile=variant.compiles)


def measure(
    variant: Variant, subject: Subject, case: Case, device: torch.device
) -> Generator[FirstRun | Timing, None, None]:
    """Yield the first run of a variant, and the time of one more run at each further step."""
    options, lq = options_of(variant, case), case.picture(subject.network).to(device)
    network = variant.build(subject.build(device))
    start = time.perf_counter()
    network = optimize_for(network, options)
    # A small image is enough to start threads. Memory that a library keeps from the first large one on counts.
    window = subject.network.window
    restore(network, lq if variant.compiles else lq[:1, :, :window, :window], options)
    outputs = []
    peak = peak_bytes(lambda: outputs.append(restore(network, lq, options).to("cpu", torch.float32)), device)
    yield FirstRun(outputs.pop().numpy(), time.perf_counter() - start, None if peak is None else peak / 1e6)
    while True:
        settle(device)
        wall, cpu = time.perf_counter(), time.process_time()
        restore(network, lq, options)
        settle(device)
        yield Timing(time.perf_counter() - wall, time.process_time() - cpu)


def rows_of(
    candidates: Sequence[Candidate], subject: Subject, case: Case, matrix_gflops: Mapping[str, float]
) -> list[VariantRow]:
    """Turn measurements into rows, with rates, ratios and differences."""
    done = {c.variant.name: c for c in candidates if c.error is None}
    first = next(iter(done.values()), None)
    reference = next((done[name] for name in REFERENCES if name in done), None)
    rows = []
    for candidate in candidates:
        row = VariantRow(
            candidate.variant.name,
            candidate.variant.precision,
            *(case.height, case.width, case.batch, case.tile, case.tile_overlap if case.tile else None),
            megapixels=case.megapixels(subject.network),
            gflop=case.gflop(subject.network),
            status="failed" if candidate.error else "ok",
            error=candidate.error,
            peak_mb=candidate.peak_mb,
        )
        if candidate.error is None and first is not None:
            row = _timed(row, candidate, first, matrix_gflops.get(row.precision))
            row = row if reference is None else _compared(row, candidate, reference)
        rows.append(row)
    return rows


def _timed(row: VariantRow, candidate: Candidate, first: Candidate, rate: float | None) -> VariantRow:
    assert candidate.first is not None
    seconds = quartiles([t.seconds for t in candidate.timings])
    gflops = row.gflop / seconds[1]
    pairs = zip(first.timings, candidate.timings, strict=True)
    return replace(
        row,
        first_seconds=candidate.first.seconds,
        samples=tuple(t.seconds for t in candidate.timings),
        seconds=seconds,
        cpu_seconds=quartiles([t.cpu_seconds for t in candidate.timings]),
        seconds_per_megapixel=seconds[1] / row.megapixels,
        gflops=gflops,
        matrix_share=gflops / rate if rate else None,
        ratio_to=first.variant.name,
        ratio=quartiles([a.seconds / b.seconds for a, b in pairs])[1],
    )


def _compared(row: VariantRow, candidate: Candidate, reference: Candidate) -> VariantRow:
    assert candidate.first is not None
    assert reference.first is not None
    error = candidate.first.output.astype(np.float64) - reference.first.output
    squared = float(np.square(error).mean())
    psnr = -10 * math.log10(squared) if squared else math.inf
    return replace(row, reference=reference.variant.name, max_difference=float(np.abs(error).max()), psnr=psnr)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Lower quartile, median, upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return low, median, high

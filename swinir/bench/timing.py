"""Memory and time of the variants in one case, and the differences between their outputs.

Memory is measured in a process for each variant, since no process gives back all the memory of a network. Time is
measured in one process, in rounds in which every variant runs once. Rows hold medians and quartiles of the rounds.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from swinir.bench.matrix_rate import settle
from swinir.bench.peak_memory import alone, peak_bytes
from swinir.bench.subject import Case, Subject
from swinir.bench.turns import Entrant, take_turns
from swinir.bench.variants import Variant
from swinir.inference.forward import Runnable, optimize_for
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore

REFERENCES = ("plain", "fp32")  # whose output the others are compared with: the first of them that ran
Work = Callable[[], Tensor]
Quartiles = tuple[float, float, float]  # lower, median, upper


@dataclass(frozen=True)
class Timing:
    """Seconds of one run: on the clock, and of all threads on the CPU."""

    seconds: float
    cpu_seconds: float


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


@dataclass
class Candidate(Entrant):
    """A variant while it is measured."""

    variant: Variant = field(kw_only=True)
    network: Runnable | None = None
    work: Work | None = None
    output: Tensor | None = None
    first: Timing | None = None
    timings: list[Timing] = field(default_factory=list)

    def release(self) -> None:
        self.network = self.work = self.output = None


def time_variants(
    subject: Subject,
    variants: Sequence[Variant],
    case: Case,
    *,
    device: torch.device,
    repeats: int = 5,
    memory: bool = True,
    matrix_gflops: Mapping[str, float] | None = None,
    run: Callable[[Work, torch.device], tuple[Tensor, Timing]] | None = None,
) -> list[VariantRow]:
    """Measure each variant; one that cannot run becomes a row with the reason.

    Args:
        repeats: rounds, after one run of each variant to warm up.
        memory: measure memory too, which takes a new process for each variant.
        matrix_gflops: for each precision, from `matrix_rate.matrix_gflops`; without it there are no shares.
        run: runs and times a piece of work; `timed` by default.
    """
    run = run or timed
    candidates = [Candidate(variant.name, variant=variant) for variant in variants]
    lq = case.picture(subject.network).to(device)

    def take_memory(candidate: Candidate) -> None:
        candidate.peak_mb = peak_mb(candidate.variant, subject, case, device)

    def build(candidate: Candidate) -> None:
        candidate.network = candidate.variant.build(subject.build(device))

    def warm_up(candidate: Candidate) -> None:
        output, candidate.first = run(partial(_first_work, candidate, lq, case), device)
        candidate.output = output.to("cpu", torch.float32, copy=True)

    def time_once(candidate: Candidate) -> None:
        assert candidate.work is not None
        candidate.timings.append(run(candidate.work, device)[1])

    if memory:  # first: a variant that takes too much ends in its own process, and is not run in this one
        take_turns(candidates, take_memory)
    for step in (build, warm_up, *[time_once] * repeats):
        take_turns(candidates, step)
    return rows_of(candidates, subject, case, matrix_gflops or {})


def _first_work(candidate: Candidate, lq: Tensor, case: Case) -> Tensor:
    """Run the first restoration, in which the network is optimized or compiled."""
    assert candidate.network is not None
    candidate.work = work_of(candidate.variant, candidate.network, lq, case)
    return candidate.work()


def options_of(variant: Variant, case: Case) -> RunOptions:
    """Build the options of `restore` for a variant in a case."""
    return RunOptions(case.tile, case.tile_overlap, precision=variant.precision, compile=variant.compiles)


def work_of(variant: Variant, network: Runnable, lq: Tensor, case: Case) -> Work:
    """Build the function that restores `lq` by the variant's network, which is optimized here, once."""
    options = options_of(variant, case)
    return partial(restore, optimize_for(network, options), lq, options)


def timed(work: Work, device: torch.device) -> tuple[Tensor, Timing]:
    """Run `work` and time it until the device is done."""
    settle(device)
    wall, cpu = time.perf_counter(), time.process_time()
    output = work()
    settle(device)
    return output, Timing(time.perf_counter() - wall, time.process_time() - cpu)


def peak_mb(variant: Variant, subject: Subject, case: Case, device: torch.device) -> float | None:
    """Measure the peak memory of one restoration beside weights and input, in 1e6 bytes, in a new process.

    Raises:
        MemoryError: if the process is killed.
        Exception: from the variant.
    """
    peak = alone(_peak, variant, subject, case, device)
    return None if peak is None else peak / 1e6


def _peak(variant: Variant, subject: Subject, case: Case, device: torch.device) -> int | None:
    options, lq = options_of(variant, case), case.picture(subject.network).to(device)
    network = optimize_for(variant.build(subject.build(device)), options)
    # A small image is enough to start threads. Memory that a library keeps from the first large one on counts.
    window = subject.network.window
    before = lq if variant.compiles else lq[:1, :, :window, :window]
    restore(network, before, options)
    return peak_bytes(lambda: restore(network, lq, options), device)


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
    assert candidate.output is not None
    assert reference.output is not None
    error = (candidate.output - reference.output).double()
    squared = error.square().mean().item()
    psnr = -10 * math.log10(squared) if squared else math.inf
    return replace(row, reference=reference.variant.name, max_difference=error.abs().max().item(), psnr=psnr)


def quartiles(values: Sequence[float]) -> Quartiles:
    """Lower quartile, median, upper quartile."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return low, median, high

"""Measurements of a report on a GPU: `python scripts/gpu_report/measure.py NAME --rows FILE`.

Each of them appends a row to the file as soon as it has one. They call the package's benchmark; a way to run a network
that this version or device does not have becomes a row with the reason.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pytest
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir bench`

import torch  # isort: skip
from torch import Tensor

from swinir.bench.matrix_rate import least_seconds, matrix_gflops, settle
from swinir.bench.processes import here
from swinir.bench.subject import Case, Subject, find_subject
from swinir.bench.timing import options_of, time_variants
from swinir.bench.turns import describe
from swinir.bench.variants import VARIANTS, Variant
from swinir.environment import commit, machine
from swinir.inference.forward import optimize_for
from swinir.inference.restore import restore
from swinir.models import eager_layer, fused
from swinir.models.swinir import NetworkConfig

ROOT = Path(__file__).parents[2]
COPIED = 2**30  # bytes of the buffer whose copying is timed
REPEATS = 5
BROKEN = 88  # exit code of a process that cannot use its device any more
CHUNKS = (16384, 32768, 65536, 131072)  # tokens

# Names in tables, and in the zoo.
NETWORKS = {
    "tiny": "lightweight_sr_x1-4_tiny",
    "S": "lightweight_sr_x2_DIV2K",
    "M": "classical_sr_x4_DF2K",
    "window 7": "color_jpeg_car_jpeg40_DFWB",
    "L": "real_sr_x4_DFOWMFC_GAN",
}
REAL_SR = "real_sr_x4_DFO_GAN"  # the released command runs it in tiles of 400
SMALL = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2,), num_heads=(2,), img_size=16)

# Ways to run a network. A fault of a kernel ends a process, so those of our own and compiled ones come in later groups.
EAGER = ("plain", "plain-cached", "spandrel", "fp32-eager", "bf16-eager", "bf16-graph")
FUSED = ("plain", "fp32-fused", "bf16-fused", "fp32", "bf16")
COMPILED = ("plain", "bf16-compiled")
GPU_ONLY = ("-graph", "-fused", "-compiled")  # endings of their names


@dataclass(frozen=True)
class Bench:
    """The device, the networks and sizes to measure, and the file for rows."""

    file: Path
    device: torch.device
    tiny: bool

    def note(self, kind: str, **row: Any) -> None:
        """Append a row."""
        line = json.dumps({"kind": kind, "card": self.card, **row}, default=str)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @property
    def card(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU (rehearsal)"

    def subject(self, name: str) -> Subject:
        """Return a network of the zoo; in a rehearsal a very small one in its place."""
        return Subject(name, SMALL) if self.tiny else find_subject(NETWORKS.get(name, name))

    def variants(self, names: Sequence[str], kind: str) -> Iterator[Variant]:
        """Yield the ways to run a network that this version and device have; note the others."""
        for name in names:
            if name not in VARIANTS:
                self.note(kind, variant=name, status="not available")
            elif self.device.type == "cpu" and name.endswith(GPU_ONLY):
                self.note(kind, variant=name, status="needs a GPU")
            else:
                yield VARIANTS[name]


def ceilings(bench: Bench) -> None:
    """Measure the rates of copying and of matrix products, and note the machine."""
    try:
        found = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        found = "no nvidia-smi"
    print(found)
    bench.note("machine", **machine(bench.device), commit=commit())
    count = 2**20 if bench.tiny else COPIED
    bench.note("copy", gb_per_second=copy_rate(bench.device, count) / 1e9)
    for precision, gflops in matrix_gflops(bench.device, ("fp32", "bf16"), 1 if bench.tiny else 7).items():
        bench.note("matrix", precision=precision, tflops=gflops / 1e3)


def copy_rate(device: torch.device, count: int) -> float:
    """Measure bytes read and written in a second while `count` bytes are copied on the device."""
    source = torch.empty(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / least_seconds(lambda: target.copy_(source), device, REPEATS)


class Recorder:
    """A plugin of pytest that notes the outcome of each test.

    A kernel that reads where it must not leaves a device that this process cannot use any more; it ends with BROKEN.
    """

    def __init__(self, bench: Bench, done: Set[str], running: Path) -> None:
        self.bench, self.done, self.running = bench, done, running

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests that are done; in a rehearsal, all but one case of each."""
        cases: dict[str, pytest.Item] = {}
        for item in items:
            cases.setdefault(item.nodeid.partition("[")[0] if self.bench.tiny else item.nodeid, item)
        items[:] = [item for item in cases.values() if item.nodeid not in self.done]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Write down the test that begins."""
        self.running.write_text(nodeid, encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that has run, and one that could not be set up."""
        if report.when == "call" or report.outcome != "passed":
            skipped = report.longrepr[2] if isinstance(report.longrepr, tuple) else None
            self.note(report.nodeid, report.outcome, skipped or report.longreprtext[-2000:], report.duration)
        if report.failed and not usable(self.bench.device):
            sys.stdout.flush()
            os._exit(BROKEN)

    def note(self, name: str, outcome: str, reason: str = "", seconds: float | None = None) -> None:
        """Append a row."""
        self.bench.note("test", name=name, outcome=outcome, seconds=seconds, reason=reason)
        self.done |= {name}


def usable(device: torch.device) -> bool:
    """Tell whether this process can still use the device."""
    try:
        settle(device)
    except RuntimeError:
        return False
    return True


def gpu_tests(bench: Bench, folder: Path = ROOT / "tests") -> None:
    """Run the tests that need a GPU; after one that breaks the process, run the others in a new one."""
    if bench.tiny:
        os.environ["SWINIR_GPU_REHEARSAL"] = "1"
    before = len(lines(bench.file))
    with TemporaryDirectory() as temporary:
        running = Path(temporary) / "running"
        while True:
            done = {row["name"] for row in map(json.loads, lines(bench.file)[before:]) if row["kind"] == "test"}
            process = get_context("spawn").Process(target=run_tests, args=(bench, folder, done, running))
            process.start()
            process.join()
            if process.exitcode is not None and process.exitcode >= 0 and process.exitcode != BROKEN:
                raise typer.Exit(process.exitcode)
            if process.exitcode != BROKEN:  # killed by a signal
                name = running.read_text(encoding="utf-8")
                if name in done:
                    raise typer.Exit(1)
                Recorder(bench, set(), running).note(name, "failed", f"the process ended with {process.exitcode}")


def run_tests(bench: Bench, folder: Path, done: Set[str], running: Path) -> None:
    """Run the tests that are not done, from the files that have any; exit with pytest's code."""
    files = [path for path in sorted(folder.rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    options = ["-m", "gpu", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += ["--timeout", "0" if bench.tiny else "60"]
    sys.exit(int(pytest.main([*options, *map(str, files)], plugins=[Recorder(bench, done, running)])))


def lines(file: Path) -> list[str]:
    """Read the lines of a file; none if it does not exist."""
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def correctness(bench: Bench) -> None:
    """Compare every way to run every network with float64 on the CPU, each network in a process of its own."""
    if bench.tiny:
        correct(bench, "S", 1)
        return
    threads = max(1, (os.cpu_count() or 1) // len(NETWORKS))
    processes = [get_context("spawn").Process(target=correct, args=(bench, name, threads)) for name in NETWORKS]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise typer.Exit(1)


def correct(bench: Bench, name: str, threads: int) -> None:
    """Compare every way to run a network with float64 on the CPU, for two images of one size."""
    torch.set_num_threads(threads)
    case, subject = Case(20, 28) if bench.tiny else Case(56, 40), bench.subject(name)
    image = case.picture(subject.network)
    images = [image, image.flip(-1)]
    plain = VARIANTS["plain"].build(subject.build(torch.device("cpu")).double())
    exact = [restore(plain, lq.double()) for lq in images]
    for variant in bench.variants(tuple(dict.fromkeys((*EAGER, *FUSED, *COMPILED))), "correctness"):
        about = {"network": name, "variant": variant.name, "precision": variant.precision}
        try:
            bench.note("correctness", **about, status="ok", **errors(bench, variant, subject, images, exact))
        except Exception as error:  # of any library
            bench.note("correctness", **about, status="failed", error=describe(error))


def errors(
    bench: Bench, variant: Variant, subject: Subject, images: Sequence[Tensor], exact: Sequence[Tensor]
) -> dict[str, float]:
    """Run the first image twice, so that a graph is recorded, then the others; return the errors of the worst run."""
    options = options_of(variant, Case(*images[0].shape[-2:]))
    network = optimize_for(variant.build(subject.build(bench.device)), options)
    pairs = [(images[0], exact[0]), *zip(images, exact, strict=True)]
    found = [restore(network, lq.to(bench.device), options).double().cpu() - expected for lq, expected in pairs]
    rms = max(error.square().mean().sqrt().item() for error in found)
    return {
        "max_difference": max(error.abs().max().item() for error in found),
        "rms": rms,
        "db": -20 * math.log10(rms) if rms else math.inf,
    }


def cases(bench: Bench) -> Iterator[tuple[str, Case]]:
    """Yield networks and images, the most important first."""
    if bench.tiny:
        yield "S", Case(24, 24)
        return
    for side in (264, 136, 512):
        for network in ("S", "M"):
            yield network, Case(side, side)
    yield "window 7", Case(264, 264)
    yield REAL_SR, Case(600, 600, tile=400)


def speed(bench: Bench, names: Sequence[str]) -> None:
    """Measure time and memory of the ways to run networks."""
    rates = matrix_gflops(bench.device, ("fp32", "bf16"), 1)
    variants = list(bench.variants(names, "speed"))
    for network, case in cases(bench):
        found = time_variants(
            bench.subject(network), variants, case,
            device=bench.device, repeats=2 if bench.tiny else REPEATS, matrix_gflops=rates,
            start=here,
        )  # fmt: skip
        for row in found:
            bench.note("speed", network=network, **asdict(row))


def tuning(bench: Bench) -> None:
    """Measure numbers that were chosen without a GPU: launch parameters of the fused layer, chunks of the eager one."""
    for network in ["S"] if bench.tiny else ["M", "S", "window 7"]:
        subject = bench.subject(network)
        problem = fused.fused_problem(subject.network, bench.device)
        if problem is not None:
            bench.note("launch", network=network, launch={}, status="needs a GPU", error=problem)
            continue
        capability = torch.cuda.get_device_capability(bench.device)
        for launch in fused.candidates(subject.network.embed_dim, torch.bfloat16, capability):
            about = {"network": network, "launch": asdict(launch)}
            try:
                bench.note("launch", **about, status="ok", **fused_layer(bench, subject, launch))
            except Exception as error:  # of Triton: a candidate may need too much memory
                bench.note("launch", **about, status="failed", error=describe(error))
    network, case = next(cases(bench))
    for variant in bench.variants(("bf16-eager",), "chunk"):
        for tokens in CHUNKS:
            eager_layer.CHUNK_TOKENS[bench.device.type] = tokens
            for row in time_variants(bench.subject(network), [variant], case, device=bench.device, start=here):
                bench.note("chunk", network=network, tokens=tokens, **asdict(row))


def fused_layer(bench: Bench, subject: Subject, launch: fused.Launch) -> dict[str, float]:
    """Measure a shifted layer in bf16 on the tokens of an image, and its difference from the eager layer's output."""
    config = subject.network
    block = subject.build(bench.device).layers[0].residual_group.blocks[1]  # type: ignore[union-attr,index]
    side = 504 // config.window * config.window
    x = torch.randn(1, side, side, config.embed_dim, device=bench.device, generator=torch.Generator(bench.device))
    expected = x.clone()
    eager_layer.EagerLayer(block, torch.bfloat16, compile=False).run(expected)  # type: ignore[arg-type]
    layer, seconds = fused.FusedLayer(block, torch.bfloat16, launch), []  # type: ignore[arg-type]
    for _ in range(1 + 4 * REPEATS):
        stream = x.clone()
        settle(bench.device)
        start = time.perf_counter()
        layer.run(stream)
        settle(bench.device)
        seconds.append(time.perf_counter() - start)
    return {
        "first_seconds": seconds[0],  # with the compilation
        "ms_per_megatoken": 1e3 * median(seconds[1:]) / (side**2 / 1e6),
        "max_difference": (stream - expected).abs().max().item(),
    }


MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "ceilings": ceilings,
    "tests": gpu_tests,
    "correctness": correctness,
    "speed": partial(speed, names=EAGER),
    "fused": partial(speed, names=FUSED),
    "compiled": partial(speed, names=COMPILED),
    "tuning": tuning,
}


def measure(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(MEASUREMENTS)}.")],
    rows: Annotated[Path, typer.Option("--rows", help="JSON Lines file to append rows to.")],
    device: Annotated[str, typer.Option("--device", help="cuda, cuda:1, or cpu for a rehearsal.")] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="Very small networks and images.")] = False,
) -> None:
    """Measure one thing."""
    if name not in MEASUREMENTS:
        raise typer.BadParameter(f"choose from {', '.join(MEASUREMENTS)}, got {name!r}")
    MEASUREMENTS[name](Bench(rows, torch.device(device), tiny))


app = typer.Typer(add_completion=False)
app.command()(measure)

if __name__ == "__main__":
    app()

"""The benchmark's arithmetic, its turns, what it survives. No number of seconds is asserted."""

import functools
import json
import math
import os
import signal
import sys
from dataclasses import asdict, fields, replace
from statistics import median

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda

from swinir.bench import matrix_rate, timing
from swinir.bench.peak_memory import peak_bytes
from swinir.bench.processes import Remote, here
from swinir.bench.subject import Case, Subject, find_subject, live_weights
from swinir.bench.timing import Candidate, FirstRun, Timing, VariantRow, quartiles, rows_of, time_variants
from swinir.bench.variants import VARIANTS, FunctionNetwork, Variant, get_variants
from swinir.image_io.image import read
from swinir.models.complexity import count_macs, count_parameters
from swinir.models.graphs import Recordings
from swinir.models.optimized import OptimizedSwinIR
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.report.speed import check_plot, plot_speed, write_speed
from swinir.tasks import TASKS
from swinir.weights import zoo
from swinir.weights.checkpoint import write_checkpoint

CPU = torch.device("cpu")
TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2,), num_heads=(2,), img_size=16)
SUBJECT = Subject("tiny", TINY)
linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no mark that starts anew")


@pytest.fixture(autouse=True)
def _no_memory_of_this_process(monkeypatch):
    monkeypatch.setattr(timing, "peak_bytes", lambda work, device: work())


def constant(value, model):
    """A network whose every pixel is `value`."""
    return FunctionNetwork(
        "constant", model, lambda x: torch.full((*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2), value)
    )


def fake(name, value=0.5, **options):
    return Variant(name, "fp32", "a constant", functools.partial(constant, value), **options)


def refuse(model):
    raise ImportError("no such library")


def die(model):
    os.kill(os.getpid(), signal.SIGKILL)


def take_200_mb(model):
    def take(x):
        ballast = torch.ones(50_000_000)
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) + ballast[0]

    return FunctionNetwork("heavy", model, take)


def measure(variants, case=Case(16, 16), subject=SUBJECT, **options):  # noqa: B008 - frozen
    rows = list(time_variants(subject, variants, case, device=CPU, **{"start": here} | options))
    assert [row.variant for row in rows] == [variant.name for variant in variants]
    return rows


# Time


def scripted(log, first=(), rounds=()):
    """Steps with given seconds for each variant: of the first run, then on the clock and on the CPU of each round."""
    firsts, left = list(first), list(rounds)

    def start(_work, variant, *_):
        log.append(f"{variant.name} starts")
        yield FirstRun(np.zeros((1, 3, 32, 32), np.float32), firsts.pop(0) if firsts else 1, 3.0)
        while True:
            log.append(variant.name)
            yield Timing(*(left.pop(0) if left else (1, 1)))

    return start


def test_variants_take_turns_round_by_round():
    log = []
    measure([fake("a"), fake("b"), fake("c")], repeats=3, start=scripted(log))
    assert log == ["a starts", "b starts", "c starts", *3 * ["a", "b", "c"]]


def test_networks_are_optimized_once_while_variants_take_turns(monkeypatch):
    made, init = [], OptimizedSwinIR.__init__
    monkeypatch.setattr(
        OptimizedSwinIR, "__init__", lambda self, *args, **options: made.append(1) or init(self, *args, **options)
    )
    measure(get_variants(["fp32", "bf16"]), repeats=3)
    assert len(made) == 2


def test_rates_follow_from_the_median_of_the_rounds():
    clock = scripted([], first=(9, 8), rounds=[(1, 2), (2, 4), (3, 5), (1, 1), (2, 9), (4, 2)])
    case = Case(16, 24, batch=2)
    slow, fast = measure([fake("a"), fake("b")], case, repeats=3, start=clock, matrix_gflops={"fp32": 2.0})
    assert (slow.first_seconds, fast.first_seconds) == (9, 8)
    assert slow.samples == (1, 3, 2)
    assert slow.seconds == (1.5, 2, 2.5)
    assert fast.seconds == (1.5, 2, 3)
    assert slow.cpu_seconds == (3.5, 5, 7)
    assert slow.megapixels == 2 * 32 * 48 / 1e6
    assert slow.seconds_per_megapixel == 2 / slow.megapixels
    assert slow.gflop == pytest.approx(2 * 2 * count_macs(TINY, 16, 24) / 1e9)
    assert slow.gflops == slow.gflop / 2
    assert slow.matrix_share == slow.gflop / 4
    assert (slow.ratio, slow.ratio_to) == (1, "a")
    assert fast.ratio == median([1 / 2, 3 / 1, 2 / 4])


def test_a_ratio_is_the_median_of_rounds_not_the_ratio_of_medians():
    """A round in which the machine is busy slows all variants; their ratio in it stays."""
    clock = scripted([], rounds=[(2, 1), (1, 1), (20, 1), (10, 1), (2, 1), (4, 1)])
    _, row = measure([fake("a"), fake("b")], repeats=3, start=clock)
    assert row.ratio == 2


def test_quartiles():
    for values in ([3.0], [1.0, 2.0], [5.0, 1.0, 4.0, 2.0], list(range(7))):
        low, middle, high = quartiles(values)
        assert middle == median(values)
        assert min(values) <= low <= middle <= high <= max(values)


def test_the_rate_of_matrix_products_is_the_best_of_the_shapes(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(matrix_rate, "PRODUCTS", {"cpu": ((2, 3, 4), (5, 6, 7))})
    monkeypatch.setattr(matrix_rate.time, "perf_counter", lambda: next(ticks))
    rates = matrix_rate.matrix_gflops(CPU, ["fp32", "bf16", "fp32"], repeats=2)
    assert rates == {name: pytest.approx(2e-9 * 5 * 6 * 7) for name in ("fp32", "bf16")}


# What fails


def failing(name, after):
    """A variant that fails from its run number `after` on."""
    runs = []

    def build(model):
        def run(x):
            runs.append(1)
            if len(runs) > after:
                raise RuntimeError("\n  out of luck\nand more lines")
            return torch.zeros(1, 3, 2 * x.shape[2], 2 * x.shape[3])

        return FunctionNetwork(name, model, run)

    return Variant(name, "fp32", "fails", build)


def test_a_variant_that_cannot_run_is_a_row_and_the_others_go_on():
    broken = Variant("broken", "fp32", "never there", refuse)
    rows = measure([fake("a"), broken, failing("first", 0), failing("later", 3), fake("b")], repeats=3)
    assert [row.status for row in rows] == ["ok", "failed", "failed", "failed", "ok"]
    assert [row.error for row in rows[1:4]] == ["no such library", *2 * ["RuntimeError: out of luck"]]
    assert all(row.seconds is row.ratio is row.psnr is None for row in rows[1:4])
    assert len(rows[0].samples) == len(rows[4].samples) == 3
    rows = measure([broken, fake("a"), fake("b")], repeats=1)
    assert [row.ratio_to for row in rows] == [None, "a", "a"]
    assert rows[1].matrix_share is None  # without a rate of matrix products
    assert [row.status for row in measure([broken])] == ["failed"]


@pytest.mark.parametrize(("turns", "complete"), [(0, 0), (1, 0), (2, 1), (5, 2)])
def test_an_interruption_is_raised_after_the_rows_of_the_complete_rounds(turns, complete):
    log, rows = [], []

    def interrupted(*args):
        for step in scripted(log)(*args):
            if len(log) - 2 > turns:
                raise KeyboardInterrupt
            yield step

    found = time_variants(SUBJECT, [fake("a"), fake("b")], Case(16, 16), device=CPU, start=interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.extend(found)
    assert [len(row.samples) for row in rows] == 2 * [complete] * bool(complete)


# Exactness


def test_results_are_held_against_the_plain_network_or_else_fp32():
    rows = measure([fake("fp32", 0.5), fake("other", 0.51), fake("same", 0.5)], repeats=1)
    assert {row.reference for row in rows} == {"fp32"}
    assert rows[1].max_difference == pytest.approx(0.01)
    assert rows[1].psnr == pytest.approx(40, abs=1e-3)
    assert (rows[2].max_difference, rows[2].psnr) == (0, math.inf)
    rows = measure([fake("fp32", 0.5), fake("plain", 0.4)], repeats=1)
    assert {row.reference for row in rows} == {"plain"}
    assert rows[0].psnr == pytest.approx(20, abs=1e-3)
    assert measure([fake("a"), fake("b")], repeats=1)[1].psnr is None


@pytest.mark.parametrize("case", [Case(21, 18), Case(40, 24, batch=2, tile=16, tile_overlap=8)], ids=["whole", "tiles"])
def test_the_variants_agree(case):
    names = ["plain", "fp32", "bf16"]
    _, fp32, bf16 = measure(get_variants(names), case, repeats=1)
    assert fp32.max_difference < 1e-5
    assert 30 < bf16.psnr < 100
    assert (fp32.tile, fp32.tile_overlap) == (case.tile, 8 if case.tile else None)


def test_spandrel_agrees():
    pytest.importorskip("spandrel", reason="the extra `baselines`")
    _, row = measure(get_variants(["fp32", "spandrel"]), repeats=1)
    assert row.error is None
    assert row.max_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_exported_networks_agree(name, module):
    pytest.importorskip(module, reason=f"the extra `{name}`")
    _, row = measure(get_variants(["fp32", name]), repeats=1)
    assert row.error is None
    assert row.max_difference < 1e-5


def test_without_spandrel_its_row_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    (row,) = measure(get_variants(["spandrel"]), repeats=1)
    assert "pip install 'swinir-toolkit[baselines]'" in row.error


@pytest.mark.slow
def test_compiled_networks_agree():
    rows = measure(get_variants(["fp32", "fp32-compiled", "bf16-compiled"]), repeats=1)
    if "compiler" in (rows[1].error or "").lower():
        pytest.skip("no compiler here")
    assert [row.error for row in rows] == [None] * 3
    assert rows[1].max_difference < 1e-5
    assert rows[2].psnr > 30


def test_tiles_reach_the_network():
    seen = []

    def build(model):
        def run(x):
            seen.append(tuple(x.shape))
            return torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])

        return FunctionNetwork("watched", model, run)

    measure([Variant("watched", "fp32", "tells", build)], Case(40, 40, batch=2, tile=16, tile_overlap=8), repeats=1)
    assert seen.pop(0) == (1, 3, 16, 16)  # to start threads
    assert set(seen) == {(2, 3, 16, 16)}


# Memory


@linux
@pytest.mark.slow
def test_memory_of_a_process_of_its_own_is_what_it_takes():
    heavy = Variant(
        "heavy", "fp32", "takes 200 MB", take_200_mb, compiles=True
    )  # runs twice: freed memory counts again
    assert measure([heavy], repeats=1, start=Remote)[0].peak_mb == pytest.approx(200, rel=0.1)


@linux
def test_the_peak_counts_from_where_it_began():
    kept = torch.ones(10_000_000)
    twice = [peak_bytes(lambda: torch.ones(20_000_000).sum(), CPU) for _ in range(2)]
    assert twice == [pytest.approx(80e6, rel=0.1)] * 2
    assert peak_bytes(lambda: None, CPU) < 8e6
    assert kept.sum() == len(kept)


def test_the_peak_of_a_recorded_network_is_not_that_of_a_replay(monkeypatch):
    FakeCuda(monkeypatch)
    recordings, runs = Recordings(torch.device("cuda", 1)), []

    def work():
        recordings.run(lambda x: runs.append(1) or x + 1, torch.zeros(3))

    for _ in range(3):
        work()
    runs.clear()
    work()
    assert not runs  # a replay
    peak_bytes(work, torch.device("cuda", 1))
    assert runs


def test_where_the_mark_cannot_start_anew_the_peak_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr("swinir.bench.peak_memory.CLEAR", tmp_path / "none" / "such")
    assert peak_bytes(lambda: None, CPU) is None


@pytest.mark.slow
def test_a_variant_whose_process_is_killed_is_a_row():
    (row,) = measure([Variant("deadly", "fp32", "kills", die)], repeats=1, start=Remote)
    assert row.status == "failed"
    assert row.error == "the process was killed, likely for want of memory; try a smaller size or tile"


# What is measured


def test_a_file_is_measured_with_its_weights(tmp_path):
    path = tmp_path / "tiny.pth"
    state = SwinIR(TINY).state_dict()
    write_checkpoint(path, state, TINY)
    subject = find_subject(str(path))
    assert subject.network == TINY
    assert torch.equal(subject.build(CPU).conv_first.weight, state["conv_first.weight"])


def test_a_network_of_any_scale_is_measured_at_the_scale_asked_for(tmp_path):
    path, network = tmp_path / "any.pth", replace(TINY, upsampler="any", upscale=4)
    state = SwinIR(network).state_dict()
    write_checkpoint(path, state, network)
    for scale, expected in ((None, 4), (2, 2), (2.5, 2.5)):
        subject = find_subject(str(path), scale)
        assert (subject.network.upscale, subject.network.any_scale) == (expected, expected == 2.5)
        assert subject.build(CPU).config == subject.network
    rows = measure([VARIANTS[name] for name in ("plain", "fp32")], subject=subject, repeats=1)
    assert [row.status for row in rows] == ["failed", "ok"]
    assert rows[0].error.endswith("the paper's network has whole scales only")
    assert rows[1].megapixels == 40 * 40 / 1e6
    write_checkpoint(tmp_path / "x2.pth", SwinIR(TINY).state_dict(), TINY)
    with pytest.raises(ValueError, match=r"enlarges by 2 only, got 2\.5"):
        find_subject(str(tmp_path / "x2.pth"), 2.5)


def test_a_bundled_network_has_its_file():
    assert find_subject("lightweight_sr_x1-4_tiny").file == zoo.locate("lightweight_sr_x1-4_tiny")
    with pytest.raises(ValueError, match="did you mean lightweight_sr_x"):
        find_subject("lightweight_sr_x2_tinny")


def test_a_released_network_that_is_not_there_has_random_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINIR_ZOO", str(tmp_path))
    for entry in zoo.RELEASED:
        subject = find_subject(entry.alias)
        assert subject.file is None
        assert count_parameters(subject.network) == entry.parameters


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upsampler": "pixelshuffle", "upscale": 4, "num_feat": 16},
        {"upsampler": "nearest+conv", "upscale": 4, "num_feat": 16},
        {"upsampler": "", "upscale": 1, "window_size": 7, "img_size": 14, "img_range": 255.0},
    ],
    ids=str,
)
def test_random_weights_are_the_same_each_time_and_alive(options):
    network = replace(TINY, depths=(2, 2, 2), num_heads=(2, 2, 2), **options)
    a, b = live_weights(network), live_weights(network)
    assert a.keys() == dict(SwinIR(network).named_parameters()).keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    model = Subject("random", network).build(CPU)
    assert not model.training
    lq = Case(32, 40).picture(network)
    with torch.inference_mode():
        restored = model(lq)
        # Attention counts: with a tenth of its bias, the result is another one.
        for name, parameter in model.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.mul_(0.1)
        assert (model(lq) - restored).abs().max() > 1e-3
    assert 0.02 < restored.std() < 1
    assert ((restored < 0) | (restored > 1)).float().mean() < 0.35


def test_the_input_is_a_photograph_of_the_size():
    for channels, size in ((3, (50, 60)), (1, (50, 60)), (3, (530, 20))):
        image = Case(*size, batch=2).picture(replace(TINY, in_chans=channels))
        assert image.shape == (2, channels, *size)
        assert 0 <= image.min() < image.max() <= 1
        assert torch.equal(image[0], image[1])
        assert image.std() > 0.05


@pytest.mark.parametrize(("tile", "overlap"), [(4, 0), (16, 16), (16, -1)], ids=str)
def test_tiles_that_cannot_be_are_refused_before_the_work(tile, overlap):
    with pytest.raises(ValueError, match="tile"):
        Case(32, 32, tile=tile, tile_overlap=overlap).check(TINY)
    Case(32, 32, tile=16, tile_overlap=8).check(TINY)


def test_operations_are_those_that_the_literature_counts():
    medium = TASKS["classical_sr"].network_for(4)
    assert Case(64, 64, batch=3).gflop(medium) == pytest.approx(3 * 2 * 53.6, rel=1e-3)
    assert Case(100, 50).megapixels(medium) == 16 * 0.005


def test_variants_are_chosen_by_name():
    assert [variant.name for variant in get_variants(["bf16", "plain"])] == ["bf16", "plain"]
    assert all(row.name == name for name, row in VARIANTS.items())
    for names, words in (
        (["fp23"], "unknown variant 'fp23'; choose from plain"),
        (["a"], "spandrel"),
        ([], "no variant"),
    ):
        with pytest.raises(ValueError, match=words):
            get_variants(names)
    with pytest.raises(ValueError, match="'bf16' is named twice"):
        get_variants(["bf16", "bf16"])


# What is written


def some_rows():
    candidates = []
    for name, seconds in (("plain", 2.0), ("fp32", 1.0)):
        timings = [Timing(seconds, seconds), Timing(seconds + 1, seconds)]
        done = {"first": FirstRun(np.zeros((1, 3, 32, 32)), seconds, 3.0), "timings": timings}
        candidates.append(Candidate(name, variant=VARIANTS[name], peak_mb=3.0, **done))
    candidates.append(Candidate("bf16", error="no luck", variant=VARIANTS["bf16"]))
    cases = (Case(16, 16), Case(32, 24))
    return [row for case in cases for row in rows_of(candidates, SUBJECT, case, {"fp32": 100.0})]


def test_json_holds_every_field_of_every_row(tmp_path):
    rows = some_rows()
    write_speed(tmp_path / "a.json", {"repeats": 2}, rows)
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["repeats"] == 2
    assert [row.keys() for row in found["rows"]] == [{f.name for f in fields(VariantRow)}] * 6
    assert found["rows"][1]["psnr"] == "inf"
    assert found["rows"][2] == json.loads(json.dumps(asdict(rows[2])))
    assert found["rows"][2]["error"] == "no luck"
    assert found["rows"][0]["seconds"] == [2.25, 2.5, 2.75]
    assert all(f" {field.name}" in VariantRow.__doc__ for field in fields(VariantRow))


def test_the_plot_is_drawn_with_and_without_memory(tmp_path):
    for name, rows in (("a.png", some_rows()), ("b.png", [replace(row, peak_mb=None) for row in some_rows()])):
        plot_speed(tmp_path / name, "tiny", rows)
        image = read(tmp_path / name)
        assert image.shape[1] > 1000
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    plot_speed(tmp_path / "a.svg", "tiny", some_rows())
    assert "matplotlib" in (tmp_path / "a.svg").read_text()
    with pytest.raises(ValueError, match=r"end in one of \.png"):
        check_plot(tmp_path / "a.gif")

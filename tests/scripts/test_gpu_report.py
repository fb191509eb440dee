"""The report on a GPU: time limits, failing steps, files; the GPU and the clock are simulated."""

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from swinir.train.config import load_config

ROOT = Path(__file__).parents[2]


def load(name):
    specification = importlib.util.spec_from_file_location(name, ROOT / f"scripts/gpu_report/{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # for the types of its dataclasses
    specification.loader.exec_module(module)
    return module


report, page, pack = load("report"), load("page"), load("pack")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return report.Folder(tmp_path / "out", tmp_path / "run")


def rows(folder):
    return [json.loads(line) for line in folder.results.read_text().splitlines()]


class Clock:
    """A clock that goes on while a command runs: for the seconds that the command names, or until its limit."""

    def __init__(self):
        self.now = 1000.0
        self.limits = {}

    def __call__(self):
        return self.now

    def execute(self, command, seconds, grace):
        name, needed = command
        self.limits[name] = seconds
        self.now += min(needed, seconds)
        return 0 if needed < seconds - grace else None


def run_plan(folder, total, needed, used=0.0):
    """Run the steps of the real plan with commands that need these seconds, one after the other or all the same."""
    clock = Clock()
    began = clock.now
    steps = [
        report.Step(step.name, step.share, lambda _, name=step.name: (name, needed))
        for step in report.Plan(folder, "cuda", False).steps()
    ]
    report.run_steps(steps, folder, total, clock.execute, used=used, clock=clock)
    return clock.now - began, clock.limits


@pytest.mark.parametrize("total", [60.0, 240.0, 590.0])
@pytest.mark.parametrize("needed", [0.0, 3.0, 20.0, 10_000.0])
@pytest.mark.parametrize("used", [0.0, 12.0])
def test_the_total_is_never_exceeded(folder, total, needed, used):
    took, _ = run_plan(folder, total, needed, used)
    assert took + used <= total * (1 - report.RESERVE) + 1e-6


def test_the_training_gets_the_time_that_others_leave(folder):
    _, slow = run_plan(folder, 590.0, 10_000.0)
    _, quick = run_plan(folder, 590.0, 10.0)
    assert slow["training"] > 200
    assert quick["training"] == pytest.approx(590 - 590 * report.RESERVE - 10 * (len(quick) - 1))


def test_a_step_without_time_is_noted_and_not_begun(folder):
    _, limits = run_plan(folder, 590.0, 10_000.0, used=587.0)
    assert limits == {}
    assert {row["status"] for row in rows(folder)} == {"no time"}


def shell(text):
    return lambda _: ["bash", "-c", text]


def test_a_failing_step_is_noted_and_the_next_one_runs(folder):
    steps = [
        report.Step("a", 0.3, shell("echo from a; exit 7")),
        report.Step("b", 0.3, lambda _: None),
        report.Step("c", 0.3, shell("kill -SEGV $$")),
        report.Step("d", None, shell("echo from d")),
    ]
    report.run_steps(steps, folder, 600.0, report.execute(folder))
    assert [(row["step"], row["status"]) for row in rows(folder)] == [
        ("a", "failed with exit code 7"),
        ("b", "not available"),
        ("c", "failed with exit code -11"),
        ("d", "ok"),
    ]
    assert "from a" in folder.log.read_text()
    assert "from d" in folder.log.read_text()


@pytest.fixture
def limit_when(monkeypatch):
    """A function: the time limit of steps is reached when its condition holds, however long that takes."""
    wait = report._wait

    def limit(condition):
        def wait_for(process, end, collect):
            if condition():  # the step was told to stop
                return wait(process, end, collect)
            while not condition() and process.poll() is None:
                time.sleep(0.01)
            return process.poll()

        monkeypatch.setattr(report, "_wait", wait_for)

    return limit


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_step_that_takes_too_long_is_stopped_with_its_children(folder, tmp_path, limit_when):
    pids = tmp_path / "pids"
    stubborn = f"trap '' TERM; (echo $BASHPID >>{pids}; sleep 600) & echo $$ >>{pids}; wait"
    limit_when(lambda: len(lines(pids)) == 2)
    assert report.execute(folder)(shell(stubborn)(0), 0.2, 0.1) is None
    while any(alive(int(pid)) for pid in lines(pids)):  # a killed process may take a moment to end
        time.sleep(0.01)


def test_a_step_that_is_told_to_stop_can_save_its_work(folder, tmp_path, limit_when):
    saving = f"trap 'echo saved >{tmp_path}/saved; exit 143' TERM; touch {tmp_path}/ready; while :; do sleep 0.01; done"
    limit_when((tmp_path / "ready").exists)
    assert report.execute(folder)(shell(saving)(0), 60.0, 59.0) is None
    assert (tmp_path / "saved").read_text() == "saved\n"


# Steps that write a row and weights; the last one then waits.
DRIVER = """
import json, sys
from pathlib import Path
scripts, out, run, pid, last = sys.argv[1:]
sys.path.insert(0, scripts)
import report
folder = report.Folder(Path(out), Path(run))
work = 'mkdir -p "$1"; echo weights $2 >"$1/a$2.pth"; echo "$3" >>"$4"; [[ -z $5 ]] || { echo $$ >"$5"; sleep 600; }'
def command(n):
    row = json.dumps({"kind": "speed", "n": n})
    return ["bash", "-c", work, "-", run, str(n), row, folder.results, pid if n == int(last) else ""]
steps = [report.Step(f"step {n}", 0.2, lambda _, n=n: command(n)) for n in range(int(last) + 1)]
report.run_steps(steps, folder, 6000.0, report.execute(folder))
"""


@pytest.mark.parametrize("last", [0, 1, 3])
def test_killed_in_any_step_it_leaves_what_was_measured(folder, tmp_path, last):
    pid = tmp_path / "pid"
    words = [ROOT / "scripts/gpu_report", folder.out, folder.run, pid, str(last)]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words], cwd=ROOT)
    while driver.poll() is None and not lines(pid):
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    os.killpg(int(pid.read_text()), signal.SIGKILL)
    kinds = [row["kind"] for row in rows(folder)]
    assert kinds == [*["speed", "step"] * last, "speed"]
    assert [row["n"] for row in rows(folder) if row["kind"] == "speed"] == list(range(last + 1))
    for n in range(last):
        assert (folder.out / f"a{n}.pth").read_text() == f"weights {n}\n"


def test_weights_state_and_records_are_collected_within_the_limits(folder):
    states = folder.run / "states"
    states.mkdir(parents=True)
    (folder.run / "metrics.jsonl").write_text("{}\n")
    (folder.run / "a.pth").write_bytes(b"weights")
    (folder.run / "a_best.pth").write_bytes(bytes(report.MAX_BYTES + 1))  # too large to come back
    folder.note(kind="speed")
    folder.log.write_bytes(b"start" + bytes(report.MAX_BYTES) + b"end")
    (states / "step-00000005-0123456789abcdef.pt").write_bytes(b"older")
    folder.collect()
    state = os.urandom(report.MAX_BYTES + 1000)
    (states / "step-00000010-0123456789abcdef.pt").write_bytes(state)
    folder.collect()
    found = sorted(folder.out.iterdir())
    assert [path.name for path in found] == [
        *("a.pth", "log.txt", "results.jsonl", "run.tar.gz"),
        *("step-00000010-0123456789abcdef.pt.0", "step-00000010-0123456789abcdef.pt.1"),
    ]
    assert b"".join(path.read_bytes() for path in found[-2:]) == state
    assert len(found) < report.MAX_FILES  # one more is there while a file is being written
    assert max(path.stat().st_size for path in found) <= report.MAX_BYTES
    assert folder.log.read_bytes().endswith(b"end")


def test_the_faster_way_to_train_is_chosen(tmp_path):
    rates = tmp_path / "rates.json"
    assert report.fastest(rates) == (report.UNMEASURED, False)
    found = {
        name: {"trainer_images_per_second": {"median": rate}} for name, rate in (("eager", 320), ("compiled", 640))
    }
    rates.write_text(json.dumps({"config": {"data": {"batch": 32}}, **found}))
    assert report.fastest(rates) == (20.0, True)


def test_the_script_takes_the_seconds_and_refuses_other_words():
    for words in (["60x"], [], ["--nonsense"]):
        done = subprocess.run(["bash", ROOT / "scripts/gpu_report.sh", *words], capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.fixture
def carried(tmp_path, monkeypatch, images):
    """The folder of carried images and a state of step 400."""
    path = tmp_path / "carry"
    for part in ("HR", "LR_bicubic/X2"):
        (path / "Set5" / part).mkdir(parents=True)
    images.rename(path / "images")
    (path / "step-00000400-0123456789abcdef.pt").write_bytes(b"state")
    monkeypatch.setattr(report, "CARRIED", path)
    return path


def test_the_training_gets_the_carried_images_and_goes_on_from_the_carried_state(folder, carried):
    folder.run.parent.joinpath("rates.json").write_text(
        json.dumps({"config": {"data": {"batch": 32}}, "compiled": {"trainer_images_per_second": {"median": 1280}}})
    )
    command = list(map(str, report.Plan(folder, "cuda", False).steps()[-1].command(325.0)))
    values = [word for before, word in itertools.pairwise(command) if before == "--set"]
    config = load_config(report.RECIPE, values)
    assert config.schedule.iterations == 400 + 0.9 * 40 * 300
    assert config.validate_every == 1800
    assert config.compile
    assert config.data.train == (carried / "images",)
    assert [path.name for path in (folder.run / "states").iterdir()] == ["step-00000400-0123456789abcdef.pt"]
    assert rows(folder)[-1]["kind"] == "training"


def test_more_room_adds_images_and_takes_none_away(images):
    found = sorted(images.rglob("*.png"))
    sizes = {path: path.stat().st_size for path in found}
    before = []
    for room in range(0, sum(sizes.values()) + 1, 500):
        chosen = pack.fitting(found, room)
        assert chosen[: len(before)] == before
        assert sum(sizes[path] for path in chosen) <= room
        before = chosen
    assert sorted(pack.fitting(found, sum(sizes.values()))) == found


def test_without_images_there_is_no_training(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "CARRIED", tmp_path / "absent")
    assert [step.command(100.0) for step in report.Plan(folder, "cuda", False).steps()[-2:]] == [None, None]


DEADLY = """
import os, signal
import pytest
pytestmark = pytest.mark.gpu
def test_first(cuda): pass
def test_deadly(cuda): os.kill(os.getpid(), signal.SIGSEGV)
def test_failing(cuda): assert not cuda
def test_last(cuda): pass
"""
MEASURING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
import measure
if __name__ == "__main__":
    measure.gpu_tests(measure.Bench(Path(sys.argv[2]), torch.device("cpu"), True), Path(sys.argv[3]))
"""


@pytest.mark.extras
def test_after_a_test_that_ends_the_process_the_others_run(tmp_path):
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_bytes((ROOT / "tests/conftest.py").read_bytes())
    (folder / "test_deadly.py").write_text(DEADLY)
    (tmp_path / "run.py").write_text(MEASURING)
    words = [sys.executable, tmp_path / "run.py", ROOT / "scripts/gpu_report", tmp_path / "rows", folder]
    subprocess.run(words, cwd=ROOT, check=False)
    found = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [(row["name"].rpartition("::")[2], row["outcome"]) for row in found] == [
        ("test_first", "passed"),
        ("test_deadly", "failed"),
        ("test_failing", "failed"),
        ("test_last", "passed"),
    ]


@pytest.mark.extras
def test_a_rehearsal_does_every_step_and_stays_within_the_limits(folder, tmp_path):
    environment = {"OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}  # as other tests
    words = ["bash", ROOT / "scripts/gpu_report.sh", "1500", "--device", "cpu", "--tiny"]
    subprocess.run(words, env=os.environ | environment, check=True)
    found = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    steps = {row["step"]: row["status"] for row in found if row["kind"] == "step"}
    assert steps == dict.fromkeys([step.name for step in report.Plan(folder, "cpu", True).steps()], "ok")
    kinds = {row["kind"] for row in found}
    assert kinds == {"machine", "copy", "matrix", "test", "correctness", "speed", "chunk", "launch", "training", "step"}
    assert {row["outcome"] for row in found if row["kind"] == "test"} == {"passed", "skipped"}
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {"debug_tiny.pth", "debug_tiny_best.pth", "log.txt", "results.jsonl", "run.tar.gz"} < {p.name for p in files}
    assert len(files) <= report.MAX_FILES


# The page of results


def row(kind, **facts):
    return {"kind": kind, "card": "NVIDIA H100", **facts}


def timed(variant, side, seconds, ratio, peak_mb=1234.5):
    about = {"network": "S", "variant": variant, "status": "ok", "height": side, "width": side, "tile": None}
    return row("speed", **about, seconds_per_megapixel=seconds, ratio=ratio, ratio_to="plain", peak_mb=peak_mb)


RATES = {"trainer_steps_per_second": {"median": 17.54}, "waiting_for_data": {"median": 0.021}}
ROWS = [
    row("machine", device="cuda NVIDIA H100", torch="2.11.0"),
    row("copy", gb_per_second=3010.0),
    row("matrix", precision="bf16", tflops=798.3),
    row("test", name="a.py::good", outcome="passed"),
    row("test", name="a.py::bad", outcome="failed"),
    row("correctness", network="S", variant="bf16", status="ok", max_difference=4e-3, db=61.2),
    row("correctness", network="M", variant="bf16", status="failed", error="a | b"),
    row("correctness", variant="x", status="not available"),
    *(timed("plain", side, 0.065, 1.0) for side in (136, 264)),
    *(timed("bf16", side, 0.004, 16.25) for side in (136, 264)),
    timed("bf16", 264, 0.003, 20.0, peak_mb=None),
    row("launch", network="S", launch={"warps": 4}, status="failed", error="out of shared memory"),
    {"kind": "step", "step": "speed", "status": "ok"},
    {"kind": "training", "device": "cuda NVIDIA H100", "config": {"name": "small"}, "eager": RATES},
]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"kind": "spe')  # cut while it was written
    return path


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{page.BEGIN}old\n{page.END}\nend\n")
    return path


def test_the_tables_of_the_page_hold_the_last_results_of_each_card(results, document):
    page.page([results], document)
    text = document.read_text()
    for line in (
        "| NVIDIA H100 | 2.11.0 | 3.01 TB/s copied, 798 TFLOP/s in bf16 |",
        "GPU tests, NVIDIA H100: 1 passed, 1 failed, 0 skipped.",
        "- failed: `a.py::bad`",
        "| NVIDIA H100, `bf16` | 4e-03, 61 dB | a / b |",
        "| card, variant | 136x136 | 264x264 |",
        "| NVIDIA H100, `plain` | 65.0 ms (1.0), 1,234 MB | 65.0 ms (1.0), 1,234 MB |",
        "| NVIDIA H100, `bf16` | 4.0 ms (16.2), 1,234 MB | 3.0 ms (20.0) |",
        "| NVIDIA H100 | S | warps 4 | out of shared memory |",
        "| cuda NVIDIA H100 | small | eager | 17.5 | 2 % | - |",
    ):
        assert line in text.splitlines()
    assert "(page.png)" in text
    assert document.with_suffix(".png").stat().st_size > 1000
    page.page([results], document)
    assert document.read_text() == text
    assert text.startswith("# Title\n")
    assert text.endswith("end\n")


def test_validations_come_from_the_records_of_the_training(results, document):
    metrics = results.with_name("metrics.jsonl")
    metrics.write_text('{"step": 500, "loss": 0.1}\n{"step": 500, "psnr_y": 36.504}\n{"step": 10')
    with tarfile.open(results.with_name("run.tar.gz"), "w:gz") as archive:
        archive.add(metrics, metrics.name)
    page.page([results], document)
    assert "| NVIDIA H100 | 500 | 36.50 dB |" in document.read_text()


def test_without_results_of_a_gpu_the_page_says_so(results, document):
    results.write_text(
        json.dumps({**timed("bf16", 8, 1.0, 1.0), "card": "CPU (rehearsal)"})
        + "\n"
        + json.dumps({"kind": "step"})
        + "\n"
    )
    page.page([results], document)
    assert document.read_text() == f"# Title\n\n{page.BEGIN}{page.NOTHING}{page.END}\nend\n"

"""Restoring on a cluster of two machines, which are two nodes of Ray on this one; and its faults."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest
import torch
from pictures import smooth, write, write_expert

from swinir.cli.main import main
from swinir.photos.batch import Policy, restore_files
from swinir.photos.jobs import Output, plan_jobs
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.manifest import RECORDS, OutputError
from swinir.photos.restore_photo import Treatment

ray = pytest.importorskip("ray", reason="Ray is not installed")

import faults  # noqa: E402 - needs Ray

pytestmark = pytest.mark.extras
ROOT = Path(__file__).parents[2]
STORE = 80 * 2**20  # bytes


def free_ports():
    """Ports of the agents of a node. Without them, a node ends if its agents do not choose theirs in time."""
    doors = {name: socket.socket() for name in ("metrics_agent_port", "runtime_env_agent_port", "metrics_export_port")}
    doors["dashboard_agent_listen_port"] = socket.socket()
    for door in doors.values():
        door.bind(("127.0.0.1", 0))
    ports = {name: door.getsockname()[1] for name, door in doors.items()}
    for door in doors.values():
        door.close()
    return ports


class Patient:
    """The module `time` for Ray, which gives up a node that has not started after 30 s: a busy machine needs longer."""

    sleep = staticmethod(time.sleep)

    @staticmethod
    def monotonic():
        return time.monotonic() / 20

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """A cluster of two nodes with a processor each: the cluster, and the node without the driver."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("faults")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            faults.FOLDER: str(folder), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_metrics_collection": "0", "RAY_prestart_worker_first_driver": "0",
            "RAY_worker_niceness": "0", "RAY_health_check_failure_threshold": "100",
            "RAY_agent_register_timeout_ms": "600000",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.setattr("ray._private.node.time", Patient())
        cluster = Cluster()
        node = {"num_cpus": 1, "object_store_memory": STORE}
        cluster.add_node(**node, **free_ports(), include_dashboard=False)
        second = cluster.add_node(**node, **free_ports())
        cluster.wait_for_nodes(timeout=600)
        yield cluster, second
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def fault(machines, monkeypatch):
    """The folder that decides on faults, empty."""
    folder = Path(os.environ.get(faults.FOLDER, ""))
    for file in folder.iterdir():
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_expert(tmp_path_factory.mktemp("model") / "x2.pth"))


@pytest.fixture
def images(tmp_path):
    """A folder to which a function adds images."""
    (tmp_path / "in").mkdir()

    def add(*names):
        for seed, name in enumerate(names):
            write(tmp_path / "in" / name, smooth(20, 24, seed=seed))
        return tmp_path / "in"

    return add


@pytest.fixture
def on_cluster(machines, model, tmp_path, monkeypatch):
    """A function that restores a folder on the cluster, and yields the results."""
    from swinir.cluster.plan import stream_pairs
    from swinir.cluster.restore import restore_on_cluster
    from swinir.cluster.worker import Work

    monkeypatch.setattr("swinir.cluster.restore.Worker", faults.FaultyWorker)
    ray.init(address=machines[0].address, log_to_driver=False, logging_level=logging.CRITICAL)

    def run(folder):
        output = tmp_path / "out"
        work = Work(Treatment(model=model), Output(), Policy(), output, tmp_path, "cpu")
        return restore_on_cluster(stream_pairs([folder], output, Output()), work, output, workers=2)

    yield run
    ray.shutdown()


def plain(folder, model):
    """Bytes of outputs by name, as the plain command makes them, and results by name."""
    output = folder.parent / "plain"
    jobs = plan_jobs([folder], output, Output())
    results = restore_files(jobs, output, Treatment(model=model), LoadedModels(torch.device("cpu"), 1e9))
    by_name = {Path(result.output).name: result for result in results}
    return contents(output), by_name


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def statuses(results):
    return {Path(result.output).name: result.status for result in results}


def with_outputs(results):
    """Statuses, in which an output that was whole before its worker died counts as restored: the next one skips it."""
    found = {name: status for name, status in statuses(results).items() if status != "skipped"}
    skipped = [result for result in results if result.status == "skipped"]
    assert {result.error for result in skipped} <= {"done before"}
    return found | {Path(result.output).name: "restored" for result in skipped}


def made(folder):
    """Number of final records of each output."""
    rows = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    return Counter(Path(row["output"]).name for row in rows if row["status"] != "begun")


def test_workers_that_die_cost_no_image_but_the_one_that_kills_each(machines, fault, on_cluster, images, model, caplog):
    folder = images(*(f"{number}.png" for number in range(7)), "once.png")
    (folder / "broken.png").write_bytes(b"nothing")
    expected, by_name = plain(folder, model)
    images("always.png")
    results = list(on_cluster(folder))
    assert len(results) == 10
    assert with_outputs(results) == dict.fromkeys(expected, "restored") | {
        "broken.png": "failed",
        "always.png": "failed",
    }
    errors = {Path(result.output).name: result.error for result in results if result.status == "failed"}
    assert errors["broken.png"] == by_name["broken.png"].error
    assert "in/always.png: the worker died 3 times while it had this image" in errors["always.png"]
    assert contents(folder.parent / "out") == expected
    assert set(made(folder.parent / "out").values()) == {1}
    assert "a worker died; " in caplog.text


def test_a_machine_with_a_full_disk_is_left_out_and_the_others_do_its_images(
    machines, fault, on_cluster, images, model, caplog
):
    folder = images(*(f"{number}.png" for number in range(8)))
    expected, _ = plain(folder, model)
    (fault / faults.FULL).write_text(machines[1].node_id)
    results = list(on_cluster(folder))
    assert statuses(results) == dict.fromkeys(expected, "restored")
    assert len(results) == 8
    assert contents(folder.parent / "out") == expected
    assert f"machine {machines[1].node_id[:8]} takes no more work: cannot write" in caplog.text
    assert "No space left on device; make room" in caplog.text


def test_a_driver_that_is_killed_loses_nothing_and_the_next_one_does_the_rest(machines, fault, images, model, tmp_path):
    folder = images(*(f"{number}.png" for number in range(6)), *(f"wait{number}.png" for number in range(4)))
    output, records = tmp_path / "out", tmp_path / "records"
    options = ["-n", model, "--device", "cpu", "--suffix", ""]
    assert main(["restore", str(folder), "-o", str(tmp_path / "plain"), *options]) == 0
    expected = contents(tmp_path / "plain")
    (fault / faults.PAUSE).touch()
    words = ["restore", f"file://{folder}", "-o", f"file://{output}", *options]
    words += ["--records", str(records), "--ray", machines[0].address, "--workers", "2"]
    code = "import sys, swinir.cluster.restore as r; from faults import FaultyWorker; r.Worker = FaultyWorker; "
    code += "from swinir.cli.main import main; sys.exit(main(sys.argv[1:]))"

    def start():
        return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)

    with start() as driver:
        while not (records / RECORDS).exists() or made(records).total() < 3:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    done = made(records)
    (fault / faults.PAUSE).unlink()
    with start() as driver:
        said = driver.communicate()[0]
    assert driver.returncode == 0
    assert contents(output) == expected
    assert set(made(records).values()) == {1}
    skipped = said.count(": skipped, done before")
    assert skipped >= len(done)
    assert f"{10 - skipped} restored, {skipped} skipped, 0 failed; see file://{output}" in said


def test_a_disk_that_is_full_everywhere_stops_the_run(machines, fault, on_cluster, images):
    folder = images("a.png", "b.png")
    cluster, second = machines
    (fault / faults.FULL).write_text(f"{cluster.head_node.node_id} {second.node_id}")
    with pytest.raises(OutputError, match="No space left on device; make room, and run the same command again"):
        list(on_cluster(folder))


def test_a_machine_that_goes_before_its_worker_starts_costs_no_image(fault, on_cluster, images, monkeypatch, caplog):
    from swinir.cluster import restore

    alive = restore._nodes
    gone = {"NodeID": "1" * 56, "Alive": True, "Resources": {"CPU": 1.0}}
    monkeypatch.setattr(restore, "_nodes", lambda: [gone, *alive()])
    assert statuses(on_cluster(images("a.png", "b.png"))) == {"a.png": "restored", "b.png": "restored"}
    assert "machine 11111111 takes no more work: its worker ended before it had an image" in caplog.text


def test_a_machine_that_is_gone_costs_no_image(machines, fault, on_cluster, images, model):
    cluster, second = machines
    folder = images(*(f"{number}.png" for number in range(8)))
    expected, _ = plain(folder, model)
    (fault / faults.HANGS).write_text(second.node_id)

    def remove():
        while not (fault / faults.MET).exists():
            time.sleep(0.02)
        cluster.remove_node(second)

    thread = Thread(target=remove)
    thread.start()
    results = list(on_cluster(folder))
    thread.join()
    assert with_outputs(results) == dict.fromkeys(expected, "restored")
    assert len(results) == 8
    assert contents(folder.parent / "out") == expected
    assert set(made(folder.parent / "out").values()) == {1}


def test_a_cluster_that_starts_too_slowly_is_one_line(monkeypatch):
    from swinir.cluster.restore import connected

    def init(**_):
        raise Exception("The current node timed out during startup. This could happen because\nof anything.")

    monkeypatch.setattr(ray, "init", init)
    line = "the Ray cluster local failed: The current node timed out .* because; run the same command again"
    with pytest.raises(OSError, match=line), connected():
        pass

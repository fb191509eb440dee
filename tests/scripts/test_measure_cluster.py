"""The script that measures a cluster: what it counts and prints."""

import subprocess
import sys

import pytest
from scripted import load_script
from typer.testing import CliRunner

from swinir.photos.manifest import Result


@pytest.fixture(scope="module")
def script():
    return load_script("scripts/measure_cluster.py")


def test_speed_counts_from_the_first_results_that_come(script, monkeypatch):
    moments = iter([0, 10, 10.001, 12, 14, 15])
    monkeypatch.setattr(script.time, "perf_counter", lambda: next(moments))
    used = iter([1.0, 7.0])
    monkeypatch.setattr(script, "spent", lambda: next(used))
    results = [Result("in", "out", "restored")] * 5
    assert script.speed(results) == (3 / 5, 10, 2)


def test_processor_time_of_descendants_is_counted(script):
    before = script.spent()
    subprocess.run([sys.executable, "-c", "import os\nwhile os.times().user < 0.3: pass"], check=True)
    assert script.spent() - before >= 0.3


def test_speed_is_that_of_restored_images_only(script):
    with pytest.raises(RuntimeError, match="in: skipped, done before"):
        script.speed([Result("in", "out", "skipped", "done before")])


def test_sizes_are_shown_for_one_image_and_for_ten_million(script):
    result = CliRunner().invoke(script.app, ["scale", "--images", "40", "--per-folder", "10"])
    assert result.exit_code == 0, result.output
    assert "records from 32 workers:" in result.output
    sizes = [line for line in result.output.splitlines() if "bytes for ten million" in line]
    assert len(sizes) == 7
    each, many = (float(sizes[-3].split(word)[0].split()[-1]) for word in ("bytes for an", "bytes for ten"))
    assert many == pytest.approx(each * 1e7, rel=0.01)

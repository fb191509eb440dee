"""The process of `swinir serve`: it answers, and stops gracefully."""

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pictures import smooth, write, write_expert

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx2", reason="the tests of the service need httpx2")


@pytest.mark.slow
def test_a_stop_finishes_what_runs_and_refuses_what_waits(tmp_path):
    expert = write_expert(tmp_path / "x2.pth")
    image = write(tmp_path / "a.png", smooth(96, 96)).read_bytes()
    command = [sys.executable, "-m", "swinir", "serve", "--port", "0", "-n", str(expert), "--folder", str(tmp_path)]
    with subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.PIPE, text=True) as server:
        address = re.match(r"(http://127\.0\.0\.1:\d+) on cpu", server.stderr.readline())[1]

        def load():
            (device,) = httpx.get(f"{address}/health", timeout=60).json()["devices"]
            return device["running"], device["waiting"]

        def post():
            fields = {"model": "x2.pth", "tile": "8", "tile_overlap": "4"}  # many tiles: some seconds
            return httpx.post(f"{address}/v1/restore", files={"image": ("a.png", image)}, data=fields, timeout=300)

        with ThreadPoolExecutor(2) as clients:
            runs = clients.submit(post)
            while load() != (1, 0):
                time.sleep(0.01)
            waits = clients.submit(post)
            while load() != (1, 1):
                time.sleep(0.01)
            server.send_signal(signal.SIGTERM)
            assert waits.result().status_code == 503
            assert waits.result().json() == {"detail": "the service is stopping; try again later"}
            assert not runs.done()
            assert runs.result().headers["content-type"] == "image/png"
        assert server.wait(60) == 0
        assert server.stderr.read() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "x2.pth"]

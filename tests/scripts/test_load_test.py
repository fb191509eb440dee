"""The load test: all of its hostile uploads are the client's errors, and its good ones are not."""

import pytest
from pictures import smooth
from scripted import load_script
from services import make_queue

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the tests of the service need httpx2")
from fastapi.testclient import TestClient

from swinir.models.swinir import SwinIR
from swinir.service.app import make_app
from swinir.service.restorer import Limits
from swinir.weights.checkpoint import write_checkpoint


def test_hostile_uploads_are_answered_as_errors_of_the_client(tmp_path):
    script = load_script("scripts/load_test.py")
    write_checkpoint(tmp_path / "load.pth", SwinIR(script.NETWORK).state_dict(), script.NETWORK)
    queue = make_queue(tmp_path / "jobs", tmp_path / "load.pth", limits=Limits(max_bytes=2**18, max_pixels=20_000))
    client, good = TestClient(make_app(queue), raise_server_exceptions=False), script.png(smooth(24, 24))

    def send(upload):
        fields = {"model": "load.pth"} | upload.fields
        return client.post("/v1/restore", files={"image": (upload.name, upload.content)}, data=fields).status_code

    statuses = [send(upload) for upload in script.hostile_uploads(good, None)]
    assert set(statuses) == {413, 415, 422}
    assert send(script.Upload(good)) == 200
    queue.close()
    assert list((tmp_path / "jobs").iterdir()) == []

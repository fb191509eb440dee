"""The HTTP service: every answer and status, as a client sees them."""

import asyncio
import json

import numpy as np
import pytest
from pictures import smooth, write, write_expert
from services import make_queue

from swinir.cli.main import main
from swinir.photos.manifest import RECORDS
from swinir.service.restorer import Limits

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the tests of the service need httpx2")
from fastapi.testclient import TestClient

from swinir.service.app import UPLOAD_SECONDS, make_app
from swinir.service.metrics import ServiceMetrics

OPTIONS = {"model": "x2.pth", "tile": "16", "tile_overlap": "4"}


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    return write_expert(tmp_path_factory.mktemp("experts") / "x2.pth")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write(tmp_path_factory.mktemp("images") / "holiday.png", smooth(20, 24)).read_bytes()


@pytest.fixture
def start(tmp_path, expert):
    """A function that starts a service and gives its client, whose `queue` it is."""
    clients = []

    def begin(*, token=None, **options):
        metrics = ServiceMetrics()
        queue = make_queue(tmp_path / "jobs", expert, finished=metrics.finished, **options)
        client = TestClient(make_app(queue, metrics, token=token), raise_server_exceptions=False)
        client.queue = queue
        client.__enter__()
        clients.append(client)
        return client

    yield begin
    for client in clients:
        client.__exit__(None, None, None)
        client.queue.close()


def post(client, content, name="holiday.png", headers=None, **fields):
    return client.post("/v1/restore", files={"image": (name, content)}, data=OPTIONS | fields, headers=headers)


def refusal(answer):
    """Status and message of an error, which has no other content."""
    assert list(answer.json()) == ["detail"], answer.text
    return answer.status_code, answer.json()["detail"]


def no_files(client):
    return list(client.queue.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "fields", "words", "kind"),
    [
        ("holiday.png", {}, [], "image/png"),
        ("scan.tif", {}, [], "image/tiff"),
        (
            "photo.JPG",
            {"quality": "60", "strip_metadata": "true"},
            ["--quality", "60", "--strip-metadata"],
            "image/jpeg",
        ),
        ("a.png", {"ext": "webp", "scale": "1.5"}, ["--ext", "webp", "-s", "1.5"], "image/webp"),
        ("a.png", {"tile": "0", "self_ensemble": "true"}, ["-t", "0", "--self-ensemble"], "image/png"),
    ],
)
def test_the_answer_is_the_file_that_the_command_writes(start, tmp_path, expert, name, fields, words, kind):
    source = write(tmp_path / "source.png", smooth(20, 24))
    if name.lower().endswith(("tif", "jpg")):
        source = write(tmp_path / f"source{name[-4:]}", smooth(20, 24))
    source = source.rename(tmp_path / name)
    command = ["restore", str(source), "-o", str(tmp_path / "out"), "-n", str(expert), "-t", "16"]
    assert main([*command, "--tile-overlap", "4", "-q", *words]) == 0
    (made,) = (path for path in (tmp_path / "out").iterdir() if path.name != RECORDS)
    client = start()
    answer = post(client, source.read_bytes(), name, **fields)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content == made.read_bytes()
    assert f'filename="{made.name}"' in answer.headers["content-disposition"]
    assert no_files(client)


def test_models_are_chosen_by_estimates_where_none_is_named(start, image):
    answer = start().post("/v1/restore", files={"image": ("a.png", image)})
    assert (answer.status_code, answer.content) == (200, image)  # clean: nothing to repair


@pytest.mark.parametrize("how", [{"headers": {"Prefer": "respond-async"}}, {"respond_async": "true"}])
def test_a_job_answers_at_once_and_is_fetched_later(start, image, how):
    client = start()
    (restorer,) = client.queue.restorers
    with restorer.held():
        accepted = post(client, image, **how)
        place = accepted.headers["location"]
        assert (accepted.status_code, place) == (202, f"/v1/jobs/{accepted.json()['id']}")
        assert restorer.entered.wait(60)
        assert client.get(place).json()["status"] == "running"
        assert refusal(client.get(f"{place}/result")) == (409, "the job is running; ask again later")
        waiting = client.get(post(client, image, **how).headers["location"]).json()
        assert (waiting["status"], waiting["before"]) == ("waiting", 1)
    client.queue.get(accepted.json()["id"]).future.result(60)
    state = client.get(place).json()
    assert (state["status"], state["share"], state["result"]) == ("done", 1.0, f"{place}/result")
    record = state["record"]
    assert (record["input"], record["output"], record["status"]) == ("holiday.png", "holiday_x2.png", "restored")
    assert record["experts"][0][0] == "x2.pth"
    assert str(client.queue.folder) not in json.dumps(state)
    assert client.get(f"{place}/result").content == post(client, image).content


def test_the_time_left_is_told_while_a_job_runs(start, image):
    client = start()
    job_id = post(client, image, respond_async="true").json()["id"]
    job = client.queue.get(job_id)
    job.future.result(60)
    job.finished = None
    job.progress(0.25, 30.0)
    state = client.get(f"/v1/jobs/{job_id}").json()
    assert state["share"] == 0.25
    assert 0 < state["seconds_left"] <= 30


def test_a_job_that_failed_tells_why(start, image):
    client = start()
    job_id = post(client, image, respond_async="true", ext="jpg", scale="64", tile_overlap="999999").json()["id"]
    assert client.queue.get(job_id).future.exception(60)
    state = client.get(f"/v1/jobs/{job_id}").json()
    assert (state["status"], state["code"]) == ("failed", 422)
    assert refusal(client.get(f"/v1/jobs/{job_id}/result")) == (422, state["detail"])


def test_a_cancelled_job_is_gone_with_its_files(start, image):
    client = start()
    (restorer,) = client.queue.restorers
    with restorer.held():
        place = post(client, image, respond_async="true").headers["location"]
        assert restorer.entered.wait(60)
        job = client.queue.get(place.split("/")[-1])
        assert client.delete(place).status_code == 204
        for answer in (client.get(place), client.get(f"{place}/result"), client.delete(place)):
            assert refusal(answer) == (404, "no such job; results are deleted after a time")
    assert job.future.exception(60)
    client.queue.close()
    assert no_files(client)


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic c2VjcmV0", "secret"])
def test_401_without_the_token(start, image, header):
    client = start(token="secret")
    headers = {} if header is None else {"Authorization": header}
    answers = [post(client, image, headers=headers)]
    answers += [client.get(path, headers=headers) for path in ("/v1/models", "/v1/jobs/1", "/metrics")]
    for answer in answers:
        assert refusal(answer) == (401, "the token is missing or wrong; send Authorization: Bearer TOKEN")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/health", headers=headers).status_code == 200
    assert post(client, image, headers={"Authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    ("limits", "fields", "message"),
    [
        ({"max_bytes": 10}, {}, "holiday.png: more than the limit of 10 bytes; save it smaller, or in another format"),
        ({"max_pixels": 400}, {}, "holiday.png: 24x20 is more than the limit of 0.0004 megapixels"),
        (
            {"max_output_pixels": 4000},
            {"scale": "4"},
            "holiday.png: 24x20 would become 96x80, more than the limit of 0.004 megapixels; ask for a smaller scale",
        ),
    ],
)
def test_413_for_what_is_too_large(start, image, limits, fields, message):
    client = start(limits=Limits(**limits))
    assert refusal(post(client, image, **fields)) == (413, message)
    assert no_files(client)


@pytest.mark.parametrize("declared", [True, False])
def test_413_before_a_long_upload_is_read_to_its_end(start, declared):
    client, read = start(limits=Limits(max_bytes=10)), []
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'

    def body():
        yield head
        for number in range(100):
            read.append(number)
            yield bytes(2**16)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    content = body()
    if declared:
        headers["Content-Length"], content = "9999999", b"--x--\r\n"
    answer = client.post("/v1/restore", content=content, headers=headers)
    assert refusal(answer)[0] == 413
    assert refusal(answer)[1].startswith("the upload: more than the limit of 10 bytes")
    assert no_files(client)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"<svg onload=alert(1)>", 415, "holiday.png: not an image of a known format"),
        (b"", 422, "holiday.png: the file is empty"),
        (b"\x89PNG\r\n\x1a\n and more", 422, "holiday.png: "),
    ],
)
def test_a_file_that_is_no_image_is_refused_as_the_command_refuses_it(start, content, status, message):
    client = start()
    found = refusal(post(client, content))
    assert (found[0], found[1].startswith(message)) == (status, True)
    assert no_files(client)


def test_422_for_damage_behind_the_header(start, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    damaged = bytearray(write(tmp_path / "a.png", pixels).read_bytes())
    damaged[len(damaged) // 2] ^= 255
    client = start()
    status, message = refusal(post(client, bytes(damaged)))
    assert (status, message.startswith("holiday.png: "), str(tmp_path) in message) == (422, True, False)
    assert no_files(client)


def test_415_for_a_body_that_is_no_form(start):
    answer = start().post("/v1/restore", json={"image": "a.png"})
    assert refusal(answer) == (415, "send multipart/form-data, with the file in the field image")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": "100"}, "scale must be above 0 and at most 64, got 100"),
        ({"scale": "nan"}, "scale must be above 0 and at most 64, got nan"),
        ({"scale": "two"}, "scale: Input should be a valid number, unable to parse string as a number"),
        ({"task": "color_dn"}, "a model is named; leave task, noise and jpeg out, which are for choosing one"),
        ({"model": "/etc/passwd"}, "model must be a name from `swinir zoo list`, got '/etc/passwd'"),
        ({"quality": "0"}, "quality must be from 1 to 100, got 0"),
        ({"ext": "exe"}, "images are written as .png, .jpg, .jpeg, .webp, .tif, .tiff, .avif, .bmp, got .exe"),
        ({"tile": "-1"}, "tile: Input should be greater than or equal to 0; tile: Input should be 'auto'"),
        ({"output": "/etc/passwd"}, "output: Extra inputs are not permitted"),
        ({"suffix": "../x"}, "suffix: Extra inputs are not permitted"),
    ],
)
def test_422_for_an_option_that_is_unknown_or_out_of_range(start, image, fields, message):
    client = start()
    assert refusal(post(client, image, **fields)) == (422, message)
    assert no_files(client)


def test_422_without_a_file_or_with_two(start, image):
    client = start()
    assert refusal(client.post("/v1/restore", data=OPTIONS, files={"nothing": ("", b"")}))[0] == 422
    two = [("image", ("a.png", image)), ("image", ("b.png", image))]
    assert refusal(client.post("/v1/restore", files=two))[0] == 422
    garbage = client.post(
        "/v1/restore", content=b"garbage", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert refusal(garbage)[0] == 422
    nameless = client.post("/v1/restore", content=b"garbage", headers={"Content-Type": "multipart/form-data"})
    assert refusal(nameless)[0] == 422
    assert no_files(client)


def test_429_when_all_places_are_taken(start, image):
    client = start(max_jobs=1)
    (restorer,) = client.queue.restorers
    with restorer.held():
        place = post(client, image, respond_async="true").headers["location"]
        answer = post(client, image)
        assert refusal(answer) == (429, "all 1 places are taken by requests that wait or run; try again later")
        assert answer.headers["retry-after"]
        client.delete(place)
    client.queue.close()


def test_503_while_the_service_stops(start, image):
    client = start()
    client.queue.stop()
    answer = post(client, image)
    assert refusal(answer) == (503, "the service is stopping; try again later")
    assert answer.headers["retry-after"]
    assert (client.get("/health").status_code, client.get("/health").json()["status"]) == (503, "stopping")


def test_500_tells_nothing_but_that_the_log_has_it(start, image, monkeypatch):
    client = start()
    monkeypatch.setattr("swinir.service.app.name_on_disk", None)
    found = refusal(post(client, image))
    assert found == (500, "internal error; the log of the service has it")
    assert no_files(client)


def test_404_and_405_have_the_same_form(start):
    client = start()
    assert refusal(client.get("/nonsense"))[0] == 404
    assert refusal(client.get("/v1/jobs/../../etc/passwd"))[0] == 404
    assert refusal(client.get("/v1/restore"))[0] == 405


def test_a_name_from_the_client_reaches_no_path(start, image):
    client = start()
    place = post(client, image, name="../../../etc/passwd.png", respond_async="true").headers["location"]
    job = client.queue.get(place.split("/")[-1])
    job.future.result(60)
    assert job.request.source == job.folder / "input.png"
    assert sorted(path.name for path in job.folder.iterdir()) == ["input.png", "output.png", RECORDS]
    assert client.get(place).json()["record"]["input"] == "passwd.png"


def test_models_are_listed_with_those_of_the_operator(start):
    names = [row["name"] for row in start().get("/v1/models").json()]
    assert {"lightweight_sr_x1-4_tiny", "x2.pth"} <= set(names)
    assert "classical_sr_x2_DF2K_64" not in names  # not downloaded


def test_metrics_count_answers_jobs_and_models(start, image):
    client = start()
    post(client, image)
    post(client, b"no image")
    client.get("/made/up/by/a/client")
    text = client.get("/metrics").text
    assert 'swinir_answers_total{route="/v1/restore",status="200"} 1.0' in text
    assert 'swinir_answers_total{route="/v1/restore",status="415"} 1.0' in text
    assert 'swinir_answers_total{route="other",status="404"} 1.0' in text
    assert 'swinir_jobs_total{device="0",end="done"} 1.0' in text
    assert 'swinir_open_jobs{device="0",state="running"} 0.0' in text
    assert float(text.split('swinir_models_bytes{device="0"} ')[1].split()[0]) > 0


def test_the_interface_is_described(start):
    client = start()
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/restore", "/v1/jobs/{id}", "/v1/jobs/{id}/result", "/v1/models", "/health", "/metrics",
    }  # fmt: skip
    form = described["paths"]["/v1/restore"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["image"]
    assert form["properties"]["image"]["type"] == "string"
    assert set(form["properties"]) > {"scale", "noise", "jpeg", "strength", "ext", "respond_async"}
    assert set(described["paths"]["/v1/restore"]["post"]["responses"]) >= {
        "200",
        "401",
        "413",
        "415",
        "422",
        "429",
        "503",
    }
    assert client.get("/docs").status_code == 200


class Connection:
    """A client on the level of ASGI: it sends a body, and may go away."""

    def __init__(self, app, body, kind="multipart/form-data; boundary=x"):
        self.app, self.sent = app, []
        self.messages = asyncio.Queue()
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/restore", "raw_path": b"/v1/restore", "query_string": b"", "root_path": "",
            "headers": [(b"content-type", kind.encode())], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        for message in body:
            self.messages.put_nowait(message)

    def leave(self):
        self.messages.put_nowait({"type": "http.disconnect"})

    async def run(self):
        async def send(message):
            self.sent.append(message)

        await self.app(self.scope, self.messages.get, send)


def form(content):
    """A body that names the model and has a file."""
    head = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    fields = [(name.encode(), b"", value.encode()) for name, value in OPTIONS.items()]
    parts = [head % part for part in [*fields, (b"image", b'; filename="a.png"', content)]]
    return {"type": "http.request", "body": b"".join(parts) + b"--x--\r\n", "more_body": False}


@pytest.mark.parametrize("runs", [True, False])
def test_a_client_that_disconnects_frees_its_place(tmp_path, expert, image, runs):
    queue = make_queue(tmp_path / "jobs", expert, max_jobs=2)
    (restorer,) = queue.restorers
    app = make_app(queue)

    async def scene():
        first, second = Connection(app, [form(image)]), Connection(app, [form(image)])
        with restorer.held():
            tasks = [asyncio.create_task(first.run())]
            assert await asyncio.to_thread(restorer.entered.wait, 60)
            tasks.append(asyncio.create_task(second.run()))
            while sum(queue.load(0)) < 2:
                await asyncio.sleep(0.01)
            leaver, stayer = (first, second) if runs else (second, first)
            leaver.leave()
            await tasks[0 if runs else 1]
        await asyncio.gather(*tasks)
        return stayer

    stayer = asyncio.run(scene())
    assert stayer.sent[0]["status"] == 200
    queue.close()
    assert list(queue.folder.iterdir()) == []
    assert len(restorer.names) == (2 if runs else 1)


def test_a_client_that_leaves_during_its_upload_frees_its_place(tmp_path, expert):
    queue = make_queue(tmp_path / "jobs", expert, max_jobs=1)
    half = {"type": "http.request", "body": form(b"")["body"][:200], "more_body": True}
    connection = Connection(make_app(queue), [half])
    connection.leave()
    asyncio.run(connection.run())
    assert list(queue.folder.iterdir()) == []
    queue.forget(queue.admit())  # there is a place
    queue.close()


def test_an_upload_that_never_ends_is_given_up(tmp_path, expert, monkeypatch):
    assert UPLOAD_SECONDS > 1
    monkeypatch.setattr("swinir.service.app.UPLOAD_SECONDS", 0.01)
    queue = make_queue(tmp_path / "jobs", expert, max_jobs=1)
    connection = Connection(make_app(queue), [])
    asyncio.run(connection.run())
    assert connection.sent[0]["status"] == 408
    queue.forget(queue.admit())
    queue.close()

"""Jobs of a service: places, devices, cancellation, expiry and the end."""

from threading import Event

import pytest
from pictures import smooth, write, write_expert
from services import make_queue

from swinir.photos.options import RestoreOptions
from swinir.service.queue import JobQueue
from swinir.service.restorer import RefusedError, Request

OPTIONS = RestoreOptions(model="x2.pth", tile=16, tile_overlap=4)


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    return write_expert(tmp_path_factory.mktemp("experts") / "x2.pth")


@pytest.fixture
def make(tmp_path, expert):
    """A function that makes a queue, which is closed after the test."""
    made = []

    def build(**options):
        made.append(make_queue(tmp_path / "jobs", expert, **options))
        return made[-1]

    yield build
    for queue in made:
        queue.close()


def submit(queue, name="a.png", options=OPTIONS):
    job = queue.admit()
    source = write(job.folder / "input.png", smooth(20, 24))
    queue.submit(job, Request(source, name, options))
    return job


def refusal(act, *given):
    with pytest.raises(RefusedError) as caught:
        act(*given)
    return caught.value.status, str(caught.value)


def test_a_job_goes_from_its_upload_to_its_output(make):
    queue = make()
    job = queue.admit()
    assert job.status == "uploading"
    assert refusal(queue.get, job.id)[0] == 404
    queue.submit(job, Request(write(job.folder / "input.png", smooth(20, 24)), "a.png", OPTIONS))
    assert queue.get(job.id) is job
    assert job.future.result(60).status == "restored"
    assert (job.status, job.share, job.target.is_file()) == ("done", 1.0, True)


def test_jobs_of_one_device_run_one_after_another_in_their_order(make):
    queue = make()
    (restorer,) = queue.restorers
    with restorer.held():
        jobs = [submit(queue, f"{number}.png") for number in range(3)]
        assert restorer.entered.wait(60)
        assert [job.status for job in jobs] == ["running", "waiting", "waiting"]
        assert [queue.before(job) for job in jobs] == [0, 1, 2]
    assert [job.future.result(60).status for job in jobs] == ["restored"] * 3
    assert restorer.names == ["0.png", "1.png", "2.png"]


def test_each_device_has_a_queue_and_the_shortest_is_taken(make):
    queue = make(restorers=2)
    first, second = queue.restorers
    with first.held(), second.held():
        assert [submit(queue).device for _ in range(4)] == [0, 1, 0, 1]
        assert first.entered.wait(60)
        assert second.entered.wait(60)
        assert [queue.load(0), queue.load(1)] == [(1, 1), (1, 1)]


def test_no_more_jobs_are_admitted_than_there_are_places(make):
    queue = make(max_jobs=2)
    (restorer,) = queue.restorers
    with restorer.held():
        job = submit(queue)
        upload = queue.admit()
        assert refusal(queue.admit) == (429, "all 2 places are taken by requests that wait or run; try again later")
        queue.forget(upload)
        queue.forget(queue.admit())
    job.future.result(60)
    for _ in range(2):
        queue.admit()
    assert refusal(queue.admit)[0] == 429


def test_a_refused_request_frees_its_place_and_its_folder(make):
    queue = make(max_jobs=1)
    job = queue.admit()
    (job.folder / "input.png").write_bytes(b"nonsense")
    assert refusal(queue.submit, job, Request(job.folder / "input.png", "a.png", OPTIONS))[0] == 415
    queue.forget(job)
    queue.forget(job)  # once is enough
    assert list(queue.folder.iterdir()) == []
    queue.admit()
    assert refusal(queue.admit)[0] == 429


def test_a_job_that_waits_is_cancelled_at_once(make):
    queue = make()
    (restorer,) = queue.restorers
    with restorer.held():
        running, waiting = submit(queue, "runs.png"), submit(queue, "waits.png")
        assert restorer.entered.wait(60)
        queue.forget(waiting)
        assert not waiting.folder.exists()
        assert refusal(queue.get, waiting.id)[0] == 404
    assert running.future.result(60).status == "restored"
    assert restorer.names == ["runs.png"]


def test_a_job_that_runs_is_cancelled_and_leaves_no_file(make):
    queue = make()
    (restorer,) = queue.restorers
    ended = Event()
    with restorer.held():
        job = submit(queue)
        assert restorer.entered.wait(60)
        queue.forget(job)
        assert job.folder.exists()  # it is being used
        job.future.add_done_callback(lambda _: ended.set())
    assert ended.wait(60)
    assert list(queue.folder.iterdir()) == []


def test_a_failure_does_not_keep_the_image_in_memory(make):
    queue = make()
    job = submit(queue, options=RestoreOptions(model="x2.pth", scale=64, tile=16, tile_overlap=10**6))
    error = job.future.exception(60)
    assert isinstance(error, RefusedError)
    assert (error.__cause__, error.__context__) == (None, None)
    frames = error.__traceback__
    while frames is not None:
        assert "picture" not in frames.tb_frame.f_locals
        frames = frames.tb_next


def test_an_unexpected_failure_is_logged_and_tells_nothing(make, monkeypatch, caplog):
    queue = make()

    def fail(*given, **options):
        raise KeyError("secret")

    monkeypatch.setattr("swinir.service.restorer.restore_files", fail)
    job = submit(queue)
    assert job.future.exception(60).status == 500
    assert "secret" not in str(job.future.exception())
    assert "secret" in caplog.text


def test_files_are_deleted_after_their_time(make):
    now = [0.0]
    queue = make(keep_seconds=100, clock=lambda: now[0])
    (restorer,) = queue.restorers
    done = submit(queue)
    done.future.result(60)
    with restorer.held():
        running = submit(queue)
        now[0] = 99
        queue.expire()
        assert done.target.is_file()
        now[0] = 1000
        queue.expire()
        assert not done.folder.exists()
        assert running.folder.exists()
    assert running.future.result(60).status == "restored"


def test_a_stop_finishes_what_runs_and_refuses_what_waits_and_what_comes(make):
    queue = make()
    (restorer,) = queue.restorers
    with restorer.held():
        running, waiting, upload = submit(queue), submit(queue), queue.admit()
        assert restorer.entered.wait(60)
        queue.stop()
        assert (running.status, waiting.status) == ("running", "refused")
        message = "the service is stopping; try again later"
        assert refusal(waiting.result) == (503, message)
        assert refusal(queue.admit) == (503, message)
        source = write(upload.folder / "input.png", smooth(20, 24))
        assert refusal(queue.submit, upload, Request(source, "a.png", OPTIONS)) == (503, message)
    queue.close()
    assert running.result().status == "restored"
    assert list(queue.folder.iterdir()) == []


def test_a_stop_at_once_ends_what_runs(make):
    queue = make()
    (restorer,) = queue.restorers
    with restorer.held():
        running = submit(queue)
        assert restorer.entered.wait(60)
        running.stop.set()  # as `close` does first
    queue.close(at_once=True)
    assert refusal(running.result)[0] == 503


@pytest.mark.parametrize("wrong", [{"max_jobs": 0}, {"keep_seconds": 0}])
def test_a_queue_without_places_or_time_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JobQueue([], tmp_path, **wrong)

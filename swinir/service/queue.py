"""The jobs of a service: one queue for each device, a bound on open jobs, cancellation, expiry, graceful stop.

admit (a place and a folder) -> submit (checked, waits for its device) -> done -> forget (the folder is deleted)
"""

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Semaphore
from typing import Literal

from swinir.photos.manifest import Result
from swinir.service.restorer import CancelledError, RefusedError, Request, Restorer, Watch

logger = logging.getLogger(__name__)
Status = Literal["uploading", "waiting", "running", "done", "failed", "refused"]


@dataclass(eq=False)
class ServiceJob(Watch):
    """One request from its upload to the deletion of its files.

    Attributes:
        id: random, so that nobody guesses it.
        folder: of the upload and the output.
        request, future, device: None before it is submitted.
        finished: time by the queue's clock; None before.
    """

    id: str
    folder: Path
    request: Request | None = None
    future: Future[Result] | None = None
    device: int = 0
    finished: float | None = None

    @property
    def target(self) -> Path:
        """The output."""
        assert self.request is not None
        return self.folder / f"output{Path(self.request.output_name).suffix}"

    @property
    def status(self) -> Status:
        """The stage that the job is in."""
        if self.future is None:
            return "uploading"
        if self.future.cancelled():
            return "refused"
        if not self.future.done():
            return "running" if self.future.running() else "waiting"
        return "done" if self.future.exception() is None else "failed"

    @property
    def seconds_left(self) -> float | None:
        """The expected time to the end; None where it is unknown, and afterwards."""
        return None if self.finished else super().seconds_left

    def result(self) -> Result:
        """Return the record of a finished job.

        Raises:
            RefusedError: for one that failed; 503 for one that a stop of the service refused.
        """
        assert self.future is not None
        if self.future.cancelled():
            raise stopping()
        return self.future.result()


class JobQueue:
    """Jobs of all devices. Threads may share it.

    Args:
        restorers: one for each device, which restores one file at a time.
        folder: for the folders of jobs.
        max_jobs: bound on jobs that are uploaded, wait or run.
        keep_seconds: time from the end of a job to the deletion of its files.
        finished: called with each job that is done, failed or refused.
    """

    def __init__(
        self,
        restorers: Sequence[Restorer],
        folder: Path,
        *,
        max_jobs: int = 64,
        keep_seconds: float = 600.0,
        finished: Callable[[ServiceJob], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_jobs < 1 or not keep_seconds > 0:
            raise ValueError(f"max_jobs and keep_seconds must be positive, got {max_jobs} and {keep_seconds:g}")
        self.restorers, self.folder, self.max_jobs, self.keep_seconds = restorers, folder, max_jobs, keep_seconds
        self.stopping = False
        self._finished, self._clock = finished, clock
        self._places = Semaphore(max_jobs)
        self._devices = [ThreadPoolExecutor(1, thread_name_prefix=f"restore on {one.device}") for one in restorers]
        self._jobs: dict[str, ServiceJob] = {}

    def admit(self) -> ServiceJob:
        """Take a place and make a folder, before anything is uploaded.

        Raises:
            RefusedError: 429 if no place is free, 503 while the service stops.
        """
        if self.stopping:
            raise stopping()
        if not self._places.acquire(blocking=False):
            message = f"all {self.max_jobs} places are taken by requests that wait or run; try again later"
            raise RefusedError(message, HTTPStatus.TOO_MANY_REQUESTS)
        job = ServiceJob(id := secrets.token_hex(16), self.folder / id)
        self._jobs[job.id] = job
        try:
            job.folder.mkdir(mode=0o700)
        except OSError as error:
            self.forget(job)
            message = f"uploads cannot be stored: {error.strerror}"
            raise RefusedError(message, HTTPStatus.SERVICE_UNAVAILABLE) from error
        return job

    def submit(self, job: ServiceJob, request: Request) -> None:
        """Check a request, and put it into the shortest queue.

        Raises:
            RefusedError: as `Restorer.check`; 503 while the service stops.
        """
        job.device = min(range(len(self.restorers)), key=lambda device: sum(self.load(device)))
        restorer, job.request = self.restorers[job.device], request
        restorer.check(request)
        try:
            job.future = self._devices[job.device].submit(_restore, restorer, request, job)
        except RuntimeError as error:  # after the stop
            raise stopping() from error
        job.future.add_done_callback(lambda _: self._end(job))

    def _end(self, job: ServiceJob) -> None:
        job.finished = self._clock()
        self._places.release()
        if self._finished is not None:
            self._finished(job)

    def get(self, id: str) -> ServiceJob:
        """Return a job; a RefusedError with 404 for one that is unknown, forgotten or not submitted yet."""
        job = self._jobs.get(id)
        if job is None or job.future is None:
            raise RefusedError("no such job; results are deleted after a time", HTTPStatus.NOT_FOUND)
        return job

    def forget(self, job: ServiceJob) -> None:
        """Cancel a job unless it is done, and delete its files; a running one ends after its current tile."""
        if self._jobs.pop(job.id, None) is None:
            return
        job.stop.set()
        if job.future is None:
            self._places.release()
            shutil.rmtree(job.folder, ignore_errors=True)
            return
        job.future.cancel()
        job.future.add_done_callback(lambda _: shutil.rmtree(job.folder, ignore_errors=True))

    def expire(self) -> None:
        """Forget the jobs that were done long ago."""
        for job in list(self._jobs.values()):
            if job.finished is not None and self._clock() - job.finished >= self.keep_seconds:
                self.forget(job)

    def load(self, device: int) -> tuple[int, int]:
        """Count the jobs that run and that wait on a device."""
        statuses = [job.status for job in list(self._jobs.values()) if job.device == device]
        return statuses.count("running"), statuses.count("waiting")

    def before(self, job: ServiceJob) -> int:
        """Count the jobs that run before this one."""
        unfinished = [one for one in list(self._jobs.values()) if one.future is not None and one.finished is None]
        ahead = [one for one in unfinished if one.device == job.device]
        return ahead.index(job) if job in ahead else 0

    def stop(self) -> None:
        """Refuse what waits and what comes; what runs goes on."""
        self.stopping = True
        for device in self._devices:
            device.shutdown(wait=False, cancel_futures=True)

    def close(self, *, at_once: bool = False) -> None:
        """Stop, and wait until what runs is done, or `at_once` until its current tile is, and delete all files."""
        self.stop()
        for job in list(self._jobs.values()) if at_once else ():
            job.stop.set()
        for device in self._devices:
            device.shutdown(wait=True)
        for job in list(self._jobs.values()):
            self.forget(job)


def _restore(restorer: Restorer, request: Request, job: ServiceJob) -> Result:
    """Restore a file; a failure is a RefusedError of its own, without the traceback that would keep the image."""
    try:
        return restorer.restore(request, job.target, progress=job.progress, stopped=job.stop.is_set)
    except RefusedError as error:
        failure = RefusedError(str(error), error.status)
    except CancelledError:
        failure = stopping()
    except Exception:
        logger.exception("a restoration failed unexpectedly")
        failure = RefusedError("internal error; the log of the service has it", HTTPStatus.INTERNAL_SERVER_ERROR)
    raise failure


def stopping() -> RefusedError:
    """Return the refusal of a service that stops."""
    return RefusedError("the service is stopping; try again later", HTTPStatus.SERVICE_UNAVAILABLE)

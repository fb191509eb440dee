"""Counts and times of the service for Prometheus. Needs the extra `serve`."""

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swinir.service.queue import JobQueue, ServiceJob

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class ServiceMetrics:
    """The counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answers = Counter(
            "swinir_answers", "Answers by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "swinir_answer_seconds", "Time to an answer", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.jobs = Counter("swinir_jobs", "Jobs by end and device", ["end", "device"], registry=self.registry)
        self.open = Gauge("swinir_open_jobs", "Jobs that run or wait", ["state", "device"], registry=self.registry)
        self.models = Gauge("swinir_models_bytes", "Memory of loaded models", ["device"], registry=self.registry)

    def finished(self, job: ServiceJob) -> None:
        """Count a job that has ended."""
        self.jobs.labels(job.status, job.device).inc()

    def text(self, queue: JobQueue) -> tuple[bytes, int, None, str]:
        """Return the arguments of a response with the current numbers."""
        for number, restorer in enumerate(queue.restorers):
            for state, count in zip(("running", "waiting"), queue.load(number), strict=True):
                self.open.labels(state, number).set(count)
            self.models.labels(number).set(restorer.models.bytes)
        return generate_latest(self.registry), 200, None, CONTENT_TYPE_PLAIN_0_0_4

    def middleware(self) -> Any:
        """Return a middleware that counts the answers."""
        metrics = self

        class Counting:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] != "http":
                    await self.app(scope, receive, send)
                    return
                started = time.perf_counter()

                def count(status: int) -> None:
                    route = getattr(scope.get("route"), "path", "other")  # never a path that a client made up
                    metrics.answers.labels(route, status).inc()
                    metrics.seconds.labels(route).observe(time.perf_counter() - started)

                async def counted(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        count(message["status"])
                    await send(message)

                try:
                    await self.app(scope, receive, counted)
                except Exception:  # answered by an outer layer
                    count(500)
                    raise

        return Counting

"""The HTTP service of `swinir serve`: upload an image, get the restored one; or a job that is asked for later.

    POST /v1/restore -> image, or 202 and a job    GET, DELETE /v1/jobs/ID    GET /v1/jobs/ID/result
    GET /v1/models, /health, /metrics, /docs

Every error is a JSON object with one field, `detail`: the message that the command prints. Needs the extra `serve`.
"""

import asyncio
import hmac
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, UploadFile
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from swinir.image_io.writer import can_hold
from swinir.photos.jobs import Output
from swinir.photos.loaded_models import short_name
from swinir.photos.options import RestoreOptions
from swinir.service.folders import remove_abandoned
from swinir.service.metrics import ServiceMetrics
from swinir.service.queue import JobQueue, ServiceJob
from swinir.service.restorer import Limits, RefusedError, Request, name_on_disk, too_long
from swinir.version import __version__
from swinir.weights.listing import list_models

FORM_BYTES = 2**16  # of an upload beside the file
UPLOAD_SECONDS = 300.0
SWEEP_SECONDS = 10.0


class RestoreForm(BaseModel):
    """The fields of an upload: the file and the options of `swinir restore`, with its defaults."""

    model_config = ConfigDict(extra="forbid")

    image: UploadFile
    scale: float | None = Field(None, description="Enlarge by this factor, up to 64; below 1 reduces.")
    model: str | None = Field(None, description="A name from /v1/models; without one, models are chosen by estimates.")
    task: str | None = Field(None, description="Choose only among models of this task.")
    noise: float | None = Field(None, description="Noise level to remove, instead of the estimate.")
    jpeg: float | None = Field(None, description="JPEG quality to repair, instead of the estimate.")
    strength: float = Field(1.0, description="Share of the repair, 0 to 1.")
    alpha: Literal["model", "bicubic"] = Field("model", description="Way to enlarge transparency.")
    self_ensemble: bool = Field(False, description="Average eight flips and rotations.")
    tile: NonNegativeInt | Literal["auto"] = Field("auto", description="Side of tiles in pixels; 0: no tiles.")
    tile_overlap: NonNegativeInt = Field(64, description="Overlap of tiles in pixels.")
    ext: str = Field("auto", description="Format of the output: auto, png, jpg, webp, tif, avif or bmp.")
    quality: int | None = Field(None, description="Quality of JPEG, WebP and AVIF, 1 to 100.")
    strip_metadata: bool = Field(False, description="Leave out EXIF and XMP.")
    respond_async: bool = Field(False, description="Answer 202 with a job, as the header Prefer: respond-async does.")

    def request(self, folder: Any) -> Request:
        """Return the request for the upload that is stored in a folder; a ValueError for options out of range."""
        options = RestoreOptions(
            scale=self.scale, model=self.model, task=self.task, noise=self.noise, jpeg=self.jpeg,
            strength=self.strength, alpha=self.alpha, tile=self.tile or None, tile_overlap=self.tile_overlap,
            self_ensemble=self.self_ensemble,
        )  # fmt: skip
        output = Output(
            extension=self.ext.removeprefix(".").lower(), quality=self.quality, keep_metadata=not self.strip_metadata
        )
        name = self.image.filename or ""
        return Request(folder / name_on_disk(name), name, options, output)


def make_app(queue: JobQueue, metrics: ServiceMetrics | None = None, *, token: str | None = None) -> FastAPI:
    """Build the service on a queue.

    Args:
        metrics: those that the queue reports to.
        token: that clients must send, as `Authorization: Bearer TOKEN`; None lets everyone in.
    """
    metrics = metrics or ServiceMetrics()
    scheme = HTTPBearer(auto_error=False)

    def authorised(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> None:
        if token is not None and not hmac.compare_digest((sent.credentials if sent else "").encode(), token.encode()):
            raise RefusedError(
                "the token is missing or wrong; send Authorization: Bearer TOKEN", HTTPStatus.UNAUTHORIZED
            )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(queue))
        yield
        sweeping.cancel()

    app = FastAPI(title="SwinIR", version=__version__, lifespan=lifespan, redoc_url=None)
    guarded = [Depends(authorised)]
    app.include_router(_restoration(queue), dependencies=guarded)
    app.include_router(_reports(queue, metrics), dependencies=guarded)

    @app.get("/health")
    def health() -> JSONResponse:
        """Tell whether requests are accepted, and the load of each device."""
        return _health(queue)

    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(metrics.middleware())
    return app


def _restoration(queue: JobQueue) -> APIRouter:
    """The routes that take images and give them back."""
    routes, limits = APIRouter(), queue.restorers[0].limits

    @routes.post("/v1/restore", openapi_extra=_documented_form(), responses=_documented_answers())
    async def restore(http: HttpRequest, prefer: Annotated[str, Header()] = "") -> Response:
        """Restore an image as `swinir restore` does."""
        job = queue.admit()
        try:
            form = await _read_form(http, limits)
            request = await run_in_threadpool(_store, form, job)
            await run_in_threadpool(queue.submit, job, request)
            if form.respond_async or "respond-async" in prefer:
                place = f"/v1/jobs/{job.id}"
                return JSONResponse(_described(queue, job), HTTPStatus.ACCEPTED, {"Location": place})
            await _finished(job, http)
            return _output(job, BackgroundTask(queue.forget, job))
        except BaseException:
            queue.forget(job)
            raise

    @routes.get("/v1/jobs/{id}")
    def job(id: str) -> dict[str, Any]:
        """Show the progress of a job, and its record when it is done."""
        return _described(queue, queue.get(id))

    @routes.get("/v1/jobs/{id}/result", responses=_documented_answers())
    def result(id: str) -> Response:
        """Download the output of a job."""
        return _output(queue.get(id))

    @routes.delete("/v1/jobs/{id}", status_code=HTTPStatus.NO_CONTENT)
    def cancel(id: str) -> None:
        """Cancel a job, unless it is done, and delete its files."""
        queue.forget(queue.get(id))

    return routes


def _reports(queue: JobQueue, metrics: ServiceMetrics) -> APIRouter:
    """The routes that tell about models and numbers."""
    routes = APIRouter()

    @routes.get("/v1/models")
    def models() -> list[dict[str, Any]]:
        """List the models that a request may name."""
        rows = [asdict(row) for row in list_models() if row.state in ("bundled", "downloaded")]
        return [*rows, *({"name": name} for name in queue.restorers[0].experts)]

    @routes.get("/metrics")
    def measured() -> Response:
        """Report counts and times in the format of Prometheus."""
        return Response(*metrics.text(queue))

    return routes


def _health(queue: JobQueue) -> JSONResponse:
    devices = [
        {"device": str(one.device)} | dict(zip(("running", "waiting"), queue.load(number), strict=True))
        for number, one in enumerate(queue.restorers)
    ]
    state = {"status": "stopping" if queue.stopping else "ok", "version": __version__, "devices": devices}
    return JSONResponse(state, HTTPStatus.SERVICE_UNAVAILABLE if queue.stopping else HTTPStatus.OK)


async def _refused(_: HttpRequest, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    headers = {"Retry-After": "10"} if error.status in (429, 503) else {}
    headers |= {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
    return JSONResponse({"detail": str(error)}, error.status, headers)


async def _failed(_: HttpRequest, error: Exception) -> JSONResponse:
    message = "internal error; the log of the service has it"
    return JSONResponse({"detail": message}, HTTPStatus.INTERNAL_SERVER_ERROR)


async def _sweep(queue: JobQueue) -> None:
    while True:
        await run_in_threadpool(remove_abandoned, queue.folder.parent)
        await run_in_threadpool(queue.expire)
        await asyncio.sleep(SWEEP_SECONDS)


async def _read_form(http: HttpRequest, limits: Limits) -> RestoreForm:
    """Read an upload of limited length in limited time. The file is spooled to the disk without a name."""
    if not http.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        message = "send multipart/form-data, with the file in the field image"
        raise RefusedError(message, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    most, seen = limits.max_bytes + FORM_BYTES, 0
    length = http.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_long("the upload", limits)

    async def receive() -> Message:
        nonlocal seen
        message = await http.receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_long("the upload", limits)
        return message

    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            fields = await HttpRequest(http.scope, receive).form(max_files=1, max_fields=len(RestoreForm.model_fields))
        return RestoreForm.model_validate(dict(fields))
    except TimeoutError as error:
        message = f"the upload took more than {UPLOAD_SECONDS:g} s"
        raise RefusedError(message, HTTPStatus.REQUEST_TIMEOUT) from error
    except ClientDisconnect as error:
        raise RefusedError("the client has gone", HTTPStatus.BAD_REQUEST) from error
    except HTTPException as error:  # of a body that is not what its header says
        raise RefusedError(f"the body is no multipart/form-data: {error.detail}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'][:1]))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise RefusedError("; ".join(dict.fromkeys(faults))) from error


def _store(form: RestoreForm, job: ServiceJob) -> Request:
    """Write the upload into the folder of its job."""
    try:
        request = form.request(job.folder)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    try:
        with request.source.open("xb") as file:
            shutil.copyfileobj(form.image.file, file, 2**20)
    except OSError as error:
        message = f"uploads cannot be stored: {error.strerror}"
        raise RefusedError(message, HTTPStatus.SERVICE_UNAVAILABLE) from error
    finally:
        form.image.file.close()
    return request


async def _finished(job: ServiceJob, http: HttpRequest) -> None:
    """Wait until a job is done; a client that disconnects meanwhile gives up its place."""
    assert job.future is not None
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.set)

    job.future.add_done_callback(tell)
    waiting = [asyncio.create_task(done.wait()), asyncio.create_task(_disconnected(http))]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    if not done.is_set():
        raise RefusedError("the client has gone", HTTPStatus.BAD_REQUEST)


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _output(job: ServiceJob, afterwards: BackgroundTask | None = None) -> FileResponse:
    """The restored image, under the name that the command gives it."""
    assert job.request is not None
    if job.status in ("waiting", "running"):
        raise RefusedError(f"the job is {job.status}; ask again later", HTTPStatus.CONFLICT)
    job.result()
    kind = can_hold(job.target.suffix).name.lower()
    return FileResponse(job.target, media_type=f"image/{kind}", filename=job.request.output_name, background=afterwards)


def _described(queue: JobQueue, job: ServiceJob) -> dict[str, Any]:
    """A job as JSON. The record is that of results.jsonl, with the names that the client knows."""
    assert job.request is not None
    state: dict[str, Any] = {"id": job.id, "status": job.status, "share": job.share, "seconds_left": job.seconds_left}
    if job.status == "waiting":
        state["before"] = queue.before(job)
    if job.finished is None:
        return state
    try:
        record = asdict(job.result())
    except RefusedError as error:
        return state | {"detail": str(error), "code": error.status}
    experts = [(short_name(name), digest) for name, digest in record["experts"]]
    names = {"input": job.request.name, "output": job.request.output_name, "experts": experts}
    return state | {"result": f"/v1/jobs/{job.id}/result", "record": record | names}


def _documented_form() -> dict[str, Any]:
    return {"requestBody": {"content": {"multipart/form-data": {"schema": RestoreForm.model_json_schema()}}}}


def _documented_answers() -> dict[int | str, dict[str, Any]]:
    causes = {
        401: "no token, or a wrong one", 413: "too many bytes or pixels", 415: "no image that can be read",
        422: "a damaged image, or an option out of range", 429: "too many requests", 503: "stopping, or no room",
    }  # fmt: skip
    schema = {"type": "object", "properties": {"detail": {"type": "string"}}}
    errors: dict[int | str, dict[str, Any]] = {
        code: {"description": cause, "content": {"application/json": {"schema": schema}}}
        for code, cause in causes.items()
    }
    binary = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"description": "the restored image", "content": binary}} | errors

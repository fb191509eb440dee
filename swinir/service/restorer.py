"""One process that restores the files of many users: `swinir restore` with limits, progress, cancellation and a budget.

    Request (a file, its name, options) -> Restorer.check (limits, by the header) -> Restorer.restore -> Result

Messages are those of the command, with the name that the user knows in place of the path.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path, PureWindowsPath
from threading import Event, Lock

from swinir.image_io.errors import ImageError, TooManyPixelsError, UnknownFormatError, named
from swinir.image_io.picture import Picture
from swinir.image_io.reader import EXTENSIONS, MAX_PIXELS, probe, read_picture
from swinir.inference.device import choose_device
from swinir.inference.memory import free_memory
from swinir.inference.options import RunOptions
from swinir.locks import POLL
from swinir.photos.batch import Policy, restore_files
from swinir.photos.expectation import Stopwatch, expect
from swinir.photos.jobs import Job, Output, describe_request
from swinir.photos.loaded_models import LoadedModels, load_by
from swinir.photos.manifest import OutputError, Result
from swinir.photos.options import RestoreOptions
from swinir.photos.restore_photo import Decision, Treatment, decide
from swinir.weights import zoo

MOST_LETTERS = 100  # of a file name that is shown
Progress = Callable[[float, float | None], None]


class RefusedError(Exception):
    """A request that is not fulfilled; the message is one line for the user, and `status` its class in HTTP.

    It is no ValueError, which the batch would record as a failure and keep from the caller.
    """

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY) -> None:
        super().__init__(message)
        self.status = status


class CancelledError(Exception):
    """A restoration that was stopped because its user asked for it."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one request may take.

    Attributes:
        max_bytes: of the file.
        max_pixels: of the image.
        max_output_pixels: of the output, and of images between passes.
        max_seconds: of the restoration; checked after each tile.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_output_pixels: int = 200_000_000
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value:g}")
        if self.max_pixels > MAX_PIXELS:
            raise ValueError(f"max_pixels must be at most {MAX_PIXELS}, got {self.max_pixels}")


@dataclass(frozen=True)
class Request:
    """One file of a user.

    Attributes:
        source: the file.
        name: as the user named it; made fit for one line. It is shown, and never opened.
        options: how to restore it. Precision and compilation are those of the `Restorer`.
        output: name and format of the output.
    """

    source: Path
    name: str
    options: RestoreOptions = field(default_factory=RestoreOptions)
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", safe_name(self.name))

    @property
    def output_name(self) -> str:
        """The name that `swinir restore` gives the output."""
        naming = replace(self.output, request=describe_request(self.options.treatment))
        return naming.name(Path(self.name))


@dataclass(eq=False, kw_only=True)
class Watch:
    """Progress of a restoration in another thread, as last reported, and the wish to stop it.

    Attributes:
        share: done so far.
        stop: set to end it after the current tile.
    """

    share: float = 0.0
    stop: Event = field(default_factory=Event)
    _end: float | None = None

    def progress(self, share: float, left: float | None) -> None:
        """Note the share that is done and the seconds that are left."""
        self.share, self._end = share, None if left is None else time.monotonic() + left

    @property
    def seconds_left(self) -> float | None:
        """The seconds that are left now; None where they are unknown."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


class Restorer:
    """Models that stay loaded on one device, and the restoration of one file at a time through them.

    Threads may share it: the second waits for the first.

    Args:
        device: cpu, cuda, cuda:1; None is a GPU if there is one.
        budget: bytes for loaded models; None is a share of the free memory. The model used longest ago leaves first.
        limits: for each request.
        experts: checkpoints that requests may name by their file name, beside those of the zoo.
        precision, compile, backend: as `swinir restore` takes them; they hold for all requests.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        budget: float | None = None,
        limits: Limits | None = None,
        experts: Sequence[Path] = (),
        precision: str = "auto",
        compile: bool = False,
        backend: str | None = None,
    ) -> None:
        self.device, self.limits = choose_device(device), limits or Limits()
        self.run = RunOptions(precision=precision, compile=compile)
        self.models = LoadedModels(self.device, budget, load_by(backend, self.device, precision), self.run)
        self.experts = {path.name: path for path in experts}
        if len(self.experts) < len(experts):
            raise ValueError(f"two of the models have one file name: {', '.join(map(str, experts))}; rename one")
        self.stopwatch = Stopwatch()
        self._busy = Lock()

    def check(self, request: Request) -> None:
        """Refuse what is refused without decoding: a file that is too large or no image, and an unknown model.

        Raises:
            RefusedError: with the status 413, 415 or 422.
        """
        size = request.source.stat().st_size
        if size > self.limits.max_bytes:
            raise too_long(request.name, self.limits)
        try:
            probe(request.source, max_pixels=self.limits.max_pixels)
        except ImageError as error:
            raise _refused(request, error) from error
        self._treatment(request)

    def plan(self, request: Request) -> Decision:
        """Return what `restore` would do: the estimates, the models and the reasons for each.

        Raises:
            RefusedError: for an image that cannot be read, and models that are not there.
        """
        self.check(request)
        try:
            picture = read_picture(request.source, max_pixels=self.limits.max_pixels)
            return decide(picture, self._treatment(request), self.models)
        except ValueError as error:
            raise _refused(request, error) from error

    def restore(
        self,
        request: Request,
        target: Path,
        *,
        progress: Progress | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Result:
        """Restore a file exactly as `swinir restore` does, and record it beside the output.

        Args:
            target: the output; a file of that name is replaced.
            progress: called with the share that is done and the seconds that are left, None where these are unknown.
            stopped: asked after each tile; true cancels the restoration.

        Raises:
            RefusedError: with the message that the command prints for the image.
            CancelledError: when `stopped` said so; there is no output.
        """
        self.check(request)
        treatment = self._treatment(request)
        run = _Run(self, request, treatment, progress or (lambda share, left: None), stopped or (lambda: False))
        while not self._busy.acquire(timeout=POLL):
            run.stop_if_asked()
        try:
            policy = Policy("overwrite", max_pixels=self.limits.max_pixels)
            (result,) = restore_files(
                [Job(request.source, target)], target.parent, treatment, self.models, request.output, policy,
                planned=run.planned, progress=run.progressed,
            )  # fmt: skip
        except OSError as error:  # of which OutputError advises to run the command again
            cause = error.__cause__ if isinstance(error, OutputError) else error
            message = f"{request.name}: the output cannot be written: {getattr(cause, 'strerror', None) or cause}"
            raise RefusedError(message, HTTPStatus.SERVICE_UNAVAILABLE) from error
        finally:
            self._busy.release()
        if result.status == "failed":
            raise RefusedError(_shown(request, result.error.replace(named(target), request.output_name)))
        return result

    def _treatment(self, request: Request) -> Treatment:
        """The options for the functions that restore; a model is a name that is known, never a path."""
        options = replace(request.options, precision=self.run.precision, compile=self.run.compile)
        model = options.model
        if model is not None and str(model) in self.experts:
            options = replace(options, model=self.experts[str(model)])
        elif model is not None:
            try:
                if len(Path(model).parts) > 1:
                    raise ValueError(f"model must be a name from `swinir zoo list`, got {str(model)!r}")
                zoo.locate(model)
            except (ValueError, FileNotFoundError) as error:
                raise RefusedError(str(error)) from error
        return options.treatment


class _Run:
    """The limits, the progress and the end of one restoration."""

    def __init__(
        self,
        restorer: Restorer,
        request: Request,
        treatment: Treatment,
        progress: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        self.restorer, self.request, self.treatment = restorer, request, treatment
        self.progress, self.stopped = progress, stopped
        self.started = time.monotonic()

    def stop_if_asked(self) -> None:
        if self.stopped():
            raise CancelledError(f"{self.request.name} was cancelled")

    def planned(self, _job: Job, picture: Picture, decision: Decision) -> None:
        """Check the sizes of the output and of tiles, and announce the expected time."""
        self.stop_if_asked()
        models, limit = self.restorer.models, self.restorer.limits.max_output_pixels
        height, width = picture.pixels.shape[:2]
        factor = math.prod(models.scale(*step) for step in decision.steps)
        for wide, high in ((decision.size[1], decision.size[0]), (round(width * factor), round(height * factor))):
            if wide * high > limit:
                raise RefusedError(
                    f"{self.request.name}: {width}x{height} would become {wide}x{high}, more than the limit of "
                    f"{limit / 1e6:g} megapixels; ask for a smaller scale",
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                )
        expected = expect(picture, decision, self.treatment, models)
        if expected.tile_bytes > free_memory(self.restorer.device):
            raise RefusedError(
                f"{self.request.name}: tiles of this size need {expected.tile_bytes / 1e9:.1f} GB of memory, "
                "more than is free; leave tile and tile_overlap out"
            )
        compiled = self.treatment.run.compile  # which is slow at first
        self.progress(0.0, None if compiled else self.restorer.stopwatch.seconds(expected, self.treatment, models))
        self.started = time.monotonic()

    def progressed(self, _job: Job, share: float) -> None:
        """Pass the progress on; end the work when it was cancelled or takes too long."""
        self.stop_if_asked()
        spent, limit = time.monotonic() - self.started, self.restorer.limits.max_seconds
        if spent > limit and share < 1:
            raise RefusedError(
                f"{self.request.name}: not done after {limit:g} s, the limit; a smaller image or scale takes less",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
        self.progress(share, spent * (1 - share) / share if share else None)


def safe_name(name: str) -> str:
    """Return the last part of a name that a client sent, fit for one line; it is shown, and never opened."""
    last = re.sub(r"[^\w .()+,=@-]", "_", PureWindowsPath(name).name)  # which takes both kinds of slashes
    return last[-MOST_LETTERS:].lstrip(". ") or "image"


def name_on_disk(name: str) -> str:
    """Return a name for an uploaded file: only the suffix is the client's, where it is one of an image."""
    suffix = Path(name).suffix.lower()
    return f"input{suffix if suffix in EXTENSIONS else ''}"


def too_long(name: str, limits: Limits) -> RefusedError:
    """Return the refusal of a file that has too many bytes."""
    message = f"{name}: more than the limit of {limits.max_bytes:,} bytes; save it smaller, or in another format"
    return RefusedError(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _refused(request: Request, error: ValueError) -> RefusedError:
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, TooManyPixelsError):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if isinstance(error, UnknownFormatError):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return RefusedError(_shown(request, str(error)), status)


def _shown(request: Request, message: str) -> str:
    """A message with the name that the user knows."""
    return message.replace(named(request.source), request.name)

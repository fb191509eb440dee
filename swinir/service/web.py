"""The page of `swinir web`, built with gradio: images in, estimates and choices, progress, before and after, downloads.

files, choices -> Page.plan -> estimates and models; Page.restore -> progress, outputs -> Page.show
"""

import asyncio
import os
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from swinir.image_io.reader import probe, read_picture
from swinir.photos.expectation import megapixels
from swinir.photos.loaded_models import short_name
from swinir.photos.manifest import Records, Result
from swinir.photos.options import RestoreOptions
from swinir.photos.restore_photo import Decision
from swinir.report.restore_page import fitted_size, jpeg_bytes, write_report
from swinir.service.restorer import RefusedError, Request, Restorer, Watch
from swinir.service.web_examples import write_examples
from swinir.service.web_texts import TEXTS, language_of
from swinir.weights import zoo

AUTO = "auto"
TILES = ("128", "256", "512", "1024")
LARGEST_SCALE = 8
MOST_PLANNED = 6  # images whose estimates are shown
SHOWN_SIDE = 2048  # longest side of images under the slider, in pixels
BAR = Markup('<div class="bar" role="progressbar" aria-valuenow="{0}"><div style="width: {0}%"></div></div>')
POLL = 0.3  # seconds between two looks at a restoration


@dataclass(frozen=True)
class PageLimits:
    """Bounds of the page, beside those of the `Restorer` for each image.

    Attributes:
        max_files: in one restoration.
        max_waiting: requests that wait for their turn.
        max_stored: bytes of uploads and outputs at one time.
        keep: seconds for which they are kept.
    """

    max_files: int = 100
    max_waiting: int = 20
    max_stored: int = 10 * 2**30
    keep: float = 3600.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value:g}")


class Page:
    """The components, and what they do. All files lie in one folder, which gradio serves.

    Attributes:
        closed: stops what runs.
    """

    def __init__(self, restorer: Restorer, limits: PageLimits, folder: Path) -> None:
        self.restorer, self.limits, self.folder, self.closed = restorer, limits, folder, False
        self.pool = ThreadPoolExecutor(4)  # one works; others end
        self.examples = write_examples(folder / "examples")
        keep = {"keep": f"{limits.keep / 60:g}"}
        self.texts = gr.I18n(
            **{tag: TEXTS[tag[:2]] | {"intro": TEXTS[tag[:2]]["intro"].format(**keep)}
               for tag in ("en", "zh", "zh-CN", "zh-TW")}
        )  # fmt: skip
        with gr.Blocks(analytics_enabled=False, title="SwinIR") as self.blocks:
            self._build()
        self.blocks.queue(max_size=limits.max_waiting, api_open=False)

    def _build(self) -> None:
        texts = self.texts
        gr.Markdown(texts("title"))
        gr.Markdown(texts("intro"))
        with gr.Row():
            with gr.Column(min_width=300):
                self.files = gr.File(label=texts("files"), file_count="multiple", height=170, elem_id="files")
                gr.Markdown(texts("examples"))
                gallery = gr.Gallery(
                    [str(path) for path, _ in self.examples], columns=3, allow_preview=False,
                    interactive=False, object_fit="cover", buttons=[], show_label=False, elem_id="examples",
                )  # fmt: skip
                with gr.Accordion(texts("options"), open=False, elem_id="options"):
                    self._options()
                with gr.Row():
                    start = gr.Button(texts("restore"), variant="primary", min_width=100, elem_id="restore")
                    stop = gr.Button(texts("cancel"), min_width=100, elem_id="cancel")
            with gr.Column(scale=2, min_width=300):
                self.plans = gr.HTML(elem_id="plans", elem_classes="swinir", min_height=40)
                self.status = gr.HTML(elem_id="status", elem_classes="swinir", min_height=40)
                self.slider = gr.ImageSlider(
                    label=texts("result"), interactive=False, max_height=640, buttons=["fullscreen"], elem_id="slider"
                )
                gr.Markdown(texts("result_info"))
                self.which = gr.Dropdown(label=texts("which"), visible=False, elem_id="which")
                self.downloads = gr.File(
                    label=texts("downloads"), visible=False, interactive=False, file_count="multiple",
                    elem_id="downloads",
                )  # fmt: skip
        self.files.async_move_resource_to_block_cache = _sent(self.files.async_move_resource_to_block_cache)
        self.pairs = gr.State([])  # paths of inputs and outputs
        given = {self.files, self.scale, self.strength, self.task, self.model, self.tile}
        shown = [self.status, self.slider, self.which, self.downloads, self.pairs]
        private: dict[str, Any] = {"api_visibility": "private"}
        gr.on(
            [component.change for component in given], self.plan, given, self.plans,
            trigger_mode="always_last", show_progress="minimal", **private,
        )  # fmt: skip
        run = start.click(
            self.restore, given, shown, concurrency_limit=1, show_progress="minimal",
            show_progress_on=[self.status], **private,
        )  # fmt: skip
        stop.click(self.cancelled, None, self.status, cancels=[run], **private)
        self.which.input(self.show, [self.which, self.pairs], self.slider, **private)
        gallery.select(self.choose_example, None, [self.files, self.scale], **private)

    def _options(self) -> None:
        texts = self.texts
        models = [entry.alias for entry in zoo.present()] + list(self.restorer.experts)
        self.scale = gr.Slider(1, LARGEST_SCALE, 1, step=0.5, label=texts("scale"), info=texts("scale_info"))
        self.strength = gr.Slider(0, 1, 1, step=0.05, label=texts("strength"), info=texts("strength_info"))
        self.task = gr.Dropdown([AUTO, *zoo.TASK_IN_NAME], value=AUTO, label=texts("task"), elem_id="task")
        self.model = gr.Dropdown([AUTO, *models], value=AUTO, label=texts("model"), elem_id="model")
        self.tile = gr.Dropdown([AUTO, *TILES], value=AUTO, label=texts("tile"), elem_id="tile")

    def _requests(self, given: dict[Any, Any]) -> list[Request]:
        """One request for each file, all with the options of the page."""
        scale, task, model, tile = (given[part] for part in (self.scale, self.task, self.model, self.tile))
        files = list(dict.fromkeys(map(Path, given[self.files] or ())))
        if len(files) > self.limits.max_files:
            limit = self.limits.max_files
            raise RefusedError(f"{len(files)} images are more than the limit of {limit}; restore them in parts")
        for file in files:
            if not file.exists():
                raise RefusedError(f"{file.name} was deleted after {self.limits.keep / 60:g} minutes; upload it again")
        try:
            options = RestoreOptions(
                scale=None if scale == 1 else scale,
                model=None if model == AUTO else model,
                task=None if task == AUTO else task,
                strength=given[self.strength],
                tile="auto" if tile == AUTO else int(tile),
            )
        except ValueError as error:
            raise RefusedError(str(error)) from error
        return [Request(file, file.name, options) for file in files]

    def plan(self, given: dict[Any, Any], request: gr.Request) -> str:
        """Describe what would be done with each image."""
        texts = _texts(request)
        try:
            requests = self._requests(given)
        except RefusedError as error:
            return _failure(error)
        parts = []
        for each in requests[:MOST_PLANNED]:
            try:
                parts.append(_describe(each, self.restorer.plan(each), texts))
            except RefusedError as error:
                parts.append(_failure(error))
        if len(requests) > MOST_PLANNED:
            parts.append(_line(texts["more"].format(count=len(requests) - MOST_PLANNED)))
        return Markup("").join(parts)

    async def restore(self, given: dict[Any, Any], request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        """Restore the images one after another, and show progress, failures and outputs."""
        texts, started = _texts(request), time.monotonic()
        pairs: list[tuple[str, str]] = []
        failures: list[str] = []
        requests: list[Request] = []
        yield {self.slider: None, self.which: gr.update(visible=False), self.downloads: gr.update(visible=False)}
        try:
            requests = self._requests(given)
            if not requests:
                failures.append(texts["no_files"])
        except RefusedError as error:
            failures.append(str(error))
        requests, outputs = self._prepare(requests)
        sizes = [megapixels(each.source) for each in requests]
        for number, each in enumerate(requests):
            target, watch = _free_name(outputs / each.output_name), Watch()
            stopped = lambda watch=watch: watch.stop.is_set() or self.closed  # noqa: E731 - of this image
            run = self.pool.submit(self.restorer.restore, each, target, progress=watch.progress, stopped=stopped)
            try:
                while not run.done():
                    words = [f"{number + 1}/{len(requests)}", each.name, f"{watch.share:.0%}"]
                    if (left := watch.seconds_left) is not None:
                        rate = (time.monotonic() - started + left) / (sum(sizes[: number + 1]) or 1)
                        words.append(texts["left"].format(time=_clock(left + rate * sum(sizes[number + 1 :]))))
                    share = (number + watch.share) / len(requests)
                    yield {self.status: _status(failures, " · ".join(words), share)}
                    await asyncio.sleep(POLL)
                run.result()
                pairs.append((str(each.source), str(target)))
            except RefusedError as error:
                failures.append(str(error))
                Records(outputs).add(Result(str(each.source), str(target), "failed", error=str(error)))
            finally:  # also when the user cancels or leaves
                watch.stop.set()
        text = texts["done"].format(count=len(pairs), time=_clock(time.monotonic() - started)) if pairs else ""
        shown = await asyncio.to_thread(self._outcome, pairs)
        yield shown | {self.status: _status(failures, text)}

    def _prepare(self, requests: Sequence[Request]) -> tuple[list[Request], Path]:
        """Give the files of one restoration a folder of their own, under their names, and make one for the outputs."""
        work = Path(tempfile.mkdtemp(dir=self.folder))
        inputs, outputs = work / "inputs", work / "restored"
        inputs.mkdir()
        outputs.mkdir()
        prepared = []
        for each in requests:
            source = _free_name(inputs / each.name)
            os.link(each.source, source)
            prepared.append(replace(each, source=source, name=source.name))
        return prepared, outputs

    def _outcome(self, pairs: list[tuple[str, str]]) -> dict[Any, Any]:
        """The page after a restoration; with several images, an archive of the outputs and a report come first."""
        files = [output for _, output in pairs]
        if len(files) > 1:
            folder = Path(files[0]).parent
            archive, report = folder.with_name("restored.zip"), folder.with_name("report.html")
            with zipfile.ZipFile(archive, "w") as target:
                for file in files:
                    target.write(file, Path(file).name)
            write_report(report, folder)
            files = [str(archive), str(report), *files]
        names = [(Path(output).name, number) for number, (_, output) in enumerate(pairs)]
        return {
            self.slider: self.show(0, pairs),
            self.which: gr.update(choices=names, value=0 if names else None, visible=len(names) > 1),
            self.downloads: gr.update(value=files or None, visible=bool(files)),
            self.pairs: pairs,
        }

    def cancelled(self, request: gr.Request) -> str:
        """Say that the restoration was cancelled."""
        return _line(_texts(request)["cancelled"])

    def show(self, number: int, pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
        """Return an image before and after, at one size, as files that a browser shows."""
        if not pairs:
            return None
        before, after = (read_picture(path) for path in pairs[number])
        height, width = after.pixels.shape[:2]
        size = fitted_size(width, height, SHOWN_SIDE)
        shown = []
        for picture in (before, after):
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".jpg", delete=False) as file:
                file.write(jpeg_bytes(picture, size))
            shown.append(file.name)
        return shown[0], shown[1]

    def choose_example(self, event: gr.SelectData) -> tuple[list[str], float]:
        """Take an example as if it had been uploaded, with the scale that it is for."""
        path, scale = self.examples[int(event.index)]
        return [str(path)], scale


def _sent(move: Callable[[Any], Awaitable[str | None]]) -> Callable[[Any], Awaitable[str | None]]:
    """Let a component take files that were sent, and no addresses on the web, which gradio would fetch."""

    async def take(file: str | Path | None) -> str | None:
        if "://" in str(file):
            raise gr.Error(f"{file} is a web address; download the image and upload it", print_exception=False)
        return await move(file)

    return take


def _texts(request: gr.Request) -> dict[str, str]:
    return TEXTS[language_of(request.headers.get("accept-language", ""))]


def _describe(request: Request, decision: Decision, texts: dict[str, str]) -> Markup:
    """One image: its size and that of the output, the estimates, the models and the reasons."""
    header = probe(request.source)
    height, width = decision.size
    lines = [f"{request.name}: {header.width}×{header.height} → {width}×{height}"]
    if (found := decision.measured) is not None:
        quality = "no_jpeg" if found.jpeg_quality is None else "jpeg"
        jpeg = texts[quality].format(quality=f"{found.jpeg_quality or 0:.0f}")
        lines.append(texts["estimates"].format(noise=f"{found.noise_level:.1f}", jpeg=jpeg))
    models = ", ".join(map(short_name, decision.models)) or texts["no_models"]
    lines.append(texts["models"].format(models=models))
    reasons = Markup("").join(map(_line, (*decision.findings, *decision.notes)))
    fold = Markup("<details><summary>{}</summary>{}</details>").format(texts["reasons"], reasons)
    return Markup('<div class="image">{}{}</div>').format(Markup("").join(map(_line, lines)), fold)


def _line(text: str) -> Markup:
    return Markup("<p>{}</p>").format(text)


def _failure(error: object) -> Markup:
    return Markup('<p class="failed">{}</p>').format(error)


def _status(failures: Sequence[str], text: str, share: float | None = None) -> Markup:
    """A bar, a line of text, and a line for each failure."""
    bar = Markup("") if share is None else BAR.format(round(share * 100))
    return bar + _line(text) + Markup("").join(map(_failure, failures))


def _free_name(path: Path) -> Path:
    """Return the path, with a number if another output has its name."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(free for free in chain([path], numbered) if not free.exists())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"

"""The server of `swinir web`: one process, one folder for uploads and outputs, and the limits around the page.

Page -> web_app (an application with Guard around it) -> run_page (until it is stopped)
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swinir.locks import LOCK
from swinir.service.restorer import Restorer
from swinir.service.web import Page, PageLimits

STYLE = """
.gradio-container {max-width: 1200px !important; margin: auto !important}
.swinir .bar {height: 0.7em; border-radius: 0.4em; overflow: hidden; background: #8884}
.swinir .bar div {height: 100%; background: #f97316}
.swinir p, .swinir details {margin: 0.2em 0; overflow-wrap: anywhere}
.swinir .image {margin-bottom: 0.8em}
#examples .grid-wrap {min-height: 0; height: auto}
#examples .grid-container {grid-template-columns: repeat(3, minmax(0, 1fr)) !important}
.swinir .failed {color: #b91c1c}
.dark .swinir .failed {color: #fca5a5}
"""
# Browsers load nothing from elsewhere, whatever gradio's page or an uploaded file asks for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'self'"
)
HEADERS = ((b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"))


class Guard:
    """Limits around the application of gradio: room on the disk, and no addresses on the web."""

    def __init__(self, app: ASGIApp, folder: Path, limits: PageLimits) -> None:
        self.app, self.folder, self.limits = app, folder, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on and add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """The response to a request that gradio must not see."""
        path = scope["path"]
        if "file=http" in path or "proxy=" in path:
            return PlainTextResponse("addresses on the web are not fetched", 403)
        if path.endswith("/upload"):
            announced = int(Headers(scope=scope).get("content-length", "0"))
            if announced + stored_bytes(self.folder) > self.limits.max_stored:
                minutes = f"{self.limits.keep / 60:g}"
                return PlainTextResponse(f"no room for more images; try again in {minutes} minutes", 507)
        return None


def web_app(restorer: Restorer, limits: PageLimits, folder: Path) -> FastAPI:
    """Build the page as an application, which keeps its files in a folder.

    Environment variables tell gradio the folder, so a process has one page at a time.
    """
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_EXAMPLES_CACHE": str(folder / "examples")}
    page = Page(restorer, limits, folder)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep_forever(folder, limits.keep))
        yield
        sweeping.cancel()

    app = gr.mount_gradio_app(
        FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None), page.blocks, path="/",
        footer_links=[], run_history=False, show_error=True, max_file_size=restorer.limits.max_bytes,
        ssr_mode=False, enable_monitoring=False, mcp_server=False, i18n=page.texts, css=STYLE,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )  # fmt: skip
    served = app.routes[-1].app  # which gradio mounted last

    def close() -> None:
        page.closed = True
        page.blocks._queue.close()
        served.stop_event.set()

    app.state.close = close
    page.blocks.has_launched = True  # until then, gradio does not check where files come from
    app.add_middleware(Guard, folder=folder, limits=limits)
    return app


class PageServer(uvicorn.Server):
    """A server that, when it is asked to stop, first ends the restorations and the connections that pages hold open."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, server_header=False, log_level="warning", timeout_graceful_shutdown=2))
        self.app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop what runs, and wait for open connections."""
        self.app.state.close()
        await super().shutdown(sockets)


async def _sweep_forever(folder: Path, keep: float) -> None:
    while True:
        await asyncio.sleep(min(60.0, keep))
        await asyncio.to_thread(sweep, folder, keep)


def sweep(folder: Path, keep: float) -> None:
    """Delete files and empty folders that are older than `keep` seconds, except for the examples and the lock.

    gradio's own `delete_cache` forgets what was never shown: records, and outputs of restorations that were cancelled.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # the content of a folder before the folder
        if path.relative_to(folder).parts[0] in ("examples", LOCK):
            continue
        with suppress(OSError):  # not empty, or gone
            if time.time() - path.lstat().st_mtime > keep:
                path.rmdir() if path.is_dir() else path.unlink()


def stored_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total

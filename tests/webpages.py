"""The page of `swinir web` in this process: its handlers without a browser, and the page behind an address."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import httpx

from swinir.service.restorer import RefusedError, Restorer
from swinir.service.web_app import PageServer, web_app


class Paused(Restorer):
    """A restorer that waits at half of the work, with 42 seconds left, until it is `released` or stopped."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.reset()

    def reset(self):
        """Wait again; restorations that wait already keep the events that they began with."""
        self.waiting, self.released, self.left = threading.Event(), threading.Event(), threading.Event()

    def restore(self, request, target, *, progress=None, stopped=None):
        waiting, released, left = self.waiting, self.released, self.left
        progress(0.5, 42.0)
        waiting.set()
        while not released.wait(0.02):
            if stopped():
                left.set()
                raise RefusedError("stopped")
        return super().restore(request, target, progress=progress, stopped=stopped)


@contextmanager
def serving(restorer, limits, folder):
    """Serve the page from a thread, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = PageServer(web_app(restorer, limits, folder))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def visitor(language="en"):
    """The request of a browser with that language."""
    return SimpleNamespace(headers={"accept-language": language})


def chosen(page, files, **choices):
    """What the page passes to its handlers: files, and the choices that differ from those at first."""
    values = {"scale": 1, "strength": 1, "task": "auto", "model": "auto", "tile": "auto"} | choices
    return {page.files: [str(file) for file in files], **{getattr(page, name): value for name, value in values.items()}}


def restored(page, files, language="en", **choices):
    """The status, the downloads and the slider after a restoration."""

    async def last():
        shown = {}
        async for changes in page.restore(chosen(page, files, **choices), visitor(language)):
            shown |= changes
        return shown

    shown = asyncio.run(last())
    return str(shown[page.status]), shown[page.downloads]["value"] or [], shown[page.slider]


def join(address, name, path, session):
    """Call a function of the page on a file as a browser does, with the other choices as they are at first."""
    config = httpx.get(f"{address}/config").json()
    components = {component["id"]: component for component in config["components"]}
    function = next(each for each in config["dependencies"] if each["api_name"] == name)
    file = [{"path": str(path), "meta": {"_type": "gradio.FileData"}}]
    inputs = [components[number] for number in function["inputs"]]
    data = [file if component["type"] == "file" else component["props"]["value"] for component in inputs]
    body = {"fn_index": function["id"], "session_hash": session, "data": data}
    return httpx.post(f"{address}/gradio_api/queue/join", json=body)


def answer(address, name, path, session):
    """The last message about such a call."""
    assert join(address, name, path, session).status_code == 200
    with httpx.stream("GET", f"{address}/gradio_api/queue/data", params={"session_hash": session}, timeout=60) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data:") or "{}")
            if message.get("msg") == "process_completed":
                return message
    raise AssertionError("no answer")

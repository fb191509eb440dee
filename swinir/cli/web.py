"""`swinir web`: a page in the browser that restores images."""

from typing import Annotated

import typer
from typer import Option


def web(
    host: Annotated[
        str, Option("--host", help="Address to listen on; 0.0.0.0 lets other computers use the page.")
    ] = "127.0.0.1",
    port: Annotated[int, Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    open_browser: Annotated[bool, Option("--open", help="Open the page in a browser on this computer.")] = False,
    device: Annotated[
        str | None, Option("--device", help="cpu, cuda, cuda:1; by default a GPU if there is one.")
    ] = None,
    max_megabytes: Annotated[float, Option("--max-megabytes", help="Refuse larger files.")] = 64,
    max_pixels: Annotated[float, Option("--max-pixels", help="Refuse larger inputs; in megapixels.")] = 50,
    max_minutes: Annotated[float, Option("--max-minutes", help="Stop images that take longer.")] = 60,
    max_files: Annotated[int, Option("--max-files", help="Images in one restoration.")] = 100,
    queue: Annotated[int, Option("--queue", help="Restorations that wait; further ones are refused.")] = 20,
    keep: Annotated[float, Option("--keep", help="Minutes after which uploads and outputs are deleted.")] = 60,
) -> None:
    """Serve a page that restores images as `swinir restore` does: before and after under a slider, and downloads.

    Nothing is loaded from elsewhere or sent elsewhere. The page asks for no password: with --host 0.0.0.0, everybody
    who reaches this computer can use it.
    """
    from swinir.inference.runtimes import optional

    optional("gradio", "web")
    import webbrowser

    from swinir.service.restorer import Limits, Restorer
    from swinir.service.web import PageLimits
    from swinir.service.web_server import run_page

    limits = Limits(int(max_megabytes * 2**20), int(max_pixels * 1e6), max_seconds=max_minutes * 60)
    page = PageLimits(max_files, queue, keep=keep * 60)

    def ready(address: str) -> None:
        typer.echo(f"{address} is ready; stop it with Ctrl-C")
        if open_browser:
            webbrowser.open(address)

    run_page(Restorer(device, limits=limits), page, host, port, ready)

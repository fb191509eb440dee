"""`swinir web`: a page in the browser that restores images."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from swinir.cli import restore_options as given
from swinir.cli.serve import LIMITS, LOCAL, MODELS, Experts, Host, Megapixels, Port
from swinir.cli.signals import asked_to_stop


def web(
    host: Host = LOCAL[0],
    port: Port = 7860,
    open_page: Annotated[bool, Option("--open", help="Open the page in a browser on this computer.")] = False,
    model: Experts = None,
    device: Annotated[
        str | None,
        Option("--device", rich_help_panel=MODELS, help="cpu, cuda, cuda:1; by default a GPU if there is one."),
    ] = None,
    precision: given.Precision = "auto",
    max_mb: Annotated[float, Option("--max-mb", rich_help_panel=LIMITS, help="Of an image.")] = 64,
    max_pixels: Megapixels = 50,
    max_seconds: Annotated[
        float, Option("--max-seconds", rich_help_panel=LIMITS, help="For the restoration of one image.")
    ] = 3600,
    max_files: Annotated[int, Option("--max-files", rich_help_panel=LIMITS, help="Restored together.")] = 100,
    max_waiting: Annotated[int, Option("--max-waiting", rich_help_panel=LIMITS, help="Requests in the queue.")] = 20,
    keep_seconds: Annotated[
        float, Option("--keep-seconds", rich_help_panel=LIMITS, help="Until uploads and outputs are deleted.")
    ] = 3600,
) -> None:
    """Serve a page that restores images as `swinir restore` does: before and after under a slider, and downloads.

    Needs `pip install 'swinir-toolkit[web]'`. The page loads nothing from elsewhere. Ctrl-C stops it.
    """
    from swinir.inference.runtimes import optional

    optional("gradio", "web")
    import tempfile
    import webbrowser

    from swinir.service.folders import remove_abandoned, work_folder
    from swinir.service.restorer import Limits, Restorer
    from swinir.service.server import address_of, listen
    from swinir.service.web import PageLimits
    from swinir.service.web_app import PageServer, web_app

    limits = Limits(round(max_mb * 2**20), round(max_pixels * 1e6), max_seconds=max_seconds)
    page = PageLimits(max_files, max_waiting, keep=keep_seconds)
    restorer = Restorer(device, limits=limits, experts=model or (), precision=precision)
    for path in model or ():
        restorer.models.get(str(path))  # a mistyped name stops here
    remove_abandoned(Path(tempfile.gettempdir()))
    with work_folder() as folder, listen(host, port) as listener, asked_to_stop():
        app = web_app(restorer, page, folder)
        address = address_of(host, listener)
        typer.echo(f"{address} on {restorer.device}; Ctrl-C stops it", err=True)
        if host not in LOCAL:
            typer.echo("everyone who reaches this address can use the page", err=True)
        if open_page:
            webbrowser.open(address)
        PageServer(app).run(sockets=[listener])

"""`swinir serve`: an HTTP service."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from swinir.cli import restore_options as given
from swinir.cli.options import split_words
from swinir.cli.restore_display import messages
from swinir.cli.signals import asked_to_stop

LOCAL = ("127.0.0.1", "::1", "localhost")
LIMITS, MODELS = "Limits", "Models"  # groups of the help
# Options that `swinir web` has as well.
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 is every network.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 is a free one.")]
Experts = Annotated[
    list[Path] | None,
    typer.Option("-n", "--model", rich_help_panel=MODELS, help="Also offer this checkpoint; may be repeated."),
]
Megapixels = Annotated[float, typer.Option("--max-pixels", rich_help_panel=LIMITS, help="Of an image, in megapixels.")]


def serve(
    context: typer.Context,
    host: Host = LOCAL[0],
    port: Port = 8000,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the token that clients must send.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Folder for uploads and outputs; by default that of the system.")
    ] = None,
    model: Experts = None,
    device: Annotated[
        str | None, typer.Option("--device", rich_help_panel=MODELS, help="cpu, cuda; or several: cuda:0,cuda:1.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", rich_help_panel=MODELS, min=0, help="GB for loaded models on each device."),
    ] = None,
    precision: given.Precision = "auto",
    backend: given.Backend = None,
    compile: given.Compile = False,
    max_mb: Annotated[float, typer.Option("--max-mb", rich_help_panel=LIMITS, help="Of an upload.")] = 64,
    max_pixels: Megapixels = 50,
    max_output_pixels: Annotated[
        float, typer.Option("--max-output-pixels", rich_help_panel=LIMITS, help="Of an output, in megapixels.")
    ] = 200,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", rich_help_panel=LIMITS, help="For one restoration.")
    ] = 3600,
    max_jobs: Annotated[
        int, typer.Option("--max-jobs", rich_help_panel=LIMITS, min=1, help="Uploaded, waiting and running.")
    ] = 64,
    keep_seconds: Annotated[
        float, typer.Option("--keep-seconds", rich_help_panel=LIMITS, help="From the end of a job to its deletion.")
    ] = 600,
) -> None:
    """Serve `swinir restore` by HTTP: POST /v1/restore takes an image and answers with the restored one.

    Needs `pip install 'swinir-toolkit[serve]'`. Ctrl-C stops it: what runs is finished, what waits is refused.
    """
    from swinir.inference.runtimes import optional

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        optional(module, "serve")
    from swinir.service.app import make_app
    from swinir.service.folders import work_folder
    from swinir.service.metrics import ServiceMetrics
    from swinir.service.queue import JobQueue
    from swinir.service.restorer import Limits, Restorer
    from swinir.service.server import address_of, listen
    from swinir.service.server import serve as run

    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    if token == "":
        raise ValueError(f"{token_file} is empty; write a token into it")
    limits = Limits(round(max_mb * 2**20), round(max_pixels * 1e6), round(max_output_pixels * 1e6), max_seconds)
    restorers = [
        Restorer(name, budget=None if budget is None else budget * 1e9, limits=limits, experts=model or (),
                 precision=precision, compile=compile, backend=backend)
        for name in (split_words(device) if device else [None])
    ]  # fmt: skip
    for path in model or ():
        restorers[0].models.get(str(path))  # a mistyped name stops here
    context.with_resource(messages(logging.WARNING))
    metrics = ServiceMetrics()
    with work_folder(folder) as place, listen(host, port) as listener, asked_to_stop():
        queue = JobQueue(restorers, place, max_jobs=max_jobs, keep_seconds=keep_seconds, finished=metrics.finished)
        app = make_app(queue, metrics, token=token)
        devices = ", ".join(str(restorer.device) for restorer in restorers)
        typer.echo(f"{address_of(host, listener)} on {devices}; /docs describes the service", err=True)
        if token is None and host not in LOCAL:
            typer.echo("no --token-file: everyone who reaches this address can use the service", err=True)
        run(app, queue, listener)

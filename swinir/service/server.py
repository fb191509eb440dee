"""The process of `swinir serve`: listen, and stop gracefully. Needs the extra `serve`."""

import socket

import uvicorn
from fastapi import FastAPI

from swinir.service.queue import JobQueue


class _Server(uvicorn.Server):
    """A server that refuses waiting jobs as soon as it is asked to stop, and finishes the running ones."""

    def __init__(self, config: uvicorn.Config, queue: JobQueue) -> None:
        super().__init__(config)
        self.queue = queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what waits, whose clients are answered, and wait for open connections."""
        self.queue.stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open the port; 0 is a free one. An OSError names the port and the way out."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (")[0]  # Python adds the address
        raise OSError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error


def address_of(host: str, listener: socket.socket) -> str:
    """Return the address to type into a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def serve(app: FastAPI, queue: JobQueue, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM. Running jobs are finished; a second SIGINT ends them after their current tile."""
    server = _Server(uvicorn.Config(app, server_header=False, log_level="warning"), queue)
    try:
        server.run(sockets=[listener])
    finally:
        queue.close(at_once=server.force_exit)

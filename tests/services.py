"""A service on small models whose work a test can hold, and clients for it."""

from contextlib import contextmanager
from threading import Event

from swinir.service.queue import JobQueue
from swinir.service.restorer import Limits, Restorer


class Held(Restorer):
    """A restorer that waits at the door of each restoration while it is held."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.free, self.entered = Event(), Event()
        self.free.set()
        self.names = []

    def restore(self, request, target, **options):
        self.names.append(request.name)
        self.entered.set()
        assert self.free.wait(60)
        return super().restore(request, target, **options)

    @contextmanager
    def held(self):
        """Hold the work within the block."""
        self.free.clear()
        self.entered.clear()
        try:
            yield
        finally:
            self.free.set()


def make_queue(folder, expert, restorers=1, limits=None, **options):
    """A queue of restorers that offer one model."""
    folder.mkdir(exist_ok=True)
    held = [Held("cpu", experts=[expert], limits=limits or Limits()) for _ in range(restorers)]
    return JobQueue(held, folder, **options)

"""The records of a run on a cluster: one process on the driver's machine writes them, and workers ask it."""

from pathlib import Path
from threading import Lock

from swinir.photos.manifest import Records, Result


class Keeper:
    """The actor that reads and writes `results.jsonl`. Threads may share it.

    Args:
        folder: of the records; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.records = Records(folder)
        self._done: dict[str, Result] = {}
        self._started: set[str] = set()
        self._waiting: list[Result] = []
        self._listing, self._writing = Lock(), Lock()
        self._failure: OSError | None = None

    def ignored(self) -> int:
        """Return the number of lines that are no records."""
        return self.records.ignored

    def last(self, output: str) -> tuple[Result | None, Result | None]:
        """Return what `Records.last` does, from the newest lines."""
        self.records.refresh()
        return self.records.last(output)

    def add(self, result: Result) -> None:
        """Append a record; it is on the disk when this returns. Records that come meanwhile are written together.

        Raises:
            OutputError: if nothing can be written, from then on.
        """
        with self._listing:
            self._waiting.append(result)
        with self._writing:
            with self._listing:
                together, self._waiting = self._waiting, []
            if together and self._failure is None:
                try:
                    self.records.add(*together)
                except OSError as error:
                    self._failure = error
            if self._failure is not None:
                raise self._failure
            self._done |= {row.output: row for row in together if row.status != "begun"}

    def start(self, output: str) -> None:
        """Note that a worker has begun with an image."""
        self._started.add(output)

    def take_started(self) -> set[str]:
        """Return the outputs that workers have begun since the last call."""
        started, self._started = self._started, set()
        return started

    def take_done(self) -> dict[str, Result]:
        """Return the records of outputs since the last call: also those that a worker recorded before it died."""
        with self._writing:
            done, self._done = self._done, {}
        return done

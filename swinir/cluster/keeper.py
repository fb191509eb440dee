"""The queue and the records of a run on a cluster: one process on the driver's machine, which workers ask."""

from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from swinir.cluster.plan import Pair
from swinir.image_io.reader import named
from swinir.photos.manifest import Records, Result

TRIES = 3  # of an image whose worker dies


class Keeper:
    """The actor that gives out images and writes `results.jsonl`. Threads may share it.

    Args:
        folder: of the records; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.records = Records(folder)
        self._queue, self._suspects = deque[Pair](), deque[Pair]()
        self._held: dict[str, tuple[int, str]] = {}  # worker and input of each output that is being made
        self._deaths = Counter[str]()
        self._begun: set[int] = set()  # workers that have had an image
        self._unwritten: list[Result] = []
        self._results: list[Result] = []
        self._changing, self._writing = Lock(), Lock()
        self._failure: OSError | None = None

    def ignored(self) -> int:
        """Return the number of lines that are no records."""
        return self.records.ignored

    def exchange(self, rows: Sequence[Pair | Result]) -> tuple[list[Result], int, int]:
        """Queue images and record failures.

        Returns:
            The results since the last call; the number of images that wait, and of those whose worker died.
        """
        with self._changing:
            self._queue += (row for row in rows if not isinstance(row, Result))
            self._unwritten += (row for row in rows if isinstance(row, Result))
        self._write()
        with self._changing:
            results, self._results = self._results, []
            return results, len(self._queue), len(self._suspects)

    def take(self, worker: int, suspect: bool = False) -> Pair | None:
        """Give an image to a worker; None if none waits.

        Args:
            suspect: take an image whose worker died; such images are given one by one.
        """
        with self._changing:
            queue = self._suspects if suspect else self._queue
            if not queue or (suspect and any(holder == worker for holder, _ in self._held.values())):
                return None
            source, output = pair = queue.popleft()
            self._held[output] = worker, source
            self._begun.add(worker)
            return pair

    def last(self, output: str) -> tuple[Result | None, Result | None]:
        """Return what `Records.last` does, from the newest lines."""
        self.records.refresh()
        return self.records.last(output)

    def add(self, result: Result) -> None:
        """Append a record; it is on the disk when this returns. Records that come meanwhile are written together.

        Raises:
            OutputError: if nothing can be written, from then on.
        """
        with self._changing:
            if result.output not in self._held:  # its worker was given up, and the image is another's
                return
            if result.status != "begun":
                del self._held[result.output]
            self._unwritten.append(result)
        self._write()

    def _write(self) -> None:
        with self._writing:
            with self._changing:
                together, self._unwritten = self._unwritten, []
            rows = [row for row in together if row.status != "skipped"]
            if rows and self._failure is None:
                try:
                    self.records.add(*rows)
                except OSError as error:
                    self._failure = error
            if self._failure is not None:
                raise self._failure
            with self._changing:
                self._results += (row for row in together if row.status != "begun")

    def lost(self, worker: int, died: bool) -> tuple[int, bool]:
        """Take back the images of a worker that died or refuses work.

        An image with which several workers died is recorded as failed.

        Returns:
            The number of images, and whether the worker has ever had one.
        """
        with self._changing:
            pairs = [(source, output) for output, (holder, source) in self._held.items() if holder == worker]
            for pair in pairs:
                source, output = pair
                del self._held[output]
                self._deaths[output] += died
                if not died:
                    self._queue.appendleft(pair)
                elif self._deaths[output] < TRIES:
                    self._suspects.append(pair)
                else:
                    message = f"{named(source)}: the worker died {TRIES} times while it had this image"
                    advice = "it may lack memory, or the file is damaged"
                    self._unwritten.append(Result(source, output, "failed", f"{message}; {advice}"))
        return len(pairs), worker in self._begun

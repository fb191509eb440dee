"""The records of a run on a cluster: one process on the driver's machine writes them, and workers ask it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from swinir.cluster.storage import Copies
from swinir.photos.manifest import RECORDS, Records, Result


class Keeper:
    """The actor that reads and writes `results.jsonl`.

    Args:
        folder: of the records; it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.records = Records(folder)
        self._done: dict[str, Result] = {}

    def ignored(self) -> int:
        """Return the number of lines that are no records."""
        return self.records.ignored

    def last(self, output: str) -> tuple[Result | None, Result | None]:
        """Return what `Records.last` does, from the newest lines."""
        self.records.refresh()
        return self.records.last(output)

    def add(self, result: Result) -> None:
        """Append a record; it is on the disk when this returns."""
        self.records.add(result)
        if result.status != "begun":
            self._done[result.output] = result

    def take_done(self) -> dict[str, Result]:
        """Return the records of outputs since the last call: also those that a worker recorded before it died."""
        done, self._done = self._done, {}
        return done


class SharedRecords(Records):
    """The records as a worker sees them. Copies stand in them under their URLs.

    Args:
        keeper: handle of the `Keeper`.
    """

    def __init__(self, folder: Path, keeper: Any, copies: Copies) -> None:
        self.path, self.ignored = folder / RECORDS, 0
        self.keeper, self.copies = keeper, copies

    def refresh(self) -> None:
        """Do nothing: `last` asks for the newest lines."""

    def last(self, output: str) -> tuple[Result | None, Result | None]:
        """Return the last record of an output that was made, and that of a later attempt."""
        return ray.get(self.keeper.last.remote(self.copies.name(output)))

    def add(self, result: Result) -> None:
        """Have a record appended; it is on the disk when this returns."""
        ray.get(self.keeper.add.remote(self.named(result)))

    def named(self, result: Result) -> Result:
        """Put URLs in place of copies."""
        return replace(
            result,
            input=self.copies.name(result.input),
            output=self.copies.name(result.output),
            error=self.copies.rename(result.error),
        )

"""The work folder of a clip beside its output: finished segments, and a record of the input and the settings.

A segment is finished when its record is there, which is written last. Whatever a killed run leaves besides is removed.
"""

import json
import re
from pathlib import Path
from typing import Any

from swinir.atomic import atomic_path, leftovers
from swinir.image_io.errors import named

FRAMES = 48  # of a segment: the most that a killed run loses
REQUEST = "request.json"
_OURS = re.compile(rf"\d{{6}}\.(mp4|json|npz)|{re.escape(REQUEST)}")


class Segments:
    """The segments of one output.

    Args:
        target: the output; the folder is TARGET.parts.
        request: everything that decides the output.
        restart: remove segments that another request made, instead of refusing.

    Raises:
        ValueError: for segments of another request.
    """

    def __init__(self, target: Path, request: dict[str, Any], *, restart: bool) -> None:
        self.folder = _folder(target)
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in leftovers(self.folder):
            file.unlink(missing_ok=True)
        known = _read(self.folder / REQUEST)
        if known not in (None, request) and not restart:
            raise ValueError(
                f"{named(self.folder)} has segments of another input or other settings; "
                "--overwrite starts again, the command that made them goes on with them"
            )
        if known != request:
            _clear(self.folder)
            _write(self.folder / REQUEST, request)
        self.done = 0
        while (segment := self.path(self.done)).is_file() and _read(self.path(self.done, ".json")) == _record(segment):
            self.done += 1
        if self.done and not self.path(self.done - 1, ".npz").is_file():  # the frame to go on from
            self.done = 0

    def path(self, number: int, suffix: str = ".mp4") -> Path:
        """Return the file of a segment."""
        return self.folder / f"{number:06d}{suffix}"

    def finish(self) -> None:
        """Record that the next segment is whole; what lies in its files is on the disk."""
        _write(self.path(self.done, ".json"), _record(self.path(self.done)))
        if self.done:
            self.path(self.done - 1, ".npz").unlink(missing_ok=True)
        self.done += 1


def discard(target: Path) -> None:
    """Remove the segments of a finished output, and the folder unless something else lies in it."""
    if (folder := _folder(target)).is_dir():
        _clear(folder)
        if not any(folder.iterdir()):
            folder.rmdir()


def _folder(target: Path) -> Path:
    return target.with_name(f"{target.name}.parts")


def _clear(folder: Path) -> None:
    # The records first: whatever is left by a kill in between is no segment.
    for file in sorted(folder.iterdir(), key=lambda file: file.suffix != ".json"):
        if _OURS.fullmatch(file.name):
            file.unlink()


def _record(segment: Path) -> dict[str, int]:
    return {"bytes": segment.stat().st_size}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")

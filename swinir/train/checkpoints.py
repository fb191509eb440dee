"""Training states on disk, in files named by their hash.

    states/step-00001000-0123456789abcdef.pt    the last few states
    states/best-00000800-fedcba9876543210.pt    the state of the best validation, kept however old it is
    states/abandoned/                           states newer than one that the run was resumed from

A name ends in the first 16 hex digits of the file's SHA-256, as `sha256sum` prints it. Files are written atomically: a
process or machine that is killed at any moment leaves complete files and perhaps a temporary one. The file of a best
state is written before that of its step. A kill between the two leaves two best states; `archive_after`, called at
every start from a state, then keeps the one that this state knows of.

A run can be resumed from an older state. States of later steps are then moved to `abandoned/` by `archive_after` and by
`save`. `load_latest` does not look there, and only `clear` removes files from it. To resume from a chosen state, call
`archive_after(step)` and then `save`; `load_latest` returns that state from then on.
"""

import hashlib
import io
import logging
import os
import re
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinir.atomic import atomic_path, sync_folder, temporaries
from swinir.weights.safe_load import reason, shown

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<kind>step|best)-(?P<step>[0-9]{8,})-(?P<digest>[0-9a-f]{16})\.pt")

VALUES = (Tensor, nn.Parameter, bool, int, float, str, bytes, type(None))


class StateStore:
    """States of one run. One process may write while others read. The constructor does not touch any file.

    Args:
        folder: folder of the files, created by `save`.
        keep: number of states that `save` keeps besides the best one.
    """

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder, self.keep = folder, keep
        self.abandoned = folder / "abandoned"
        self._made_at = time.time()

    def paths(self) -> list[Path]:
        """Return the states of the last steps, newest first, damaged ones included."""
        return _files(self.folder, "step")

    def best(self) -> Path | None:
        """Return the state last saved as best; None if there is none."""
        return next(iter(_files(self.folder, "best")), None)

    def save(self, content: dict[str, Any], step: int, *, best: bool = False) -> Path:
        """Write a state, then remove those no longer needed.

        A second save of a step replaces the first. States of later steps are archived.

        Args:
            content: tensors, numbers, strings, bytes, None, and dicts, lists or tuples of these.
            step: number of iterations done.
            best: replaces the former best state.

        Raises:
            TypeError: for any other content, NumPy numbers included, because it could not be read again.
            OSError: when it cannot be written. All earlier states remain.
        """
        assert step >= 0, step
        _check_readable(content, "content")
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        self.tidy()
        file = io.BytesIO()
        torch.save({"step": step, "content": content}, file)
        data = file.getbuffer()
        name = f"{step:08d}-{hashlib.sha256(data).hexdigest()[:16]}.pt"
        path, best_path = self.folder / f"step-{name}", self.folder / f"best-{name}"
        if best:  # first, so that a step saved as best always has its best file
            with atomic_path(best_path) as temporary:
                temporary.write_bytes(data)
        with atomic_path(path) as temporary:
            _link_or_write(temporary, best_path if best else None, data)
        self.archive_after(step)
        self._remove_superfluous(path, best_path if best else self.best())
        return path

    def load(self, path: Path, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
        """Return the content of a state in any folder. Only plain data is unpickled.

        Raises:
            ValueError: when the file is damaged or is not a state; one line with its path.
            OSError: when the file does not exist or cannot be read.
        """
        try:
            return _read(path, map_location)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; name another state") from error

    def load_latest(self, *, map_location: str | torch.device = "cpu") -> tuple[dict[str, Any], int, Path] | None:
        """Return content, step and path of the newest undamaged state; None if there are no states.

        Every damaged state is skipped with a warning in the log. The best state is tried last.

        Raises:
            ValueError: when none of the states can be read; one line with all of them.
        """
        faults: dict[Path, str] = {}
        for path in self.paths() + _files(self.folder, "best"):
            try:
                content = _read(path, map_location)
            except ValueError as error:
                faults[path] = str(error)
                continue
            except OSError as error:
                faults[path] = f"cannot be read ({reason(error)})"
                continue
            for damaged, fault in faults.items():
                logger.warning("%s: %s; resuming from %s instead", damaged, fault, path.name)
            return content, _step(path), path
        if not faults:
            return None
        listed = "; ".join(f"{path.name} {fault}" for path, fault in faults.items())
        raise ValueError(f"{self.folder}: none of its states can be read: {listed}; start again with --fresh")

    def archive_after(self, step: int) -> list[Path]:
        """Move states of later steps, the best one included, to `abandoned/`; returns their new paths.

        `best()` may return None afterwards: of several best states only the last is kept.
        """
        later = [path for path in self.paths() + _files(self.folder, "best") if _step(path) > step]
        if not later:
            return []
        self.abandoned.mkdir(exist_ok=True)
        moved = [path.replace(self.abandoned / path.name) for path in later]
        sync_folder(self.abandoned)
        sync_folder(self.folder)
        return moved

    def clear(self) -> None:
        """Remove all states, including the best and the archived ones."""
        for folder in (self.abandoned, self.folder):
            for path in _files(folder, "step") + _files(folder, "best"):
                path.unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove temporary files of killed processes, which are older than this object; `save` calls it."""
        if not self.folder.is_dir():
            return
        for path in temporaries(self.folder):
            with suppress(FileNotFoundError):  # it was complete in the meantime
                if path.stat().st_mtime < self._made_at:
                    path.unlink()

    def _remove_superfluous(self, newest: Path, best: Path | None) -> None:
        earlier = [path for path in self.paths() if _step(path) < _step(newest)]
        kept = {newest, best, *earlier[: self.keep - 1]}
        for path in self.paths() + _files(self.folder, "best"):
            if path not in kept:
                path.unlink(missing_ok=True)


def _files(folder: Path, kind: str) -> list[Path]:
    """Return the states of a folder by descending step; kind is "step" or "best"."""
    try:
        found = list(folder.iterdir())  # `glob` would take a folder that may not be read for an empty one
    except FileNotFoundError:
        return []
    named = [path for path in found if path.name.startswith(f"{kind}-") and NAME.fullmatch(path.name)]
    return sorted(named, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _link_or_write(path: Path, source: Path | None, data: memoryview) -> None:
    """Fill an empty file with `data`, by a hard link if `source` holds the same data."""
    if source is not None:
        path.unlink()
        with suppress(OSError):  # a file system without hard links
            os.link(source, path)
            return
    path.write_bytes(data)


def _check_readable(value: Any, place: str) -> None:
    """Refuse values that could be written but not read again. Subclasses are refused too: their class is pickled."""
    if type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            _check_readable(key, f"a key of {place}")
            _check_readable(entry, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, entry in enumerate(value):
            _check_readable(entry, f"{place}[{index}]")
    elif type(value) not in VALUES:
        raise TypeError(f"{place} is a {type(value).__name__}, which a state cannot hold; make it a plain value")


def _read(path: Path, map_location: str | torch.device) -> dict[str, Any]:
    """Return the content of a state; a ValueError without the path if the file is not what its name says."""
    name = NAME.fullmatch(path.name)
    if name is None:
        raise ValueError("has no name of a state, such as step-00001000-0123456789abcdef.pt")
    data = path.read_bytes()  # read once, so that the bytes hashed are those unpickled
    if not data:
        raise ValueError("is empty")
    digest = hashlib.sha256(data).hexdigest()[:16]
    if digest != name["digest"]:
        raise ValueError(f"is damaged (its SHA-256 begins with {digest}, unlike its name)")
    torch.empty(0, device=map_location)  # a missing device must not be reported as a damaged file
    try:
        state = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the file may hold anything
        code = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it asks for {shown(code[1])}; refused, and nothing was run" if code else reason(error)
        raise ValueError(f"is not a training state ({why})") from error
    match state:
        case {"step": int(step), "content": dict(content), **rest} if not rest:
            if step != int(name["step"]):
                raise ValueError(f"was renamed (it holds step {step}, unlike its name)")
            return content
    raise ValueError("is not a training state (it holds something else)")

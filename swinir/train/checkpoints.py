"""Training states on disk: a folder of files that prove themselves whole, and the newest of them that does.

    states/step-00001000-0123456789abcdef.pt    the last few, newest first when a run goes on
    states/best-00000800-fedcba9876543210.pt    the one called best, kept however old it is
    states/abandoned/                           steps beyond one that a run went back to

A name ends in the first 16 hex digits of the SHA-256 of the file, as `sha256sum` prints it. Name and content appear
together, by one rename, so a process or a machine that dies at any moment leaves whole files and perhaps a
temporary one. A best state is there before its step is. Of two best ones, as a kill can leave them, the later
counts, and after `discard_after` the one that the state to go on from knows of: call it at every start from a state.

**Going back.** The states of a run are one line of rising steps. Whatever lies beyond the step that a run stands at
belongs to a future that it has left: `discard_after` moves it to `abandoned/`, `save` does so too, and `load_latest`
never looks there. Nothing in `abandoned/` is removed but by `clear`. A run that starts from a chosen state calls
`discard_after(step)` and then saves: from there on, `load_latest` returns to the chosen line.
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
    """The states of one run. One process writes, any number may read; making the object touches no file.

    Args:
        folder: where the files lie; `save` makes it.
        keep: number of states besides the best that `save` leaves.
    """

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder, self.keep = folder, keep
        self.abandoned = folder / "abandoned"
        self._made_at = time.time()

    def paths(self) -> list[Path]:
        """The states to go on from, newest first, whether whole or not; the best is among them while it is recent."""
        return _files(self.folder, "step")

    def best(self) -> Path | None:
        """The state last saved as best; None without one."""
        return next(iter(_files(self.folder, "best")), None)

    def save(self, content: dict[str, Any], step: int, *, best: bool = False) -> Path:
        """Write a state, then remove what it makes superfluous: nothing goes before it is on the disk.

        A second save of a step replaces the first; higher steps are abandoned.

        Args:
            content: tensors, numbers, strings, bytes, None, and dicts, lists or tuples of them.
            step: iterations done.
            best: whether this is the best state so far, and replaces the former best.

        Raises:
            TypeError: when `content` holds anything else, also a NumPy number: it would be refused when read.
            OSError: when it cannot be written; all earlier states are left.
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
        if best:  # first: a step that believes itself the best must not be met without it
            with atomic_path(best_path) as temporary:
                temporary.write_bytes(data)
        with atomic_path(path) as temporary:
            _link_or_write(temporary, best_path if best else None, data)
        self.discard_after(step)
        self._remove_superfluous(path, best_path if best else self.best())
        return path

    def load(self, path: Path, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
        """The content of one state, of this folder or any other; nothing but plain data is ever unpickled.

        Raises:
            ValueError: when it is damaged, or is no state; one line that names the file.
            OSError: when it is not there or cannot be read.
        """
        try:
            return _read(path, map_location)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; name another state") from error

    def load_latest(self, *, map_location: str | torch.device = "cpu") -> tuple[dict[str, Any], int, Path] | None:
        """Content, step and file of the newest state that is whole, the best as the last resort; None without any.

        Each state that was passed over is a warning in the log.

        Raises:
            ValueError: when there are states but none can be read; one line that names them.
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
                logger.warning("%s: %s; going on from %s instead", damaged, fault, path.name)
            return content, _step(path), path
        if not faults:
            return None
        listed = "; ".join(f"{path.name} {fault}" for path, fault in faults.items())
        raise ValueError(f"{self.folder}: none of its states can be read: {listed}; start again with --fresh")

    def discard_after(self, step: int) -> list[Path]:
        """Move states of higher steps, the best too, to `abandoned/`; returns where they lie now.

        Afterwards `best()` may be None although the run had a best one before that step: its place had been taken.
        """
        beyond = [path for path in self.paths() + _files(self.folder, "best") if _step(path) > step]
        if not beyond:
            return []
        self.abandoned.mkdir(exist_ok=True)
        moved = [path.replace(self.abandoned / path.name) for path in beyond]
        sync_folder(self.abandoned)
        sync_folder(self.folder)
        return moved

    def clear(self) -> None:
        """Remove every state, the best and the abandoned ones too."""
        for folder in (self.abandoned, self.folder):
            for path in _files(folder, "step") + _files(folder, "best"):
                path.unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove temporary files that a killed process left: those last written to before this object was made.

        `save` calls it. Since one process writes, none that lives has files of that age.
        """
        if not self.folder.is_dir():
            return
        for path in temporaries(self.folder):
            with suppress(FileNotFoundError):  # another process may have ended well in the meantime
                if path.stat().st_mtime < self._made_at:
                    path.unlink()

    def _remove_superfluous(self, newest: Path, best: Path | None) -> None:
        earlier = [path for path in self.paths() if _step(path) < _step(newest)]
        kept = {newest, best, *earlier[: self.keep - 1]}
        for path in self.paths() + _files(self.folder, "best"):
            if path not in kept:
                path.unlink(missing_ok=True)


def _files(folder: Path, kind: str) -> list[Path]:
    """States of a folder by descending step; kind is "step" or "best"."""
    try:
        found = list(folder.iterdir())  # `glob` would pass over a folder that may not be read as if it were empty
    except FileNotFoundError:
        return []
    named = [path for path in found if path.name.startswith(f"{kind}-") and NAME.fullmatch(path.name)]
    return sorted(named, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _link_or_write(path: Path, source: Path | None, data: memoryview) -> None:
    """Fill an empty file with `data`: by a link to `source`, which holds it already, if there is one and links are."""
    if source is not None:
        path.unlink()
        with suppress(OSError):  # a file system without hard links
            os.link(source, path)
            return
    path.write_bytes(data)


def _check_readable(value: Any, place: str) -> None:
    """Refuse what could be written but not read again; types are exact, since a subclass is pickled as itself."""
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
    """The content of a state; a ValueError, which does not name the file, if it is not what its name says."""
    name = NAME.fullmatch(path.name)
    if name is None:
        raise ValueError("is not named as a state is, like step-00001000-0123456789abcdef.pt")
    data = path.read_bytes()  # once: what is unpickled is what was hashed
    if not data:
        raise ValueError("is empty")
    digest = hashlib.sha256(data).hexdigest()[:16]
    if digest != name["digest"]:
        raise ValueError(f"is damaged (SHA-256 begins with {digest}, not as in its name)")
    torch.empty(0, device=map_location)  # a device that is not there is no fault of the file
    try:
        state = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a parser of bytes that anyone may have named so
        code = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it asks for {shown(code[1])}; refused, and nothing was run" if code else reason(error)
        raise ValueError(f"is not a training state ({why})") from error
    match state:
        case {"step": int(step), "content": dict(content), **rest} if not rest:
            if step != int(name["step"]):
                raise ValueError(f"was renamed (it holds step {step}, not as in its name)")
            return content
    raise ValueError("is not a training state (it holds something else)")

"""Images by path or URL; a file behind a URL has a copy on the machine while it is worked on.

URLs are read and written by fsspec: s3://, gs://, abfs://, sftp:// and others, each with a package of its own.
"""

import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from fsspec.core import url_to_fs

from swinir.atomic import runs
from swinir.image_io.errors import absence
from swinir.photos.jobs import Job, image_folders, is_image

BYTES_PER_PIXEL = 16  # four channels of 32 bits; a file with more for each pixel that is allowed is no image
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+")
COPIES = "swinir-copies-"  # begins the name of a process's temporary folder, which ends with its number


def as_text(path: Path) -> str:
    """Return a path as it was given; of a URL, `Path` has dropped slashes."""
    match = SCHEME.match(str(path))
    if match is None:
        return str(path)
    root = "/" if match[1] in ("file", "local") else ""
    return f"{match[1]}://{root}{str(path)[match.end() :]}"


def is_url(text: str) -> bool:
    """Tell URLs from paths."""
    return "://" in text


def join(folder: str, below: str, name: str) -> str:
    """Return the path or URL of a file in a subfolder, "." for none."""
    if is_url(folder):
        return posixpath.join(folder, "" if below == "." else below, name)
    return str(Path(folder, below, name))


def folders(given: str, recursive: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each subfolder, by its path in the folder or URL, with the sorted names of its images.

    Raises:
        FileNotFoundError: for a folder that is not there.
        ImportError: without the package for such URLs, naming it.
    """
    if not is_url(given):
        yield from image_folders(Path(given), recursive)
        return
    files, root = url_to_fs(given)
    if not files.isdir(root):
        raise FileNotFoundError(f"{given} is not there, or no folder; check the URL")
    for folder, below, names in files.walk(root):
        below[:] = sorted(name for name in below if recursive and not name.startswith("."))
        yield posixpath.relpath(folder, root), sorted(name for name in names if is_image(name))


class Copies:
    """Copies of files behind URLs, in a temporary folder of this process.

    Args:
        max_pixels: limit for images, and with it for the size of their files.
    """

    def __init__(self, max_pixels: int) -> None:
        self.max_bytes = BYTES_PER_PIXEL * max_pixels + 2**20
        self.folder = Path(tempfile.gettempdir()) / f"{COPIES}{os.getpid()}"
        self._urls: dict[Path, str] = {}
        self._numbers = count()
        for left in self.folder.parent.glob(f"{COPIES}*"):  # by processes that were killed
            number = left.name.removeprefix(COPIES)
            if number.isdecimal() and (left == self.folder or not runs(int(number))):
                shutil.rmtree(left, ignore_errors=True)

    def job(self, source: str, target: str) -> Job:
        """Return a job on paths of this machine; nothing is copied yet."""
        return Job(self._path(source, "in"), self._path(target, "out"))

    def _path(self, text: str, kind: str) -> Path:
        if not is_url(text):
            return Path(text)
        path = self.folder / f"{next(self._numbers)}-{kind}" / posixpath.basename(text)
        self._urls[path] = text
        return path

    def name(self, path: Path | str) -> str:
        """Return the URL of a copy; other paths as they are."""
        return self._urls.get(Path(path), str(path))

    def rename(self, text: str) -> str:
        """Put URLs in place of the copies that a message names."""
        for path, url in self._urls.items():
            text = text.replace(str(path), url)
        return text

    def fetch(self, path: Path, *, required: bool) -> None:
        """Copy a file behind a URL to this machine; the copy has the time of the file.

        Raises:
            FileNotFoundError: if it is required and not there.
            ValueError: for a file larger than any image within the limit.
            Exception: of the storage.
        """
        if path not in self._urls:
            return
        files, place = url_to_fs(self._urls[path])
        try:
            size = files.info(place)["size"]
        except FileNotFoundError:
            if required:
                raise FileNotFoundError(f"{self._urls[path]} is {absence(Path(place))}") from None
            return
        if size is not None and size > self.max_bytes:
            raise ValueError(f"the file has {size} bytes, more than an image within --max-pixels; raise that limit")
        path.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(place, str(path))
        with suppress(NotImplementedError):
            time = round(files.modified(place).timestamp() * 1e9)
            os.utime(path, ns=(time, time))

    def send(self, path: Path) -> None:
        """Copy an output to its URL, where it appears when it is whole.

        Raises:
            Exception: of the storage.
        """
        if path not in self._urls:
            return
        files, place = url_to_fs(self._urls[path])
        files.makedirs(files._parent(place), exist_ok=True)
        with files.transaction, path.open("rb") as whole, files.open(place, "wb") as copy:
            shutil.copyfileobj(whole, copy, 2**20)

    def drop(self, *paths: Path) -> None:
        """Delete copies."""
        for path in paths:
            if self._urls.pop(path, None) is not None:
                shutil.rmtree(path.parent, ignore_errors=True)

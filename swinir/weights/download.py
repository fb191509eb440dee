"""Checked downloads: the target is replaced by a complete, verified file or left as it was.

The body is streamed into a temporary file beside the target, checked there, and then renamed. A transfer that breaks
off is resumed where it ended, if the server can. (pooch and torch.hub limit neither size nor time of a transfer.)
"""

import contextlib
import errno
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from swinir.atomic import NO_ROOM, atomic_path, leftovers
from swinir.weights.verify import Expected, examine, printable

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 30  # the most that a file of unknown length may have
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces of the body
PATIENCE = 60.0  # seconds before the rate of a transfer counts
MIN_RATE = 10_000  # bytes a second from then on, on average
RETRY_PAUSES = (1.0, 2.0)  # seconds before each further attempt after a passing failure
PROGRESS = 1 << 20  # bytes after which the attempts are counted anew
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
CHUNK = 1 << 16
clock = time.monotonic


class DownloadError(OSError):
    """A download failed; the message holds the address, the target and the expected hash."""


class _PassingError(Exception):
    """A failure that another attempt may not meet."""


def fetch(url: str, path: Path, expected: Expected, *, progress: bool = False) -> None:
    """Fetch a weights file, unless a good one is there already.

    A file of unknown hash is good when the transfer is complete, the file is a checkpoint, and its own checksums match.

    Args:
        url: an http or https address.
        path: the file to write; its folder is made.
        expected: what is known about the file.
        progress: show a bar on stderr.

    Raises:
        DownloadError: with address, path and expected hash, so that the file can be fetched by other means.
            What stood under `path` is as it was before.
        ValueError: for another address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"downloads need an http or https address, got {url!r}; see SWINIR_ZOO_MIRROR")
    name = PurePosixPath(parts.path).name
    made = [folder for folder in path.absolute().parents if not folder.exists()]  # innermost first
    try:
        if path.exists():
            present = examine(path, expected)
            if present.ok:
                return
            logger.warning("%s is damaged (%s); fetching it again", path, present.message)
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in leftovers(path.parent):
            leftover.unlink(missing_ok=True)
        with atomic_path(path) as temporary:
            _fetch(url, temporary, expected, progress)
            finding = examine(temporary, expected)
            if not finding.ok:
                raise ValueError(f"the server's answer is not the file: {finding.message}")
    except (OSError, ValueError, _PassingError) as error:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty, or never made
                folder.rmdir()
        kept = "; the damaged file there was left alone" if path.exists() else ""
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise DownloadError(
                f"could not download {name}: {error.strerror} in {path.parent}; make room, or set SWINIR_ZOO to a "
                "folder on another disk"
            ) from error
        known = f"expected SHA-256 {expected.sha256}" if expected.sha256 else "expected SHA-256: none published"
        raise DownloadError(
            f"could not download {name}: {error}. Fetch {url} by other means and place it at {path} ({known}{kept})"
        ) from error


def _fetch(url: str, part: Path, expected: Expected, progress: bool) -> None:
    """Write the body of `url` into a file; after a passing failure, try again, from where the transfer ended."""
    most, pauses = 0, iter(RETRY_PAUSES)
    while True:
        try:
            _stream(url, part, expected, progress)
            return
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            host, received = urlsplit(url).hostname, part.stat().st_size
            text = f"it broke off after {received} bytes" if received else "it broke off"
            failure = _PassingError(f"no connection to {host}, or {text} ({type(error).__name__})")
        except _PassingError as error:
            failure = error
        if part.stat().st_size >= most + PROGRESS:
            most, pauses = part.stat().st_size, iter(RETRY_PAUSES)
        pause = next(pauses, None)
        if pause is None:
            raise failure
        time.sleep(pause)


def _stream(url: str, part: Path, expected: Expected, progress: bool) -> None:
    """Append to what the file holds if the server can resume, else replace it."""
    received = part.stat().st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response:
        answer = f"the server answered {response.status_code} {printable(response.reason or '')}"
        if response.status_code in PASSING_STATUS:
            raise _PassingError(answer)
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {received}-")
        if response.status_code != 200 and not (response.status_code == 206 and received and resumes):
            raise ValueError(answer)
        if url.startswith("https:") and any(not hop.url.startswith("https:") for hop in (*response.history, response)):
            raise ValueError("the server redirects to an address without encryption")
        if "html" in response.headers.get("Content-Type", ""):
            raise ValueError("the server sent a web page in place of the file")
        if response.status_code == 200:
            received = 0
        length = _announced(response)
        total = None if length is None else received + length
        limit = expected.bytes or MAX_BYTES
        if total is not None and (total > limit or (expected.bytes and total != expected.bytes)):
            raise ValueError(f"the server announces {total} bytes; expected {_expectation(expected)}")
        free = shutil.disk_usage(part.parent).free
        if length is not None and length > free:
            raise OSError(errno.ENOSPC, f"no room for {length} bytes, {free} free")
        with (
            part.open("ab" if received else "wb") as stream,
            tqdm(
                total=total or expected.bytes,
                initial=received,
                unit="B",
                unit_scale=True,
                desc=PurePosixPath(urlsplit(url).path).name,
                disable=not progress,
            ) as bar,
        ):
            for chunk in _pieces(response):
                received += len(chunk)
                if received > limit:
                    raise ValueError(f"the server sends more than the expected {_expectation(expected)}")
                stream.write(chunk)
                bar.update(len(chunk))
    due = total or expected.bytes
    if due is not None and received != due:
        raise _PassingError(f"the transfer ended after {received} of {due} bytes")


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it comes; a ValueError when it comes too slowly, which no timeout between two pieces shows."""
    start, received = clock(), 0
    while piece := response.raw.read1(CHUNK, decode_content=True):
        received += len(piece)
        if received < MIN_RATE * (clock() - start - PATIENCE):
            raise ValueError(f"the server sends less than {MIN_RATE // 1000} kB a second")
        yield piece


def _announced(response: requests.Response) -> int | None:
    """Content-Length, where it counts the bytes that come."""
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(length) if length.isdecimal() and not encoded else None


def _expectation(expected: Expected) -> str:
    return f"{expected.bytes} bytes" if expected.bytes else f"at most {MAX_BYTES} bytes"

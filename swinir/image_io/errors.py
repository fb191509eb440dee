"""Refusals of image files: one line that names the file, the value and the way out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swinir.image_io.canvas import DiskSpaceError

DAMAGED = "the file is truncated or damaged; copy or download it again"


class ImageError(ValueError):
    """A file that cannot be read as an image; the message is one line that names the file and the reason."""


class UnknownFormatError(ImageError):
    """A file that is no image of a format that can be read."""


class TooManyPixelsError(ImageError):
    """An image with more pixels than the limit."""


def require(condition: object, reason: str, kind: type[ImageError] = ImageError) -> None:
    """Raise an ImageError unless the condition holds; `refusing` adds the name of the file."""
    if not condition:
        raise kind(reason)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn every exception of the block but DiskSpaceError into an ImageError that names the file."""
    try:
        yield
    except ImageError as error:
        raise type(error)(f"{named(path)}: {error}") from error
    except DiskSpaceError:
        raise
    except Exception as error:  # decoders meet hostile bytes with many kinds of exception
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise ImageError(f"{named(path)}: cannot be read as an image: {' '.join(reason.split())}") from error


def absence(path: Path) -> str:
    """Complete "FILE is ...", for a file that is not there, or an address on the web."""
    if re.match(r"(https?|ftp|s3|gs):/", str(path)):
        return "a web address; download the image and give the path of the file"
    return "not there; check the path"


def named(path: Path | str) -> str:
    """A path fit for one line on any terminal: escaped where it has line breaks, control characters or bad bytes."""
    text = str(path)
    return text if text.isprintable() else ascii(text)

"""The one way from a picture file to a `Picture`.

Files are untrusted: first the container is checked (`containers`, `png`, `tiff`), then its size, then pixels are
decoded, by Pillow or, where Pillow keeps 8 bits of 16, by those modules.
"""

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from swinir.image_io import containers, exif, png, tiff
from swinir.image_io.containers import Bytes, Container, ContainerError, FileBytes, require
from swinir.image_io.picture import Metadata, Picture, Rows

MAX_PIXELS = 400_000_000
MAX_BYTES = 2**32  # of a file; the largest picture with 16 bits and alpha takes 3.2 GB without compression
_PILLOWS_SETTINGS = threading.Lock()
_ORIENTATION_IN_XMP = re.compile(rb"(tiff:Orientation(?:=[\"']|>))[2-8]")
# How to turn a stored picture upright, by its orientation (EXIF 2.3, 4.6.4 A).
_UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[:, ::-1],
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}


class ImageError(ValueError):
    """A file that cannot be read as an image; the message is one line that names the file and the reason."""


def _by_pillow(data: bytes) -> None:
    """No samples: Pillow decodes these formats whole."""


@contextmanager
def _pillow_without_its_limit() -> Iterator[None]:
    """Without its limit of pixels, which is lower than ours, and without its warnings: both are the whole process's."""
    with _PILLOWS_SETTINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@dataclass(frozen=True)
class _Format:
    """How a format is known by its first bytes, how its container is checked, what decodes more than 8 bits of it.

    `deep` does so where nobody knows the size before Pillow has parsed the header. `apart` is what its decoder needs
    around it: two of Pillow's ask for the limit once more, others need not wait.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: Callable[[bytes], object]
    inspect: Callable[[Any], Container]
    samples: Callable[[bytes], np.ndarray | None] = _by_pillow
    deep: Callable[[bytes], np.ndarray] | None = None
    apart: Callable[[], AbstractContextManager[None]] = nullcontext


def _netpbm_samples(data: bytes) -> np.ndarray | None:
    """(H, W, 1 or 3) uint16 of a PGM or PPM file of more than 8 bits; None for others."""
    head = containers.netpbm_header(data)
    if head.maximum < 256 or head.plain:
        return None
    count = head.width * head.height * head.channels
    values = np.frombuffer(data, ">u2", count, head.start).astype(np.uint32)
    require(int(values.max()) <= head.maximum, f"a value of {values.max()} is above the file's largest, {head.maximum}")
    scaled = (values * 65535 + head.maximum // 2) // head.maximum
    return scaled.astype(np.uint16).reshape(head.height, head.width, head.channels)


def _heif_samples(data: bytes) -> np.ndarray:
    """(H, W, 1 to 4) uint16 of a HEIC file of more than 8 bits, upright."""
    import pillow_heif

    samples = np.asarray(pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False))
    require(samples.dtype == np.uint16, f"its samples are {samples.dtype}, and it claims more than 8 bits")
    return samples if samples.ndim == 3 else samples[..., None]


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FORMATS = (
    _Format("PNG", (".png", ".apng"), lambda d: d.startswith(png.SIGNATURE), png.inspect, png.samples),
    _Format("JPEG", (".jpg", ".jpeg", ".jfif"), lambda d: d.startswith(b"\xff\xd8\xff"), containers.jpeg),
    _Format("BMP", (".bmp",), lambda d: d.startswith(b"BM"), containers.bmp),
    _Format(
        "TIFF",
        (".tif", ".tiff"),
        lambda d: d[:4] in _TIFF_STARTS,
        tiff.inspect,
        tiff.samples,
        apart=_pillow_without_its_limit,
    ),
    _Format("WEBP", (".webp",), lambda d: d.startswith(b"RIFF") and d[8:12] == b"WEBP", containers.webp),
    _Format(
        "GIF", (".gif",), lambda d: d[:6] in (b"GIF87a", b"GIF89a"), containers.gif, apart=_pillow_without_its_limit
    ),
    _Format(
        "PPM",
        (".ppm", ".pgm", ".pbm", ".pnm"),
        lambda d: re.match(rb"P[1-6][\s#]", d),
        containers.netpbm,
        _netpbm_samples,
    ),
    _Format("AVIF", (".avif",), lambda d: containers.bmff_brand(d) == "AVIF", containers.bmff),
    _Format(
        "HEIC", (".heic", ".heif"), lambda d: containers.bmff_brand(d) == "HEIC", containers.bmff, deep=_heif_samples
    ),
)
# What Pillow's modes become, where not RGB.
_MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}
_PILLOWS_NAMES = {"HEIC": "HEIF"}
EXTENSIONS = tuple(suffix for row in _FORMATS for suffix in row.suffixes)


def read_picture(path: Path | str, *, max_pixels: int = MAX_PIXELS, through_profile: bool = True) -> Picture:
    """Read a file by its content, whatever its name; of several frames or pages the first.

    Args:
        path: a regular file, or a link to one.
        max_pixels: larger pictures are refused before a pixel is decoded.
        through_profile: convert CMYK to RGB by the profile in the file, as programs that show pictures do.

    Raises:
        ImageError: one line naming the file and what is wrong with it: not there, not an image, damaged,
            truncated, too large.
    """
    path = Path(path)
    with refusing(path):
        data = _content(path)
        row = next((row for row in _FORMATS if row.starts(data[:256])), None)
        if row is None:
            raise ImageError(f"not an image of a known format ({', '.join(row.name for row in _FORMATS)})")
        container = row.inspect(data)
        _check_container(container, max_pixels)
        return _decoded(data, row, container, path, max_pixels, through_profile)


def open_rows(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, wanted: Callable[[int, int], bool] = lambda height, width: True
) -> Rows | None:
    """Open a file whose rows can be decoded one after another, with the samples that `read_picture` gives.

    These are PNG that is not interlaced and has 8 or 16 bits a sample and no palette, and TIFF that is grey or RGB,
    stored or packed by the usual compressions, both upright.

    Args:
        path, max_pixels: as `read_picture` takes them.
        wanted: of a height and a width, whether to go on; asked before the file is walked to its end.

    Returns:
        What the file says, and its rows; to be closed. None for any other file, be it damaged.

    Raises:
        ImageError: as `read_picture`, here or when the rows in question are met.
    """
    path = Path(path)
    with refusing(path):
        try:
            data = FileBytes(_opened(path))
        except (ImageError, OSError):  # to be told by `read_picture`
            return None
        try:
            found = _rows(data, path, max_pixels, wanted)
        except BaseException:
            data.file.close()
            raise
        if found is None:
            data.file.close()
        return found


def _rows(data: FileBytes, path: Path, max_pixels: int, wanted: Callable[[int, int], bool]) -> Rows | None:
    row = next((row for row in _FORMATS if row.starts(data[:256])), None)
    if row is None or row.name not in ("PNG", "TIFF"):
        return None
    try:
        if row.name == "PNG":
            size, readable, blocks = png.header(data)[1::-1], png.has_rows(data), png.rows
        else:
            page = exif.directory(data)
            size = page.integer(data, tiff.HEIGHT), page.integer(data, tiff.WIDTH)
            readable, blocks = tiff.has_rows(data), tiff.rows
    except ContainerError:  # likewise
        return None
    if not readable or not wanted(*size):
        return None
    container = row.inspect(data)
    _check_container(container, max_pixels)
    notes = _remarks(row, container, path)
    transparent = png.transparent(data) if row.name == "PNG" else None
    if row.name == "PNG":
        with _open(png.without_pixels(data), row.name) as file:
            orientation, metadata = _about(file, row, b"", notes)
    else:
        orientation, metadata = exif.directory(data).integer(data, exif.ORIENTATION, 1), _of_tiff(data, notes)
    if orientation in _UPRIGHT:
        return None

    def decoded() -> Iterator[np.ndarray]:
        for block in blocks(data):
            yield block if transparent is None else _with_alpha(block, transparent, container.depth)

    def samples() -> Iterator[np.ndarray]:
        with refusing(path):
            yield from decoded()

    first = next(decoded())
    return Rows(
        *size,
        first.shape[2],
        first.dtype,
        samples,
        metadata,
        row.name,
        notes=tuple(dict.fromkeys(notes)),
        close=data.file.close,
    )


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Make one line that names the file of whatever goes wrong when it is read."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{named(path)}: {error}") from error
    except Exception as error:  # decoders meet hostile bytes with many kinds of exception
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise ImageError(f"{named(path)}: cannot be read as an image: {' '.join(reason.split())}") from error


def named(path: Path) -> str:
    """A path fit for one line on any terminal: escaped where it has line breaks, control characters or bad bytes."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _content(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def _opened(path: Path) -> BinaryIO:
    """A regular file; anything else is not opened, and never waited for if it takes the file's place."""
    try:
        _require_regular(os.stat(path))
    except FileNotFoundError:
        if path.is_symlink():
            raise ImageError("a link to a file that is not there") from None
        raise
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - who asked for it closes it
    try:
        status = os.fstat(file.fileno())
        _require_regular(status)
        if status.st_size == 0:
            raise ImageError("the file is empty")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{status.st_size:,} bytes are more than the limit of {MAX_BYTES:,}")
    except BaseException:
        file.close()
        raise
    return file


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_container(container: Container, max_pixels: int) -> None:
    _check_size(container.width, container.height, max_pixels)
    require(
        container.width * container.height <= container.most_pixels,
        f"its data cannot hold {container.width}x{container.height} pixels: the file is truncated or damaged",
    )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} is more than the limit of {max_pixels / 1e6:.0f} megapixels")


@dataclass(frozen=True)
class _Stored:
    """What a file holds before it is turned upright; its samples are (H, W, 1 to 4), alpha last."""

    samples: np.ndarray
    orientation: int
    metadata: Metadata
    tables: Mapping[int, list[int]] = field(default_factory=dict)


def _decoded(
    data: bytes, row: _Format, container: Container, path: Path, max_pixels: int, through_profile: bool
) -> Picture:
    notes = _remarks(row, container, path)
    transparent = None
    if row.name == "PNG":
        data = png.still(data)
        transparent = png.transparent(data)
    with row.apart():
        samples = row.samples(data)
    if samples is not None and row.name == "TIFF":  # not all of which Pillow opens
        orientation = exif.directory(data).integer(data, exif.ORIENTATION, 1)
        stored = _Stored(samples, orientation, _of_tiff(data, notes))
    else:
        stored = _through_pillow(data, row, container, samples, max_pixels, through_profile, notes)
    samples = stored.samples
    if transparent is not None:
        samples = _with_alpha(samples, transparent, container.depth)
    samples = _UPRIGHT.get(stored.orientation, lambda image: image)(samples)
    colors = 1 if samples.shape[2] < 3 else 3
    return Picture(
        np.ascontiguousarray(samples[..., :colors]),
        np.ascontiguousarray(samples[..., colors]) if samples.shape[2] > colors else None,
        stored.metadata,
        row.name,
        tuple(tuple(stored.tables[number]) for number in sorted(stored.tables)) or None,
        tuple(dict.fromkeys(notes)),
    )


def _remarks(row: _Format, container: Container, path: Path) -> list[str]:
    """What a user may not expect of a file."""
    notes = []
    if path.suffix.lower() in EXTENSIONS and path.suffix.lower() not in row.suffixes:
        notes.append(f"named {path.suffix}, but its content is {row.name}")
    if container.frames > 1:
        notes.append(f"the first of {container.frames} {'pages' if row.name == 'TIFF' else 'frames'}")
    if container.depth > 8 and row.samples is _by_pillow and row.deep is None:
        notes.append(f"{container.depth} bits a sample are read as 8")
    return notes


def _through_pillow(
    data: bytes,
    row: _Format,
    container: Container,
    samples: np.ndarray | None,
    max_pixels: int,
    through_profile: bool,
    notes: list[str],
) -> _Stored:
    """What Pillow finds in an inspected file; with samples that are there already, it decodes none."""
    with _open(data, row.name) as file:
        _check_size(*file.size, max_pixels)  # what the decoder's own parser found
        frames = getattr(file, "n_frames", 1) if row.inspect is containers.bmff else 1
        if frames > 1:
            notes.append(f"the first of {frames} frames")
        profile = file.info.get("icc_profile")
        if row.deep is not None and container.depth > 8:
            samples = row.deep(data)
        if samples is None:
            with row.apart():
                file.load()
            samples = _by_mode(file, profile if through_profile else None, notes)
        orientation, metadata = _about(file, row, data, notes)  # after decoding, since Pillow turns a TIFF by itself
        return _Stored(samples, orientation, metadata, getattr(file, "quantization", {}) if row.name == "JPEG" else {})


def _about(file: Image.Image, row: _Format, data: bytes, notes: list[str]) -> tuple[int, Metadata]:
    """Orientation, and what else a file says that Pillow has opened."""
    orientation, block = _exif(file, notes)
    if row.name == "TIFF":
        metadata = _of_tiff(data, notes)
    else:
        metadata = Metadata(block, file.info.get("icc_profile"), _xmp(file.info), _dpi(file.info.get("dpi")))
    return orientation, replace(metadata, icc=None) if file.mode == "CMYK" else metadata


def _open(data: bytes, name: str) -> Image.Image:
    """Let Pillow parse the header."""
    if name == "HEIC":
        try:
            import pillow_heif
        except ImportError as error:
            raise ImageError("HEIC files need pillow-heif; pip install 'swinir-toolkit[heic]'") from error
        pillow_heif.register_heif_opener()
    with _pillow_without_its_limit():
        try:
            return Image.open(io.BytesIO(data), formats=(_PILLOWS_NAMES.get(name, name),))
        except UnidentifiedImageError as error:
            raise ContainerError(f"a {name} file that is damaged or of an unknown kind") from error


def _by_mode(file: Image.Image, profile: bytes | None, notes: list[str]) -> np.ndarray:
    """(H, W, 1 to 4) uint8 or uint16 of what Pillow decoded, alpha last."""
    if file.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(file)
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise ImageError(f"samples of {low} to {high} are not 8 or 16 bit")
        return values.astype(np.uint16)[..., None]
    if file.mode == "F":
        raise ImageError("floating-point samples of an unknown kind; convert to 8 or 16 bit")
    if file.mode == "CMYK":
        return np.asarray(_from_cmyk(file, profile, notes))
    palette_alpha = file.mode == "P" and "transparency" in file.info
    mode = "RGBA" if palette_alpha else _MODES.get(file.mode, "RGB")
    samples = np.asarray(file if file.mode == mode else file.convert(mode))
    return samples[..., None] if mode == "L" else samples


def _from_cmyk(file: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    if profile:
        try:
            rgb = ImageCms.profileToProfile(
                file,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            notes.append("its profile is damaged and was not used")
        else:
            assert rgb is not None
            notes.append("CMYK converted to sRGB through its profile")
            return rgb
    notes.append("CMYK converted to RGB without a profile")
    return file.convert("RGB")


def _with_alpha(samples: np.ndarray, transparent: tuple[int, ...], depth: int) -> np.ndarray:
    """Append an alpha channel that is 0 where all channels have the transparent value, given in `depth` bits."""
    top = np.iinfo(samples.dtype).max
    key = np.array(transparent) * (top // (2**depth - 1))
    alpha = np.where((samples == key).all(axis=2, keepdims=True), 0, top).astype(samples.dtype)
    return np.concatenate([samples, alpha], axis=2)


def _exif(file: Image.Image, notes: list[str]) -> tuple[int, bytes | None]:
    """Orientation, and the EXIF structure of an upright picture; damaged EXIF is left out, for the pixels stand."""
    orientation = 1
    try:
        with _pillow_without_its_limit():
            found = Image.Image.getexif(file)  # PNG's own would decode first; `still` has sorted the chunks
            orientation = found.get(exif.ORIENTATION, 1)
            raw = file.info.get("exif")
            if not isinstance(raw, bytes):
                raw = found.tobytes() if "Raw profile type exif" in file.info else b""
        raw = raw.removeprefix(b"Exif\0\0")
        return orientation, exif.upright(raw) if raw else None
    except Exception:  # hostile bytes again
        notes.append("its EXIF is damaged and left out")
        return orientation, None


def _of_tiff(data: Bytes, notes: list[str]) -> Metadata:
    """What a TIFF file says in its first directory, and in those it names."""
    try:
        block = exif.described(data)
    except ContainerError:
        block = None
        notes.append("its EXIF is damaged and left out")
    return Metadata(
        block, tiff.content(data, tiff.ICC), _xmp({"xmp": tiff.content(data, tiff.XMP)}), _dpi(tiff.resolution(data))
    )


def _xmp(info: Mapping[str | tuple[int, int], Any]) -> bytes | None:
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    return _ORIENTATION_IN_XMP.sub(rb"\g<1>1", packet) if isinstance(packet, bytes) else None


def _dpi(pair: Any) -> tuple[float, float] | None:
    """Pixels an inch where a file gives credible ones."""
    try:
        horizontal, vertical = (float(value) for value in pair)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (horizontal, vertical) if 1e-3 < min(horizontal, vertical) <= max(horizontal, vertical) < 1e6 else None

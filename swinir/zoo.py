"""Released and bundled weights as a table, the grammar of their names, and downloads that are checked.

    released_weights.csv, bundled/index.toml -> ZooEntry -> find, locate, download, verify

A download is streamed into a folder of its own beside the target, checked there, and only then moved to its
final name: whatever goes wrong, the final name holds a whole file or what it held before.
"""

import csv
import difflib
import hashlib
import json
import logging
import os
import re
import struct
import tempfile
import time
import tomllib
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

logger = logging.getLogger(__name__)

Kind = Literal["x", "noise", "jpeg"]
How = Literal["sha256", "crc", "none"]

RELEASE_URL = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/"
SUFFIXES = (".pth", ".safetensors")
GRAMMAR = (
    "{id}_{task}_{data}_s{patch}w{window}_SwinIR-{T | S | M | L}_{x4 | noise25 | jpeg40}[_GAN | _PSNR], "
    "for example 001_classicalSR_DF2K_s64w8_SwinIR-M_x4"
)

# How names spell each task, and what its level counts. Kept beside the grammar, so that it needs no torch;
# a test holds it to `TaskSpec.in_file_name`.
TASK_IN_NAME: dict[str, tuple[str, Kind]] = {
    "classical_sr": ("classicalSR", "x"),
    "lightweight_sr": ("lightweightSR", "x"),
    "real_sr": ("realSR_BSRGAN", "x"),
    "gray_dn": ("grayDN", "noise"),
    "color_dn": ("colorDN", "noise"),
    "jpeg_car": ("CAR", "jpeg"),
    "color_jpeg_car": ("colorCAR", "jpeg"),
}
SIZE_WORDS = {"T": "tiny", "S": "small", "M": "medium", "L": "large"}

MAX_BYTES = 1 << 30  # the most that a file of unknown length may have
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces of the body
RETRY_PAUSES = (1.0, 2.0)  # seconds before each further attempt after a passing failure
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
CHUNK = 1 << 16

# Files of torch before 1.6: protocol 2, then torch's magic number 0x1950a86a20f9469cfc6c as a pickled integer.
LEGACY_HEAD = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


class DownloadError(OSError):
    """A download failed; the message holds the address, the target and the expected hash."""


class _PassingError(Exception):
    """A failure that another attempt may not meet."""


@dataclass(frozen=True)
class WeightsName:
    """The parts of a released file's name.

    Attributes:
        id: three digits, numbering the tasks; both JPEG tasks share 006.
        task: name of the task, a key of `swinir.tasks.TASKS`.
        data: training data, such as DF2K.
        patch: side of the training patches, in low-quality pixels.
        window: side of the attention windows, in pixels.
        size: T (this project's tiny experts), S, M or L.
        kind: what `level` counts: scale, noise level or JPEG quality.
        level: 4 in x4, 25 in noise25, 40 in jpeg40.
        objective: "GAN", "PSNR" or "".

    Raises:
        ValueError: naming the part that no file name could hold.
    """

    id: str
    task: str
    data: str
    patch: int
    window: int
    size: str
    kind: Kind
    level: int
    objective: str = ""

    def __post_init__(self) -> None:
        allowed = {
            "id": re.fullmatch(r"[0-9]{3}", self.id),
            "task": self.task in TASK_IN_NAME,
            "data": re.fullmatch(r"[A-Za-z0-9-]+", self.data),
            "patch": self.patch >= 1,
            "window": self.window >= 1,
            "size": self.size in SIZE_WORDS,
            "kind": self.kind in get_args(Kind),
            "level": self.level >= 1,
            "objective": self.objective in ("", "GAN", "PSNR"),
        }
        for part, fits in allowed.items():
            if not fits:
                raise ValueError(f"{part} of a weights name can't be {getattr(self, part)!r}; names follow {GRAMMAR}")
        kind = TASK_IN_NAME[self.task][1]
        if self.kind != kind:
            raise ValueError(f"the level of {self.task} is written {kind}<number>, got {self.level_text!r}")

    @property
    def level_text(self) -> str:
        """The level as names write it: x4, noise25 or jpeg40."""
        return f"{self.kind}{self.level}"


_TASK_OF_SPELLING = {spelling: task for task, (spelling, _) in TASK_IN_NAME.items()}
_NAME_PARTS = (
    ("id", r"([0-9]{3})"),
    ("task", f"({'|'.join(_TASK_OF_SPELLING)})"),
    ("data", r"([A-Za-z0-9-]+)"),
    ("patch and window", r"s([0-9]+)w([0-9]+)"),
    ("size", r"SwinIR-([TSML])"),
    ("level", r"(x|noise|jpeg)([0-9]+)"),
)


def parse_name(name: str) -> WeightsName:
    """Read the parts of a weights name, a file name or a path.

    Raises:
        ValueError: naming the part that does not parse, and the grammar.
    """
    stem = _stem(name)
    rest = stem
    found: list[str] = []
    for part, pattern in _NAME_PARTS:
        match = re.match(rf"{pattern}(?:_|\Z)", rest)
        if match is None:
            raise ValueError(f"can't read the {part} of weights name {stem!r} at {rest!r}; names follow {GRAMMAR}")
        found += match.groups()
        rest = rest[match.end() :]
    number, spelling, data, patch, window, size, kind, level = found
    if rest not in ("", "GAN", "PSNR"):
        raise ValueError(f"can't read the objective of weights name {stem!r} at {rest!r}; names follow {GRAMMAR}")
    parts = WeightsName(
        number, _TASK_OF_SPELLING[spelling], data, int(patch), int(window), size, cast(Kind, kind), int(level), rest
    )
    if format_name(parts) != stem:  # leading zeros, a dangling underscore
        raise ValueError(f"weights name {stem!r} should be written {format_name(parts)!r}")
    return parts


def format_name(parts: WeightsName) -> str:
    """The file name without suffix; the inverse of `parse_name`."""
    spelling = TASK_IN_NAME[parts.task][0]
    name = f"{parts.id}_{spelling}_{parts.data}_s{parts.patch}w{parts.window}_SwinIR-{parts.size}_{parts.level_text}"
    return f"{name}_{parts.objective}" if parts.objective else name


def _stem(name: str) -> str:
    last = PurePath(name).name
    return next((last.removesuffix(suffix) for suffix in SUFFIXES if last.endswith(suffix)), last)


@dataclass(frozen=True)
class ZooEntry:
    """One weights file.

    Attributes:
        name: file name without suffix.
        file: file name.
        parts: what the name says.
        bytes: length of the file; None where it is not known.
        sha256: lower-case hex digest; None where none is known.
        url: address; None for bundled files.
        params_key: where the checkpoint keeps its weights.
        parameters: number of parameters of the network.
        published: results as short text. SR: PSNR/SSIM on Y; denoising: PSNR; JPEG: PSNR/SSIM/PSNR-B.
        bundled: whether the file comes with the package.
        alias: short unique name: task, level, training data (size, when bundled) and objective.
        config: recipe that trained a bundled file.
        trained_on: what a bundled file was trained on.
    """

    name: str
    file: str
    parts: WeightsName
    bytes: int | None
    sha256: str | None
    url: str | None
    params_key: str
    parameters: int | None
    published: str
    bundled: bool
    alias: str
    config: str = ""
    trained_on: str = ""


def _alias(parts: WeightsName, *, bundled: bool) -> str:
    origin = SIZE_WORDS[parts.size] if bundled else parts.data
    return "_".join(filter(None, (parts.task, parts.level_text, origin, parts.objective)))


def _released() -> tuple[ZooEntry, ...]:
    with Path(__file__).with_name("released_weights.csv").open(newline="", encoding="utf-8") as stream:
        return tuple(
            ZooEntry(
                name=_stem(row["file"]),
                file=row["file"],
                parts=(parts := parse_name(row["file"])),
                bytes=int(row["bytes"]) if row["bytes"] else None,
                sha256=row["sha256"] or None,
                url=RELEASE_URL + row["file"],
                params_key=row["params_key"],
                parameters=int(row["parameters"]),
                published=row["published"],
                bundled=False,
                alias=_alias(parts, bundled=False),
            )
            for row in csv.DictReader(stream)
        )


RELEASED: tuple[ZooEntry, ...] = _released()


def bundled_folder() -> Path | None:
    """Folder of the weights that come with the package: inside it, or in the source tree; None without either."""
    package = Path(__file__).parent
    source = package.parent / "model_zoo" / "bundled"
    if (package / "bundled").is_dir():
        return package / "bundled"
    return source if source.is_dir() and (package.parent / "pyproject.toml").is_file() else None


def bundled() -> tuple[ZooEntry, ...]:
    """The bundled weights, from the `[[weights]]` rows of `index.toml` in their folder.

    A row has file, bytes, sha256, parameters, and may have params_key ("params" without it), published,
    config and trained_on.

    Raises:
        ValueError: for a row that misses a key or has another one.
    """
    folder = bundled_folder()
    if folder is None or not (folder / "index.toml").is_file():
        return ()
    index = folder / "index.toml"
    rows = tomllib.loads(index.read_text(encoding="utf-8")).get("weights", [])
    return tuple(_bundled_entry(row, index) for row in rows)


def _bundled_entry(row: dict[str, Any], index: Path) -> ZooEntry:
    needed = {"file", "bytes", "sha256", "parameters"}
    extra = row.keys() - needed - {"params_key", "published", "config", "trained_on"}
    if extra or needed - row.keys():
        faults = [f"unknown key {key!r}" for key in sorted(extra)]
        faults += [f"no {key!r}" for key in sorted(needed - row.keys())]
        raise ValueError(f"{index}, row {row.get('file', '?')}: {', '.join(faults)}")
    parts = parse_name(row["file"])
    return ZooEntry(
        name=_stem(row["file"]),
        file=PurePath(row["file"]).name,
        parts=parts,
        bytes=row["bytes"],
        sha256=row["sha256"].lower(),
        url=None,
        params_key=row.get("params_key", "params"),
        parameters=row["parameters"],
        published=row.get("published", ""),
        bundled=True,
        alias=_alias(parts, bundled=True),
        config=row.get("config", ""),
        trained_on=row.get("trained_on", ""),
    )


def default_folder() -> Path:
    """Where downloads go: `model_zoo/swinir` below the current folder, or what SWINIR_ZOO names."""
    return Path(os.environ.get("SWINIR_ZOO") or "model_zoo/swinir").expanduser()


def find(name_or_path: str | Path) -> ZooEntry:
    """The entry of a name, file name, alias, or path to a file so named; the file need not exist.

    Raises:
        ValueError: for an unknown name, with the nearest known ones.
    """
    last = PurePath(name_or_path).name
    entries = (*bundled(), *RELEASED)
    for entry in entries:
        if last in (entry.name, entry.file, entry.alias):
            return entry
    known = {spelling.lower(): spelling for e in entries for spelling in (e.alias, e.name)}
    typed = _stem(last).lower()
    near = [known[key] for key in known if typed and key.startswith(typed)]
    near = near[:3] or [known[key] for key in difflib.get_close_matches(typed, known, n=3, cutoff=0.5)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise ValueError(f"unknown weights {str(name_or_path)!r}; {hint}`swinir zoo list` shows all")


def locate(name: str | Path) -> Path:
    """The local file of an entry: the path itself when one with a folder is given, else bundled or downloaded.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: when the file is not there, with the command that fetches it.
    """
    entry = find(name)
    given = Path(name)
    if len(given.parts) > 1:
        path = given
    elif entry.bundled:
        path = (bundled_folder() or Path()) / entry.file
    else:
        path = default_folder() / entry.file
    if not path.is_file():
        remedy = "reinstall the package" if entry.bundled else f"run `swinir zoo download {entry.alias}`"
        raise FileNotFoundError(f"{path} is not there; {remedy}")
    return path


def download(entry: ZooEntry, *, target: Path | None = None, progress: bool = False) -> Path:
    """Fetch a released file, unless a good one is there already.

    Args:
        entry: what to fetch; a bundled entry is on disk already, and only its path is returned.
        target: the file to write, or an existing folder to write it in; `default_folder()` without it.
        progress: show a bar on stderr.

    Returns:
        The path of the file, checked by SHA-256, or by its own checksums where no hash is known (`verify`).

    Raises:
        DownloadError: with address, target and expected hash, so that the file can be fetched by other means.
            The target is as it was before.
    """
    if entry.bundled:
        return locate(entry.name)
    path = default_folder() / entry.file if target is None else Path(target)
    if path.is_dir():
        path /= entry.file
    url = _address(entry)
    try:
        if path.exists():
            present = _check(path, entry)
            if present.ok:
                return path
            logger.warning("%s is damaged (%s); fetching it again", path, present.message)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as staging:
            _fetch_checked(entry, url, Path(staging), progress).replace(path)
    except (OSError, ValueError, _PassingError) as error:
        kept = "; the damaged file there was left alone" if path.exists() else ""
        expected = f"expected SHA-256 {entry.sha256}" if entry.sha256 else "expected SHA-256: none published"
        raise DownloadError(
            f"could not download {entry.file}: {error}. Fetch {url} by other means and place it at {path} "
            f"({expected}{kept})"
        ) from error
    return path


def _address(entry: ZooEntry) -> str:
    if entry.url is None:
        raise ValueError(f"{entry.file} has no address to download from")
    url, mirror = entry.url, os.environ.get("SWINIR_ZOO_MIRROR")
    if mirror and url.startswith(RELEASE_URL):
        url = mirror.rstrip("/") + "/" + url.removeprefix(RELEASE_URL)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"downloads need an http or https address, got {url!r}; see SWINIR_ZOO_MIRROR")
    return url


def _fetch_checked(entry: ZooEntry, url: str, staging: Path, progress: bool) -> Path:
    pooch.get_logger().setLevel(logging.WARNING)
    fetched = pooch.retrieve(
        url,
        known_hash=f"sha256:{entry.sha256}" if entry.sha256 else None,
        fname=entry.file,
        path=staging,
        downloader=partial(_fetch, entry=entry, progress=progress),
    )
    path = Path(fetched)
    if entry.sha256 is None:
        verdict = _check(path, entry)
        if not verdict.ok:
            raise ValueError(f"the server's answer is no whole checkpoint: {verdict.message}")
    return path


def _fetch(url: str, output: str, _pooch: object, *, entry: ZooEntry, progress: bool) -> None:
    """Downloader as pooch calls it: the body of `url` into `output`, started anew after a passing failure."""
    part = Path(f"{output}.part")  # pooch's own temporary file is readable by its owner alone, and stays so
    for pause in (*RETRY_PAUSES, None):
        try:
            _stream(url, part, entry, progress)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if pause is None:
                host = urlsplit(url).hostname
                raise _PassingError(f"no connection to {host}, or it broke off ({type(error).__name__})") from error
        except _PassingError:
            if pause is None:
                raise
        time.sleep(pause)
    part.replace(output)


def _stream(url: str, part: Path, entry: ZooEntry, progress: bool) -> None:
    with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
        if response.status_code in PASSING_STATUS:
            raise _PassingError(f"the server answered {response.status_code} {response.reason}")
        if response.status_code != 200:
            raise ValueError(f"the server answered {response.status_code} {response.reason}")
        if url.startswith("https:") and any(not hop.url.startswith("https:") for hop in (*response.history, response)):
            raise ValueError("the server redirects to an address without encryption")
        if "html" in response.headers.get("Content-Type", ""):
            raise ValueError("the server sent a web page in place of the file")
        announced = _announced(response)
        limit = entry.bytes or MAX_BYTES
        if announced is not None and (announced > limit or (entry.bytes and announced != entry.bytes)):
            raise ValueError(f"the server announces {announced} bytes; expected {_expectation(entry)}")
        received = 0
        with (
            part.open("wb") as stream,
            tqdm(
                total=announced or entry.bytes, unit="B", unit_scale=True, desc=entry.file, disable=not progress
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                received += len(chunk)
                if received > limit:
                    raise ValueError(f"the server sends more than the expected {_expectation(entry)}")
                stream.write(chunk)
                bar.update(len(chunk))
    expected = announced or entry.bytes
    if expected is not None and received != expected:
        raise _PassingError(f"the transfer ended after {received} of {expected} bytes")


def _announced(response: requests.Response) -> int | None:
    """Content-Length, where it counts the bytes that `iter_content` yields."""
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(length) if length.isdecimal() and not encoded else None


def _expectation(entry: ZooEntry) -> str:
    return f"{entry.bytes} bytes" if entry.bytes else f"at most {MAX_BYTES} bytes"


@dataclass(frozen=True)
class Verdict:
    """What a check of a file found.

    `how` says by what: "sha256" finds any change; "crc" any change to the stored tensors and all but a few
    descriptive bytes around them; "none" means that only form and length could be looked at.
    """

    path: Path
    entry: ZooEntry | None
    ok: bool
    how: How
    message: str


def verify(path: str | Path) -> Verdict:
    """Check a weights file by its known hash, or by the checksums it carries.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    entry = next((e for e in (*bundled(), *RELEASED) if e.file == path.name), None)
    return _check(path, entry)


def _check(path: Path, entry: ZooEntry | None) -> Verdict:
    size = path.stat().st_size
    if entry is not None and entry.sha256 is not None:
        if entry.bytes is not None and size != entry.bytes:
            return Verdict(path, entry, False, "sha256", f"{size} bytes instead of {entry.bytes}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != entry.sha256:
            return Verdict(path, entry, False, "sha256", f"SHA-256 is {digest} instead of {entry.sha256}")
        return Verdict(path, entry, True, "sha256", "SHA-256 matches")

    how: How = "none"
    least = 4 * (entry.parameters or 0) if entry is not None else 0
    with path.open("rb") as stream:
        head = stream.read(len(LEGACY_HEAD))
    if head.startswith(b"PK\x03\x04"):
        how, fault, praise = (
            "crc",
            _zip_fault(path),
            "no SHA-256 known; CRC-32 of every tensor and the file's layout match",
        )
    elif head == LEGACY_HEAD:
        fault, praise = None, "no checksum known; a checkpoint of the old format, which carries none"
    elif path.suffix == ".safetensors":
        fault, praise = _safetensors_fault(path), "no checksum known; header and length fit each other"
    else:
        fault, praise = f"not a checkpoint: it begins with {head!r}", ""
    if fault is None and size < least:
        fault = f"{size} bytes can't hold {entry.parameters if entry else 0} parameters"
    return Verdict(path, entry, fault is None, how, fault or praise)


def _safetensors_fault(path: Path) -> str | None:
    """What keeps the header and the length of a safetensors file from fitting; None when they fit."""
    data = path.stat().st_size - 8
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if length > data:
            return "shorter than its header"
        try:
            header = json.loads(stream.read(length))
            spans = sorted(row["data_offsets"] for key, row in header.items() if key != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return "unreadable header"
    stop = 0
    for start, end in spans:
        if start != stop:
            return f"tensors leave a gap or overlap at byte {start}"
        stop = end
    return None if stop == data - length else f"{data - length} bytes of tensors instead of {stop}"


def _zip_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint in torch's zip format; None when nothing is.

    Beyond the CRC of each member, every byte of the headers has to be the one that follows from the others.
    What stays unseen is a field that nothing else determines: the version of the writer.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                members = sorted(archive.infolist(), key=lambda member: member.header_offset)
                if not any(member.filename.endswith("/data.pkl") for member in members):
                    return "a zip file, but no checkpoint: it has no data.pkl"
                compressed = [m.filename for m in members if m.compress_type not in (zipfile.ZIP_STORED, 8)]
                if compressed:
                    return f"unknown compression of {compressed[0]}"
                broken = archive.testzip()
                if broken is not None:
                    return f"CRC-32 of {broken} does not match"
                starts = [member.header_offset for member in members]
                for member, start, stop in zip(
                    members, [0, *starts[1:]], [*starts[1:], archive.start_dir], strict=True
                ):
                    stream.seek(start)
                    if not _local_part_fits(member, stream.read(stop - start)):
                        return f"the header of {member.filename} contradicts the directory"
                if len({(m.create_version, m.create_system, m.internal_attr, m.external_attr) for m in members}) > 1:
                    return "the directory's entries differ in writer or attributes"
                stream.seek(archive.start_dir)
                if not _directory_fits(stream.read(), archive):
                    return "the directory is damaged"
                return None
        except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError, zlib.error, struct.error) as error:
            return f"a cut or damaged zip file ({error})"


def _local_part_fits(member: zipfile.ZipInfo, part: bytes) -> bool:
    """Whether everything from a member's local header up to the next one agrees with the directory."""
    year, month, day, hour, minute, second = member.date_time
    version = member.extract_version | member.reserved << 8
    stamp = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
    fixed = struct.pack("<4s5H", b"PK\x03\x04", version, member.flag_bits, member.compress_type, *stamp)
    crc, packed, size, name_length, extra_length = struct.unpack_from("<3I2H", part, len(fixed))
    data_start = 30 + name_length + extra_length
    data_stop = data_start + member.compress_size
    streamed = bool(member.flag_bits & 8)  # lengths may stand behind the data instead
    known = (member.CRC, member.compress_size, member.file_size)
    wide = (member.CRC, 0xFFFFFFFF, 0xFFFFFFFF)  # lengths in the zip64 extra field
    descriptors = {mark + struct.pack(form, *known) for mark in (b"", b"PK\x07\x08") for form in ("<3I", "<I2Q")}
    return (
        part.startswith(fixed)
        and (crc, packed, size) in ({known, wide, (0, 0, 0)} if streamed else {known, wide})
        and part[30 : 30 + name_length] == _name_bytes(member)
        and _extra_fits(part[30 + name_length : data_start], known)
        and _extra_fits(member.extra, known)
        and data_stop <= len(part)
        and part[data_stop:] in (descriptors if streamed and member.file_size else {b""})
        and member.volume == 0
        and not member.comment
    )


def _extra_fits(extra: bytes, known: tuple[int, int, int]) -> bool:
    """Whether extra fields are those that torch writes: its padding ("FB", all Z) and zip64 lengths."""
    while extra:
        if len(extra) < 4:
            return False
        mark, length = struct.unpack("<2sH", extra[:4])
        content, extra = extra[4 : 4 + length], extra[4 + length :]
        padding = mark == b"FB" and content == b"Z" * length
        zip64 = mark == b"\x01\x00" and struct.pack("<2Q", known[2], known[1]).startswith(content[:16])
        if not (padding or zip64):
            return False
    return True


def _directory_fits(directory: bytes, archive: zipfile.ZipFile) -> bool:
    """Whether lengths in the directory, and what follows it, are those that its members ask for."""
    length = 0
    for member in archive.infolist():
        texts = struct.unpack_from("<3H", directory, length + 28)
        if texts != (len(_name_bytes(member)), len(member.extra), len(member.comment)):
            return False
        length += 46 + sum(texts)
    count, start, tail = len(archive.infolist()), archive.start_dir, directory[length:]
    short = (min(count, 0xFFFF), min(count, 0xFFFF), min(length, 0xFFFFFFFF), min(start, 0xFFFFFFFF))
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, *short, 0)
    wide = struct.pack("<2I4Q", 0, 0, count, count, length, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + length, 1)
    record = struct.pack("<4sQ", b"PK\x06\x06", 44)
    # Between record and wide stand two versions: the writer's, free, and the reader's, 4.5 wherever zip64 is used.
    return tail == end or (tail[:12] == record and tail[14:] == struct.pack("<H", 45) + wide + locator + end)


def _name_bytes(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")

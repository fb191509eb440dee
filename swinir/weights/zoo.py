"""The table of released and bundled weights, the grammar of their names, and their files.

    released_weights.csv, bundled/index.toml -> ZooEntry -> find, locate, download, verify

The module needs no torch, so the command line starts fast.
"""

import contextlib
import csv
import difflib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, cast, get_args

from swinir.environment import shipped_folder
from swinir.weights.download import DownloadError, fetch
from swinir.weights.verify import Expected, How, examine

__all__ = [
    "RELEASED",
    "SIZE_WORDS",
    "SUFFIXES",
    "TASK_IN_NAME",
    "DownloadError",
    "Verdict",
    "WeightsName",
    "ZooEntry",
    "bundled",
    "bundled_folder",
    "default_folder",
    "download",
    "find",
    "format_name",
    "locate",
    "parse_name",
    "present",
    "verify",
]

Kind = Literal["x", "noise", "jpeg"]

RELEASE_URL = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/"
SUFFIXES = (".pth", ".safetensors")
GRAMMAR = (
    "{id}_{task}_{data}_s{patch}w{window}_SwinIR-{T | S | M | L}_"
    "{x4 | x1-4 | noise25 | noise0-55 | jpeg40}[_GAN | _PSNR], for example 001_classicalSR_DF2K_s64w8_SwinIR-M_x4"
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
    "real_photo": ("realPhoto", "x"),
}
SIZE_WORDS = {"T": "tiny", "S": "small", "M": "medium", "L": "large"}


@dataclass(frozen=True)
class WeightsName:
    """The parts of a file's name, as the released program gives it; ranges of levels are this project's.

    Attributes:
        id: three digits, numbering the tasks; both JPEG tasks share 006.
        task: name of the task, a key of `swinir.tasks.TASKS`.
        data: training data, such as DF2K.
        patch: side of the training patches, in low-quality pixels.
        window: side of the attention windows, in pixels.
        size: T (the bundled tiny models), S, M or L.
        kind: what `level` counts: scale, noise level or JPEG quality.
        level: 4 in x4, 25 in noise25, 40 in jpeg40, 0 in noise0-55.
        objective: "GAN", "PSNR" or "".
        level_to: 55 in noise0-55, a model for any level from 0 to 55, 4 in x1-4, a model of any scale; None for one
            level.

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
    level_to: int | None = None

    def __post_init__(self) -> None:
        allowed = {
            "id": re.fullmatch(r"[0-9]{3}", self.id),
            "task": self.task in TASK_IN_NAME,
            "data": re.fullmatch(r"[A-Za-z0-9-]+", self.data),
            "patch": self.patch >= 1,
            "window": self.window >= 1,
            "size": self.size in SIZE_WORDS,
            "kind": self.kind in get_args(Kind),
            "level": self.level >= (1 if self.level_to is None else 0),
            "objective": self.objective in ("", "GAN", "PSNR"),
        }
        for part, fits in allowed.items():
            if not fits:
                raise ValueError(f"{part} of a weights name can't be {getattr(self, part)!r}; names follow {GRAMMAR}")
        kind = TASK_IN_NAME[self.task][1]
        if self.kind != kind:
            raise ValueError(f"the level of {self.task} is written {kind}<number>, got {self.level_text!r}")
        if self.level_to is not None and self.level >= self.level_to:
            raise ValueError(f"a range of levels must rise, got {self.level_text!r}; names follow {GRAMMAR}")

    @property
    def level_text(self) -> str:
        """The level as names write it: x4, noise25, jpeg40 or noise0-55."""
        return f"{self.kind}{self.level}" if self.level_to is None else f"{self.kind}{self.level}-{self.level_to}"

    def covers(self, level: float) -> bool:
        """Compare a level with that of the model, or with its range."""
        return self.level <= level <= (self.level if self.level_to is None else self.level_to)


_TASK_OF_SPELLING = {spelling: task for task, (spelling, _) in TASK_IN_NAME.items()}
_NAME_PARTS = (
    ("id", r"([0-9]{3})"),
    ("task", f"({'|'.join(_TASK_OF_SPELLING)})"),
    ("data", r"([A-Za-z0-9-]+)"),
    ("patch and window", r"s([0-9]+)w([0-9]+)"),
    ("size", r"SwinIR-([TSML])"),
    ("level", r"(x|noise|jpeg)([0-9]+)(?:-([0-9]+))?"),
)


def parse_name(name: str) -> WeightsName:
    """Parse a weights name, a file name or a path.

    Raises:
        ValueError: naming the part that does not parse, and the grammar.
    """
    stem = _stem(name)
    rest = stem
    found: list[str | None] = []
    for part, pattern in _NAME_PARTS:
        match = re.match(rf"{pattern}(?:_|\Z)", rest)
        if match is None:
            raise ValueError(f"can't read the {part} of weights name {stem!r} at {rest!r}; names follow {GRAMMAR}")
        found += match.groups()
        rest = rest[match.end() :]
    number, spelling, data, patch, window, size, kind, level, level_to = cast(list[str], found)
    if rest not in ("", "GAN", "PSNR"):
        raise ValueError(f"can't read the objective of weights name {stem!r} at {rest!r}; names follow {GRAMMAR}")
    parts = WeightsName(
        id=number,
        task=_TASK_OF_SPELLING[spelling],
        data=data,
        patch=int(patch),
        window=int(window),
        size=size,
        kind=cast(Kind, kind),
        level=int(level),
        objective=rest,
        level_to=int(level_to) if level_to else None,
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

    @property
    def expected(self) -> Expected:
        """Known length, hash and size of the entry's file."""
        return Expected(self.bytes, self.sha256, self.parameters)


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
    """Return the folder of the weights that come with the package; None where it is missing."""
    return shipped_folder("model_zoo/bundled")


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
    """Return the folder of downloads: `model_zoo/swinir` below the current folder, or SWINIR_ZOO."""
    return Path(os.environ.get("SWINIR_ZOO") or "model_zoo/swinir").expanduser()


def find(name_or_path: str | Path) -> ZooEntry:
    """Return the entry of a name, file name, alias or path; the file need not exist.

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
    """Return the local file of an entry: the path itself if it has a folder, else the bundled or downloaded file.

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


def present() -> tuple[ZooEntry, ...]:
    """Return the entries whose files `locate` finds, bundled ones first; the files are not read."""
    found = []
    for entry in (*bundled(), *RELEASED):
        with contextlib.suppress(FileNotFoundError):
            locate(entry.name)
            found.append(entry)
    return tuple(found)


def download(entry: ZooEntry, *, target: Path | None = None, progress: bool = False) -> Path:
    """Fetch a released file, unless a good one is there already.

    Args:
        entry: what to fetch; a bundled entry is on disk already, and only its path is returned.
        target: the file to write, or an existing folder to write it in; `default_folder()` without it.
        progress: show a bar on stderr.

    Returns:
        The path of the file, checked by SHA-256, or by its own checksums where no hash is known.

    Raises:
        DownloadError: with address, target and expected hash, so that the file can be fetched by other means.
            The target is as it was before.
        ValueError: for an entry or a mirror without an http or https address.
    """
    if entry.bundled:
        return locate(entry.name)
    if entry.url is None:
        raise ValueError(f"{entry.file} has no address to download from")
    path = default_folder() / entry.file if target is None else Path(target)
    if path.is_dir():
        path /= entry.file
    fetch(_address(entry.url), path, entry.expected, progress=progress)
    return path


def _address(url: str) -> str:
    """The address itself, or that of the same file at the mirror that SWINIR_ZOO_MIRROR names."""
    mirror = os.environ.get("SWINIR_ZOO_MIRROR")
    if mirror and url.startswith(RELEASE_URL):
        return mirror.rstrip("/") + "/" + url.removeprefix(RELEASE_URL)
    return url


@dataclass(frozen=True)
class Verdict:
    """Result of a check of a file; `how` as in `swinir.weights.verify.Finding`."""

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
    return Verdict(path, entry, *examine(path, entry.expected if entry else Expected()))

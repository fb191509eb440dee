"""Training images: found, checked and decoded once before the first step, into memory or a cache folder."""

import hashlib
import importlib.resources
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from swinir.atomic import atomic_path
from swinir.degradations.resize import imresize
from swinir.image_io.image import EXTENSIONS, ImageError, read, to_gray, to_rgb
from swinir.image_io.reader import probe

MAX_NAMED = 3  # problems listed in one message
SCIKIT_IMAGE = Path("@scikit-image")  # the photographs that are installed with scikit-image
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
Wrap = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Source:
    """Files of a training image.

    Attributes:
        name: path below the training folder, the same on every machine.
        gt: ground truth.
        lq: low-quality image, if it is a file.
        folder: number of the training folder.
    """

    name: str
    gt: Path
    lq: Path | None = None
    folder: int = 0


@dataclass(frozen=True)
class TrainingImage:
    """A decoded training image, grey or RGB.

    Attributes:
        gt: returns the ground truth, (H, W, C) uint8.
        lq: returns the low-quality image, (H/scale, W/scale, C) uint8; None if patches are degraded instead.
    """

    name: str
    bytes: int
    height: int
    width: int
    gt: Callable[[], np.ndarray]
    lq: Callable[[], np.ndarray] | None


def find_images(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted.

    The folder `@scikit-image` holds the five color photographs (0.2 to 0.4 megapixels each) that are installed with
    scikit-image.

    Raises:
        ValueError, OSError: for a folder that is missing or has no images.
    """
    if folder == SCIKIT_IMAGE:
        return [_root(folder) / name for name in PHOTOGRAPHS]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"training folder not found: {folder}; put the images there, or train on any folder of photographs by "
            "--set data.train=FOLDER (`swinir train --list` says which images a recipe takes)"
        )
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and not _hidden(p, folder))
    if not found:
        raise ValueError(f"no images in {folder}; looked for {', '.join(EXTENSIONS)}")
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _root(folder: Path) -> Path:
    """Return the actual path of a training folder."""
    return Path(str(importlib.resources.files("skimage") / "data")) if folder == SCIKIT_IMAGE else folder


def find_sources(folders: Sequence[Path], folders_lq: Sequence[Path] = (), scale: float = 1) -> list[Source]:
    """Return the images of one or several folders, each with its low-quality image if there are folders of these.

    A low-quality image has the same path below its folder, with any image suffix, and with or without "x{scale}"
    appended to its name.

    Raises:
        ValueError, OSError: for missing or empty folders, and with the images that have no low-quality image.
    """
    sources, alone = [], []
    for number, folder in enumerate(folders):
        partners = None
        if folders_lq:
            root = folders_lq[number]
            partners = {p.relative_to(root).with_suffix("").as_posix(): p for p in reversed(find_images(root))}
        for path in find_images(folder):
            relative = path.relative_to(_root(folder))
            stem = relative.with_suffix("").as_posix()
            lq = None
            if partners is not None:
                lq = partners.get(f"{stem}x{scale:g}") or partners.get(stem)
                if lq is None:
                    alone.append(f"{path}: no low-quality partner {folders_lq[number] / stem}x{scale:g}{path.suffix}")
            prefix = f"{number}/" if len(folders) > 1 else ""
            sources.append(Source(prefix + relative.as_posix(), path, lq, number))
    if alone:
        raise ValueError(_listed(alone))
    return sources


def first_images(sources: Sequence[Source], count: int | None) -> list[Source]:
    """Return the first `count` images of `find_sources`: whole folders, then images evenly spaced in the next one.

    Args:
        count: None returns all images.

    Raises:
        ValueError: when there are fewer images.
    """
    if count is None or count == len(sources):
        return list(sources)
    if count > len(sources):
        raise ValueError(f"data.images asks for {count} images, there are {len(sources)}; name more in data.train")
    kept: list[Source] = []
    for _, group in itertools.groupby(sources, key=lambda source: source.folder):
        folder, room = list(group), count - len(kept)
        kept += folder if len(folder) <= room else [folder[int((i + 0.5) * len(folder) / room)] for i in range(room)]
    return kept


def split_holdout(sources: Sequence[Source], holdout: int) -> tuple[list[Source], list[Source]]:
    """Split into training and validation images; the latter are evenly spaced in the sorted list."""
    if holdout >= len(sources):
        raise ValueError(f"data.holdout must leave images to train on, got {holdout} of {len(sources)}")
    chosen = {int((i + 0.5) * len(sources) / holdout) for i in range(holdout)}
    return [s for i, s in enumerate(sources) if i not in chosen], [sources[i] for i in sorted(chosen)]


def load_images(
    sources: Sequence[Source],
    *,
    gray: bool = False,
    scale: int = 1,
    bicubic: bool = False,
    smallest: int = 1,
    cache: Path | None = None,
    progress: Wrap = lambda items: items,
) -> list[TrainingImage]:
    """Decode every image once, or read it from the cache.

    Args:
        sources: from `find_sources`.
        gray: convert to one channel, else to RGB.
        scale: ground truth is cropped to a multiple of it.
        bicubic: make low-quality images, where there are no files, by MATLAB's bicubic of the whole image.
        smallest: smallest side of the ground truth that a patch fits into, in pixels.
        cache: a folder for decoded pixels, created if absent; None keeps them in memory.
        progress: wraps the list, to show the progress.

    Raises:
        ImageError: one line with the files that cannot be read, are too small, or do not match their low-quality image.
    """
    loader = _Loader(gray, scale, bicubic, smallest, cache)
    images, problems = [], []
    for source in progress(sources):
        try:
            images.append(loader.load(source))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise ImageError(_listed(problems))
    return images


def check_readable(sources: Sequence[Source]) -> None:
    """Decode images without keeping them; an ImageError with all that cannot be read."""
    problems = []
    for source in sources:
        for path in filter(None, (source.gt, source.lq)):
            try:
                read(path)
            except ImageError as error:
                problems.append(str(error))
    if problems:
        raise ImageError(_listed(problems))


def check_headers(sources: Sequence[Source], smallest: int) -> int:
    """Read the header of every file, and return the number of pixels of all ground truths.

    Raises:
        ImageError: with the files that cannot be read, or have a side of fewer pixels than `smallest`.
    """
    problems, pixels = [], 0
    for source in sources:
        try:
            header = probe(source.gt)
            if source.lq is not None:
                probe(source.lq)
        except ImageError as error:
            problems.append(str(error))
            continue
        if min(header.width, header.height) < smallest:
            problems.append(_too_small(source.gt, header.width, header.height, smallest))
        pixels += header.width * header.height
    if problems:
        raise ImageError(_listed(problems))
    return pixels


def _too_small(path: Path, width: int, height: int, smallest: int) -> str:
    return f"{path}: {width}x{height} is smaller than a patch of {smallest} pixels"


def index_hash(images: Sequence[TrainingImage]) -> str:
    """Return the SHA-256 over name, bytes, width and height of every image."""
    rows = [[image.name, image.bytes, image.width, image.height] for image in images]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _listed(problems: list[str]) -> str:
    more = f" (and {len(problems) - MAX_NAMED} more)" if len(problems) > MAX_NAMED else ""
    return "; ".join(problems[:MAX_NAMED]) + more


@dataclass(frozen=True)
class _Loader:
    gray: bool
    scale: int
    bicubic: bool
    smallest: int
    cache: Path | None

    def load(self, source: Source) -> TrainingImage:
        try:
            bytes_ = source.gt.stat().st_size
        except OSError as error:
            raise ImageError(f"{source.gt}: {error.strerror}") from error
        if self.cache is None:
            gt, lq = self._decode(source)
            height, width = gt.shape[:2]
            # Not lambdas, which cannot be pickled for workers that are spawned.
            held = None if lq is None else partial(np.asarray, lq)
            return TrainingImage(source.name, bytes_, height, width, partial(np.asarray, gt), held)
        return self._cached(source, self.cache, bytes_)

    def _decode(self, source: Source) -> tuple[np.ndarray, np.ndarray | None]:
        convert, scale = (to_gray if self.gray else to_rgb), self.scale
        gt = convert(read(source.gt))
        height, width = gt.shape[0] // scale * scale, gt.shape[1] // scale * scale
        if min(height, width) < self.smallest:
            raise ImageError(_too_small(source.gt, gt.shape[1], gt.shape[0], self.smallest))
        gt = gt[:height, :width]
        if source.lq is not None:
            lq = convert(read(source.lq))
            if (lq.shape[0] * scale, lq.shape[1] * scale) != (height, width):
                raise ImageError(
                    f"{source.lq}: {lq.shape[1]}x{lq.shape[0]} at scale {scale} does not match {source.gt}: "
                    f"expected {width // scale}x{height // scale}"
                )
            return gt, lq
        return gt, imresize(gt, 1 / scale) if self.bicubic else None

    def _cached(self, source: Source, cache: Path, bytes_: int) -> TrainingImage:
        cache.mkdir(parents=True, exist_ok=True)
        stem = cache / self._key(source)
        has_lq = source.lq is not None or self.bicubic
        paths = [stem.with_suffix(f".{kind}.npy") for kind in (("gt", "lq") if has_lq else ("gt",))]
        if not all(path.is_file() for path in paths):
            for path, pixels in zip(reversed(paths), reversed(self._decode(source)[: len(paths)]), strict=True):
                # The ground truth is written last, so that an interrupted pair is decoded again.
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.save(file, np.ascontiguousarray(pixels), allow_pickle=False)
        height, width = _map(paths[0]).shape[:2]
        if min(height, width) < self.smallest:
            raise ImageError(_too_small(source.gt, width, height, self.smallest))
        mapped = [partial(_map, path) for path in paths]
        return TrainingImage(source.name, bytes_, height, width, mapped[0], mapped[1] if has_lq else None)

    def _key(self, source: Source) -> str:
        """Return a name that changes with the files and the conversion, so that no outdated entry is used."""
        files = [source.gt, *([source.lq] if source.lq else [])]
        facts = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
        made = [self.gray, self.scale, self.bicubic]
        return hashlib.sha256(json.dumps([facts, made]).encode()).hexdigest()[:32]


def _map(path: Path) -> np.ndarray:
    # Opened for each use: tens of thousands of open maps would exceed the limit of a process.
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: damaged in the cache ({' '.join(str(error).split())}); delete it") from error

"""Training pairs: whole images decoded and degraded once, patches cut from them at random."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.degrade.resize import imresize
from swinir.image import EXTENSIONS, ImageError, read, to_rgb


@dataclass(frozen=True)
class Pair:
    """One image: ground truth (H*scale, W*scale, C) and low-quality (H, W, C), uint8 RGB."""

    name: str
    gt: np.ndarray
    lq: np.ndarray


def find_images(folder: Path) -> list[Path]:
    """Image files of a folder and its subfolders, sorted; a ValueError or OSError where there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"training folder not found: {folder}; pass --set data.train=FOLDER")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))
    if not found:
        raise ValueError(f"no images in {folder}; looked for {', '.join(EXTENSIONS)}")
    return found


def split_holdout(paths: list[Path], holdout: int) -> tuple[list[Path], list[Path]]:
    """Training and validation files; the latter are evenly spaced in the sorted list, so the same every time."""
    if holdout >= len(paths):
        raise ValueError(f"data.holdout must leave images to train on, got {holdout} of {len(paths)}")
    chosen = {int((i + 0.5) * len(paths) / holdout) for i in range(holdout)}
    return [p for i, p in enumerate(paths) if i not in chosen], [paths[i] for i in sorted(chosen)]


def load_pairs(
    paths: list[Path], scale: int, patch: int, progress: Callable[[list[Path]], Any] = lambda paths: paths
) -> list[Pair]:
    """Decode every image and make its low-quality partner by MATLAB's bicubic.

    Raises:
        ImageError: naming all files that cannot be read or are smaller than a patch, before training starts.
    """
    pairs, problems = [], []
    for path in progress(paths):
        try:
            gt = to_rgb(read(path))
        except ImageError as error:
            problems.append(str(error))
            continue
        height, width = gt.shape[0] // scale * scale, gt.shape[1] // scale * scale
        if min(height, width) < patch * scale:
            problems.append(f"{path}: {gt.shape[1]}x{gt.shape[0]} is smaller than a patch of {patch * scale} pixels")
            continue
        gt = gt[:height, :width]
        pairs.append(Pair(path.name, gt, imresize(gt, 1 / scale)))
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ImageError("; ".join(problems[:3]) + more)
    return pairs


class PatchSampler:
    """Endless batches of aligned random patches, each flipped and rotated in one of eight ways.

    Large images are drawn more often, in proportion to their pixels. All choices come from one generator,
    whose state is part of a training state.
    """

    def __init__(self, pairs: list[Pair], *, patch: int, scale: int, batch: int, seed: int) -> None:
        self.pairs, self.patch, self.scale, self.batch = pairs, patch, scale, batch
        areas = np.array([pair.lq.shape[0] * pair.lq.shape[1] for pair in pairs], dtype=np.float64)
        self._cumulative = np.cumsum(areas) / areas.sum()
        self._rng = np.random.default_rng(seed)

    def next(self) -> tuple[Tensor, Tensor]:
        """(batch, C, patch, patch) low-quality and (batch, C, patch*scale, patch*scale) ground truth in [0, 1]."""
        lqs, gts = zip(*(self._sample() for _ in range(self.batch)), strict=True)
        return _to_tensor(np.stack(lqs)), _to_tensor(np.stack(gts))

    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        pair = self.pairs[int(np.searchsorted(self._cumulative, self._rng.random(), side="right"))]
        y, x = (int(self._rng.integers(n - self.patch + 1)) for n in pair.lq.shape[:2])
        p, s = self.patch, self.scale
        lq, gt = pair.lq[y : y + p, x : x + p], pair.gt[y * s : (y + p) * s, x * s : (x + p) * s]
        turn = int(self._rng.integers(8))
        return _turn(lq, turn), _turn(gt, turn)

    def state(self) -> dict[str, Any]:
        return self._rng.bit_generator.state  # type: ignore[return-value]

    def load_state(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state


def _turn(image: np.ndarray, turn: int) -> np.ndarray:
    image = np.rot90(image, turn % 4)
    return image[:, ::-1] if turn >= 4 else image


def _to_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255

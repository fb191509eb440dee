"""Training samples (patches cut, flipped or rotated, and degraded) and the stream of batches made of them.

Every sample has a number and a random generator seeded by the run's seed and that number. A training state therefore
needs only the seed and the number of samples drawn, any number of processes and workers draws the same samples, and a
batch can be split. Workers may be spawned, so everything that samples hold can be pickled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from swinir.degradations.chains import CHAINS, chain_options
from swinir.degradations.resize import imresize
from swinir.degradations.sampling import draw_log_uniform
from swinir.degradations.steps import Jpeg, luma
from swinir.image_io.image import to_gray, to_rgb
from swinir.models.phases import enlarged
from swinir.train.config import DegradationConfig, TrainConfig
from swinir.train.distributed import Processes
from swinir.train.images import (
    Source,
    TrainingImage,
    Wrap,
    find_sources,
    first_images,
    index_hash,
    load_images,
    split_holdout,
)

Batch = list[tuple[Tensor, Tensor]]  # low-quality and ground-truth images of each of a process's parts
PatchDegradation = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
Level = float | tuple[float, float]
Key = tuple[int, int]  # number of a sample, and of the first one of its batch
SCALE = 1  # marks the generator that draws a batch's scale
SOFTEST = 1.2  # standard deviation in pixels, of a soft lens and bilinear demosaicing


@dataclass(frozen=True)
class Degrader:
    """Degradation of a patch.

    Attributes:
        degrade: takes ground truth (H, W, C) uint8 and a generator; returns the low-quality patch, uint8 or float32 in
            [0, 1], and the ground truth that belongs to it.
        margin: pixels by which its input must be larger than the patch.
    """

    degrade: PatchDegradation
    margin: int = 0


def noise_degrader(level: Level) -> Degrader:
    """Return Gaussian noise, not clipped (Section 4.4), of a level or a range of levels in units of 1/255."""
    return Degrader(partial(_add_noise, level))


def _add_noise(level: Level, gt: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    sigma = rng.uniform(*level) if isinstance(level, tuple) else level
    noise = rng.standard_normal(gt.shape, dtype=np.float32) * np.float32(sigma / 255)
    return gt.astype(np.float32) / 255 + noise, gt


@dataclass(frozen=True)
class JpegOptions:
    """JPEG compression of patches; attributes as in `DegradationConfig`, and `patch`, their side."""

    quality: int | tuple[int, int]
    patch: int
    margin: int = 8
    unaligned: float = 0.5
    log_quality: bool = False
    double_prob: float = 0.0
    full_chroma_prob: float = 0.0


def jpeg_degrader(options: JpegOptions) -> Degrader:
    """Return JPEG compression of a patch larger by a margin, which is then cut to size.

    A share `unaligned` of the patches is cut anywhere within the margin, the others at the corner.
    """
    return Degrader(partial(_compress, options), options.margin)


def _compress(options: JpegOptions, gt: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    steps = [_random_jpeg(options, rng)]
    # No draw for an option that is off: samples of older configurations stay as they were.
    if options.double_prob and rng.random() < options.double_prob:
        shift = int(rng.integers(16)), int(rng.integers(16))
        steps.insert(0, replace(_random_jpeg(options, rng), shift=shift))
    lq = np.ascontiguousarray(gt)
    for step in steps:
        lq = step.compress(lq)
    patch, margin = options.patch, options.margin
    y, x = rng.integers(margin + 1, size=2) if rng.random() < options.unaligned else (0, 0)
    cut = (slice(y, y + patch), slice(x, x + patch))
    return lq[cut], gt[cut]


def _random_jpeg(options: JpegOptions, rng: np.random.Generator) -> Jpeg:
    quality = options.quality
    if not isinstance(quality, tuple):
        chosen = quality
    elif options.log_quality:
        chosen = round(draw_log_uniform(rng, quality))
    else:
        chosen = int(rng.integers(quality[0], quality[1] + 1))
    full_chroma = options.full_chroma_prob and rng.random() < options.full_chroma_prob
    return Jpeg(chosen, "4:4:4" if full_chroma else "4:2:0")


def chain_degrader(name: str, scale: int, options: dict[str, Any]) -> Degrader:
    """Return a degradation chain for real-world images; a ValueError for an unknown option."""
    return Degrader(partial(_photograph, CHAINS[name][0], scale, chain_options(name, options)))


def _photograph(
    chain: Callable[..., np.ndarray], scale: int, options: Any, gt: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    lq = chain(to_rgb(gt).astype(np.float32) / 255, rng, scale=scale, options=options)
    return luma(lq) if gt.shape[2] == 1 else lq, gt


def reducer(patch: int) -> Degrader:
    """Return MATLAB's bicubic of a patch to the side `patch`, with borders like those of an image."""
    return Degrader(partial(_reduce, patch))


def _reduce(patch: int, gt: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return imresize(gt, size=(patch, patch)), gt


def grayed(degrader: Degrader, gray_prob: float) -> Degrader:
    """Return a degradation that makes a share of the colour patches grey, with three equal channels."""
    return replace(degrader, degrade=partial(_grayed, degrader.degrade, gray_prob))


def _grayed(
    degrade: PatchDegradation, gray_prob: float, gt: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() >= gray_prob:
        return degrade(gt, rng)
    lq, gray = degrade(to_gray(gt), rng)
    return to_rgb(lq), to_rgb(gray)


def softened(degrader: Degrader, soft_prob: float) -> Degrader:
    """Return a degradation that first blurs a share of the patches, ground truth included, by up to SOFTEST pixels.

    Photographs at a camera's full size are softer than those that were reduced, of which training sets consist. A
    network that has seen only sharp ones takes fine noise for detail.
    """
    return replace(degrader, degrade=partial(_softened, degrader.degrade, soft_prob))


def _softened(
    degrade: PatchDegradation, soft_prob: float, gt: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() < soft_prob:
        sigma = rng.uniform(0, SOFTEST)
        gt = cv2.GaussianBlur(gt, (7, 7), max(sigma, 1e-3), borderType=cv2.BORDER_REFLECT_101).reshape(gt.shape)
    return degrade(gt, rng)


def build_degrader(config: TrainConfig) -> Degrader | None:
    """Return a configuration's degradation of patches; None if whole images are degraded or are files."""
    options: DegradationConfig = config.degradation
    kind = config.degradation_kind
    if config.data.train_lq or (kind == "bicubic" and not isinstance(config.scale, tuple)):
        return None
    if kind == "bicubic":
        degrader = reducer(config.data.patch)
    elif kind == "noise":
        degrader = noise_degrader(config.noise if options.noise is None else options.noise)
    elif kind == "jpeg":
        quality = config.jpeg if options.quality is None else options.quality
        shares = options.model_dump(include={"margin", "unaligned", "log_quality", "double_prob", "full_chroma_prob"})
        degrader = jpeg_degrader(JpegOptions(quality, config.data.patch, **shares))
    else:
        degrader = chain_degrader(kind, int(config.top_scale), options.options)
    if options.gray_prob:
        degrader = grayed(degrader, options.gray_prob)
    return softened(degrader, options.soft_prob) if options.soft_prob else degrader


class TrainingSamples(Dataset[tuple[Tensor, Tensor]]):
    """Low-quality (C, patch, patch) and ground-truth (C, patch*scale, patch*scale) patches by sample number.

    Patches are drawn uniformly from an image and flipped or rotated in one of eight ways. Values are uint8, or float32
    in [0, 1].

    Args:
        scale: a range gives all samples of a batch one scale, by the number of its first sample; patch*scale is
            rounded.
        draw: "pixels" draws images in proportion to their pixels, "images" draws all equally often.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        *,
        patch: int,
        scale: Level,
        seed: int,
        degrader: Degrader | None = None,
        draw: Literal["pixels", "images"] = "pixels",
    ) -> None:
        self.images, self.patch, self.scale, self.seed, self.degrader = images, patch, scale, seed, degrader
        shares = [image.height * image.width if draw == "pixels" else 1 for image in images]
        self._cumulative = np.cumsum(shares, dtype=np.float64) / sum(shares)

    def __getitem__(self, key: int | Key) -> tuple[Tensor, Tensor]:
        number, first = key if isinstance(key, tuple) else (key, key)
        rng = np.random.default_rng((self.seed, number))
        lq, gt = self._draw(rng, self._scale_of(first))
        return _to_tensor(lq), _to_tensor(gt)

    def _scale_of(self, first: int) -> float:
        """Return the scale of the batch that begins with a sample."""
        if not isinstance(self.scale, tuple):
            return self.scale
        return np.random.default_rng((self.seed, first, SCALE)).uniform(*self.scale)

    def _draw(self, rng: np.random.Generator, scale: float) -> tuple[np.ndarray, np.ndarray]:
        chosen = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        image = self.images[min(chosen, len(self.images) - 1)]
        turn = int(rng.integers(8))
        if self.degrader is None:
            assert image.lq is not None
            scale = int(scale)
            y, x = (int(rng.integers(n // scale - self.patch + 1)) for n in (image.height, image.width))
            lq = _cut(image.lq(), y, x, self.patch)
            return _turn(lq, turn), _turn(_cut(image.gt(), y * scale, x * scale, self.patch * scale), turn)
        side = enlarged(self.patch, scale) + self.degrader.margin
        y, x = (int(rng.integers(n - side + 1)) for n in (image.height, image.width))
        return self.degrader.degrade(_turn(_cut(image.gt(), y, x, side), turn), rng)


def load_samples(
    config: TrainConfig, sources: Sequence[Source], *, progress: Wrap = lambda items: items
) -> TrainingSamples:
    """Return the samples of images, which are decoded or read from the configuration's cache.

    Raises:
        ImageError: one line with the files that cannot be trained on.
    """
    data, degrader = config.data, build_degrader(config)
    images = load_images(
        sources,
        gray=config.task_row.gray,
        scale=1 if isinstance(config.scale, tuple) else config.scale,
        bicubic=degrader is None and not data.train_lq,
        smallest=enlarged(data.patch, config.top_scale) + (degrader.margin if degrader else 0),
        cache=data.cache,
        progress=progress,
    )
    return TrainingSamples(
        images, patch=data.patch, scale=config.scale, seed=config.seed, degrader=degrader, draw=data.draw
    )


def _cut(image: np.ndarray, y: int, x: int, side: int) -> np.ndarray:
    return image[y : y + side, x : x + side]


def _turn(image: np.ndarray, turn: int) -> np.ndarray:
    image = np.rot90(image, turn % 4)
    return image[:, ::-1] if turn >= 4 else image


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))  # a copy


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of every batch, which a process runs at a time."""

    index: int
    count: int


def own_parts(config: TrainConfig, processes: Processes) -> list[Part]:
    """Return the parts of every batch that this process runs, one after the other."""
    count = config.accumulate * processes.count
    return [Part(i * processes.count + processes.rank, count) for i in range(config.accumulate)]


class _Numbers(Sampler[list[Key]]):
    """Samples of one part after the other, batch after batch, without end."""

    def __init__(self, first: int, batch: int, parts: Sequence[Part]) -> None:
        self.first, self.batch, self.parts = first, batch, parts

    def __iter__(self) -> Iterator[list[Key]]:
        start = self.first
        while True:
            for part in self.parts:
                size = self.batch // part.count
                yield [(start + part.index * size + i, start) for i in range(size)]
            start += self.batch


def batches(
    samples: TrainingSamples,
    *,
    first: int,
    batch: int,
    parts: Sequence[Part] = (Part(0, 1),),
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield batches without end, from sample number `first` on, each as a list of the given parts.

    A part is (B, C, patch, patch) and (B, C, patch*scale, patch*scale), B = batch / count of the part. With `pin`, it
    lies in memory that a GPU copies from without waiting.
    """
    loader = DataLoader(
        samples,
        batch_sampler=_Numbers(first, batch, parts),
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=False,
        generator=torch.Generator(),  # seeds the workers, so that the global generator is not used
    )
    stream = iter(loader)
    while True:
        yield [next(stream) for _ in parts]


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches that lie on a CUDA device; each is copied while the one before it is trained on.

    Batches for other devices are passed on as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)

    def copied() -> Batch:
        pinned = next(batches)
        with torch.cuda.stream(side):
            return [(lq.to(device, non_blocking=True), gt.to(device, non_blocking=True)) for lq, gt in pinned]

    ahead = copied()
    while True:
        batch, current = ahead, torch.cuda.current_stream(device)
        current.wait_stream(side)
        for tensor in (tensor for part in batch for tensor in part):
            tensor.record_stream(current)  # its memory is not used again before the step is done
        ahead = copied()
        yield batch


class Stream(Protocol):
    """Batches of a training, from any step on.

    Attributes:
        held_out: images kept for validation.
        facts: description of the loaded images for run.json, with `index_sha256`, the hash of their list.
    """

    held_out: list[Source]
    facts: dict[str, Any]

    def load(self, progress: Wrap) -> None:
        """Decode the images, or find them in the cache; `progress` wraps the list of images."""

    def batches(self, step: int, drawn: int) -> Iterator[Batch]:
        """Yield batches without end, beginning with that of a step before which `drawn` samples were drawn."""


class TaskStream:
    """Stream of a training for one task.

    Raises:
        ValueError, OSError: for folders without images, and images without a low-quality partner.
    """

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config, self.processes, data = config, processes, config.data
        sources = first_images(find_sources(data.train, data.train_lq, config.top_scale), data.images)
        self._train, self.held_out = split_holdout(sources, data.holdout)
        self.facts: dict[str, Any] = {}

    def load(self, progress: Wrap = lambda items: items) -> None:
        """Decode the images. With a cache the first process does it, and the others read the cache.

        Raises:
            ImageError: (a ValueError) with the images that cannot be trained on.
        """
        for first in (True, False) if self.config.data.cache else (True,):
            if not self.config.data.cache or first == (self.processes.rank == 0):
                self.samples = load_samples(self.config, self._train, progress=progress)
            self.processes.wait()
        images = self.samples.images
        self.facts = {
            "images": len(images),
            "megapixels": round(sum(image.width * image.height for image in images) / 1e6, 3),
            "index_sha256": index_hash(images),
            "held_out": [source.name for source in self.held_out],
        }

    def batches(self, step: int, drawn: int) -> Iterator[Batch]:
        """Yield batches without end, after the first `drawn` samples."""
        device, workers = self.processes.device, self.config.data.workers
        on_gpu = device.type == "cuda"
        if workers is None:
            workers = min(8, torch.get_num_threads()) if on_gpu else 0
        parts, batch = own_parts(self.config, self.processes), self.config.data.batch
        return on_device(
            batches(self.samples, first=drawn, batch=batch, parts=parts, workers=workers, pin=on_gpu), device
        )


def to_unit(values: Tensor, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return values in [0, 1] on a device: uint8 values are divided by 255, others are kept."""
    moved = values.to(device, non_blocking=True)
    return moved.to(dtype) / 255 if values.dtype == torch.uint8 else moved.to(dtype)

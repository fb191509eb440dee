"""The time and memory that a restoration is expected to take, before it begins."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from swinir.image_io.picture import Picture
from swinir.image_io.reader import ImageError, probe
from swinir.inference.arrays import NetworkInput
from swinir.inference.forward import Runnable, memory_factor
from swinir.inference.memory import bytes_per_pixel
from swinir.inference.restore import chosen_tile, padded_side, restore
from swinir.inference.self_ensemble import TURNS
from swinir.inference.tiling import cut_spans
from swinir.models.phases import enlarged
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.restore_photo import Decision, Step, Treatment, bytes_needed

SAMPLE = 64  # side in pixels of the image that is timed; small tiles compute a little slower than large ones


@dataclass(frozen=True)
class Expectation:
    """The cost of restoring one image.

    Attributes:
        tiles: number of tiles, over all passes.
        pixels: that networks compute, overlaps and padding counted, in low-quality pixels over all passes.
        bytes: of memory or temporary files for the image, its output and the largest tile; without the networks.
        tile_bytes: of the device's memory for the largest tile alone.
    """

    tiles: int
    pixels: dict[Step, int]
    bytes: int
    tile_bytes: float


def expect(picture: Picture, decision: Decision, treatment: Treatment, models: LoadedModels) -> Expectation:
    """Count the tiles of an image and the memory they take. Nothing is computed."""
    run, (height, width) = treatment.run, picture.pixels.shape[:2]
    tiles, pixels, largest = 0, dict.fromkeys(decision.steps, 0), 0
    for step in decision.steps:
        model = models.get(*step)
        config = model.config
        batch = NetworkInput(picture.pixels, model).shape[0]
        sides = padded_side(height, config), padded_side(width, config)
        tile = chosen_tile(model, sides, run, batch) or max(sides)
        spans = [[seen.stop - seen.start for seen, _ in cut_spans(side, tile, run.tile_overlap, config.window)]
                 for side in sides]  # fmt: skip
        turns = len(TURNS) if run.self_ensemble else 1
        tiles += len(spans[0]) * len(spans[1]) * turns
        pixels[step] += sum(spans[0]) * sum(spans[1]) * batch * turns
        most = batch * max(spans[0]) * max(spans[1])
        largest = max(largest, most * memory_factor(model) * bytes_per_pixel(config))
        height, width = enlarged(height, config.upscale), enlarged(width, config.upscale)
    images = picture.pixels.nbytes + bytes_needed(picture, decision, treatment, models)
    return Expectation(tiles, pixels, images + largest, largest)


class Stopwatch:
    """Seconds per pixel of networks, each measured once on a small image."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._seconds: dict[Step, float] = {}

    def seconds(self, expected: Expectation, treatment: Treatment, models: LoadedModels) -> float:
        """Return the expected time of an image in seconds."""
        return math.fsum(count * self._measured(step, treatment, models) for step, count in expected.pixels.items())

    def _measured(self, step: Step, treatment: Treatment, models: LoadedModels) -> float:
        if step not in self._seconds:
            self._seconds[step] = self._measure(models.get(*step), treatment)
        return self._seconds[step]

    def _measure(self, model: Runnable, treatment: Treatment) -> float:
        image = torch.full((1, model.config.in_chans, SAMPLE, SAMPLE), 0.5)
        options = replace(treatment.run, tile=None, self_ensemble=False)
        for _ in range(2):  # the first call starts threads and caches
            start = self.clock()
            restore(model, image, options).sum().item()  # waits for a GPU
            seconds = self.clock() - start
        return seconds / padded_side(SAMPLE, model.config) ** 2


def megapixels(path: Path) -> float:
    """Return the size of an image by its header; 0 for a file that cannot be read."""
    with suppress(ImageError):
        header = probe(path)
        return header.width * header.height / 1e6
    return 0.0

"""Image arrays of any size as networks read and write them, region by region; converted on the network's device."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.image_io.canvas import row_blocks
from swinir.inference.forward import Runnable, place_of, within_memory
from swinir.inference.options import RunOptions
from swinir.inference.restore import DEFAULTS, restore_into
from swinir.inference.tiling import Canvas, Image, Progress
from swinir.inference.transfer import to_device, to_host
from swinir.models.phases import enlarged

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


class NetworkInput:
    """(H, W, 1 or 3) samples, uint8, uint16 or float32 in [0, 1], as (B, C, H, W) float32 in [0, 1] for a network.

    A grey image becomes equal channels, a colour image for a grey network a batch of three grey images.

    Args:
        samples: the image.
        model: the network; regions are copied to its device as they are, and converted there.
    """

    def __init__(self, samples: np.ndarray, model: Runnable) -> None:
        self.samples, self.channels, self.device = samples, model.config.in_chans, place_of(model).device

    @property
    def shape(self) -> tuple[int, ...]:
        height, width, given = self.samples.shape
        return (given if given > self.channels else 1, self.channels, height, width)

    def __getitem__(self, region: tuple[Any, slice, slice]) -> Tensor:
        samples = np.ascontiguousarray(self.samples[region[1:]])
        return within_memory(self.device, partial(self._unit, samples), samples.shape[:2])

    def _unit(self, samples: np.ndarray) -> Tensor:
        part = to_device(torch.from_numpy(samples), self.device)
        if part.dtype != torch.float32:
            # By a tensor: GPUs multiply by the inverse of a number, which rounds differently.
            largest = torch.full((), float(torch.iinfo(part.dtype).max), device=self.device)
            part = part.float() / largest
        part = part.permute(2, 0, 1)[None].contiguous()
        if part.shape[1] < self.channels:
            return part.expand(-1, self.channels, -1, -1)
        return part if part.shape[1] == self.channels else part.transpose(0, 1)


class NetworkOutput:
    """(H, W, 1 or 3) samples that take (B, C, H, W) parts of the output for a `NetworkInput` of `given` channels.

    Equal channels become grey by their mean, a batch of grey images colours. Values are rounded to the samples' dtype,
    a half to the even neighbour, on the device that they are on.
    """

    def __init__(self, samples: np.ndarray, given: int) -> None:
        self.samples, self.given = samples, given

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor) -> None:
        if not torch.stack(part.aminmax()).isfinite().all():  # without copies of all of it
            raise ValueError("the output has NaN or infinite values; try --precision fp32 or another checkpoint")
        if len(part) > 1:
            part = part.transpose(0, 1)
        elif part.shape[1] > self.given:
            part = part.mean(1, keepdim=True)
        values, target = part[0].permute(1, 2, 0), self.samples[region[1:]]
        for rows in row_blocks(*target.shape[:2]):
            target[rows] = to_host(_rounded(values[rows], DTYPES[target.dtype.name])).numpy()


class Blended:
    """A canvas that mixes parts with the image that they were made of: image + strength * (part - image).

    It is exact at both ends: a strength of 0 writes the image, 1 the parts.

    Args:
        canvas: takes the mixed parts.
        image: of the same size as the canvas.
        strength: 0 to 1.
    """

    def __init__(self, canvas: Canvas, image: Image, strength: float) -> None:
        self.canvas, self.image, self.strength = canvas, image, strength

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor) -> None:
        self.canvas[region] = self.image[region].to(part.device).lerp(part.float(), self.strength)


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Round values in [0, 1] to whole numbers up to the dtype's largest; float32 stays as it is."""
    values = values.float().clamp(0, 1)
    return values if dtype == torch.float32 else values.mul_(torch.iinfo(dtype).max).round_().to(dtype)


def restore_array(
    model: Runnable, lq: np.ndarray, options: RunOptions = DEFAULTS, *, progress: Progress | None = None
) -> np.ndarray:
    """Restore an (H, W, C) uint8, uint16 or float32 image to (H*scale, W*scale, C) uint8, rounded.

    A network for color images also takes grey ones, as `NetworkInput` and `NetworkOutput` do.

    Raises:
        ValueError, TooLargeError: as `restore`; a ValueError, too, for NaN in the output.
    """
    height, width, channels = lq.shape
    if channels not in (1, model.config.in_chans):
        raise ValueError(f"lq must be (H, W, {model.config.in_chans}), or grey (H, W, 1), got {lq.shape}")
    size = enlarged(height, model.config.upscale), enlarged(width, model.config.upscale)
    restored = np.empty((*size, channels), np.uint8)

    def scratch(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=place_of(model).dtype)

    restore_into(
        model, NetworkInput(lq, model), NetworkOutput(restored, channels), options, scratch=scratch, progress=progress
    )
    return restored

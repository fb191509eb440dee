"""Image arrays of any size as networks read and write them, region by region."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.image_io.picture import from_unit, to_unit


class NetworkInput:
    """(H, W, 1 or 3) samples as (B, C, H, W) float32 in [0, 1] for a network of `channels` channels.

    A grey image becomes equal channels, a colour image for a grey network a batch of three grey images.
    """

    def __init__(self, samples: np.ndarray, channels: int) -> None:
        self.samples, self.channels = samples, channels

    @property
    def shape(self) -> tuple[int, ...]:
        height, width, given = self.samples.shape
        return (given if given > self.channels else 1, self.channels, height, width)

    def __getitem__(self, region: tuple[Any, slice, slice]) -> Tensor:
        unit = to_unit(self.samples[region[1:]])
        part = torch.from_numpy(np.ascontiguousarray(unit.transpose(2, 0, 1)))[None]
        if part.shape[1] < self.channels:
            return part.expand(-1, self.channels, -1, -1)
        return part if part.shape[1] == self.channels else part.transpose(0, 1)


class NetworkOutput:
    """(H, W, 1 or 3) samples that take (B, C, H, W) parts of the output for a `NetworkInput` of `given` channels.

    Equal channels become grey by their mean, a batch of grey images colours. Values are rounded to the samples' dtype.
    """

    def __init__(self, samples: np.ndarray, given: int) -> None:
        self.samples, self.given = samples, given

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor) -> None:
        if not all(end.isfinite() for end in part.aminmax()):  # without copies of all of it
            raise ValueError("the network's output has NaN or infinite values; try other weights")
        if len(part) > 1:
            part = part.transpose(0, 1)
        elif part.shape[1] > self.given:
            part = part.mean(1, keepdim=True)
        values = part[0].permute(1, 2, 0).cpu().float().numpy()
        self.samples[region[1:]] = from_unit(values, self.samples.dtype)

"""The self-ensemble (the paper's "+"): an image in its eight flips and rotations."""

from typing import Any

import torch
from torch import Tensor

from swinir.inference.tiling import Image

TURNS = range(8)


class TurnedImage:
    """An image turned by a quarter `turn % 4` times, and flipped left to right from turn 4 on."""

    def __init__(self, image: Image, turn: int) -> None:
        self.image, self.turn = image, turn

    @property
    def shape(self) -> tuple[int, ...]:
        return _turned_shape(self.image.shape, self.turn)

    def __getitem__(self, region: tuple[Any, slice, slice]) -> Tensor:
        part = torch.rot90(self.image[..., *_upright(region, self.shape, self.turn)], self.turn % 4, (-2, -1))
        return part.flip(-1) if self.turn >= 4 else part


class TurnedTotal:
    """A canvas that turns parts of a turned output back and adds them to a total; turn 0 begins it."""

    def __init__(self, total: Tensor, turn: int) -> None:
        self.total, self.turn = total, turn

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor) -> None:
        upright = (..., *_upright(region, _turned_shape(self.total.shape, self.turn), self.turn))
        part = torch.rot90(part.flip(-1) if self.turn >= 4 else part, -(self.turn % 4), (-2, -1)).to(self.total.device)
        if self.turn == 0:
            self.total[upright] = part
        else:
            self.total[upright] += part


def _turned_shape(shape: tuple[int, ...], turn: int) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if turn % 2 else tuple(shape)


def _upright(region: tuple[Any, slice, slice], shape: tuple[int, ...], turn: int) -> tuple[slice, slice]:
    """Find the region of the upright image that becomes a region of the turned one of this shape."""
    _, rows, cols = region
    height, width = shape[-2:]
    if turn >= 4:
        cols = slice(width - cols.stop, width - cols.start)
    for _ in range(turn % 4):
        rows, cols = cols, slice(height - rows.stop, height - rows.start)
        height, width = width, height
    return rows, cols

"""Tiles of an image: positions, mirrored padding, and running a function on one after another. No devices."""

import math
from collections import deque
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from swinir.image_io.canvas import row_blocks

TileBlend = Literal["mean", "cut"]  # average overlapping tiles, or cut them at the middle of their overlap
Progress = Callable[[int, int], None]  # tiles done, tiles in all


class TooLargeError(MemoryError):
    """A device has no memory for a tile."""


class Image(Protocol):
    """An image of any size that is read by regions, as `image[..., rows, cols]`; a tensor is one.

    Attributes:
        shape: (B, C, H, W).
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, region: tuple[Any, slice, slice], /) -> Tensor: ...


class Canvas(Protocol):
    """An output of any size that takes regions, as `canvas[..., rows, cols] = part`; a tensor is one."""

    def __setitem__(self, region: tuple[Any, slice, slice], part: Tensor, /) -> None: ...


def mirrored(image: Image, rows: slice, cols: slice) -> Tensor:
    """Read a region that may reach beyond the bottom and the right side, where the image is mirrored.

    The edge pixel is repeated, as in NumPy's "symmetric" padding.
    """
    height, width = image.shape[-2:]
    (taken_rows, row_index), (taken_cols, col_index) = _mirror(rows, height), _mirror(cols, width)
    part = image[..., taken_rows, taken_cols]
    for axis, index in ((-2, row_index), (-1, col_index)):
        if index is not None:
            part = part.index_select(axis, index.to(part.device, non_blocking=True))
    return part


def _mirror(wanted: slice, size: int) -> tuple[slice, Tensor | None]:
    """The stretch of an axis to read, and the indices into it; None where all of it is wanted."""
    if wanted.stop <= size:
        return wanted, None
    position = torch.arange(wanted.start, wanted.stop) % (2 * size)
    position = torch.minimum(position, 2 * size - 1 - position)
    first = int(position.min())
    return slice(first, int(position.max()) + 1), position - first


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Place tiles along one axis as the released program does: a stride of tile - overlap, the last tile at the edge.

    Raises:
        ValueError: unless 0 <= overlap < tile, for an axis that needs more than one tile.
    """
    if tile >= size:
        return [0]
    if not 0 <= overlap < tile:
        raise ValueError(f"tile_overlap must be from 0 to below tile, got {overlap} for tile {tile}; try {tile // 8}")
    return [*range(0, size - tile, tile - overlap), size - tile]


def align_overlap(overlap: int, tile: int, window: int) -> int:
    """Round an overlap up to a multiple of the window.

    Raises:
        ValueError: unless tiles, which are multiples of the window too, then advance by one window at least.
    """
    if not 0 <= overlap <= tile - window:
        raise ValueError(
            f"tile_overlap must be from 0 to {tile - window} for tile {tile} in windows of {window}, got {overlap}; "
            f"try --tile_overlap {tile // 4 // window * window}"
        )
    return -(-overlap // window) * window


def cut_spans(size: int, tile: int, overlap: int, window: int) -> list[tuple[slice, slice]]:
    """Place tiles along one axis: the stretch that each sees, and the part of it that is kept.

    There are as many tiles as an overlap of at least `overlap` takes, spread evenly and no larger than needed. All
    begin on multiples of the window, so that their windows are those of the whole image. Kept parts meet in the middle
    of each overlap: they end `overlap // 2` or more from every side of the tile that is not a side of the image.

    Args:
        size, tile: multiples of the window, in pixels; no tile is longer than `tile`.
        overlap: in pixels; rounded up to a multiple of the window.

    Raises:
        ValueError: unless 0 <= overlap <= tile - window, for an axis that needs more than one tile.
    """
    assert size % window == tile % window == 0
    if tile >= size:
        return [(slice(0, size), slice(0, size))]
    overlap = align_overlap(overlap, tile, window)
    steps = -(-(size - tile) // (tile - overlap))
    tile = -(-(size + steps * overlap) // ((steps + 1) * window)) * window
    starts = [i * ((size - tile) // window) // steps * window for i in range(steps + 1)]
    seams = [(left + tile + right) // 2 for left, right in pairwise(starts)]
    return [
        (slice(start, start + tile), slice(first, last))
        for start, first, last in zip(starts, [0, *seams], [*seams, size], strict=True)
    ]


class Tile(NamedTuple):
    """The rows and columns that a tile sees, and those of the image that are taken from it."""

    rows: slice
    cols: slice
    kept_rows: slice
    kept_cols: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the region it sees, in pixels."""
        return _length(self.rows), _length(self.cols)


def divide(tile: Tile, overlap: int, window: int) -> list[Tile]:
    """Divide a tile into as few smaller ones as possible, across its longer side if that can be done.

    Together they keep the region that the tile kept. Empty when the overlap leaves no smaller tiles.
    """
    rows = [
        tile._replace(rows=part, kept_rows=kept) for part, kept in _shorter(tile.rows, tile.kept_rows, overlap, window)
    ]
    cols = [
        tile._replace(cols=part, kept_cols=kept) for part, kept in _shorter(tile.cols, tile.kept_cols, overlap, window)
    ]
    return rows or cols if tile.shape[0] >= tile.shape[1] else cols or rows


def _shorter(seen: slice, kept: slice, overlap: int, window: int) -> list[tuple[slice, slice]]:
    """Divide a kept stretch into the fewest parts that each see less than `seen`."""
    margin = -(-overlap // window) * window // 2
    for count in range(2, _length(kept) + 1):
        seams = [kept.start + i * _length(kept) // count for i in range(count + 1)]
        parts = [
            (
                slice(
                    max(seen.start, (first - margin) // window * window),
                    min(seen.stop, -(-(last + margin) // window) * window),
                ),
                slice(first, last),
            )
            for first, last in pairwise(seams)
        ]
        if max(_length(part) for part, _ in parts) < _length(seen):
            return parts
    return []


def run_cut(
    function: Callable[[Tensor], Tensor],
    image: Image,
    canvas: Canvas,
    *,
    size: tuple[int, int],
    scale: int,
    tile: int,
    overlap: int,
    window: int,
    batch: int = 1,
    progress: Progress | None = None,
) -> None:
    """Apply `function`, which enlarges by `scale`, tile by tile; each output pixel comes from one tile.

    When `function` raises `TooLargeError`, the waiting tiles of that size are divided; finished tiles stay.

    Args:
        image: (B, C, H, W).
        canvas: takes (B, C', H*scale, W*scale).
        size: height and width with mirrored padding, multiples of the window.
        tile, overlap, window: in pixels of the image; see `cut_spans`.
        batch: number of tiles of one size that `function` gets at once, one after another along the first axis.

    Raises:
        TooLargeError: when the smallest tiles do not fit.
    """
    spans = product(*(cut_spans(side, tile, overlap, window) for side in size))
    waiting = deque(Tile(rows, cols, kept_rows, kept_cols) for (rows, kept_rows), (cols, kept_cols) in spans)
    batch = -(-len(waiting) // -(-len(waiting) // batch))  # of equal sizes if possible: a GPU records each size
    done = 0
    while waiting:
        group = [waiting.popleft()]
        while waiting and len(group) < batch and waiting[0].shape == group[0].shape:
            group.append(waiting.popleft())
        try:
            parts = function(torch.cat([mirrored(image, tile.rows, tile.cols) for tile in group]))
        except TooLargeError:
            batch = max(1, len(group) // 2)
            waiting.extendleft(reversed(group))
            if len(group) == 1:
                refused = group[0]
                if not divide(refused, overlap, window):
                    raise
                waiting = deque(part for tile in waiting for part in _no_larger(tile, refused, overlap, window))
            continue
        total = done + len(group) + len(waiting)
        for seen, part in zip(group, parts.chunk(len(group)), strict=True):
            _put(canvas, part, seen, image.shape[-2:], scale)
            done += 1
            if progress is not None:
                progress(done, total)


def _no_larger(tile: Tile, refused: Tile, overlap: int, window: int) -> list[Tile]:
    """Divide a tile if it is as large as one that did not fit."""
    return (math.prod(tile.shape) >= math.prod(refused.shape) and divide(tile, overlap, window)) or [tile]


def _put(canvas: Canvas, part: Tensor, tile: Tile, size: tuple[int, ...], scale: int) -> None:
    """Write the kept region of a tile's output, as far as it lies within the image."""
    height, width = size
    kept_rows = slice(tile.kept_rows.start, min(tile.kept_rows.stop, height))
    kept_cols = slice(tile.kept_cols.start, min(tile.kept_cols.stop, width))
    if kept_rows.start >= kept_rows.stop or kept_cols.start >= kept_cols.stop:  # padding alone
        return
    inside = part[..., _enlarged(_within(kept_rows, tile.rows), scale), _enlarged(_within(kept_cols, tile.cols), scale)]
    canvas[..., _enlarged(kept_rows, scale), _enlarged(kept_cols, scale)] = inside


def run_mean(
    function: Callable[[Tensor], Tensor],
    image: Image,
    canvas: Canvas,
    total: Tensor,
    *,
    size: tuple[int, int],
    scale: int,
    tile: int,
    overlap: int,
    progress: Progress | None = None,
) -> None:
    """Apply `function`, which enlarges by `scale`, tile by tile; average tiles where they overlap, edges and all.

    Args:
        image, canvas, size: as in `run_cut`.
        total: (B, C', H'*scale, W'*scale) scratch space for the padded size.
        tile, overlap: in pixels of the image; see `tile_starts`.
    """
    axes = [
        [slice(start, min(start + tile, side)) for start in tile_starts(side, min(tile, side), overlap)]
        for side in size
    ]
    counts = [total.new_zeros(side * scale) for side in size]
    for count, spans in zip(counts, axes, strict=True):
        for span in spans:
            count[_enlarged(span, scale)] += 1
    boxes = list(product(*axes))
    total.zero_()
    for done, (rows, cols) in enumerate(boxes, start=1):
        part = function(mirrored(image, rows, cols))
        total[..., _enlarged(rows, scale), _enlarged(cols, scale)] += part.to(total.device)
        if progress is not None:
            progress(done, len(boxes))
    height, width = (side * scale for side in image.shape[-2:])
    for rows in row_blocks(height, width):
        canvas[..., rows, slice(0, width)] = total[..., rows, :width] / torch.outer(counts[0][rows], counts[1][:width])


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _enlarged(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)

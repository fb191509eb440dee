"""Geometry of running a callable over a large image: mirrored padding, tile positions, joining. No devices."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise, product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from swinir.image_io.spans import in_spans

TileBlend = Literal["mean", "cut"]  # what becomes of pixels that several tiles cover


def mirror_to(x: Tensor, height: int, width: int) -> Tensor:
    """Extend (B, C, H, W) at the bottom and right by its mirror image, the edge pixel repeated."""
    for dim, target in ((2, height), (3, width)):
        size = x.shape[dim]
        if target > size:
            position = torch.arange(target, device=x.device) % (2 * size)
            x = x.index_select(dim, torch.minimum(position, 2 * size - 1 - position))
    return x


def mirror_rows(blocks: Iterable[Tensor], height: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """`mirror_to` of an image of `height` rows that come in (B, C, n, W) blocks; the extension comes last."""
    more = size[0] - height
    last: list[Tensor] = []
    for block in blocks:
        block = mirror_to(block, 0, size[1])
        last = [torch.cat([*last, block[:, :, -more:]], 2)[:, :, -more:].clone()] if more else []
        yield block
        del block
    if last:
        held = last[0].shape[2]
        yield mirror_to(last[0], held + more, 0)[:, :, held:]


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles along one axis: a stride of tile - overlap, the last tile flush with the edge.

    Raises:
        ValueError: unless 0 <= overlap < tile, for an axis that needs more than one tile.
    """
    if tile >= size:
        return [0]
    if not 0 <= overlap < tile:
        raise ValueError(f"tile_overlap must be from 0 to below tile, got {overlap} for tile {tile}; try {tile // 8}")
    return [*range(0, size - tile, tile - overlap), size - tile]


def tile_boxes(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """Row and column slices of all tiles, row by row."""
    tile_h, tile_w = min(tile, height), min(tile, width)
    for top in tile_starts(height, tile_h, overlap):
        for left in tile_starts(width, tile_w, overlap):
            yield slice(top, top + tile_h), slice(left, left + tile_w)


def run_tiled(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    scale: int,
    tile: int,
    overlap: int,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `function`, which enlarges by `scale`, tile by tile; where tiles overlap, take their plain mean.

    Args:
        x: (B, C, H, W); the result is made on its device, wherever `function` computes.
        tile, overlap: in pixels of x.
        progress: called with (tiles done, tiles in all).

    Returns:
        (B, C', H*scale, W*scale).
    """
    height, width = x.shape[-2:]
    boxes = list(tile_boxes(height, width, tile, overlap))
    total: Tensor | None = None
    counts = x.new_zeros(1, 1, height * scale, width * scale)
    for done, (rows, cols) in enumerate(boxes, start=1):
        part = function(x[..., rows, cols]).to(x.device)
        if total is None:
            total = part.new_zeros(*part.shape[:2], height * scale, width * scale)
        out = (..., _enlarge(rows, scale), _enlarge(cols, scale))
        total[out] += part
        counts[out] += 1
        if progress is not None:
            progress(done, len(boxes))
    assert total is not None
    return total.div_(counts)


def align_overlap(overlap: int, tile: int, window: int) -> int:
    """Smallest multiple of the window that is not below `overlap`, for tiles that are multiples of it too.

    Raises:
        ValueError: unless that leaves a stride of at least one window.
    """
    if not 0 <= overlap <= tile - window:
        raise ValueError(
            f"tile_overlap must be from 0 to {tile - window} for tile {tile} in windows of {window}, got {overlap}; "
            f"try --tile_overlap {tile // 4 // window * window}"
        )
    return -(-overlap // window) * window


def cut_spans(size: int, tile: int, overlap: int, window: int) -> list[tuple[slice, slice]]:
    """What each tile along one axis sees, and the part of it that is kept.

    As many tiles as an overlap of at least `overlap` takes, spread evenly and no larger than that number needs; all
    begin on multiples of the window, so that their windows are those of the whole image. The kept parts meet in the
    middle of each overlap: what is kept lies `overlap // 2` or more from every side of its tile that is not the
    image's own.

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


class TooLargeError(MemoryError):
    """What a callable raises for tiles that its device has no memory for."""


class Tile(NamedTuple):
    """Rows and columns that a tile sees, and those of the image that are taken from it."""

    rows: slice
    cols: slice
    kept_rows: slice
    kept_cols: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what it sees, in pixels."""
        return _length(self.rows), _length(self.cols)


def cut_tiles(height: int, width: int, tile: int, overlap: int, window: int) -> list[Tile]:
    """The tiles of an image, row by row, see `cut_spans`."""
    spans = product(cut_spans(height, tile, overlap, window), cut_spans(width, tile, overlap, window))
    return [Tile(rows, cols, kept_rows, kept_cols) for (rows, kept_rows), (cols, kept_cols) in spans]


def divide(tile: Tile, overlap: int, window: int) -> list[Tile]:
    """The fewest smaller tiles that keep together what one kept, cut across its longer side if that can be.

    Empty when the overlap leaves no smaller ones.
    """
    rows = [
        tile._replace(rows=part, kept_rows=kept) for part, kept in _shorter(tile.rows, tile.kept_rows, overlap, window)
    ]
    cols = [
        tile._replace(cols=part, kept_cols=kept) for part, kept in _shorter(tile.cols, tile.kept_cols, overlap, window)
    ]
    return rows or cols if tile.shape[0] >= tile.shape[1] else cols or rows


def _shorter(seen: slice, kept: slice, overlap: int, window: int) -> list[tuple[slice, slice]]:
    """The fewest parts of a kept stretch, with what each sees, of which none sees as much as `seen`."""
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


class _Cutting:
    """Runs a function over tiles, several of one size at once; what did not fit is divided, also among later tiles."""

    def __init__(self, function: Callable[[Tensor], Tensor], overlap: int, window: int, batch: int) -> None:
        self.function, self.overlap, self.window, self.batch = function, overlap, window, batch
        self.refused: list[Tile] = []

    def run(self, tiles: Iterable[Tile], see: Callable[[Tile], Tensor]) -> Iterator[tuple[Tile, Tensor, int]]:
        """Each tile that was run, what came out, and how many tiles are left; `see` gives what a tile sees."""
        waiting = deque(tiles)
        for refused in self.refused:
            waiting = self._divided(waiting, refused)
        while waiting:
            group = [waiting.popleft()]
            while waiting and len(group) < self.batch and waiting[0].shape == group[0].shape:
                group.append(waiting.popleft())
            try:
                parts = self.function(torch.cat([see(tile) for tile in group]))
            except TooLargeError:
                self.batch = max(1, len(group) // 2)
                waiting.extendleft(reversed(group))
                if len(group) == 1:
                    if not divide(group[0], self.overlap, self.window):
                        raise
                    self.refused.append(group[0])
                    waiting = self._divided(waiting, group[0])
                continue
            left = len(group) + len(waiting)
            for tile, part in zip(group, parts.chunk(len(group)), strict=True):
                left -= 1
                yield tile, part, left

    def _divided(self, tiles: Iterable[Tile], refused: Tile) -> deque[Tile]:
        return deque(part for tile in tiles for part in _no_larger(tile, refused, self.overlap, self.window))


def _joined(
    results: Iterable[tuple[Tile, Tensor, int]],
    rows: slice,
    width: int,
    scale: int,
    device: torch.device,
    count: Callable[[int], None],
) -> Tensor:
    """What was kept of tiles, put together to the given rows of the image; `count` hears how many tiles are left."""
    canvas: Tensor | None = None
    for tile, part, left in results:
        if canvas is None:
            canvas = part.new_empty(*part.shape[:2], _length(rows) * scale, width * scale, device=device)
        inside = _within(tile.kept_rows, tile.rows), _within(tile.kept_cols, tile.cols)
        place = _within(tile.kept_rows, rows), tile.kept_cols
        canvas[..., *_both(place, scale)] = part[..., *_both(inside, scale)]
        count(left)
    assert canvas is not None
    return canvas


def _counting(progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    """A function that is told how many tiles are left after each, and tells how many are done of how many."""
    done = 0

    def count(left: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, done + left)

    return count


def run_cut(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    scale: int,
    tile: int,
    overlap: int,
    window: int,
    batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `function`, which enlarges by `scale`, tile by tile; each pixel comes from one tile, see `cut_spans`.

    When `function` raises `TooLargeError`, tiles of that size are divided; what is finished stays.

    Args:
        x: (B, C, H, W), sides multiples of the window; the result is made on its device, wherever `function` computes.
        tile, overlap, window: in pixels of x.
        batch: how many tiles of one size `function` is given at once, one after another along the first axis.
        progress: called with (tiles done, tiles in all).

    Returns:
        (B, C', H*scale, W*scale).

    Raises:
        TooLargeError: when the smallest tiles do not fit either.
    """
    height, width = x.shape[-2:]
    tiles = cut_tiles(height, width, tile, overlap, window)
    results = _Cutting(function, overlap, window, batch).run(tiles, lambda tile: x[..., tile.rows, tile.cols])
    return _joined(results, slice(0, height), width, scale, x.device, _counting(progress))


def cut_strips(
    function: Callable[[Tensor], Tensor],
    rows: Iterable[Tensor],
    height: int,
    width: int,
    *,
    scale: int,
    tile: int,
    overlap: int,
    window: int,
    batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """`run_cut` for an image whose rows come one after another: the result in strips, one for each row of tiles.

    Args:
        rows: (B, C, n, W) blocks, with as many rows as they like; no more are held than a row of tiles sees.
        height, width: of the image, multiples of the window.

    Yields:
        (B, C', n, W*scale).

    Raises:
        TooLargeError: when the smallest tiles do not fit.
        ValueError: when there are fewer rows than `height`.
    """
    bands = [list(band) for _, band in groupby(cut_tiles(height, width, tile, overlap, window), lambda t: t.rows)]
    cutting, count = _Cutting(function, overlap, window, batch), _counting(progress)
    later = sum(map(len, bands))

    def strip(band: list[Tile], x: Tensor) -> Tensor:
        nonlocal later
        later -= len(band)
        top = band[0].rows
        results = cutting.run(band, lambda tile: x[..., _within(tile.rows, top), tile.cols])
        return _joined(results, band[0].kept_rows, width, scale, x.device, lambda left: count(left + later))

    yield from map(strip, bands, in_spans(rows, [band[0].rows for band in bands], torch.cat, axis=2))


def _no_larger(tile: Tile, refused: Tile, overlap: int, window: int) -> list[Tile]:
    """The tile itself, or its parts if it is as large as one that did not fit."""
    return (math.prod(tile.shape) >= math.prod(refused.shape) and divide(tile, overlap, window)) or [tile]


def _both(parts: tuple[slice, slice], scale: int) -> tuple[slice, slice]:
    return _enlarge(parts[0], scale), _enlarge(parts[1], scale)


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _enlarge(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)

"""Geometry of running a callable over a large image: mirrored padding, tile positions, blending. No devices."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def mirror_to(x: Tensor, height: int, width: int) -> Tensor:
    """Extend (B, C, H, W) at the bottom and right by its mirror image, the edge pixel repeated."""
    for dim, target in ((2, height), (3, width)):
        size = x.shape[dim]
        if target > size:
            position = torch.arange(target, device=x.device) % (2 * size)
            x = x.index_select(dim, torch.minimum(position, 2 * size - 1 - position))
    return x


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


def _enlarge(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)

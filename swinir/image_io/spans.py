"""An image whose rows come in blocks, taken in other stretches of rows: what is held is what is still to be taken."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Block = TypeVar("Block", np.ndarray, Tensor)


def in_spans(
    blocks: Iterable[Block], spans: Iterable[slice], join: Callable[[list[Block], int], Block], *, axis: int = 0
) -> Iterator[Block]:
    """The rows of each span of an image, which may share rows.

    Args:
        blocks: the rows from the first on, each block with as many as it likes.
        spans: neither their starts nor their ends decrease.
        join: `np.concatenate` or `torch.cat`.
        axis: that of the rows.

    Raises:
        ValueError: when the blocks end before the last span does.
    """
    source = iter(blocks)
    held: deque[tuple[int, Block]] = deque()  # with the number of the first row of each
    end = 0
    for span in spans:
        while end < span.stop:
            _drop(held, span.start, join, axis)  # before the next one is made: a view would keep a whole block alive
            block = next(source, None)
            if block is None:
                raise ValueError(f"the image has {end} rows, and row {span.stop - 1} is needed")
            held.append((end, block))
            end += block.shape[axis]
            del block
        yield _taken(held, span, join, axis)


def _taken(held: deque, span: slice, join: Callable, axis: int) -> Any:
    """The rows of a span: a view where one block has them all."""
    parts = [part for first, block in held if (part := _rows(block, first, span, axis)).shape[axis]]
    return parts[0] if len(parts) == 1 else join(parts, axis)


def _drop(held: deque, start: int, join: Callable, axis: int) -> None:
    """Forget rows before `start`."""
    while held and held[0][0] + held[0][1].shape[axis] <= start:
        held.popleft()
    if held and held[0][0] < start:
        first, block = held.popleft()
        rest = _rows(block, first, slice(start, first + block.shape[axis]), axis)
        held.appendleft((start, join([rest], axis)))


def _rows(block: Block, first: int, span: slice, axis: int) -> Block:
    part = slice(max(span.start - first, 0), max(span.stop - first, 0))
    return block[(slice(None),) * axis + (part,)]

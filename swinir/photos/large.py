"""A picture too large for memory through its experts: `repair` in strips, from file to file, with the same pixels.

Rows -> survey (sensing, grey, alpha) -> passes, each drawing on the one before -> exact size -> rows of the result
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from swinir.degradations.estimate import Findings
from swinir.degradations.resize import resize_rows
from swinir.image_io.picture import BLOCK, Rows, from_unit, to_unit
from swinir.image_io.spans import in_spans
from swinir.image_io.writer import write_rows
from swinir.inference.forward import Runnable, place_of
from swinir.inference.memory import auto_strip_tile
from swinir.inference.restore import padded_side, restore_strips
from swinir.photos.restore_photo import (
    Decision,
    Experts,
    Pass,
    Treatment,
    decide,
    enlarging,
    factor_of,
    final_size,
    from_network,
    look_at,
    to_network,
)

STRIP_BYTES = 2.0**30  # that the strips of all passes take together; what the network takes comes on top
BYTES_PER_VALUE = 12  # of a result held whole, while it is made and rounded; a quarter of that for the input
CROP, CROPS = 256, 8  # pixels, along each side, that a large picture is judged by
Size = tuple[int, int]  # height, width


def bytes_whole(height: int, width: int, scale: float) -> float:
    """About how much `repair` takes for a colour picture that it enlarges, beside the network."""
    return 3 * height * width * BYTES_PER_VALUE * (0.25 + scale**2)


def why_whole(treatment: Treatment) -> str | None:
    """Why a treatment cannot be had in strips; None if it can."""
    if treatment.self_ensemble:
        return "--self-ensemble turns pictures, and holds them in memory whole"
    if treatment.tile is None or treatment.tile_blend != "cut":
        return "without tiles, pictures are held in memory whole"
    return None


@dataclass(frozen=True)
class Survey:
    """What has to be known of all rows before the first is restored.

    Attributes:
        gray: whether all pixels are grey.
        alpha: the only value of the alpha channel; None if there are several, or no such channel.
        sample: (H, W, 1 or 3) crops at even distances, put together on the whole's grid of 8; all of a picture that
            is no larger than they are.
    """

    gray: bool
    alpha: float | None
    sample: np.ndarray


@dataclass(frozen=True)
class Plan:
    """How a picture is restored in strips.

    Attributes:
        decision: which passes, and why.
        factor: by how much the passes enlarge.
        size: height and width of the result, where the passes do not give them.
        survey: what was seen of the picture.
    """

    decision: Decision
    factor: int
    size: Size | None
    survey: Survey

    def of(self, rows: Rows) -> Size:
        """Height and width of the result."""
        return self.size or (rows.height * self.factor, rows.width * self.factor)


def survey(rows: Rows) -> Survey:
    """Look at every row once; damage shows here, before the work.

    Raises:
        ValueError: for damaged data, as the rows do.
    """
    down, across = _crops(rows.height), _crops(rows.width)
    sample = np.empty((_total(down), _total(across), rows.colors), rows.dtype)
    gray, low, high, y = True, math.inf, -math.inf, 0
    for block in rows.blocks():
        pixels = block[..., : rows.colors]
        gray = gray and bool((pixels == pixels[..., :1]).all())
        if rows.channels > rows.colors:
            low, high = min(low, float(block[..., -1].min())), max(high, float(block[..., -1].max()))
        place = 0
        for crop in down:
            first, last = max(crop.start, y), min(crop.stop, y + len(block))
            if first < last:
                part = pixels[first - y : last - y]
                there = slice(place + first - crop.start, place + last - crop.start)
                np.concatenate([part[:, crop] for crop in across], axis=1, out=sample[there])
            place += crop.stop - crop.start
        y += len(block)
    return Survey(gray, low if low == high else None, sample)


def _crops(size: int) -> list[slice]:
    """Stretches at even distances along a side, each from a multiple of 8."""
    if size <= CROP * CROPS:
        return [slice(0, size)]
    starts = ((size - CROP) * i // (CROPS - 1) // 8 * 8 for i in range(CROPS))
    return [slice(start, start + CROP) for start in starts]


def _total(parts: Iterable[slice]) -> int:
    return sum(part.stop - part.start for part in parts)


def make_plan(rows: Rows, treatment: Treatment, experts: Experts) -> Plan:
    """Survey a picture, and decide what becomes of it.

    Raises:
        ValueError: when an expert is needed that is not there, and for damaged data.
    """
    seen = survey(rows)

    def look() -> Findings:
        return replace(look_at(seen.sample, rows.jpeg_tables), gray=seen.gray)

    decision = decide(look, treatment, experts)
    size = final_size(rows.height, rows.width, treatment, decision.passes, experts)
    return Plan(decision, factor_of(decision.passes, experts), size, seen)


def repair_rows(
    rows: Rows,
    plan: Plan,
    path: Path,
    treatment: Treatment,
    experts: Experts,
    *,
    quality: int | None = None,
    keep_metadata: bool = True,
    strip_bytes: float = STRIP_BYTES,
    progress: Callable[[float], None] | None = None,
) -> tuple[str, ...]:
    """Restore a picture by its plan and write it; returns what was lost, as `write_picture` does.

    The passes run side by side, each on the rows that the one before has finished: nothing but strips is held. A
    format that is not written row by row has the result whole, in its own depth.

    Args:
        strip_bytes: for the strips of all passes together, where tiles are "auto".
        progress: called with the share of the passes' work that is done.

    Raises:
        ValueError: for damaged data, and what the format cannot hold.
        TooLargeError: when the device cannot hold the smallest tiles.
        OSError: when the folder is missing, full or read-only.
    """
    height, width = plan.of(rows)
    step = max(1, BLOCK // (width * rows.channels))
    spans = [slice(y, min(y + step, height)) for y in range(0, height, step)]
    blocks: Iterator[np.ndarray]
    if not plan.decision.passes and plan.size is None:
        blocks = rows.blocks()
    else:
        in_strips = _InStrips(treatment, experts, strip_bytes, step)
        colors = 1 if plan.survey.gray else rows.colors
        colour = in_strips.run(rows, slice(0, colors), plan.decision.passes, plan.size, progress)
        blocks = map(partial(_finished, rows.colors, rows.dtype), in_spans(colour, spans, np.concatenate))
        if rows.channels > rows.colors:
            alpha = in_spans(_alpha(rows, plan, in_strips), spans, np.concatenate)
            blocks = map(_beside, blocks, map(partial(_finished, 1, rows.dtype), alpha))
    return write_rows(
        path,
        blocks,
        (height, width, rows.channels),
        rows.dtype,
        rows.metadata,
        quality=quality,
        keep_metadata=keep_metadata,
    )


def _finished(channels: int, dtype: np.dtype, block: np.ndarray) -> np.ndarray:
    """Floats as samples, grey ones as equal channels."""
    return from_unit(block if block.shape[2] == channels else np.repeat(block, channels, axis=2), dtype)


def _beside(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, alpha], axis=2)


def _alpha(rows: Rows, plan: Plan, in_strips: "_InStrips") -> Iterator[np.ndarray]:
    """(n, W, 1) float32 blocks of the result's alpha."""
    height, width = plan.of(rows)
    alpha, passes = slice(rows.colors, rows.channels), enlarging(plan.decision.passes, in_strips.experts)
    if plan.survey.alpha is not None:  # opaque, mostly
        value = to_unit(np.array(plan.survey.alpha, rows.dtype))
        for y in range(0, height, in_strips.step):
            yield np.full((min(in_strips.step, height - y), width, 1), value, np.float32)
    elif in_strips.treatment.alpha == "bicubic" or not passes:
        yield from in_strips.run(rows, alpha, (), (height, width), None)
    else:
        yield from in_strips.run(rows, alpha, passes, plan.size, None)


@dataclass(frozen=True)
class _InStrips:
    """Passes over the channels of a picture; `step` is how many rows are resized together."""

    treatment: Treatment
    experts: Experts
    strip_bytes: float
    step: int

    def run(
        self,
        rows: Rows,
        channels: slice,
        passes: tuple[Pass, ...],
        size: Size | None,
        progress: Callable[[float], None] | None,
    ) -> Iterator[np.ndarray]:
        """(n, W, C) float32 blocks in [0, 1] of the result. Nothing in it may keep a strip while the next is made."""
        blocks: Iterator[np.ndarray] = (to_unit(block[..., channels]) for block in rows.blocks())
        shape, shares = (rows.height, rows.width), [0.0] * len(passes)

        def share(number: int, done: int, total: int) -> None:
            shares[number] = done / total
            if progress is not None:
                progress(sum(shares) / len(shares))

        for number, step in enumerate(passes):
            model = self.experts.get(step.weights)
            count = (channels.stop - channels.start, len(passes))
            blocks = self._one_pass(model, blocks, shape, *count, partial(share, number))
            shape = shape[0] * model.config.upscale, shape[1] * model.config.upscale
        if size is not None and size != shape:
            blocks = map(_clipped, resize_rows(blocks, shape, size, step=self.step))
        return blocks

    def _one_pass(
        self,
        model: Runnable,
        blocks: Iterator[np.ndarray],
        shape: Size,
        channels: int,
        passes: int,
        progress: Callable[[int, int], None],
    ) -> Iterator[np.ndarray]:
        treatment, config = self.treatment, model.config
        tile, (height, width) = treatment.tile, shape
        assert tile is not None
        if tile == "auto":
            tile = auto_strip_tile(
                config,
                padded_side(height, config),
                padded_side(width, config),
                treatment.tile_overlap,
                device=place_of(model).device,
                batch=channels if channels > config.in_chans else 1,
                strip_bytes=self.strip_bytes / passes,
            )
        strips = restore_strips(
            model,
            map(partial(to_network, wanted=config.in_chans), blocks),
            height,
            width,
            tile=tile,
            tile_overlap=treatment.tile_overlap,
            precision=treatment.precision,
            compile=treatment.compile,
            progress=progress,
        )
        return map(partial(from_network, given=channels, wanted=config.in_chans), strips)


def _clipped(block: np.ndarray) -> np.ndarray:
    return np.clip(block, 0, 1).astype(np.float32)

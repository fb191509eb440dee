"""Figures made of images: labelled versions side by side, and the sheet of `swinir compare`.

A row of the sheet shows one image, and one detail of it as each network restored it, enlarged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swinir.bench.compare_networks import METRICS, UNTOUCHED, Seen
from swinir.image_io.image import to_rgb

INPUT, TRUTH = "low quality", "ground truth"
CELL = 240  # side of an enlarged detail
_SIDES = (30, 40, 48, 60, 80, 120)  # of details in output pixels; CELL is a multiple of each
_DETAILS = 4.5  # approximate number of details along the shorter side of an image
_WHOLE = 300  # maximum width of a whole image
_BAR, _GAP, _FONT, _SMALLEST = 24, 8, 15, 10
_LIMIT = 32.0  # gray levels: a network that is far off everywhere does not choose the detail alone
_FRAME = (255, 220, 0)
_WHITE = 255


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]], *, detail: tuple[int, int, int] | None = None, zoom: int = 4
) -> np.ndarray:
    """Place labelled images of one size in a row.

    Args:
        panels: (label, (H, W, 1 or 3) uint8 image) pairs.
        detail: (top, left, side) of a square that a second row shows enlarged; none by default.
        zoom: enlargement of the detail, by repeating pixels.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: without panels, or for images of different sizes.
    """
    sizes = {image.shape[:2] for _, image in panels}
    if len(sizes) != 1:
        raise ValueError(f"panels must be at least one image and of one size, got {sorted(sizes)}")
    columns = []
    for label, image in panels:
        rgb = to_rgb(image)
        cells = [rgb]
        if detail:
            top, left, side = detail
            enlarged = rgb[top : top + side, left : left + side].repeat(zoom, axis=0).repeat(zoom, axis=1)
            cells = [_framed(rgb, left, top, side), enlarged]
        width = max(cell.shape[1] for cell in cells)
        padded = [np.pad(c, ((0, _GAP), (0, width - c.shape[1]), (0, 0)), constant_values=_WHITE) for c in cells]
        columns.append(np.concatenate([_text(label, width), *padded]))
    return np.pad(_beside(columns), ((0, 0), (0, _GAP), (0, 0)), constant_values=_WHITE)


@dataclass(frozen=True)
class Exhibit:
    """A row of the sheet.

    Attributes:
        image: its name.
        whole: (H, W, 3) uint8, reduced, with a frame around the detail.
        details: (CELL, CELL, 3) uint8 by network, with INPUT and TRUTH.
        captions: text below them.
        difference: mean distance between networks in the detail, in gray levels.
    """

    image: str
    whole: np.ndarray
    details: dict[str, np.ndarray]
    captions: dict[str, str]
    difference: float


def exhibit(seen: Seen, *, crop: tuple[int, int, int] | None = None) -> Exhibit:
    """Make the row of an image.

    Args:
        crop: (left, top, side) of the detail in output pixels; where networks differ most by default.

    Raises:
        ValueError: for a crop outside the image.
    """
    versions = {name: to_rgb(image) for name, image in seen.restored.items()}
    truth = None if seen.gt is None else to_rgb(seen.gt)
    main = next(iter(versions.values())) if truth is None else truth
    height, width = main.shape[:2]
    # A noisy input differs from every output everywhere.
    compared = [image for name, image in versions.items() if name != UNTOUCHED] or list(versions.values())
    left, top, side = crop or most_different(compared, truth)
    if min(left, top) < 0 or side < 1 or left + side > width or top + side > height:
        raise ValueError(f"--crop {left},{top},{side} does not lie in {seen.image} of {width}x{height} pixels")
    scale = height // seen.lq.shape[0]
    enlarged = to_rgb(seen.lq).repeat(scale, axis=0).repeat(scale, axis=1)
    images = {INPUT: enlarged, **versions} | ({} if truth is None else {TRUTH: truth})
    details = {name: image[top : top + side, left : left + side] for name, image in images.items()}
    metric = _caption_metric(next(iter(seen.metrics.values())), scale)
    captions = {name: _caption(values, scale) for name, values in seen.metrics.items()}
    return Exhibit(
        seen.image,
        _reduced(main, left, top, side),
        {name: _enlarged(detail) for name, detail in details.items()},
        captions | {TRUTH: METRICS[metric].title if metric else ""},
        float(_differences([details[name] for name in versions]).mean()),
    )


def most_different(versions: Sequence[np.ndarray], truth: np.ndarray | None = None) -> tuple[int, int, int]:
    """Find the square where (H, W, 3) uint8 images differ most; a single one is compared with `truth`.

    Returns:
        (left, top, side) in pixels.
    """
    height, width = versions[0].shape[:2]
    wanted = min(height, width) / _DETAILS
    side = min(min(_SIDES, key=lambda s: abs(s - wanted)), height, width)
    compared = list(versions)
    if len(compared) == 1:  # without a truth, the sharpest square is found
        compared.append(cv2.GaussianBlur(versions[0], (0, 0), 2) if truth is None else truth)
    sums = cv2.integral(_differences(compared))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(left), int(top), side


def _differences(images: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W): the mean over pairs of images of their limited distance at each pixel."""
    gray = [image.astype(np.float32).mean(axis=2) for image in images]
    total = np.zeros(gray[0].shape, np.float64)
    for a, b in combinations(gray, 2):
        total += np.minimum(np.abs(a - b), _LIMIT)
    return total / max(1, len(gray) * (len(gray) - 1) // 2)


def comparison_sheet(exhibits: Sequence[Exhibit], networks: Sequence[str]) -> np.ndarray:
    """Draw the sheet: a row for each exhibit, a column for each network between input and ground truth.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: without exhibits.
    """
    if not exhibits:
        raise ValueError("no image to show: no network restored any")
    first = () if UNTOUCHED in networks else (INPUT,)
    names = [name for name in (*first, *networks, TRUTH) if any(name in e.details for e in exhibits)]
    width = max(e.whole.shape[1] for e in exhibits)
    rows = [_beside([_text("", width), *(_text(name, CELL) for name in names)])]
    for row in exhibits:
        blank = np.full((CELL, CELL, 3), _WHITE, np.uint8)
        rows.append(_beside([_centred(row.whole, width), *(row.details.get(name, blank) for name in names)]))
        captions = [_text(row.captions.get(name, ""), CELL) for name in names]
        line = _beside([_text(row.image, width), *captions])
        rows.append(np.pad(line, ((0, _GAP), (0, 0), (0, 0)), constant_values=_WHITE))
    return np.pad(np.concatenate(rows), ((_GAP, 0), (0, _GAP), (0, 0)), constant_values=_WHITE)


def _caption(values: Mapping[str, float | None], scale: int) -> str:
    name = _caption_metric(values, scale)
    value = values[name] if name else None
    if name is None or value is None:
        return ""
    number = f"{value:.{METRICS[name].digits}f}"
    return f"{number} dB" if name.startswith("psnr") else f"{METRICS[name].title} {number}"


def _caption_metric(values: Mapping[str, float | None], scale: int) -> str | None:
    """PSNR, of luma for super-resolution, or else the first metric that was measured."""
    order = ("psnr_y", "psnr") if scale > 1 else ("psnr",)
    return next((name for name in (*order, *values) if values.get(name) is not None), None)


def _reduced(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Reduce an image to the height of a row, and frame the detail."""
    height, width = image.shape[:2]
    factor = min(CELL / height, _WHOLE / width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    reduced = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return _framed(reduced, left, top, side, factor)


def _framed(image: np.ndarray, left: int, top: int, side: int, factor: float = 1) -> np.ndarray:
    """Draw a frame around a square; its coordinates are multiplied by a factor."""
    framed = Image.fromarray(image)
    left, top, right, bottom = (round(v * factor) for v in (left, top, left + side, top + side))
    draw = ImageDraw.Draw(framed)
    draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline="black", width=4)
    draw.rectangle([left, top, right, bottom], outline=_FRAME, width=2)
    return np.asarray(framed)


def _enlarged(detail: np.ndarray) -> np.ndarray:
    """Resize a detail to a cell, by repeating pixels if the cell is a multiple of it."""
    side = detail.shape[0]
    enlarging = cv2.INTER_NEAREST if CELL % side == 0 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(detail, (CELL, CELL), interpolation=cv2.INTER_AREA if side > CELL else enlarging))


def _centred(image: np.ndarray, width: int) -> np.ndarray:
    """Place an image in the middle of a white field of a row's height."""
    field = np.full((CELL, width, 3), _WHITE, np.uint8)
    top, left = (CELL - image.shape[0]) // 2, (width - image.shape[1]) // 2
    field[top : top + image.shape[0], left : left + image.shape[1]] = image
    return field


def _beside(cells: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(c, ((0, 0), (_GAP, 0), (0, 0)), constant_values=_WHITE) for c in cells], axis=1)


def _text(text: str, width: int) -> np.ndarray:
    """Draw a centred line; long text gets a smaller font, then loses its middle."""
    bar = Image.new("RGB", (width, _BAR), "white")
    draw = ImageDraw.Draw(bar)
    shown, size = text, _FONT
    while draw.textlength(shown, font=ImageFont.load_default(size)) > width and size > _SMALLEST:
        size -= 1
    font = ImageFont.load_default(size)
    kept = len(text)
    while kept > 4 and draw.textlength(shown, font=font) > width:
        kept -= 1
        shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
    draw.text((width / 2, _BAR / 2), shown, fill="black", font=font, anchor="mm")
    return np.asarray(bar)

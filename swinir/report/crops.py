"""What networks made of images, as one picture: the whole image, and one detail of it by each network, enlarged."""

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
_SIDES = (30, 40, 48, 60, 80, 120)  # of details in output pixels, that CELL is a multiple of
_PARTS = 4.5  # about how many details make the shorter side of an image
_WHOLE = 300  # largest width of a whole image
_BAR, _GAP, _FONT, _SMALLEST = 24, 8, 15, 10
_ENOUGH = 32.0  # grey levels: a network that is far off everywhere does not choose the detail alone
_FRAME = (255, 220, 0)
_WHITE = 255


@dataclass(frozen=True)
class Exhibit:
    """A row of the picture.

    Attributes:
        image: its name.
        whole: (H, W, 3) uint8, reduced, with the detail framed.
        details: (CELL, CELL, 3) uint8 by network, with INPUT and TRUTH.
        captions: what stands under them.
        difference: how far networks lie apart in the detail, in grey levels.
    """

    image: str
    whole: np.ndarray
    details: dict[str, np.ndarray]
    captions: dict[str, str]
    difference: float


def check_crop(crop: tuple[int, int, int], width: int, height: int, image: str) -> None:
    """A ValueError for a square (left, top, side) that does not lie in an image."""
    left, top, side = crop
    if min(left, top) < 0 or side < 1 or left + side > width or top + side > height:
        raise ValueError(f"--crop {left},{top},{side} does not lie in {image} of {width}x{height} pixels")


def exhibit(seen: Seen, *, crop: tuple[int, int, int] | None = None) -> Exhibit:
    """The row of an image.

    Args:
        crop: (left, top, side) of the detail in pixels of the result; where networks differ most by default.

    Raises:
        ValueError: for a crop outside the image.
    """
    versions = {name: to_rgb(image) for name, image in seen.restored.items()}
    truth = None if seen.gt is None else to_rgb(seen.gt)
    main = next(iter(versions.values())) if truth is None else truth
    height, width = main.shape[:2]
    # Noise differs from what is made of it everywhere.
    compared = [image for name, image in versions.items() if name != UNTOUCHED] or list(versions.values())
    left, top, side = crop or most_different(compared, truth)
    check_crop((left, top, side), width, height, seen.image)
    scale = height // seen.lq.shape[0]
    enlarged = to_rgb(seen.lq).repeat(scale, axis=0).repeat(scale, axis=1)
    images = {INPUT: enlarged, **versions} | ({} if truth is None else {TRUTH: truth})
    details = {name: image[top : top + side, left : left + side] for name, image in images.items()}
    differences = _differences([details[name] for name in versions])
    captions = {name: _caption(values, scale) for name, values in seen.metrics.items()}
    return Exhibit(
        seen.image,
        _framed(main, left, top, side),
        {name: _fitted(detail) for name, detail in details.items()},
        captions | {TRUTH: _measure(seen, scale)},
        float(differences.mean()),
    )


def most_different(versions: Sequence[np.ndarray], truth: np.ndarray | None = None) -> tuple[int, int, int]:
    """(left, top, side) of the square where (H, W, 3) uint8 images differ most; one alone is held against `truth`."""
    height, width = versions[0].shape[:2]
    wanted = min(height, width) / _PARTS
    side = min(min(_SIDES, key=lambda s: abs(s - wanted)), height, width)
    compared = list(versions)
    if len(compared) == 1:  # from the truth, or else where there is most to see
        compared.append(cv2.GaussianBlur(versions[0], (0, 0), 2) if truth is None else truth)
    sums = cv2.integral(_differences(compared))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(left), int(top), side


def _differences(images: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W): the mean over pairs of images of their limited distance at each pixel."""
    grey = [image.astype(np.float32).mean(axis=2) for image in images]
    total = np.zeros(grey[0].shape, np.float64)
    for a, b in combinations(grey, 2):
        total += np.minimum(np.abs(a - b), _ENOUGH)
    return total / max(1, len(grey) * (len(grey) - 1) // 2)


def sheet(exhibits: Sequence[Exhibit], networks: Sequence[str]) -> np.ndarray:
    """The picture: (H, W, 3) uint8, a row for each exhibit, a column for each network between input and ground truth.

    Raises:
        ValueError: without exhibits.
    """
    if not exhibits:
        raise ValueError("no image to show: no network restored any")
    first = () if UNTOUCHED in networks else (INPUT,)
    names = [name for name in (*first, *networks, TRUTH) if any(name in e.details for e in exhibits)]
    left = max(e.whole.shape[1] for e in exhibits)
    head = [_text("", left), *(_text(name, CELL) for name in names)]
    rows = [_beside(head)]
    for shown in exhibits:
        blank = np.full((CELL, CELL, 3), _WHITE, np.uint8)
        rows.append(_beside([_centred(shown.whole, left), *(shown.details.get(name, blank) for name in names)]))
        captions = [_text(shown.captions.get(name, ""), CELL) for name in names]
        line = _beside([_text(shown.image, left), *captions])
        rows.append(np.pad(line, ((0, _GAP), (0, 0), (0, 0)), constant_values=_WHITE))
    return np.pad(np.concatenate(rows), ((_GAP, 0), (0, _GAP), (0, 0)), constant_values=_WHITE)


def _caption(values: Mapping[str, float | None], scale: int) -> str:
    name = _shown_metric(values, scale)
    value = values[name] if name else None
    if name is None or value is None:
        return ""
    number = f"{value:.{METRICS[name].digits}f}"
    return f"{number} dB" if name.startswith("psnr") else f"{METRICS[name].title} {number}"


def _measure(seen: Seen, scale: int) -> str:
    """What the captions of the others are."""
    name = _shown_metric(next(iter(seen.metrics.values())), scale)
    return METRICS[name].title if name else ""


def _shown_metric(values: Mapping[str, float | None], scale: int) -> str | None:
    """PSNR, of luma for super-resolution, or else the first that there is."""
    order = ("psnr_y", "psnr") if scale > 1 else ("psnr",)
    return next((name for name in (*order, *values) if values.get(name) is not None), None)


def _framed(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Reduced to a row's height, with a frame."""
    height, width = image.shape[:2]
    factor = min(CELL / height, _WHOLE / width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    reduced = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    corners = [round(v * factor) for v in (left, top, left + side, top + side)]
    draw = ImageDraw.Draw(reduced)
    draw.rectangle([corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1], outline="black", width=4)
    draw.rectangle(corners, outline=_FRAME, width=2)
    return np.asarray(reduced)


def _fitted(detail: np.ndarray) -> np.ndarray:
    """Enlarged to a cell: by repeating pixels where that comes out even."""
    side = detail.shape[0]
    even = cv2.INTER_NEAREST if CELL % side == 0 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(detail, (CELL, CELL), interpolation=cv2.INTER_AREA if side > CELL else even))


def _centred(image: np.ndarray, width: int) -> np.ndarray:
    """In the middle of a white field of a row's height."""
    field = np.full((CELL, width, 3), _WHITE, np.uint8)
    top, left = (CELL - image.shape[0]) // 2, (width - image.shape[1]) // 2
    field[top : top + image.shape[0], left : left + image.shape[1]] = image
    return field


def _beside(cells: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(c, ((0, 0), (_GAP, 0), (0, 0)), constant_values=_WHITE) for c in cells], axis=1)


def _text(text: str, width: int) -> np.ndarray:
    """A centred line; smaller where it is long, and shortened in the middle where that does not do."""
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

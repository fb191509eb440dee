"""Images without noise that look noisy to an estimator: printed and dithered photographs, text, lines."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

SIDE = 256


def drawings():
    """(256, 256, 1 or 3) uint8 images by name."""
    color = data.astronaut()[:SIDE, 120 : 120 + SIDE]
    gray = np.asarray(Image.fromarray(color).convert("L"))
    angles = (15, 75, 45)
    images = {
        "halftone": halftone(gray, cell=6, angle=45, finer=1),
        "printed": halftone(gray, cell=6, angle=15, finer=3),
        "printed in colour": np.stack([halftone(color[..., i], 5, angle, 3) for i, angle in enumerate(angles)], 2),
        "error diffusion": np.asarray(Image.fromarray(gray).convert("1").convert("L")),
        "palette of 16": np.asarray(Image.fromarray(color).quantize(16).convert("RGB")),
        "text": text(),
        "lines": lines(),
    }
    return {name: image.reshape(SIDE, SIDE, -1) for name, image in images.items()}


def halftone(gray, cell, angle, finer):
    """Dots on a grid of cells in pixels, turned by an angle in degrees; drawn `finer` times as large and reduced."""
    side = SIDE * finer
    y, x = np.mgrid[:side, :side] / finer
    turn = np.deg2rad(angle)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    threshold = 0.5 + (np.cos(2 * np.pi * along / cell) + np.cos(2 * np.pi * across / cell)) / 4
    dots = gray.repeat(finer, 0).repeat(finer, 1) / 255 > threshold
    return (dots.reshape(SIDE, finer, SIDE, finer).mean((1, 3)) * 255).round().astype(np.uint8)


def text():
    """A page of letters, smooth as fonts are drawn on screens."""
    page, rng = Image.new("L", (SIDE, SIDE), 255), np.random.default_rng(0)
    for top in range(4, SIDE, 16):
        words = "".join(rng.choice(list("abcdefghijk lmnopqr stuvw xyz"), 60))
        ImageDraw.Draw(page).text((8, top), words, 0, font=ImageFont.load_default(12))
    return np.asarray(page)


def lines():
    """Smooth black lines on white."""
    page, rng = Image.new("L", (3 * SIDE, 3 * SIDE), 255), np.random.default_rng(0)
    for _ in range(40):
        points = [tuple(point) for point in rng.integers(0, 3 * SIDE, (4, 2))]
        ImageDraw.Draw(page).line(points, fill=0, width=int(rng.integers(3, 9)))
    return np.asarray(page.resize((SIDE, SIDE)))

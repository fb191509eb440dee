"""Flicker: changes of pixels from frame to frame where nothing moves in the source; and a blend that lowers it.

A pixel is static if the mean absolute change of luma over the `WINDOW` around it in the source is no larger than noise
makes it. Flicker is the mean absolute change of luma, in units of 1/255, on static pixels. Nothing is warped.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from swinir.degradations.estimate_input import LUMA

WINDOW = 7  # pixels of the source
LEAST = 1.0  # change of luma in 1/255 that compression makes without noise
PER_NOISE = 0.9  # change over the noise level; 0.75 is expected of white noise, with a deviation of 0.08
BLEND = 0.6  # share of the frame before where nothing moves


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the luma of (H, W, 3) uint16 as (H, W) float32 in units of 1/255."""
    return pixels.astype(np.float32) @ (LUMA / np.float32(257))


def stillness(before: np.ndarray, after: np.ndarray, noise_level: float) -> np.ndarray:
    """Return (H, W) float32 in [0, 1] for two (H, W) luma frames of the source: 1 and above 0 where it is static."""
    change = cv2.blur(np.abs(after - before), (WINDOW, WINDOW))
    most = LEAST + PER_NOISE * noise_level
    return np.clip(4 * (1 - change / most), 0, 1)


@dataclass
class Flicker:
    """Sums over pairs of frames: static pixels of the source, and their changes in source and output."""

    pixels: float = 0
    source: float = 0.0
    output: float = 0.0

    def add(self, still: np.ndarray, source: np.ndarray, output: np.ndarray) -> None:
        """Add the changes of luma from one frame to the next; those of the output have its size."""
        mask = still > 0
        count = int(mask.sum())
        if count:
            larger = cv2.resize(mask.astype(np.uint8), output.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            self.pixels += count
            self.source += float(np.abs(source[mask]).sum())
            self.output += float(np.abs(output[larger]).mean()) * count

    def explain(self) -> str:
        """Return one sentence."""
        if not self.pixels:
            return "Flicker: nothing stands still in this clip."
        before, after = self.source / self.pixels, self.output / self.pixels
        return f"Flicker on static pixels: {before:.2f} of 255 before, {after:.2f} after."


class FrameSequence:
    """The frames of a clip in their order: measures flicker, and blends each with the one before if it is to.

    Args:
        noise_level: of the source, in units of 1/255.
        steady: replace each pixel that is static by a mixture with the output before.
    """

    def __init__(self, noise_level: float, *, steady: bool) -> None:
        self.noise_level, self.steady = noise_level, steady
        self.flicker = Flicker()
        self.before: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # luma of source and output, the output

    def add(self, source: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """Take a frame of the source and its restored form, both uint16 RGB; return the frame of the output."""
        now, output, shown = luma(source), restored, luma(restored)
        if self.before is not None:
            source_before, shown_before, output_before = self.before
            still = stillness(source_before, now, self.noise_level)
            if self.steady:
                share = BLEND * cv2.resize(still, restored.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
                output = (restored + share * (output_before.astype(np.float32) - restored)).round().astype(np.uint16)
                shown = luma(output)
            self.flicker.add(still, now - source_before, shown - shown_before)
        self.before = now, shown, output
        return output

    def save(self, path: Path) -> None:
        """Write the last frame and the flicker so far, for `load`."""
        assert self.before is not None
        with path.open("wb") as file:
            np.savez(file, *self.before, flicker=list(vars(self.flicker).values()))

    def load(self, path: Path) -> None:
        """Go on after the frame in a file."""
        with np.load(path, allow_pickle=False) as arrays:
            self.before = arrays["arr_0"], arrays["arr_1"], arrays["arr_2"]
            self.flicker = Flicker(*arrays["flicker"])

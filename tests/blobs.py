"""A picture whose place can be measured."""

import numpy as np


def blob(
    size: tuple[int, int],
    centre: tuple[float, float] = (0.43, 0.55),
    width: float = 0.09,
    low: float = 0.2,
    high: float = 0.8,
) -> np.ndarray:
    """A grey Gaussian blob, (H, W, 3) float32; its (row, column) centre and its width in shares of the side."""
    rows, cols = ((np.arange(n) + 0.5) / n for n in size)
    shape = np.exp(-((rows[:, None] - centre[0]) ** 2 + (cols[None, :] - centre[1]) ** 2) / (2 * width**2))
    return np.repeat((low + (high - low) * shape)[..., None], 3, axis=2).astype(np.float32)


def centroid(image: np.ndarray, low: float = 0.25) -> np.ndarray:
    """Centre (row, column) of a blob above a background a little darker than `low`, in shares of the side."""
    weight = np.maximum(image.astype(np.float64).mean(axis=2) - low, 0)
    rows, cols = ((np.arange(n) + 0.5) / n for n in weight.shape)
    return np.array([weight.sum(axis=1) @ rows, weight.sum(axis=0) @ cols]) / weight.sum()

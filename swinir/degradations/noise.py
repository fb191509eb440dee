"""Gaussian noise of the denoising benchmarks."""

import numpy as np


def benchmark_noise(image: np.ndarray, noise_level: float, *, seed: int = 0) -> np.ndarray:
    """Add the tester's noise to an (H, W, C) uint8 image: float32 in units of 1, not clipped.

    Published numbers depend on the draw: NumPy's legacy stream, the same seed for every image, standard
    deviation `noise_level` / 255. For RGB images the stream is laid out in BGR order, as the released
    program reads its images; this is the one place inside the package that knows BGR.
    """
    if noise_level < 0:
        raise ValueError(f"noise_level must not be negative, got {noise_level}")
    noise = np.random.RandomState(seed).normal(0, noise_level / 255, image.shape)
    return (image.astype(np.float32) / 255 + noise[..., ::-1]).astype(np.float32)

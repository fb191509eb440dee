"""Definition of the weights behind the goldens: any table of shapes filled from the names and a seed.

Each array depends on its own name and the seed alone. The spread is 1 / sqrt(fan in), so that activations
stay of order one through all layers and an error in any of them shows in the output. The numbers are part
of the goldens: changing them here makes every golden wrong.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

NOT_LEARNED = ("relative_position_index", "attn_mask", "mean")


def state(shapes: Mapping[str, Sequence[int]], seed: int = 0, img_range: float = 1.0) -> dict[str, np.ndarray]:
    """float32 arrays for the learned ones among `shapes`; the last layer grows with sqrt(img_range)."""
    return {
        name: _array(name, tuple(shape), seed, img_range)
        for name, shape in shapes.items()
        if not name.endswith(NOT_LEARNED)
    }


def _array(name: str, shape: tuple[int, ...], seed: int, img_range: float) -> np.ndarray:
    stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = stream.standard_normal(shape, dtype=np.float32)
    if name.endswith("relative_position_bias_table"):
        return 0.5 * normal
    if name.endswith(".bias"):
        return np.float32(0.02) * normal
    if "norm" in name and name.endswith(".weight"):
        return 1 + np.float32(0.1) * normal
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
    gain = 0.25 * img_range**0.5 if name.startswith(("conv_last", "upsample.0.")) else 1.0
    return np.float32(gain / np.sqrt(fan_in)) * normal

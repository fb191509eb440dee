"""Enlargement by any real scale: output pixels as weighted sums of coefficients at the nearest low-quality pixel.

Meta-SR (Hu et al., CVPR 2019) predicts the filter of each output pixel from its offset and the scale. Here the filters
have a low rank: one convolution makes J coefficients of each colour at low resolution, and the offset and the scale
decide their J weights, as LIIF (Chen et al., CVPR 2021) and LTE (Lee and Jin, CVPR 2022) query a code with a coordinate
and a cell. The weights are a polynomial basis in the offset plus a learned change.

Along an axis of `side` low-quality pixels and `size` output pixels, the centre of output pixel i lies at
(i + 0.5) * side / size, in low-quality pixels from the edge of the image. The low-quality pixel k whose area it lies in
is the nearest one, and its offset from the centre of k is from -0.5 to below 0.5. At an integer scale there are as many
offsets as subpixels, so that the convolution can be multiplied by the weights: a sub-pixel convolution.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEGREE = 3  # of the polynomials along each axis
COEFFICIENTS = (DEGREE + 1) ** 2  # of each colour: as many as x4 has subpixels
HIDDEN = 64


def enlarged(side: int, scale: float) -> int:
    """Length of an enlarged side, to the nearest whole number of pixels."""
    return round(side * scale)


def whole(scale: float) -> float:
    """Return a whole number as an int, any other scale as it is."""
    return int(scale) if scale == int(scale) else scale


def pixels_of(part: slice, side: int, size: int) -> slice:
    """Find the output pixels of an axis whose nearest low-quality pixel lies in `part`."""
    start, stop = (-((side - 2 * edge * size) // (2 * side)) for edge in (part.start, part.stop))
    return slice(start, stop)


class Axis(NamedTuple):
    """Output pixels along one axis of an image.

    Attributes:
        nearest: (n,) index of the low-quality pixel nearest to each.
        offsets: (p,) the different offsets from it, in low-quality pixels, float64 in [-0.5, 0.5).
        phase: (n,) index of each pixel's offset among them.
        scale: output pixels for each low-quality pixel.
    """

    nearest: Tensor
    offsets: Tensor
    phase: Tensor
    scale: float

    @classmethod
    def of(cls, side: int, size: int, part: slice | None = None) -> "Axis":
        """Describe the output pixels `part` of an axis of `side` low-quality pixels that is enlarged to `size`."""
        part = part or slice(0, size)
        twice = torch.arange(2 * part.start + 1, 2 * part.stop + 1, 2) * side  # whole numbers: no rounding
        offsets, phase = torch.unique(twice % (2 * size), return_inverse=True)
        return cls(twice // (2 * size), offsets.double() / (2 * size) - 0.5, phase, size / side)


class PhaseWeights(nn.Module):
    """Weights of the coefficients for each offset and scale, and the enlargement by them.

    The first weight is 1. The change of the others is zero at first, and learned by two linear layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * DEGREE + 2, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, COEFFICIENTS - 1)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def weights(self, rows: Axis, cols: Axis) -> Tensor:
        """Compute the (J, p_rows, p_cols) weights for each pair of offsets."""
        like = self.fc1.weight
        y, x = (legendre(axis.offsets).to(like) for axis in (rows, cols))
        shape = (y.shape[0], x.shape[0])
        known = torch.cat(
            [
                y[:, None, 1:].expand(*shape, -1),
                x[None, :, 1:].expand(*shape, -1),
                like.new_tensor([1 / rows.scale, 1 / cols.scale]).expand(*shape, -1),
            ],
            -1,
        )
        change = self.fc2(F.gelu(self.fc1(known))).permute(2, 0, 1)
        basis = torch.einsum("yi,xj->ijyx", y, x).flatten(0, 1)
        return basis + F.pad(change, (0, 0, 0, 0, 1, 0))

    def forward(self, coefficients: Tensor, rows: Axis, cols: Axis) -> Tensor:
        """Compute output pixels.

        Args:
            coefficients: (B, J * C, h, w), those of all colours one after another for each weight.
            rows, cols: the output pixels, whose nearest pixels are counted from the first of `coefficients`.

        Returns:
            (B, C, n_rows, n_cols).
        """
        device = coefficients.device
        y, x = rows.nearest.to(device), cols.nearest.to(device)
        weights = self.weights(rows, cols)[:, rows.phase.to(device)][:, :, cols.phase.to(device)]
        taken = coefficients.index_select(2, y).index_select(3, x).unflatten(1, (COEFFICIENTS, -1))
        return (taken * weights[:, None]).sum(1)


def legendre(offsets: Tensor) -> Tensor:
    """Compute (p, DEGREE + 1) polynomials of offsets, orthonormal over [-0.5, 0.5]; the first is 1."""
    t = 2 * offsets
    values = [torch.ones_like(t), t]
    for n in range(1, DEGREE):
        values.append(((2 * n + 1) * t * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack([(2 * n + 1) ** 0.5 * value for n, value in enumerate(values)], -1)

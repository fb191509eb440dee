"""Kernel that writes down the rows of the stream which a window's tokens take."""

import triton
import triton.language as tl

from swinir.models.fused_kernels import _rows


@triton.jit
def write_rows(out, first, rows, cols, shift, window: tl.constexpr):
    tl.store(out + tl.arange(0, 64), _rows(first, rows, cols, shift, window, 64, 1))

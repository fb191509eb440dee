"""The options for running a network over an image, in one frozen object."""

from dataclasses import dataclass
from typing import Literal, get_args

from swinir.inference.tiling import TileBlend
from swinir.models.optimized import PRECISIONS


@dataclass(frozen=True)
class RunOptions:
    """The options of `restore`, which the tester, folders and benchmarks pass on whole.

    Attributes:
        tile: longest side of tiles in low-quality pixels, rounded down to a multiple of the window. None runs the
            image whole, "auto" in the largest tiles that the device has memory for.
        tile_overlap: least overlap of neighbouring tiles in low-quality pixels.
        tile_blend: "cut" takes each pixel from one tile, with the overlap rounded up to a multiple of the window; the
            result approaches that of the whole image as the overlap grows. "mean" averages overlapping tiles, as the
            released program does.
        precision: "fp32"; "bf16" for matrix products and convolutions, with float32 residuals and output (on GPUs,
            TF32 in the convolutions of the reconstruction); "auto" is bf16 on GPUs and CPUs that compute in it
            natively, else fp32. Non-finite bf16 output is recomputed in fp32.
        self_ensemble: average over the eight flips and rotations (the paper's "+").
        compile: fuse the layers by torch.compile; the first image takes a minute or two longer.
        extra_window: extend images to the next multiple of the window above their size, as the released program does.
            False leaves the padding to the network, which reflects sides to whole windows and no further; it serves
            comparison with other programs, for whole images by networks in PyTorch.

    Raises:
        ValueError: for an unknown tile, blend or precision, and for tiles without the extra window.
    """

    tile: int | Literal["auto"] | None = None
    tile_overlap: int = 32
    tile_blend: TileBlend = "cut"
    precision: str = "fp32"
    self_ensemble: bool = False
    compile: bool = False
    extra_window: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.tile, str) and self.tile != "auto":
            raise ValueError(f"tile must be a number of pixels, 'auto' or None, got {self.tile!r}")
        if self.tile_blend not in get_args(TileBlend):
            raise ValueError(f"tile_blend must be one of {', '.join(get_args(TileBlend))}, got {self.tile_blend!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not self.extra_window and self.tile is not None:
            raise ValueError("extra_window=False is for whole images; leave it or the tile out")

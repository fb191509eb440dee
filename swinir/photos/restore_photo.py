"""A picture through its experts: which ones, in which order, and what becomes of depth, alpha and size.

Picture -> sense -> make_plan -> pass by pass through `restore` -> exact size -> Picture
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from swinir.degradations.estimate import Findings, sense
from swinir.degradations.resize import imresize
from swinir.image_io.picture import Picture, from_unit, to_unit
from swinir.inference.forward import Runnable, optimize_for
from swinir.inference.memory import free_memory
from swinir.inference.options import RunOptions
from swinir.inference.restore import DEFAULTS, restore
from swinir.inference.runtimes import SUFFIXES, load_exported
from swinir.inference.tiling import TileBlend
from swinir.models.complexity import count_parameters
from swinir.models.optimized import OptimizedSwinIR
from swinir.photos.select_models import Wish, make_plan
from swinir.weights import zoo
from swinir.weights.checkpoint import find_checkpoint, load_model, sha256

POOL_SHARE = 0.25  # of the memory that is free at first, for experts that stay loaded
COPIES = 2.5  # of its weights that a loaded network takes, the prepared form among them
EXPORTED_TAKES = 100e6  # bytes: what runs exported networks does not tell
MAX_PASSES = 6
NOTHING_ASKED = Wish()


@dataclass(frozen=True)
class Treatment:
    """How pictures are restored; everything that decides their pixels, the experts' weights apart.

    Attributes:
        model: a weights file or a name in the zoo; None chooses experts by the picture.
        wish: what to repair, and how much to enlarge at least, when experts are chosen.
        outscale: how much larger the result is, exactly; None is what the passes give.
        tile: as `restore` takes it.
        alpha: whether an enlarged picture's alpha goes through the network too, or is resized.
    """

    model: str | None = None
    wish: Wish = NOTHING_ASKED
    outscale: float | None = None
    tile: int | Literal["auto"] | None = "auto"
    tile_overlap: int = 64  # measured: 116 dB or more to the whole picture, for denoisers, which reach furthest
    tile_blend: TileBlend = "cut"
    precision: str = "fp32"
    self_ensemble: bool = False
    compile: bool = False
    alpha: Literal["model", "bicubic"] = "model"

    def __post_init__(self) -> None:
        if self.outscale is not None and not 0 < self.outscale < math.inf:
            raise ValueError(f"outscale must be positive, got {self.outscale}")
        if self.alpha not in ("model", "bicubic"):
            raise ValueError(f"alpha_upsampler must be model or bicubic, got {self.alpha!r}")

    @property
    def options(self) -> RunOptions:
        """The options that networks are run with."""
        return RunOptions(
            self.tile, self.tile_overlap, self.tile_blend, self.precision, self.self_ensemble, self.compile
        )


@dataclass(frozen=True)
class Pass:
    """One expert that a picture goes through, and why."""

    weights: str
    reason: str


class Experts:
    """Networks that stay loaded as long as they fit a budget of memory; the one used longest ago goes first.

    Args:
        device: where they are.
        budget: in bytes; None is a share of what is free now.
        load: from weights, by path or name, to a network.
        options: that networks are going to be run with; SwinIR is held in the form optimized for them.
    """

    def __init__(
        self,
        device: torch.device,
        budget: float | None = None,
        load: Callable[[str, torch.device], Runnable] | None = None,
        options: RunOptions = DEFAULTS,
    ) -> None:
        self.device, self.load, self.options = device, load or load_expert, options
        self.budget = POOL_SHARE * free_memory(device) if budget is None else budget
        self._loaded: OrderedDict[str, Runnable] = OrderedDict()
        self._hashes: dict[str, str] = {}

    def get(self, weights: str) -> Runnable:
        """The network of these weights."""
        if weights not in self._loaded:
            self._loaded[weights] = optimize_for(self.load(weights, self.device), self.options)
            while len(self._loaded) > 1 and sum(map(_taken, self._loaded.values())) > self.budget:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(weights)
        return self._loaded[weights]

    def sha256(self, weights: str) -> str:
        """Of the weights' file."""
        if weights not in self._hashes:
            path = Path(weights)
            self._hashes[weights] = sha256(path if path.suffix in SUFFIXES else find_checkpoint(weights))
        return self._hashes[weights]


def load_expert(weights: str, device: torch.device) -> Runnable:
    """The network of weights by path or zoo name, or an exported file, which runs on the CPU."""
    return load_exported(weights) if Path(weights).suffix in SUFFIXES else load_model(weights, device)


def _taken(network: Runnable) -> float:
    if isinstance(network, OptimizedSwinIR):
        return COPIES * count_parameters(network.config) * network.dtype.itemsize
    if isinstance(network, nn.Module):
        return COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
    return EXPORTED_TAKES


@dataclass(frozen=True)
class Decision:
    """The passes that a picture needs, and why.

    Attributes:
        findings: what was found and decided, a sentence each.
        measured: what was found; None where it was not looked for.
    """

    passes: tuple[Pass, ...]
    findings: tuple[str, ...] = ()
    measured: Findings | None = None


@dataclass(frozen=True)
class Repaired:
    """A restored picture, and what had been decided."""

    picture: Picture
    decision: Decision


def look_at(pixels: np.ndarray, tables: Sequence[Sequence[int]] | None) -> Findings:
    """What is wrong with (H, W, 1 or 3) samples of any depth, from a file with these quantisation tables."""
    return sense(_to_8_bits(pixels), dict(enumerate(tables)) if tables else None)


def decide(look: Callable[[], Findings], treatment: Treatment, experts: Experts) -> Decision:
    """The passes that a picture needs; it is looked at only where that matters.

    Raises:
        ValueError: when an expert is needed that is not there, with the command that fetches it.
    """
    if treatment.model is not None:
        return Decision(_named_passes(treatment.model, treatment.outscale, experts))
    findings = look()
    plan = make_plan(findings, treatment.wish, zoo.present())
    passes = tuple(Pass(step.expert.name, step.reason) for step in plan.steps)
    return Decision(passes, (*findings.explain(), *plan.explain()), findings)


def _named_passes(model: str, outscale: float | None, experts: Experts) -> tuple[Pass, ...]:
    """One pass through the model, or as many as reach the scale."""
    scale = experts.get(model).config.upscale
    count = 1
    while outscale is not None and scale > 1 and scale**count < outscale and count < MAX_PASSES:
        count += 1
    return (Pass(model, "named"),) * count


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else from_unit(to_unit(pixels), np.uint8)


def repair(
    picture: Picture,
    treatment: Treatment,
    experts: Experts,
    *,
    progress: Callable[[float], None] | None = None,
) -> Repaired:
    """Restore a picture.

    Depth, alpha and metadata stay; alpha is enlarged with the picture. A picture that needs nothing comes out as it
    is. Grey pictures go through experts for colour as three equal channels, whose mean is taken; colour ones through
    experts for grey channel by channel.

    Args:
        progress: called with the share of the passes' work that is done.

    Raises:
        ValueError: when an expert is needed that is not there.
        TooLargeError: when the device cannot hold the smallest tiles.
    """
    decision = decide(lambda: look_at(picture.pixels, picture.jpeg_tables), treatment, experts)
    passes = decision.passes
    height, width, channels = picture.pixels.shape
    size = final_size(height, width, treatment, passes, experts)
    image = to_unit(picture.pixels)
    gray_in_colour = image.shape[2] == 3 and bool((image == image[..., :1]).all())
    if gray_in_colour:
        image = image[..., :1]
    colour = _run(image, passes, treatment, experts, progress)
    colour = _resized(colour, size)
    if colour.shape[2] < channels:
        colour = np.repeat(colour, channels, axis=2)
    alpha = None
    if picture.alpha is not None:
        unit = _alpha(to_unit(picture.alpha), enlarging(passes, experts), size, treatment, experts)
        alpha = from_unit(unit, picture.alpha.dtype)
    pixels = picture.pixels if not passes and size is None else from_unit(colour, picture.pixels.dtype)
    return Repaired(replace(picture, pixels=pixels, alpha=alpha), decision)


def enlarging(passes: tuple[Pass, ...], experts: Experts) -> tuple[Pass, ...]:
    """The passes that make a picture larger."""
    return tuple(p for p in passes if experts.get(p.weights).config.upscale > 1)


def factor_of(passes: tuple[Pass, ...], experts: Experts) -> int:
    """By how much the passes enlarge."""
    return math.prod(experts.get(p.weights).config.upscale for p in passes)


def final_size(
    height: int, width: int, treatment: Treatment, passes: tuple[Pass, ...], experts: Experts
) -> tuple[int, int] | None:
    """Height and width asked for; None if the passes give them."""
    wanted = treatment.outscale
    if wanted is None or wanted == factor_of(passes, experts):
        return None
    return max(1, round(height * wanted)), max(1, round(width * wanted))


def _run(
    image: np.ndarray,
    passes: tuple[Pass, ...],
    treatment: Treatment,
    experts: Experts,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """(H, W, C) float32 in [0, 1] through all passes."""
    for number, step in enumerate(passes):
        model = experts.get(step.weights)
        image = _one_pass(model, image, treatment, _share(progress, number, len(passes)))
    return image


def _share(progress: Callable[[float], None] | None, number: int, count: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress((number + done / total) / count)


def _one_pass(
    model: Runnable, image: np.ndarray, treatment: Treatment, progress: Callable[[int, int], None] | None
) -> np.ndarray:
    wanted = model.config.in_chans
    restored: Tensor = restore(
        model,
        to_network(image, wanted),
        treatment.options,
        progress=progress,
    )
    return from_network(restored, image.shape[2], wanted)


def to_network(image: np.ndarray, wanted: int) -> Tensor:
    """(H, W, C) float32 for a network of 1 or 3 channels: grey as equal channels, colours as a batch of grey images."""
    lq = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    if lq.shape[1] < wanted:
        return lq.expand(-1, wanted, -1, -1)
    return lq if lq.shape[1] == wanted else lq.transpose(0, 1)


def from_network(restored: Tensor, given: int, wanted: int) -> np.ndarray:
    """What a network of `wanted` channels made of `given` ones, as (H, W, given) float32; a ValueError for NaN."""
    if not all(end.isfinite() for end in restored.aminmax()):  # without copies of all of it
        raise ValueError("the network's result has NaN or infinite values; try other weights")
    if given > wanted:
        restored = restored.transpose(0, 1)
    if given < wanted:
        restored = restored.mean(1, keepdim=True)
    return restored[0].permute(1, 2, 0).cpu().float().numpy()


def _alpha(
    alpha: np.ndarray,
    passes: tuple[Pass, ...],
    size: tuple[int, int] | None,
    treatment: Treatment,
    experts: Experts,
) -> np.ndarray:
    """(H, W) float32 in [0, 1], enlarged as the picture is."""
    factor = factor_of(passes, experts)
    height, width = size or (alpha.shape[0] * factor, alpha.shape[1] * factor)
    if alpha.min() == alpha.max():  # opaque, mostly
        return np.full((height, width), alpha.flat[0], np.float32)
    if treatment.alpha == "bicubic" or not passes:
        return _resized(alpha[..., None], (height, width))[..., 0]
    return _resized(_run(alpha[..., None], passes, treatment, experts), size)[..., 0]


def _resized(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """(H, W, C) in [0, 1] by antialiased bicubic interpolation; as it is where the size is."""
    if size is None or size == image.shape[:2]:
        return image
    return np.clip(imresize(image, size=size), 0, 1).astype(np.float32)


def describe(weights: str) -> str:
    """What to call weights in a record: their short name in the zoo, or the file's name."""
    try:
        return zoo.find(weights).alias if not Path(weights).exists() else Path(weights).name
    except ValueError:
        return Path(weights).name

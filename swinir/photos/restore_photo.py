"""One photograph through its models; depth, alpha and metadata stay.

    Picture -> decide (estimates, model selection, size) -> restore_photo (pass by pass, exact size) -> Picture

Images of any size take this path: arrays come from a workspace, which puts large ones into temporary files, and
everything is read, computed and written region by region.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from swinir.degradations.estimate import Findings, sense
from swinir.degradations.resize import imresize
from swinir.image_io.canvas import Workspace, row_blocks
from swinir.image_io.color import is_gray
from swinir.image_io.picture import Picture, from_unit, to_unit
from swinir.inference.arrays import Blended, NetworkInput, NetworkOutput
from swinir.inference.options import RunOptions
from swinir.inference.restore import restore_into
from swinir.inference.tiling import Canvas
from swinir.models.phases import enlarged
from swinir.photos.loaded_models import LoadedModels, short_name, task_of
from swinir.photos.select_models import Wish, select_models, split_scale
from swinir.tasks import TASKS
from swinir.weights import zoo

MAX_PASSES = 6
MAX_OUTSCALE = 64
# Measured: with this overlap, tiles agree with the whole image to 116 dB or more, for denoisers, which reach furthest.
RUN = RunOptions(tile="auto", tile_overlap=64)
SAMPLED_FROM = 2**26  # pixels: the noise and JPEG quality of larger images are estimated from crops
CROP, CROPS = 256, 8  # pixels along each side, and number along each axis
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Treatment:
    """The options that decide the pixels of a restored photograph.

    Attributes:
        model: a checkpoint or a name in the zoo; None chooses models for each image.
        wish: for the choice of models.
        outscale: exact factor of the output's size; None is that of the passes.
        strength: share of the repair, 0 to 1: of what passes that keep the size change in the image.
        alpha: way to enlarge an alpha channel, through the network too or by interpolation.
        run: for each network.
    """

    model: str | None = None
    wish: Wish = field(default_factory=Wish)
    outscale: float | None = None
    strength: float = 1.0
    alpha: Literal["model", "bicubic"] = "model"
    run: RunOptions = RUN

    def __post_init__(self) -> None:
        if self.model is not None and (self.wish.task, self.wish.noise, self.wish.jpeg) != (None, None, None):
            raise ValueError("a model is named; leave task, noise and jpeg out, which are for choosing one")
        if self.outscale is not None and not 0 < self.outscale <= MAX_OUTSCALE:
            raise ValueError(f"scale must be above 0 and at most {MAX_OUTSCALE}, got {self.outscale:g}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be from 0 to 1, got {self.strength:g}")
        if self.alpha not in ("model", "bicubic"):
            raise ValueError(f"alpha must be model or bicubic, got {self.alpha!r}")


class Step(NamedTuple):
    """A pass: the name of a checkpoint, and the scale that a network of any scale is run at."""

    model: str
    scale: float | None = None


@dataclass(frozen=True)
class Decision:
    """The passes that an image needs.

    Attributes:
        steps: the passes in their order.
        size: height and width of the output.
        findings: sentences about the estimates and the choice of models.
        notes: remarks that are shown without being asked for, such as that no model enlarges.
        measured: the estimates; None where the model was named.
    """

    steps: tuple[Step, ...]
    size: Size
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    measured: Findings | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the checkpoints, one for each pass."""
        return tuple(step.model for step in self.steps)


def decide(picture: Picture, treatment: Treatment, models: LoadedModels, measured: Findings | None = None) -> Decision:
    """Choose the passes that an image needs. Noise and JPEG quality are estimated only where they matter.

    Args:
        measured: estimates that serve in place of those of the image.

    Raises:
        ValueError: when a model is needed that is not there, with the command that downloads it.
    """
    findings: tuple[str, ...] = ()
    if treatment.model is not None:
        steps, measured = _repeated(treatment.model, treatment.outscale, models), None
    else:
        measured = measured or estimate(picture)
        selection = select_models(measured, treatment.wish, zoo.present())
        steps = tuple(Step(step.model.name, step.any_scale) for step in selection.passes)
        findings = (*measured.explain(), *selection.explain())
    if steps and treatment.strength < 1:
        effect = "of the repair is applied" if models.scale(*steps[0]) == 1 else "has no effect: all models enlarge"
        findings = (*findings, f"Strength: {treatment.strength:g} {effect}.")
    height, width = picture.pixels.shape[:2]
    factor = math.prod(models.scale(*step) for step in steps)
    size = enlarged(height, factor), enlarged(width, factor)
    if treatment.outscale is not None and treatment.outscale != factor:
        size = max(1, round(height * treatment.outscale)), max(1, round(width * treatment.outscale))
    notes = _notes(tuple(step.model for step in steps), factor, (width, height), size)
    return Decision(steps, size, findings, notes, measured)


def _notes(names: tuple[str, ...], factor: float, given: tuple[int, int], size: Size) -> tuple[str, ...]:
    """Remarks on a size that models do not reach, and on the purpose of models."""
    notes = []
    height, width = size
    if width * height < math.prod(given):
        notes.append(f"reduced to {width}x{height} by bicubic interpolation")
    elif factor == 1 and width * height > math.prod(given):
        models = f"{' and '.join(map(short_name, names))} keeps the size: " if names else ""
        notes.append(f"{models}enlarged to {width}x{height} by bicubic interpolation")
    for name in dict.fromkeys(names):
        purpose = TASKS[task].purpose if (task := task_of(name)) else ""
        if purpose:
            notes.append(f"{short_name(name)} is {purpose}")
    return tuple(notes)


def _repeated(model: str, outscale: float | None, models: LoadedModels) -> tuple[Step, ...]:
    """One pass through the model, or as many as reach the scale."""
    largest = models.largest_scale(model)
    if largest is not None and outscale is not None:
        return tuple(Step(model, factor) for factor in split_scale(max(1.0, outscale), largest))
    scale, count = models.scale(model), 1
    while outscale is not None and scale > 1 and scale**count < outscale and count < MAX_PASSES:
        count += 1
    return (Step(model),) * count


def estimate(picture: Picture) -> Findings:
    """Estimate noise and JPEG quality, of a large image from crops at even distances on JPEG's grid."""
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    tables = dict(enumerate(picture.jpeg_tables)) if picture.jpeg_tables else None
    if height * width <= SAMPLED_FROM:
        return sense(_to_8_bits(pixels), tables)
    columns = _crops(width)
    strips = [np.concatenate([pixels[rows, cols] for cols in columns], axis=1) for rows in _crops(height)]
    return replace(sense(_to_8_bits(np.concatenate(strips)), tables), gray=is_gray(pixels))


def _crops(size: int) -> list[slice]:
    """Stretches at even distances along a side, each from a multiple of 8."""
    if size <= CROP * CROPS:
        return [slice(0, size)]
    starts = ((size - CROP) * i // (CROPS - 1) // 8 * 8 for i in range(CROPS))
    return [slice(start, start + CROP) for start in starts]


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else from_unit(to_unit(pixels), np.uint8)


def bytes_needed(picture: Picture, decision: Decision, treatment: Treatment, models: LoadedModels) -> int:
    """Bytes of the arrays that `restore_photo` makes: the output, and float32 between passes."""
    channels = picture.pixels.shape[2] + (picture.alpha is not None)
    total = math.prod(decision.size) * channels * picture.pixels.itemsize
    height, width = picture.pixels.shape[:2]
    for number, step in enumerate(decision.steps, start=1):
        scale = models.scale(*step)
        height, width = enlarged(height, scale), enlarged(width, scale)
        pixels = height * width
        is_output = number == len(decision.steps) and (height, width) == decision.size
        total += pixels * channels * 4 * ((not is_output) + treatment.run.self_ensemble)
    return total


def restore_photo(
    picture: Picture,
    decision: Decision,
    treatment: Treatment,
    models: LoadedModels,
    workspace: Workspace,
    *,
    progress: Callable[[float], None] | None = None,
) -> Picture:
    """Restore an image by the passes of a decision.

    Grey images go through models for colour as three equal channels, whose mean is taken; colour images through models
    for grey channel by channel.

    Args:
        workspace: source of the output's arrays, and of those between passes.
        progress: called with the share of the passes' work that is done.

    Raises:
        TooLargeError: when the device cannot hold the smallest tiles.
        DiskSpaceError: when there is no room for temporary files.
    """
    pixels, alpha, steps, size = picture.pixels, picture.alpha, decision.steps, decision.size
    if not steps and size == pixels.shape[:2]:
        return picture
    run = partial(_run, treatment=treatment, models=models, workspace=workspace)
    output = workspace.array((*size, pixels.shape[2]), pixels.dtype)
    gray_in_color = pixels.shape[2] == 3 and is_gray(pixels)
    run(pixels[..., :1] if gray_in_color else pixels, output, steps, progress=progress)
    enlarging = tuple(step for step in steps if models.scale(*step) > 1) if treatment.alpha == "model" else ()
    if alpha is not None and (enlarging or alpha.shape != size):
        enlarged = workspace.array(size, alpha.dtype)
        if _is_constant(alpha):  # opaque, mostly
            for rows in row_blocks(*size):
                enlarged[rows] = alpha[0, 0]
                workspace.release()
        else:
            run(alpha[..., None], enlarged[..., None], enlarging)
        alpha = enlarged
    return replace(picture, pixels=output, alpha=alpha)


def _is_constant(alpha: np.ndarray) -> bool:
    return all((alpha[rows] == alpha[0, 0]).all() for rows in row_blocks(*alpha.shape))


def _run(
    image: np.ndarray,
    output: np.ndarray,
    steps: tuple[Step, ...],
    *,
    treatment: Treatment,
    models: LoadedModels,
    workspace: Workspace,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Run (H, W, C) samples through all passes and resize them to the output; those that keep the size come first."""
    given, keeping = image, sum(models.scale(*step) == 1 for step in steps)

    def scratch(shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(workspace.array(shape, np.float32))

    def after_tile(done: int, total: int, number: int) -> None:
        workspace.release()
        if progress is not None:
            progress((number + done / total) / len(steps))

    for number, step in enumerate(steps):
        model = models.get(*step)
        height, width, channels = image.shape
        size = enlarged(height, model.config.upscale), enlarged(width, model.config.upscale)
        is_last = number == len(steps) - 1 and size == output.shape[:2]
        target = output if is_last else workspace.array((*size, channels), np.float32)
        canvas: Canvas = NetworkOutput(target, channels)
        if number == keeping - 1 and treatment.strength < 1:
            canvas = Blended(canvas, NetworkInput(given, model), treatment.strength)
        restore_into(
            model,
            NetworkInput(image, model),
            canvas,
            treatment.run,
            scratch=scratch,
            progress=partial(after_tile, number=number),
        )
        image = target
    if image is not output:
        _resize(image, output, workspace)


def _resize(image: np.ndarray, output: np.ndarray, workspace: Workspace) -> None:
    """Resize (H, W, C) samples by antialiased bicubic interpolation, block by block."""
    if image.dtype != np.float32:
        unit = workspace.array(image.shape, np.float32)
        for rows in row_blocks(*image.shape[:2]):
            unit[rows] = to_unit(image[rows])
            workspace.release()
        image = unit
    for rows in row_blocks(*output.shape[:2]):
        resized = np.clip(imresize(image, size=output.shape[:2], rows=rows), 0, 1)
        output[rows] = from_unit(resized, output.dtype)
        workspace.release()

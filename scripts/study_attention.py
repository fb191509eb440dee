"""Show what SwinIR looks at: `python scripts/study_attention.py table photographs/ lightweight_sr_x1-4_tiny`.

`table` prints, for each model and averaged over photographs, the receptive field after each stage, the distance of
attention in each layer, and how far the output changes with the place of the windows. `attribution` writes a picture
of the pixels that a restored detail depends on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

import swinir.cli.main  # noqa: F401 - before torch: waiting threads then behave as in `swinir`

import torch  # isort: skip
from einops import rearrange
from torch import Tensor, nn

from swinir.image_io.image import list_images, read, to_rgb, write
from swinir.models.any_scale import at_scale
from swinir.models.swinir import SwinIR, WindowAttention
from swinir.report.text_table import TextTable
from swinir.weights.checkpoint import load_model

SIDE = 96  # of photographs' parts, after they are reduced by
REDUCED = 2
PLACES = 4  # pixels of a window whose receptive fields are averaged
SHARES = (0.5, 0.9, 0.99)
SHIFTS = range(1, 9)
BLUR, STEPS, DETAIL = 1.2, 50, 9  # as in LAM's paper
GAP = 4

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def stages(network: SwinIR) -> dict[str, nn.Module]:
    """List the modules whose outputs are (B, C, H, W) features: shallow, after each RSTB, and deep."""
    blocks = {f"RSTB {number}": block for number, block in enumerate(network.layers, 1)}
    return {"shallow": network.conv_first} | blocks | {"deep": network.conv_after_body}


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules, by their names, during calls of their network."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name, module in modules.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def receptive_fields(network: SwinIR, lq: Tensor, seed: int = 0) -> dict[str, np.ndarray]:
    """Measure effective receptive fields (Luo et al., NeurIPS 2016) of the middle of (1, C, H, W) images.

    Returns:
        For each stage and the output, the absolute gradient of a random combination of the channels of one pixel by
        the image, summed over colours: (H, W), around the pixel, averaged over places in a window; its sum is 1.
    """
    rng = np.random.default_rng(seed)
    middle = lq.shape[-2] // 2, lq.shape[-1] // 2
    fields: dict[str, np.ndarray] = {}
    for place in rng.integers(0, network.config.window, (PLACES, 2)):
        image = lq.clone().requires_grad_()
        with outputs_of(stages(network)) as features:
            features["output"] = network(image)
        for name, feature in features.items():
            factor = feature.shape[-1] // lq.shape[-1]
            y, x = ((m + p) * factor for m, p in zip(middle, place, strict=True))
            mix = torch.from_numpy(rng.standard_normal(feature.shape[1])).float()
            (gradient,) = torch.autograd.grad((feature[0, :, y, x] * mix).sum(), image, retain_graph=True)
            field = np.roll(gradient.abs().sum(dim=(0, 1)).numpy(), (-place[0], -place[1]), (0, 1))
            fields[name] = fields.get(name, 0) + field / field.sum() / PLACES
    return fields


def radius(field: np.ndarray, share: float) -> float:
    """Return the radius around the middle of (H, W) weights within which a share of their sum lies."""
    rows, cols = np.indices(field.shape)
    distances = np.hypot(rows - field.shape[0] // 2, cols - field.shape[1] // 2).ravel()
    order = np.argsort(distances, kind="stable")
    sums = np.cumsum(field.ravel()[order])
    return float(distances[order][np.searchsorted(sums, share * sums[-1])])


def attention_distances(network: SwinIR, lq: Tensor) -> list[np.ndarray]:
    """Measure the mean distance of attention (Dosovitskiy et al., ICLR 2021), in pixels: (heads,) for each layer."""
    found: list[np.ndarray] = []

    def measure(attention: WindowAttention, inputs: tuple[Any, ...]) -> None:
        tokens, biases = inputs
        count = biases[0][1].shape[-1]
        pair = "b (n t) (three heads d) -> three (b n) heads t d"
        q, k, _ = rearrange(attention.qkv(tokens), pair, three=3, t=count, heads=attention.num_heads)
        bias = torch.cat([bias.expand(windows, *bias.shape) for windows, bias in biases])
        weights = (q @ k.transpose(-2, -1) * attention.scale + bias).softmax(dim=-1)
        found.append((weights * token_distances(count)).sum(-1).mean((0, 2)).numpy())

    modules = [module for module in network.modules() if isinstance(module, WindowAttention)]
    handles = [module.register_forward_pre_hook(measure) for module in modules]
    with torch.inference_mode():
        network(lq)
    for handle in handles:
        handle.remove()
    return found


def token_distances(count: int) -> Tensor:
    """Return the (N, N) distances in pixels between the N tokens of a square window."""
    side = round(count**0.5)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    return torch.cdist(places, places)


def shift_changes(network: SwinIR, lq: Tensor, margin: int) -> list[float]:
    """Measure how far the output depends on the place of the windows.

    Args:
        lq: (1, C, H, W) with at least twice the margin and the largest shift.
        margin: low-quality pixels at the borders that are not compared.

    Returns:
        For each of `SHIFTS`, the root mean square difference, in units of 1/255, of the outputs of two parts of the
        image, of which one begins so many pixels later along both axes, where they overlap.
    """
    scale, most = int(network.config.upscale), max(SHIFTS)
    height, width = (side - most for side in lq.shape[-2:])
    with torch.inference_mode():
        first = network(lq[..., :height, :width])
        changes = []
        for shift in SHIFTS:
            later = network(lq[..., shift : shift + height, shift : shift + width])
            begin, step = (margin + shift) * scale, shift * scale
            ours = first[..., begin : (height - margin) * scale, begin : (width - margin) * scale]
            theirs = later[..., begin - step :, begin - step :][..., : ours.shape[-2], : ours.shape[-1]]
            changes.append(255 * float((ours - theirs).square().mean().sqrt()))
    return changes


def attribute(network: Callable[[Tensor], Tensor], lq: Tensor, scale: int) -> np.ndarray:
    """Attribute the detail in the middle of an output to the pixels of the input: LAM (Gu and Dong, CVPR 2021).

    The gradients of the detail, the sum of absolute differences of neighbours in 9x9 pixels, are integrated along a
    path from the blurred image to the image itself.

    Returns:
        (H, W) absolute attributions, summed over colours; their sum is 1.
    """
    image = lq[0].permute(1, 2, 0).numpy()
    path = [cv2.GaussianBlur(image, (0, 0), BLUR * (1 - n / STEPS) + 1e-3).reshape(image.shape) for n in range(STEPS)]
    path.append(image)
    total = torch.zeros_like(lq)
    for before, after in pairwise(path):
        point, step = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (after, after - before))
        point.requires_grad_()
        output = network(point)
        top, left = ((side * scale - DETAIL) // 2 for side in lq.shape[-2:])
        detail = output[..., top : top + DETAIL, left : left + DETAIL]
        differences = detail.diff(dim=-1).abs().sum() + detail.diff(dim=-2).abs().sum()
        total += torch.autograd.grad(differences, point)[0] * step
    attribution = total.sum(dim=(0, 1)).abs().numpy()
    return attribution / attribution.sum()


def diffusion_index(attribution: np.ndarray) -> float:
    """Return LAM's diffusion index, 100 (1 - Gini coefficient): 100 if all pixels count alike, 0 if one counts."""
    ordered = np.sort(attribution.ravel())
    ranks = np.arange(1, ordered.size + 1)
    gini = float(((2 * ranks - ordered.size - 1) * ordered).sum() / (ordered.size * ordered.sum()))
    return 100 * (1 - gini)


def parts_of(folder: Path, count: int) -> list[Tensor]:
    """Read the middles of photographs, reduced: (1, 3, 96, 96) in [0, 1]; the same for all models."""
    side, parts = SIDE * REDUCED, list[Tensor]()
    for path in list_images(folder):
        image = to_rgb(read(path))
        if min(image.shape[:2]) >= side and len(parts) < count:
            top, left = ((length - side) // 2 for length in image.shape[:2])
            part = cv2.resize(image[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            parts.append(torch.from_numpy(part / np.float32(255)).permute(2, 0, 1)[None])
    if not parts:
        raise typer.BadParameter(f"no photograph of at least {side}x{side} pixels in {folder}")
    return parts


def load(name: str) -> SwinIR:
    """Load a model whose layers can be looked into; one of any scale at its largest."""
    network = load_model(name, device="cpu")
    if not isinstance(network, SwinIR) or network.config.in_chans != 3:
        raise typer.BadParameter(f"{name} is no SwinIR network for colour images")
    return at_scale(network, network.config.upscale).requires_grad_(False)


Folder = Annotated[Path, typer.Argument(help="Folder of photographs.")]
Models = Annotated[list[str], typer.Argument(help="Names or files of models.")]
Images = Annotated[int, typer.Option("--images", min=1, help="Photographs at most.")]


@app.command()
def table(folder: Folder, models: Models, images: Images = 6) -> None:
    """Print receptive fields, distances of attention, and changes with the place of the windows."""
    networks = {name: load(name) for name in models}
    parts = parts_of(folder, images)
    for name, network in networks.items():
        typer.echo(f"\n{name}: radius in pixels that holds this share of the gradient")
        _show(["after", *(f"{share:.0%}" for share in SHARES)], _radii(network, parts))
        typer.echo(f"\n{name}: distance of attention in pixels")
        distances = [attention_distances(network, part) for part in parts]
        means = [np.mean(layers, axis=0) for layers in zip(*distances, strict=True)]
        even = float(token_distances(network.config.window**2).mean())
        rows = [[str(n), f"{m.mean():.2f}", f"{m.min():.2f}", f"{m.max():.2f}"] for n, m in enumerate(means, 1)]
        _show(["layer", "mean", "least head", "most"], [*rows, ["even attention", f"{even:.2f}", "", ""]])
    typer.echo("\nchange of the output with the place of the windows, RMS in units of 1/255, by shift in pixels")
    rows = [
        [name, *(f"{c:.3f}" for c in np.mean([shift_changes(network, part, SIDE // 4) for part in parts], 0))]
        for name, network in networks.items()
    ]
    _show(["model", *map(str, SHIFTS)], rows)


def _radii(network: SwinIR, parts: Sequence[Tensor]) -> list[list[str]]:
    fields = [receptive_fields(network, part) for part in parts]
    means = {name: np.mean([one[name] for one in fields], axis=0) for name in fields[0]}
    return [[name, *(f"{radius(field, share):.1f}" for share in SHARES)] for name, field in means.items()]


def _show(titles: list[str], rows: list[list[str]]) -> None:
    typer.echo(TextTable(titles, rows, right=range(1, len(titles))).markdown())


@app.command()
def attribution(
    output: Annotated[Path, typer.Argument(help="Picture to write.")],
    folder: Folder,
    models: Models,
    images: Images = 3,
) -> None:
    """Write photographs and, for each model, what the marked detail depends on; print diffusion indices."""
    networks = {name: load(name) for name in models}
    rows = []
    for part in parts_of(folder, images):
        cells = [_marked(part)]
        for name, network in networks.items():
            found = attribute(network, part, int(network.config.upscale))
            typer.echo(
                f"{name}: diffusion index {diffusion_index(found):.1f}, 99 % within {radius(found, 0.99):.0f} px"
            )
            cells.append(_heat(found))
        rows.append(np.concatenate([x for cell in cells for x in (cell, _gap(cell))][:-1], axis=1))
    write(output, np.concatenate([x for row in rows for x in (row, _gap(row.swapaxes(0, 1)).swapaxes(0, 1))][:-1]))


def _marked(part: Tensor) -> np.ndarray:
    """The image, enlarged by repeating pixels, with a frame around the detail of a network that does not enlarge."""
    image = (255 * part[0].permute(1, 2, 0).numpy()).round().astype(np.uint8)
    image = np.ascontiguousarray(image.repeat(2, axis=0).repeat(2, axis=1))
    first, last = SIDE - DETAIL, SIDE + DETAIL
    cv2.rectangle(image, (first, first), (last, last), (255, 0, 0))
    return image


def _heat(attribution: np.ndarray) -> np.ndarray:
    """Attributions as colours, from 1/1000 of the largest (dark) to the largest (yellow), on a logarithmic scale."""
    share = np.clip(1 + np.log10(np.maximum(attribution / attribution.max(), 1e-3)) / 3, 0, 1)
    colors = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.ascontiguousarray(colors).repeat(2, axis=0).repeat(2, axis=1)


def _gap(image: np.ndarray) -> np.ndarray:
    return np.full((image.shape[0], GAP, 3), 255, np.uint8)


if __name__ == "__main__":
    app()

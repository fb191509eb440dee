"""Fit the noise estimator to clean photographs: `python scripts/fit_noise_estimator.py FOLDER -o FILE.safetensors`.

Samples are crops of the photographs with noise and JPEG of the chain "photo", with and without an earlier JPEG, resized
after the noise, and without any noise; one in five is a halftone, dithered, or a drawing with text. The network is to
say how strong the noise is that was added, after the JPEG: the difference from the same crop without the noise.

Every tenth photograph is left out, for choosing thresholds. The bundled file was fitted to 369 of 410 photographs with
the default options, in nine minutes on one core that also did other work.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import cv2
import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from swinir.degradations.estimate_noise import NoiseEstimator, noise_targets
from swinir.degradations.photo import FilmGrain, PhotoNoise, PhotoOptions, plan_photo
from swinir.degradations.sampling import draw_log_uniform
from swinir.degradations.steps import GaussianNoise, Jpeg, PoissonNoise, apply_steps, luma, to_bytes, to_floats
from swinir.image_io.image import list_images, read, to_rgb

SIDE = 128  # of samples
HELD_OUT = 10  # every tenth photograph
BATCH = 16
OPTIONS = PhotoOptions(
    noise_probs=(0.3, 0.16, 0.22, 0.02, 0.3),
    shot_range=(1e-5, 0.015),
    demosaiced_prob=0.0,
    noise_jpeg_prob=0.5,
    jpeg_prob=0.65,
)
LARGEST = {GaussianNoise: 55.0, FilmGrain: 30.0}  # levels
SampleNoise = PhotoNoise | FilmGrain | GaussianNoise | PoissonNoise

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Photographs without noise and compression artifacts.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the weights (.safetensors).")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples made; 49 kB of memory each.")] = 14000,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of 16 samples.")] = 5000,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam; falls to a twentieth.")] = 5e-3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of samples and weights.")] = 0,
) -> None:
    """Make the samples, train the network, fold its normalisation into the convolutions, and write it in fp16."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = [path for number, path in enumerate(list_images(folder)) if number % HELD_OUT]
    images = [to_rgb(read(path)) for path in tqdm(paths, unit="image", disable=None)]
    inputs, targets = make_samples(images, samples, seed)
    network = train(inputs, targets, steps, lr, seed)
    save_file({name: values.half().contiguous() for name, values in network.state_dict().items()}, output)
    print(f"{output}: {output.stat().st_size} bytes, {samples} samples of {len(images)} photographs")


def make_samples(images: list[np.ndarray], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return (N, 3, 128, 128) uint8 inputs and what the network should say of them; a sample depends on its number."""
    inputs, targets = [], []
    for number in tqdm(range(count), unit="sample", disable=None):
        noisy, noise = make_sample(images, np.random.default_rng([seed, number]))
        inputs.append(torch.from_numpy(noisy.transpose(2, 0, 1).copy()))
        targets.append(noise_targets(torch.from_numpy(noise.transpose(2, 0, 1).copy())[None])[0])
    return torch.stack(inputs), torch.stack(targets)


def make_sample(images: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an (H, W, 3) uint8 image and its noise, float32 in units of 1/255."""
    clean = random_crop(images[rng.integers(len(images))], rng)
    content = rng.choice(["photo", "screen", "drawing"], p=[0.8, 0.14, 0.06])
    clean = {"photo": lambda: clean, "screen": lambda: screen(clean, rng), "drawing": lambda: drawing(clean, rng)}[
        content
    ]()
    gray = rng.random() < 0.25
    clean = rounded(gray_image(clean) if gray else clean)
    if rng.random() < 0.2:
        clean = Jpeg(int(rng.integers(25, 96))).apply(clean, rng)
    noise, *after = plan_photo((SIDE, SIDE), rng, options=OPTIONS)
    noisy = clean
    if not isinstance(noise, SampleNoise):
        after = [noise, *after]
    elif content == "photo" or rng.random() < 0.4:
        if gray:
            noise = in_gray(noise)
        clean, noisy = add_noise(clean, noise, rng)
        clean, noisy = rounded(clean), rounded(gray_image(noisy) if gray else noisy)
    degraded = to_bytes(apply_steps(after, noisy, rng))
    return degraded, degraded - np.float32(255) * apply_steps(after, clean, rng)


def in_gray(noise: SampleNoise) -> SampleNoise:
    """Return the same noise for all channels, so that it is as strong in grey; a camera's stays as it is."""
    if isinstance(noise, GaussianNoise):
        return replace(noise, channels="gray")
    return noise if isinstance(noise, PhotoNoise) else replace(noise, gray=True)


def add_noise(clean: np.ndarray, noise: SampleNoise, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a crop without and with noise, both resized afterwards at times."""
    if isinstance(noise, FilmGrain | GaussianNoise) and rng.random() < 0.6:
        noise = replace(noise, level=draw_log_uniform(rng, (1, LARGEST[type(noise)])))
    if rng.random() >= 0.1:
        return clean, noise.apply(clean, rng)
    side = round(SIDE * draw_log_uniform(rng, (0.6, 1.8)))
    if isinstance(noise, PhotoNoise):
        noise = replace(noise, size=(side, side))
    resized = np.clip(cv2.resize(clean, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    back = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
    pair = (resized, noise.apply(resized, rng))
    return tuple(cv2.resize(image, (SIDE, SIDE), interpolation=back) for image in pair)  # type: ignore[return-value]


def random_crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a crop of an (H, W, 3) uint8 image as float32, turned, and resized, sharpened or flattened at times."""
    scale = 1.0 if rng.random() < 0.4 else draw_log_uniform(rng, (0.4, 1.4))
    size = min(round(SIDE / scale), *image.shape[:2])
    top, left = (rng.integers(side - size + 1) for side in image.shape[:2])
    crop = to_floats(image[top : top + size, left : left + size])
    if size != SIDE:
        smaller = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LANCZOS4
        crop = cv2.resize(crop, (SIDE, SIDE), interpolation=smaller if size > SIDE else cv2.INTER_CUBIC)
    if rng.random() < 0.15:
        crop = crop + rng.uniform(0.3, 1.5) * (crop - cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.6, 2)))
    if rng.random() < 0.15:
        crop = (crop - 0.5) * rng.uniform(0.4, 1.6) + rng.uniform(0.2, 0.8)
    return np.ascontiguousarray(np.rot90(np.clip(crop, 0, 1), int(rng.integers(4))), np.float32)


def screen(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image as print and old displays show it: halftone, ordered dithering or error diffusion."""
    source = luma(image) if rng.random() < 0.5 else image
    kind = rng.choice(["halftone", "ordered", "diffusion"], p=[0.5, 0.25, 0.25])
    result = {"halftone": halftone, "ordered": ordered_dither, "diffusion": error_diffusion}[kind](source, rng)
    result = np.broadcast_to(result, (SIDE, SIDE, 3)).astype(np.float32)
    if rng.random() < 0.3:  # two inks
        dark, bright = np.sort(rng.random((2, 3)), axis=0)
        result = dark + (bright - dark) * result
    if rng.random() < 0.25:
        result = cv2.GaussianBlur(result, (0, 0), rng.uniform(0.4, 1.0))
    return np.clip(result, 0, 1).astype(np.float32)


def halftone(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return dots or lines whose area is the brightness, at an angle of its own for each channel."""
    rows, cols = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    period, softness, shape = rng.uniform(2.5, 12), rng.uniform(0.02, 0.6), rng.integers(3)
    channels = []
    for channel in np.moveaxis(image, 2, 0):
        angle = rng.uniform(0, math.pi / 2)
        u = (cols * math.cos(angle) + rows * math.sin(angle)) / period
        v = (rows * math.cos(angle) - cols * math.sin(angle)) / period
        spot = (
            (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)) / 4 + 0.5,
            np.cos(2 * np.pi * u) / 2 + 0.5,
            1 - np.minimum(np.hypot(u - np.rint(u), v - np.rint(v)) * math.sqrt(2), 1),
        )[shape]
        channels.append(np.clip((channel - (1 - spot)) / softness + 0.5, 0, 1))
    return np.stack(channels, axis=2)


def ordered_dither(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image of few levels by Bayer's thresholds of 2x2 to 8x8 pixels."""
    bayer = np.array([[0, 2], [3, 1]])
    for _ in range(rng.integers(3)):
        bayer = np.block([[4 * bayer, 4 * bayer + 2], [4 * bayer + 3, 4 * bayer + 1]])
    levels = rng.choice([1, 1, 2, 3, 5])
    thresholds = np.tile((bayer + 0.5) / bayer.size, (SIDE // len(bayer),) * 2)
    return np.floor(image * levels + thresholds[..., None]) / levels


def error_diffusion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image of a palette by Floyd and Steinberg's method."""
    source = Image.fromarray(to_bytes(image).squeeze())
    if image.shape[2] == 1:
        return np.asarray(source.convert("1"), np.float32)[..., None]
    palette = source.quantize(int(rng.choice([4, 8, 16, 32, 64])))
    return to_floats(np.asarray(source.quantize(palette=palette).convert("RGB")))


def drawing(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return lines of text, or lines, circles and rectangles, on paper or on the image."""
    side = 4 * SIDE
    paper = image if rng.random() < 0.3 else np.full_like(image, 1 if rng.random() < 0.7 else rng.random())
    canvas = np.ascontiguousarray(cv2.resize(to_bytes(paper), (side, side)))
    count, is_text = int(rng.integers(3, 40)), rng.random() < 0.6
    for number in range(count):
        color = (255 * (rng.random(3) if rng.random() < 0.3 else np.full(3, 0.3 * rng.random()))).tolist()
        width = int(rng.integers(1, 8))
        start, end = rng.integers(0, side, (2, 2)).tolist()
        kind = "text" if is_text else rng.choice(["line", "circle", "rectangle"])
        if kind == "text":
            text = "".join(map(chr, rng.integers(33, 126, 24)))
            place = start[0] - side // 2, (number + 1) * side // (count + 1)
            cv2.putText(canvas, text, place, int(rng.integers(8)), rng.uniform(0.8, 3), color, width, cv2.LINE_AA)
        elif kind == "line":
            cv2.line(canvas, start, end, color, width, cv2.LINE_AA)
        elif kind == "circle":
            filled = rng.random() < 0.4
            cv2.circle(canvas, start, int(rng.integers(4, 200)), color, -1 if filled else width, cv2.LINE_AA)
        else:
            cv2.rectangle(canvas, start, end, color, -1 if rng.random() < 0.4 else width)
    smooth = cv2.INTER_AREA if rng.random() < 0.8 else cv2.INTER_NEAREST
    return to_floats(cv2.resize(canvas, (SIDE, SIDE), interpolation=smooth))


def gray_image(image: np.ndarray) -> np.ndarray:
    return np.repeat(luma(image), 3, axis=2)


def rounded(image: np.ndarray) -> np.ndarray:
    return to_floats(to_bytes(np.clip(image, 0, 1)))


def train(inputs: Tensor, targets: Tensor, steps: int, lr: float, seed: int) -> NoiseEstimator:
    """Train a network and return it without batch normalisation."""
    torch.manual_seed(seed)
    network = NoiseEstimator()
    nn.init.zeros_(network.last.weight)
    network.norms = nn.ModuleList(nn.BatchNorm2d(shape) for shape in (32, 40, 32, 24))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    progress = tqdm(range(steps), unit="step", disable=None)
    for step in progress:
        chosen = torch.randint(len(inputs), (BATCH,))
        turn = int(torch.randint(8, ()))
        levels, errors = network(turned(inputs[chosen].float(), turn))
        loss = loss_of(levels, errors, turned(targets[chosen], turn))
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 20, 1.05 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        progress.set_postfix(loss=f"{loss.item():.2f}")
    network.eval()
    pairs = zip(network.convs, network.norms, strict=True)
    fused = [fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)) for conv, norm in pairs]
    network.convs, network.norms = nn.ModuleList(fused), nn.ModuleList(nn.Identity() for _ in fused)
    return network


def turned(images: Tensor, turn: int) -> Tensor:
    """Return one of the eight flips and rotations; JPEG's grid stays where it is."""
    images = images.flip(3) if turn & 1 else images
    images = images.flip(2) if turn & 2 else images
    return images.transpose(2, 3) if turn & 4 else images


def loss_of(levels: Tensor, errors: Tensor, targets: Tensor) -> Tensor:
    """Squared error of cells, the likelihood of its size, and squared error of the mean by certainty.

    The likelihood moves the predicted errors alone: it would keep the levels of difficult cells from being learned.
    """
    squared = (levels - targets) ** 2
    likelihood = squared.detach() * torch.exp(-2 * errors) / 2 + errors
    weights = torch.exp(-2 * errors)
    mean = (weights * levels).sum((2, 3)) / weights.sum((2, 3))
    return (squared / 2 + likelihood).mean() + ((mean - targets.mean((2, 3))) ** 2).mean()


if __name__ == "__main__":
    app()

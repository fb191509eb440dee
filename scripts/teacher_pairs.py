"""Make training pairs of a teacher network: degraded patches, and what the teacher makes of them as the ground truth.

`python scripts/teacher_pairs.py RealESRGAN_x4plus.pth pairs/bsrgan --config configs/real_sr/tiny_x4_psnr.toml`

The patches are the samples of the training that the configuration describes, by their number: those of an interrupted
run are not made again, and images that the configuration holds out are in no pair. Patches are enlarged with a margin
that is cut off, since a network knows less at the borders of its input.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tqdm import tqdm

from swinir.image_io.image import write
from swinir.inference.arrays import restore_array
from swinir.inference.external import load_external
from swinir.inference.options import RunOptions
from swinir.tasks import get_task
from swinir.train.config import TrainConfig, load_config
from swinir.train.dataset import TaskStream
from swinir.train.distributed import Processes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    teacher: Annotated[str, typer.Argument(help="Weights of the teacher, of any network that spandrel knows.")],
    output: Annotated[Path, typer.Argument(help="Folder of the pairs, which gets lq/, gt/ and clean/.")],
    config: Annotated[Path, typer.Option("--config", exists=True, help="Configuration that draws the patches.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a value: section.key=value.")] = None,
    side: Annotated[int, typer.Option("--side", min=16, help="Side of the low-quality patches.")] = 64,
    margin: Annotated[int, typer.Option("--margin", min=0, help="Pixels around them that the teacher sees.")] = 8,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of pairs.")] = 1000,
) -> None:
    """Write low-quality patches and a teacher's outputs, NUMBER.png, for data.train_lq and data.train.

    The photographs' own patches go to clean/, for comparison.
    """
    try:
        _make(teacher, output, load_config(config, [*(set_ or []), f"data.patch={side + 2 * margin}"]), margin, count)
    except (OSError, ValueError, ImportError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def _make(teacher: str, output: Path, config: TrainConfig, margin: int, count: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_external(teacher, get_task(config.task), config.top_scale, device)
    options = RunOptions(precision="auto" if network.bf16 else "fp32")
    stream = TaskStream(config, Processes(torch.device("cpu")))
    stream.load()
    scale = int(network.model.config.upscale)
    for folder in ("lq", "gt", "clean"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), unit="pair"):
        name = f"{number:06d}.png"
        if (output / "gt" / name).exists():
            continue
        lq, clean = map(_bytes, stream.samples[number])
        restored = restore_array(network.model, lq, options)
        write(output / "lq" / name, _inner(lq, margin))
        write(output / "clean" / name, _inner(clean, margin * scale))
        write(output / "gt" / name, _inner(restored, margin * scale))  # last: an interrupted pair is made again


def _bytes(patch: torch.Tensor) -> np.ndarray:
    """(H, W, C) uint8 of a sample, which is uint8 or float32 in [0, 1]."""
    values = patch if patch.dtype == torch.uint8 else (patch * 255).round().to(torch.uint8)
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())


def _inner(image: np.ndarray, margin: int) -> np.ndarray:
    return np.ascontiguousarray(image[margin : image.shape[0] - margin, margin : image.shape[1] - margin])


if __name__ == "__main__":
    app()

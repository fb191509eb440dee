"""`swinir demo`: restore a photograph that every install has, and show the gain."""

from pathlib import Path
from typing import Annotated

import typer

EXPERT = "lightweight_sr_x2_tiny"
PHOTOGRAPH = "astronaut.png"  # NASA, public domain
DETAIL = (350, 126, 84)  # top, left, side of the enlarged square: the embroidered mission patch


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the picture goes.")] = Path("demo/demo.png"),
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; a GPU if there is one.")] = None,
) -> None:
    """Halve a photograph, enlarge it again by bicubic and by the bundled x2 expert, and compare."""
    import time

    import skimage

    from swinir.degradations.resize import imresize
    from swinir.evaluation.evaluate import to_tensor, to_uint8
    from swinir.image_io.color import luma
    from swinir.image_io.image import read, write
    from swinir.inference.restore import restore
    from swinir.metrics.full_reference import psnr, ssim
    from swinir.report.figures import side_by_side
    from swinir.weights.checkpoint import load_model

    model = load_model(EXPERT, device=device)
    scale = model.config.upscale
    gt = read(Path(skimage.__file__).parent / "data" / PHOTOGRAPH)
    gt = gt[: gt.shape[0] // scale * scale, : gt.shape[1] // scale * scale]
    lq = imresize(gt, 1 / scale)
    start = time.perf_counter()
    restored = to_uint8(restore(model, to_tensor(lq.astype("float32") / 255)))
    seconds = time.perf_counter() - start

    versions = {"bicubic": imresize(lq, scale), "SwinIR": restored}
    typer.echo(f"{PHOTOGRAPH}: {lq.shape[1]}x{lq.shape[0]} to {gt.shape[1]}x{gt.shape[0]} by {EXPERT}, {seconds:.1f} s")
    typer.echo(f"{'':10s}{'PSNR':>10s}{'SSIM':>9s}{'PSNR_Y':>11s}{'SSIM_Y':>9s}")
    for name, image in versions.items():
        rgb = f"{psnr(image, gt, crop_border=scale):7.2f} dB{ssim(image, gt, crop_border=scale):9.4f}"
        y, gt_y = luma(image), luma(gt)
        luminance = f"{psnr(y, gt_y, crop_border=scale):8.2f} dB{ssim(y, gt_y, crop_border=scale):9.4f}"
        typer.echo(f"{name:10s}{rgb}{luminance}")

    nearest = lq.repeat(scale, axis=0).repeat(scale, axis=1)
    panels = [("input, pixels repeated", nearest), *versions.items(), ("ground truth", gt)]
    output.parent.mkdir(parents=True, exist_ok=True)
    write(output, side_by_side(panels, detail=DETAIL, zoom=6))
    typer.echo(f"look at {output}")

"""`swinir demo`: enlarge a photograph that comes with scikit-image, and compare with bicubic interpolation."""

from pathlib import Path
from typing import Annotated

import typer

from swinir.cli.options import check_parent, make_folder, print_table
from swinir.inference.device import choose_device

MODEL = "lightweight_sr_x2_tiny"
PHOTOGRAPH = "astronaut.png"  # NASA, public domain
DETAIL = (350, 126, 84)  # top, left, side of the enlarged square: the embroidered mission patch


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("demo/demo.png"),
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, ...; by default a GPU if there is one.")
    ] = None,
) -> None:
    """Reduce a photograph by 2, enlarge it by bicubic interpolation and by the bundled x2 model, and compare."""
    import time

    import skimage

    from swinir.degradations.resize import imresize
    from swinir.image_io.color import luma
    from swinir.image_io.image import read, write
    from swinir.inference.arrays import restore_array
    from swinir.metrics.full_reference import psnr, ssim
    from swinir.report.figures import side_by_side
    from swinir.report.text_table import TextTable
    from swinir.weights.checkpoint import load_model

    make_folder(output.parent)
    check_parent(output)
    model = load_model(MODEL, device=choose_device(device))
    scale = int(model.config.upscale)
    gt = read(Path(skimage.__file__).parent / "data" / PHOTOGRAPH)
    gt = gt[: gt.shape[0] // scale * scale, : gt.shape[1] // scale * scale]
    lq = imresize(gt, 1 / scale)
    start = time.perf_counter()
    restored = restore_array(model, lq)
    seconds = time.perf_counter() - start

    versions = {"bicubic": imresize(lq, scale), "SwinIR": restored}
    rows = []
    for name, image in versions.items():
        pairs = ((image, gt), (luma(image), luma(gt)))
        scores = [(psnr(*pair, crop_border=scale), ssim(*pair, crop_border=scale)) for pair in pairs]
        rows.append([name, *(text for p, s in scores for text in (f"{p:.2f} dB", f"{s:.4f}"))])
    typer.echo(f"{PHOTOGRAPH}: {lq.shape[1]}x{lq.shape[0]} to {gt.shape[1]}x{gt.shape[0]} by {MODEL}, {seconds:.1f} s")
    print_table(TextTable(("", "PSNR", "SSIM", "PSNR Y", "SSIM Y"), rows, right=(1, 2, 3, 4)))

    nearest = lq.repeat(scale, axis=0).repeat(scale, axis=1)
    panels = [("input, pixels repeated", nearest), *versions.items(), ("ground truth", gt)]
    write(output, side_by_side(panels, detail=DETAIL, zoom=6))
    typer.echo(f"written: {output}")

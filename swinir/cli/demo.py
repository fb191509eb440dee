"""`swinir demo`: enlarge a photograph that comes with scikit-image, and compare with bicubic interpolation."""

from pathlib import Path
from typing import Annotated

import typer

from swinir.cli.options import check_parent, make_folder, print_table
from swinir.inference.device import choose_device

MODEL = "lightweight_sr_x1-4_tiny"
PHOTOGRAPH = "astronaut.png"  # NASA, public domain
SCALE = 2
DETAIL = (350, 126, 84)  # top, left, side of the enlarged square: the embroidered mission patch


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("demo/demo.png"),
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, ...; by default a GPU if there is one.")
    ] = None,
) -> None:
    """Reduce a photograph by 2, enlarge it by bicubic interpolation and by the bundled model, and compare."""
    import time

    import skimage

    from swinir.degradations.resize import imresize
    from swinir.image_io.color import luma
    from swinir.image_io.image import read, write
    from swinir.inference.arrays import restore_array
    from swinir.metrics.full_reference import psnr, ssim
    from swinir.models.any_scale import at_scale
    from swinir.report.figures import side_by_side
    from swinir.report.text_table import TextTable
    from swinir.weights.checkpoint import load_model

    make_folder(output.parent)
    check_parent(output)
    model = at_scale(load_model(MODEL, device=choose_device(device)), SCALE)
    gt = read(Path(skimage.__file__).parent / "data" / PHOTOGRAPH)
    gt = gt[: gt.shape[0] // SCALE * SCALE, : gt.shape[1] // SCALE * SCALE]
    lq = imresize(gt, 1 / SCALE)
    start = time.perf_counter()
    restored = restore_array(model, lq)
    seconds = time.perf_counter() - start

    versions = {"bicubic": imresize(lq, SCALE), "SwinIR": restored}
    rows = []
    for name, image in versions.items():
        pairs = ((image, gt), (luma(image), luma(gt)))
        scores = [(psnr(*pair, crop_border=SCALE), ssim(*pair, crop_border=SCALE)) for pair in pairs]
        rows.append([name, *(text for p, s in scores for text in (f"{p:.2f} dB", f"{s:.4f}"))])
    typer.echo(f"{PHOTOGRAPH}: {lq.shape[1]}x{lq.shape[0]} to {gt.shape[1]}x{gt.shape[0]} by {MODEL}, {seconds:.1f} s")
    print_table(TextTable(("", "PSNR", "SSIM", "PSNR Y", "SSIM Y"), rows, right=(1, 2, 3, 4)))

    nearest = lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    panels = [("input, pixels repeated", nearest), *versions.items(), ("ground truth", gt)]
    write(output, side_by_side(panels, detail=DETAIL, zoom=6))
    typer.echo(f"written: {output}")

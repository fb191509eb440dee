"""The options of `swinir restore` as the command line takes them: names, groups of the help, and help texts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

OUTPUT, MODELS, SPEED, SHOW = "Output", "Models", "Speed and memory", "Messages"  # groups of the help
MACHINES = "Several machines"
ADDRESS = re.compile(r"local|auto|ray://.+|[\w.-]+:\d+")

Inputs = Annotated[list[Path], Argument(metavar="INPUT", help="Images, and folders of images.")]
Scale = Annotated[
    float | None,
    Option("-s", "--scale", "--outscale", help="Enlarge by this factor, such as 2 or 2.5; below 1 reduces."),
]
OutputPlace = Annotated[
    Path, Option("-o", "--output", help="Folder for the outputs; or of one image, the file to write.")
]
Recursive = Annotated[bool, Option("-r", "--recursive", help="Also take subfolders.")]
DryRun = Annotated[bool, Option("--dry-run", help="Only print estimates, models, time and memory; write nothing.")]

Model = Annotated[
    str | None,
    Option("-n", "--model", rich_help_panel=MODELS, help="Checkpoint, FILE:TASK, or a name from `swinir zoo list`."),
]
Task = Annotated[str | None, Option("--task", rich_help_panel=MODELS, help="Choose only among models of this task.")]
Noise = Annotated[
    float | None, Option("--noise", rich_help_panel=MODELS, help="Noise level to remove, instead of the estimate.")
]
Jpeg = Annotated[
    float | None, Option("--jpeg", rich_help_panel=MODELS, help="JPEG quality to repair, instead of the estimate.")
]
Strength = Annotated[
    float,
    Option("--strength", rich_help_panel=MODELS, help="Share of the repair, 0 to 1: 0.5 is halfway to the input."),
]
Alpha = Annotated[
    str, Option("--alpha-upsampler", rich_help_panel=MODELS, help="model or bicubic, for alpha channels.")
]
SelfEnsemble = Annotated[
    bool, Option("--self-ensemble", rich_help_panel=MODELS, help="Average eight flips and rotations.")
]

Extension = Annotated[
    str, Option("--ext", rich_help_panel=OUTPUT, help="auto (as the input), png, jpg, webp, tif, avif or bmp.")
]
Suffix = Annotated[
    str | None,
    Option("--suffix", rich_help_panel=OUTPUT, help="Added to names of outputs; by default the request, as in _x2."),
]
Quality = Annotated[
    int | None, Option("--quality", rich_help_panel=OUTPUT, help="Quality of JPEG, WebP and AVIF outputs, 1 to 100.")
]
StripMetadata = Annotated[bool, Option("--strip-metadata", rich_help_panel=OUTPUT, help="Leave out EXIF and XMP.")]
SkipExisting = Annotated[bool, Option("--skip-existing", rich_help_panel=OUTPUT, help="Skip all outputs that exist.")]
Overwrite = Annotated[bool, Option("--overwrite", rich_help_panel=OUTPUT, help="Replace outputs that exist.")]
Compare = Annotated[bool, Option("--compare", rich_help_panel=OUTPUT, help="Also write input and output side by side.")]
JsonFile = Annotated[
    Path | None, Option("--json", rich_help_panel=OUTPUT, help="Write the records of all images to one JSON file.")
]

Tile = Annotated[
    str,
    Option("-t", "--tile", rich_help_panel=SPEED, help="Side of tiles in pixels; auto: by free memory; 0: no tiles."),
]
TileOverlap = Annotated[int, Option("--tile-overlap", rich_help_panel=SPEED, help="Overlap of tiles in pixels.")]
Device = Annotated[
    str | None, Option("--device", rich_help_panel=SPEED, help="cpu, cuda, cuda:1; by default a GPU if there is one.")
]
Precision = Annotated[str, Option("--precision", rich_help_panel=SPEED, help="fp32, bf16 or auto.")]
Fp32 = Annotated[bool, Option("--fp32", rich_help_panel=SPEED, help="The same as --precision fp32.")]
Backend = Annotated[
    str | None, Option("--backend", rich_help_panel=SPEED, help="onnx or openvino: run networks by it, on the CPU.")
]
Compile = Annotated[
    bool, Option("--compile", rich_help_panel=SPEED, help="Fuse layers by torch.compile; for GPUs and many images.")
]
MaxPixels = Annotated[float, Option("--max-pixels", rich_help_panel=SPEED, help="Refuse larger inputs; in megapixels.")]

Explain = Annotated[
    bool, Option("--explain", rich_help_panel=SHOW, help="Print the estimates and the reasons for each model.")
]
Verbose = Annotated[
    bool, Option("-v", "--verbose", rich_help_panel=SHOW, help="Print size, time and engine of each image.")
]
Quiet = Annotated[bool, Option("-q", "--quiet", rich_help_panel=SHOW, help="Print failures and the last line only.")]

Shard = Annotated[
    str | None,
    Option("--shard", rich_help_panel=MACHINES, help="I/N: restore only part I of N, such as on machine I of N."),
]
Ray = Annotated[
    str | None,
    Option(
        "--ray", metavar="[ADDRESS]", rich_help_panel=MACHINES,
        help="Use the Ray cluster at this address (HOST:PORT, auto); without one, all GPUs of this machine.",
    ),
]  # fmt: skip
Workers = Annotated[
    int | None,
    Option("--workers", min=1, rich_help_panel=MACHINES, help="Processes of --ray; by default one for each GPU."),
]
RecordsPlace = Annotated[
    Path | None,
    Option("--records", rich_help_panel=MACHINES, help="Folder of results.jsonl, for outputs at a URL with --ray."),
]


def expand_bare_ray(argv: Sequence[str]) -> list[str]:
    """Give a `--ray` without an address the value "local"."""
    result = []
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        result.append(word)
        if word == "--ray" and not ADDRESS.fullmatch(following):
            result.append("local")
    return result

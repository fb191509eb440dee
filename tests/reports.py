"""Records as `swinir restore` writes them, and the image files that they name."""

import hashlib
import json
from pathlib import Path

from pictures import write


def record(**fields):
    """A line of results.jsonl."""
    row = {
        "input": "in/a.png", "output": "out/a.png", "status": "restored", "error": "", "input_sha256": "",
        "output_sha256": "", "settings": "0123456789abcdef",
        "width": 24, "height": 20, "output_width": 48, "output_height": 40,
        "experts": [["lightweight_sr_x2_tiny", "f" * 64]], "precision": "fp32", "engine": "",
        "tile": "auto", "seconds": 1.5,
        "notes": [], "findings": [], "noise_level": None, "jpeg_quality": None, "replaces": None,
    }  # fmt: skip
    return json.dumps(row | fields)


def write_pair(folder: Path, name: str, before, after, **fields):
    """Write an input and its output, and return their record."""
    for place, pixels in (("in", before), ("out", after)):
        (folder / place).mkdir(exist_ok=True)
        write(folder / place / name, pixels)
    (height, width), (output_height, output_width) = before.shape[:2], after.shape[:2]
    facts = {
        "input": f"in/{name}", "output": f"out/{name}", "width": width, "height": height,
        "output_width": output_width, "output_height": output_height,
        "input_sha256": hashlib.sha256((folder / "in" / name).read_bytes()).hexdigest(),
    }  # fmt: skip
    return record(**facts | fields)


def write_records(folder: Path, *lines: str) -> Path:
    """Write the records of a folder's outputs."""
    (folder / "out").mkdir(exist_ok=True)
    path = folder / "out" / "results.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path

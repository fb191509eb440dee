"""A child of the tests: reads the images whose paths come in, a line each, and answers each with a line of JSON.

A file that crashes the reader ends this process, and the parent knows which one it was. Seconds are of the processor.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from swinir.image_io.reader import ImageError, read_picture


def memory(field: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def answer(path: str) -> dict[str, object]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = memory("VmRSS"), time.process_time()
    row: dict[str, object] = {}
    try:
        picture = read_picture(path)
    except ImageError as error:
        row["refused"] = str(error)
    else:
        pixels = picture.pixels
        row.update(shape=pixels.shape, dtype=str(pixels.dtype), alpha=picture.alpha is not None, notes=picture.notes)
        row["sha"] = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
        if picture.alpha is not None:
            row["alpha_sha"] = hashlib.sha256(picture.alpha.tobytes()).hexdigest()
        if max(pixels.shape) <= 64:
            row["pixels"] = pixels.tolist()
            row["alpha_values"] = None if picture.alpha is None else picture.alpha.tolist()
    row["seconds"] = time.process_time() - start
    row["growth"] = memory("VmHWM") - before
    return row


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()

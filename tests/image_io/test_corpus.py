"""Thousands of odd and broken files: none may crash the reader, stop it, or fill the memory; intact ones are exact.

The corpus is public (PngSuite, files that fuzzers found, Pillow's and EXIF's examples) but not part of the project.
"""

import json
import os
import queue
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")]

SECONDS, BYTES = 5, 2**30
FILES_PER_CHILD = 500


class Child:
    """A process that reads pictures for us."""

    def __init__(self, log):
        command = [sys.executable, str(Path(__file__).parents[1] / "reading.py")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.files = 0

    def _listen(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def read(self, path, seconds):
        """A row; with "crashed" or "hung" where none came, after which the child is gone."""
        self.files += 1
        self.process.stdin.write(json.dumps(str(path)) + "\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            self.close()
            return {"hung": seconds}
        if line is None:
            return {"crashed": self.process.wait()}
        return json.loads(line)

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def corpus(public_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    with tarfile.open(public_folder("corpus") / "images.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def rows(corpus, tmp_path_factory):
    """What became of each file, by its path in the corpus."""
    found, child = {}, None
    terminal = tmp_path_factory.mktemp("log") / "stderr"
    with terminal.open("wb") as log:
        for path in sorted(path for path in corpus.rglob("*") if path.is_file()):
            fresh = child is None
            child = child or Child(log)
            row = child.read(path, SECONDS + 30 * fresh)  # which imports first
            found[path.relative_to(corpus).as_posix()] = row
            if "hung" in row or "crashed" in row or child.files >= FILES_PER_CHILD:
                child.close()
                child = None
        if child:
            child.close()
    assert terminal.read_bytes() == b""  # no decoder writes lines of its own
    return found


def kind(row):
    return next((kind for kind in ("crashed", "hung", "refused") if kind in row), "read")


@pytest.mark.timeout(1800)
def test_no_file_crashes_the_reader_stops_it_or_fills_the_memory(rows):
    table = Counter((name.split("/")[0], kind(row)) for name, row in rows.items())
    assert len(rows) > 3000
    bad = {
        name: row
        for name, row in rows.items()
        if kind(row) in ("crashed", "hung") or row["growth"] > BYTES or row["seconds"] > SECONDS
    }
    assert not bad, sorted(table.items())


def test_every_refusal_is_one_line_with_the_name_of_the_file(rows, corpus):
    for name, row in rows.items():
        if kind(row) == "refused":
            assert row["refused"].startswith(f"{corpus / name}: ")
            assert "\n" not in row["refused"]


@pytest.mark.timeout(1800)
def test_the_broken_files_of_pngsuite_are_refused(rows):
    broken = [row for name, row in rows.items() if name.startswith("pngsuite/x")]
    assert len(broken) == 14
    assert {kind(row) for row in broken} == {"refused"}


def decoded(data):
    """PNG by the book and a byte at a time: (H, W, 1 or 3) samples of 8 or 16 bits, (H, W) alpha or None."""
    at, idat, palette, key = 8, b"", None, None
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + length]
        at += 12 + length
        if name == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", content)
        elif name == b"PLTE":
            palette = np.frombuffer(content, np.uint8).reshape(-1, 3)
        elif name == b"tRNS":
            key = content
        elif name == b"IDAT":
            idat += content
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    raw, place = zlib.decompress(idat), 0
    image = np.zeros((height, width, channels), np.uint16)
    distance = max(1, channels * depth // 8)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        columns = len(range(left, width, right))
        stride = (columns * channels * depth + 7) // 8
        above = bytearray(stride)
        for y in range(top, height, down) if columns else ():
            method, row = raw[place], bytearray(raw[place + 1 : place + 1 + stride])
            place += 1 + stride
            for i in range(stride):
                a = row[i - distance] if i >= distance else 0
                b, c = above[i], above[i - distance] if i >= distance else 0
                nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
                row[i] = (row[i] + (0, a, b, (a + b) // 2, nearest)[method]) % 256
            bits = np.unpackbits(np.frombuffer(bytes(row), np.uint8))[: columns * channels * depth]
            values = bits.reshape(columns, channels, depth).astype(np.uint32) @ (1 << np.arange(depth)[::-1])
            image[y, left::right] = values
            above = row
    alpha = None
    top = 65535 if depth == 16 else 255
    if color == 3:
        opacity = np.full(256, 255)
        opacity[: len(key or b"")] = list(key or b"")
        alpha = opacity[image[..., 0]] if key else None
        image = palette[image[..., 0]]
    else:
        if key:
            alpha = np.where((image == struct.unpack(f">{channels}H", key)).all(axis=2), 0, top)
        image = image.astype(np.int64) * (top // (2**depth - 1))
        if channels in (2, 4):
            image, alpha = image[..., :-1], image[..., -1]
    return image, alpha, depth


@pytest.mark.timeout(1800)
def test_the_intact_files_of_pngsuite_are_exact(rows, corpus):
    deep = 0
    for path in sorted(corpus.glob("pngsuite/[!x]*.png")):
        if path.name == "PngSuite.png":  # its logo, larger than the rows carry
            continue
        row = rows[path.relative_to(corpus).as_posix()]
        assert kind(row) == "read", (path.name, row)
        pixels, alpha, depth = decoded(path.read_bytes())
        deep += depth == 16
        assert row["dtype"] == ("uint16" if depth == 16 else "uint8"), path.name
        assert np.array_equal(row["pixels"], pixels), path.name
        assert row["alpha"] == (alpha is not None), path.name
        assert alpha is None or np.array_equal(row["alpha_values"], alpha), path.name
    assert deep == 33


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_the_examples_of_exif_stand_upright(rows, corpus, shape):
    from swinir.image_io.reader import read_picture

    upright = read_picture(corpus / f"exif/{shape}_1.jpg").pixels.astype(np.float64)
    for orientation in range(1, 9):
        found = read_picture(corpus / f"exif/{shape}_{orientation}.jpg").pixels
        assert found.shape == upright.shape
        # The picture is the same but for the number drawn on it.
        assert abs(found - upright).mean() < 12

"""Damaged, truncated and hostile files: refused in one line, at the price of little memory and time."""

import json
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import FILES, RNG, SIGNATURE, SMOOTH, by_pillow, by_tifffile, chunk, png
from PIL import Image

from swinir.image_io.exif import directory
from swinir.image_io.reader import ImageError, read_picture

TENTHS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
PLANES = np.ascontiguousarray(SMOOTH.transpose(2, 0, 1))
MORE_FILES = {
    "png interlaced": png(SMOOTH.astype(np.uint16) * 257, 2, interlaced=True),
    "png palette": by_pillow(Image.fromarray(SMOOTH).quantize(16), "PNG"),
    "tiff deflate": by_tifffile(SMOOTH, photometric="rgb", compression="zlib", predictor=2),
    "tiff deflated tiles": by_tifffile(SMOOTH, photometric="rgb", compression="zlib", tile=(16, 16)),
    "tiff planes": by_tifffile(
        np.ascontiguousarray(SMOOTH.transpose(2, 0, 1)), photometric="rgb", planarconfig="separate"
    ),
    "tiff big": by_tifffile(SMOOTH, photometric="rgb", bigtiff=True, byteorder=">"),
    "pbm": by_pillow(Image.fromarray(SMOOTH[..., 0]).convert("1"), "PPM"),
    "ppm text": b"P3 64 48 255\n" + b" ".join(b"%d" % value for value in SMOOTH.ravel()),
}


def refusal(path, data=None):
    """The message of a refusal, after checks that hold for each."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [*FILES, *MORE_FILES])
def test_a_file_that_ends_early_is_refused(tmp_path, name):
    data = {**FILES, **MORE_FILES}[name]
    assert read_picture(write(tmp_path / "whole", data)).pixels.shape[:2] == (48, 64)
    for share in TENTHS:
        refusal(tmp_path / "x", data[: int(len(data) * share)])


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["png", "png16", "jpeg", "jpeg_progressive", "bmp", "ppm", "pgm16"])
def test_a_file_without_its_last_byte_is_refused(tmp_path, name):
    refusal(tmp_path / "x", FILES[name][:-1])


@pytest.mark.parametrize("name", ["png", "png16", "png interlaced", "png palette"])
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_png_with_one_bit_changed_is_refused(tmp_path_factory, name, data):
    file = bytearray({**FILES, **MORE_FILES}[name])
    place = data.draw(st.integers(len(SIGNATURE), len(file) - 1))
    file[place] ^= 1 << data.draw(st.integers(0, 7))
    refusal(tmp_path_factory.getbasetemp() / "flipped", bytes(file))


@given(tile=st.integers(0, 11), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_a_deflated_tile_with_one_bit_changed_is_never_black(tmp_path_factory, tile, place, bit):
    file = bytearray(MORE_FILES["tiff deflated tiles"])
    page = directory(bytes(file))
    start, length = (int(page.integers(bytes(file), tag)[tile]) for tag in (324, 325))
    file[start + int(place * length)] ^= 1 << bit
    try:
        found = read_picture(write(tmp_path_factory.getbasetemp() / "flipped", bytes(file))).pixels
    except ImageError:
        return
    y, x = 16 * (tile // 4), 16 * (tile % 4)
    assert found[y : y + 16, x : x + 16].any()  # libtiff does not compare the checksum of what it could unpack


def test_threads_that_read_at_once_meet_only_their_own_damage(tmp_path):
    damaged = bytearray(MORE_FILES["tiff deflated tiles"])
    damaged[directory(bytes(damaged)).integer(bytes(damaged), 324)] ^= 1
    bad = write(tmp_path / "bad", bytes(damaged))
    good = [write(tmp_path / f"good{number}", FILES[name]) for number, name in enumerate(("png", "tiff_tiles", "tiff"))]

    def is_read(path):
        try:
            return np.array_equal(read_picture(path).pixels, SMOOTH)
        except ImageError:
            return False

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(is_read, [bad, *good] * 50))
    assert found == [False, True, True, True] * 50


@given(
    st.sampled_from(sorted({**FILES, **MORE_FILES})),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1))),
)
@settings(max_examples=400, deadline=None)
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path_factory, name, damage):
    data = bytearray({**FILES, **MORE_FILES}[name])
    for share, patch in damage:
        start = int(share * len(data))
        data[start : start + len(patch)] = patch
    try:
        picture = read_picture(write(tmp_path_factory.getbasetemp() / "damaged", bytes(data)), max_pixels=10**6)
    except ImageError:
        return
    assert picture.pixels.shape[2] in (1, 3)


def of_idat(idat, *, width=100, height=100, depth=8, color=2, extra=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", head) + extra + idat + chunk(b"IEND", b"")


ROWS = bytes(100 * 301)  # of 100x100 black pixels with their filters


@pytest.mark.parametrize(
    "idat",
    [
        zlib.compress(ROWS[: 50 * 301]),  # which would show a black half
        zlib.compress(ROWS)[:-1] + b"x",  # the checksum
        zlib.compress(b"\5" + ROWS[1:]),  # an unknown filter
        b"nonsense",
        b"",
    ],
)
def test_pixels_of_a_png_that_are_wrong_inside_whole_chunks_are_refused(tmp_path, idat):
    read_picture(write(tmp_path / "right", of_idat(chunk(b"IDAT", zlib.compress(ROWS)))))
    refusal(tmp_path / "x", of_idat(chunk(b"IDAT", idat)))


def test_a_thumbnails_end_is_not_the_jpegs(tmp_path):
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(FILES["jpeg"])) + FILES["jpeg"]
    whole = FILES["jpeg"][:2] + thumbnail + FILES["jpeg"][2:]
    assert read_picture(write(tmp_path / "x", whole)).pixels.shape == SMOOTH.shape
    assert "truncated" in refusal(tmp_path / "x", whole[: 6 + len(FILES["jpeg"]) + 100])


def test_bytes_behind_the_end_and_between_segments_of_a_jpeg_do_not_matter(tmp_path):
    tables = FILES["jpeg"].index(b"\xff\xdb")
    data = FILES["jpeg"][:tables] + b"\0\x12" + FILES["jpeg"][tables:] + b"anything \xff\xc0"
    assert read_picture(write(tmp_path / "x", data)).pixels.shape == SMOOTH.shape


@pytest.mark.parametrize("values", [[1.5], [-0.25], [np.nan], [np.inf]])
def test_floats_that_are_no_share_of_white_are_refused(tmp_path, values):
    floats = np.full((5, 5, 3), 0.5, np.float32)
    floats[2, 3, 1] = values[0]
    assert "floating-point samples" in refusal(tmp_path / "x", by_tifffile(floats, photometric="rgb"))


def test_integers_of_more_than_16_bits_are_refused(tmp_path):
    message = refusal(tmp_path / "x", by_pillow(Image.fromarray(np.full((5, 5), 70000, np.int32)), "TIFF"))
    assert message.endswith(": samples of 70000 to 70000 are not 8 or 16 bit")


# Hostile files: what a few bytes claim must not cost more than 1 GiB and 5 s, whoever refuses them.


def tiff(tags, data):
    """A little-endian TIFF file of tags {number: (type, count, value or offset behind the directory)}."""
    start = 8 + 2 + 12 * len(tags) + 4
    rows = [
        struct.pack("<HHII", tag, kind, count, value + (start if tag in (273, 279, 324, 325) and value >= 0 else 0))
        for tag, (kind, count, value) in sorted(tags.items())
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(rows) + bytes(4) + data


def parts(width, height, wide, high):
    """A grey TIFF file of tiles, or of strips where they are as wide as the image, which share their samples."""
    count = -(-width // wide) * -(-height // high)
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    if wide == width:
        tags |= {273: (4, count, 0), 278: (4, 1, high), 279: (4, count, 4 * count)}
    else:
        tags |= {322: (4, 1, wide), 323: (4, 1, high), 324: (4, count, 0), 325: (4, count, 4 * count)}
    start = 8 + 2 + 12 * len(tags) + 4 + 8 * count
    places, lengths = np.full(count, start, "<u4"), np.full(count, wide * high, "<u4")
    return tiff(tags, places.tobytes() + lengths.tobytes() + b"\x80" * (wide * high))


def group4(width, height, data):
    head = 8 + 2 + 12 * 9 + 4
    tags = {256: width, 257: height, 258: 1, 259: 4, 262: 0, 273: head, 277: 1, 278: height, 279: len(data)}
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(rows) + bytes(4) + data


def bmp(width, height, data):
    head = struct.pack("<IIIIiiHHIIiiII", 1078 + len(data), 0, 1078, 40, width, height, 1, 8, 1, len(data), 0, 0, 0, 0)
    return b"BM" + head + bytes(1024) + data


def jpeg_of(width, height, data=FILES["jpeg_progressive"]):
    found = bytearray(data)
    struct.pack_into(">HH", found, found.index(b"\xff\xc2") + 5, height, width)
    return bytes(found)


def webp(kind, content):
    return b"RIFF" + struct.pack("<I", 12 + len(content)) + b"WEBP" + kind + struct.pack("<I", len(content)) + content


def bomb(side):
    """A true PNG of side x side black pixels of one bit."""
    compressor, row = zlib.compressobj(9), bytes(1 + side // 8)
    raw = b"".join(compressor.compress(row * 100) for _ in range(side // 100)) + compressor.flush()
    return of_idat(chunk(b"IDAT", raw), width=side, height=side, depth=1, color=0)


HOSTILE = {
    "png of 900 megapixels": lambda: bomb(30_000),
    "png of a million empty chunks, half black": lambda: of_idat(
        chunk(b"IDAT", b"") * 10**6 + chunk(b"IDAT", zlib.compress(ROWS[: 50 * 301]))
    ),
    "png of two million empty chunks": lambda: of_idat(chunk(b"IDAT", b"") * 2 * 10**6),
    "webp of 16383x16383 in 40 bytes": lambda: webp(
        b"VP8L", b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(15)
    ),
    "bmp of 20000x20000 in 1.5 kB": lambda: bmp(20_000, 20_000, b"\xff\1" * 200 + b"\0\1"),
    "tiff of 20000x19900 in 2.6 kB": lambda: group4(20_000, 19_900, b"\xff" * 2500),
    "tiff of 4 million tiles": lambda: parts(2000, 2000, 1, 1),
    "tiff of 100,000 strips, one short": lambda: parts(100, 100_000, 100, 1)[:-50],
    "tiff of one tile of 4 GB": lambda: tiff(
        {
            256: (4, 1, 64),
            257: (4, 1, 48),
            258: (3, 1, 8),
            259: (3, 1, 8),
            262: (3, 1, 1),
            277: (3, 1, 1),
            322: (4, 1, 65_520),
            323: (4, 1, 65_520),
            324: (4, 1, 0),
            325: (4, 1, 0),
        },
        bytes(100),
    ),
    "tiff without its photometric tag": lambda: bytes(patched(FILES["tiff"], 262, 65_000)),
    "ppm of 30 million blanks": lambda: b"P6" + b" " * 30_000_000 + b"5 5 255\n" + bytes(75),
    "ppm of 20000x19000 in words": lambda: b"P3 20000 19000 255\n" + b"1 " * 1000,
    "pgm of 100 million digits": lambda: b"P2 2 2 255\n" + b"1" * 100_000_000,
    "jpeg of 20000x19000 in 1 kB": lambda: jpeg_of(20_000, 19_000),
    "jpeg of 20,000 scans": lambda: repeated_scan(20_000),
    "png of zeros": lambda: of_idat(b"")[:-12],
    "jpeg of zeros": lambda: b"\xff\xd8\xff",
    "jpeg without an end": lambda: FILES["jpeg"][:-2],
    "tiff of zeros": lambda: b"II*\0\x08\0\0\0",
    "gif of zeros": lambda: b"GIF89a",
    "bmp of zeros": lambda: b"BM",
    "webp of zeros": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "avif of zeros": lambda: FILES["avif"][:32],
    "zeros": lambda: b"",
}
OF_4_GIB = ("of zeros", "without an end", "zeros")  # the rest of the file is a hole
HARMLESS = {
    "gif whose screen is 20000x20000 in 35 bytes": lambda: (
        b"GIF89a" + struct.pack("<HHBBB", 20_000, 20_000, 0x80, 0, 0) + bytes(6) + b","
        + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0;"
    ),
    "png of a million empty chunks": lambda: of_idat(chunk(b"IDAT", b"") * 10**6 + chunk(b"IDAT", zlib.compress(ROWS))),
    "png whose xmp unpacks to 100 MB": lambda: of_idat(
        chunk(b"IDAT", zlib.compress(ROWS)),
        extra=chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(10**8), 1)),
    ),
    "tiff of 100,000 strips": lambda: parts(100, 100_000, 100, 1),
    "tiff of 62,500 small tiles": lambda: parts(4000, 4000, 16, 16),
    "gif of 300,000 frames": lambda: (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
        + (b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0") * 300_000 + b";"
    ),
}  # fmt: skip


def patched(data, tag, value):
    """A TIFF file one of whose tags is another."""
    found, place = bytearray(data), data.index(struct.pack("<HH", tag, 3))
    struct.pack_into("<H", found, place, value)
    return found


def repeated_scan(times):
    data = FILES["jpeg_progressive"]
    scan = data.rindex(b"\xff\xda")
    return data[:-2] + data[scan:-2] * times + b"\xff\xd9"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The rows of a child that reads the hostile files, and its lines for the terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {}
    for name, make in {**HOSTILE, **HARMLESS}.items():
        paths[name] = write(folder / name.replace(" ", "_"), make())
        if name.endswith(OF_4_GIB):
            os.truncate(paths[name], 2**32 - 1)
    child = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "reading.py")],
        input="".join(json.dumps(str(path)) + "\n" for path in paths.values()),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    for path in paths.values():
        path.unlink()
    return dict(zip(paths, map(json.loads, child.stdout.splitlines()), strict=True)), child.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_hostile_files_are_refused_for_less_than_a_gigabyte_and_five_seconds(outcomes):
    rows, terminal = outcomes
    assert {name for name, row in rows.items() if "refused" in row} == {*HOSTILE}
    assert not {name: row for name, row in rows.items() if row["growth"] > 2**30 or row["seconds"] > 5}
    assert terminal == ""


def test_metadata_of_megabytes_is_read(tmp_path):
    xmp = RNG.bytes(2_000_000).hex().encode()
    data = of_idat(chunk(b"IDAT", zlib.compress(ROWS)), extra=chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp))
    assert read_picture(write(tmp_path / "x", data)).metadata.xmp == xmp

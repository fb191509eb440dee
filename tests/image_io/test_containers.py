"""What is told of a file without decoding it: sizes, frames, and that none of it is missing or changed."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from makers import FILES, SMOOTH, by_pillow, chunk
from PIL import Image

from swinir.image_io import png, tiff
from swinir.image_io.containers import ContainerError, bmff, bmff_brand, bmp, gif, jpeg, netpbm, webp
from swinir.image_io.exif import count_directories, directory

INSPECT = {"png": png.inspect, "jpeg": jpeg, "webp": webp, "tiff": tiff.inspect, "avif": bmff, "bmp": bmp, "gif": gif,
           "ppm": netpbm, "pgm": netpbm}  # fmt: skip
INSPECTED = {name: INSPECT[name.split("_")[0].removesuffix("16")] for name in FILES}
TENTHS = range(10)
DIFFERENT = [Image.fromarray(np.roll(SMOOTH, n, 1)) for n in (5, 15, 25, 35)]


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_told_apart_by_size_alone(name):
    found = INSPECTED[name](FILES[name])
    assert (found.width, found.height) == ((0, 0) if name == "avif" else (64, 48))
    assert found.width * found.height <= found.most_pixels


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tenth", TENTHS)
def test_a_file_that_ends_early_is_refused(name, tenth):
    data = FILES[name]
    with pytest.raises(ContainerError, match=r"\w"):
        INSPECTED[name](data[: max(12, len(data) * tenth // 10 + len(data) // 20)])


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_its_last_byte_is_refused(name):
    with pytest.raises(ContainerError, match=r"\w"):
        INSPECTED[name](FILES[name][:-1])


@pytest.mark.parametrize("name", ["png", "png16"])
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_png_with_one_bit_changed_is_refused(name, data):
    file = bytearray(FILES[name])
    place = data.draw(st.integers(len(png.SIGNATURE), len(file) - 1))
    file[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ContainerError, match=r"\w"):
        png.inspect(bytes(file))


@given(st.sampled_from(sorted(FILES)), st.binary(max_size=300), st.booleans())
@example("jpeg", b"\xff\xd8\xff\xd9", False)
@example("gif", b"GIF89a" + bytes(6) + b"\0", False)
@settings(max_examples=400, deadline=None)
def test_arbitrary_bytes_are_inspected_or_refused_and_nothing_else(name, noise, keep_start):
    data = FILES[name][:12] + noise if keep_start else noise
    for inspect in INSPECT.values():
        with contextlib.suppress(ContainerError):
            found = inspect(data)
            assert min(found.width, found.height, found.frames) >= 0


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (by_pillow(SMOOTH, "WEBP", save_all=True, append_images=DIFFERENT[:2]), 3),
        (by_pillow(SMOOTH, "GIF", save_all=True, append_images=DIFFERENT[:3]), 4),
        (by_pillow(SMOOTH, "PNG", save_all=True, append_images=DIFFERENT[:4]), 5),
        (by_pillow(SMOOTH, "TIFF", save_all=True, append_images=DIFFERENT[:1]), 2),
    ],
    ids=["webp", "gif", "png", "tiff"],
)
def test_frames_and_pages_are_counted(data, frames):
    inspect = next(f for start, f in ((b"RIFF", webp), (b"GIF", gif), (b"\x89PNG", png.inspect), (b"II", tiff.inspect))
                   if data.startswith(start))  # fmt: skip
    assert inspect(data).frames == frames


def test_pages_that_follow_each_other_in_a_circle_end():
    data = bytearray(FILES["tiff"])
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert tiff.inspect(bytes(data)).frames == 2


def test_directories_that_overlap_by_the_thousand_are_counted_at_once():
    # Each starts four bytes behind the one before it, with 60,000 entries.
    entries, directories = 60_000, 1500
    data = bytearray(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", entries) * (6 * entries + 2 * directories + 4))
    for number in range(directories):
        following = 8 + 4 * (number + 1) if number < directories - 1 else 0
        struct.pack_into("<I", data, 8 + 4 * number + 2 + 12 * entries, following)
    assert count_directories(bytes(data), 65_536) == directories
    assert count_directories(bytes(data), 100) == 100


def test_a_tiff_with_fewer_tiles_than_its_size_takes_is_refused():
    data = bytearray(FILES["tiff_tiles"])
    struct.pack_into("<I", data, directory(bytes(data)).entries[tiff.HEIGHT].start, 4_000_000)
    with pytest.raises(ContainerError, match="truncated"):
        tiff.inspect(bytes(data))


def test_a_tiff_with_a_tile_of_gigabytes_is_refused():
    data = bytearray(FILES["tiff_tiles"])
    for tag in (tiff.TILE_WIDTH, tiff.TILE_HEIGHT):
        struct.pack_into("<H", data, directory(bytes(data)).entries[tag].start, 65_520)
    with pytest.raises(ContainerError, match="far larger than its picture"):
        tiff.inspect(bytes(data))


def test_what_follows_the_end_of_a_jpeg_does_not_matter():
    assert jpeg(FILES["jpeg"] + b"anything \xff\xc0").width == 64


def test_a_thumbnails_end_is_not_the_jpegs():
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(FILES["jpeg"])) + FILES["jpeg"]
    whole = FILES["jpeg"][:2] + thumbnail + FILES["jpeg"][2:]
    assert jpeg(whole).width == 64
    with pytest.raises(ContainerError, match="truncated"):
        jpeg(whole[: 6 + len(FILES["jpeg"]) + 100])


def test_a_jpeg_cannot_hold_more_than_its_data():
    data = bytearray(FILES["jpeg"])
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, 20_000, 20_000)
    found = jpeg(bytes(data))
    assert found.width * found.height > found.most_pixels


def test_a_flat_jpeg_holds_what_its_data_can():
    found = jpeg(by_pillow(Image.new("RGB", (3000, 3000), "white"), "JPEG", quality=5, optimize=True, progressive=True))
    assert found.width * found.height <= found.most_pixels


def test_a_jpeg_of_endless_scans_is_refused():
    data = FILES["jpeg_progressive"]
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(ContainerError, match="scans"):
        jpeg(data[:-2] + data[scan:-2] * 300 + b"\xff\xd9")


def test_a_flat_png_holds_what_its_data_can():
    found = png.inspect(by_pillow(Image.new("1", (4000, 4000)), "PNG"))
    assert found.width * found.height <= found.most_pixels


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0), "0x5 pixels"),
        (struct.pack(">IIBBBBB", 2**31, 5, 8, 2, 0, 0, 0), "2147483648x5 pixels"),
        (struct.pack(">IIBBBBB", 5, 5, 16, 3, 0, 0, 0), "colour type 3 with 16 bits"),
        (struct.pack(">IIBBBBB", 5, 5, 8, 1, 0, 0, 0), "colour type 1"),
        (struct.pack(">IIBBBBB", 5, 5, 8, 2, 1, 0, 0), "compression"),
        (struct.pack(">IIBBBBB", 5, 5, 8, 2, 0, 0, 2), "interlace"),
    ],
)
def test_a_png_header_that_the_standard_forbids_is_refused(head, message):
    data = png.SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ContainerError, match=message):
        png.inspect(data)


def test_brands_tell_avif_from_heic():
    assert bmff_brand(FILES["avif"]) == "AVIF"
    assert bmff_brand(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "HEIC"
    assert bmff_brand(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "AVIF"
    assert bmff_brand(b"\0\0\0\x18ftypisom\0\0\0\0isommp42") is None

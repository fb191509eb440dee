"""Files read and written row by row: the samples of `read_picture`, and one line for damage."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from makers import FILES, RGB16, RNG, SMOOTH, by_opencv, by_pillow, by_tifffile, chunk, exif, png
from PIL import Image

import swinir.image_io.png
import swinir.image_io.tiff
from swinir.image_io.exif import upright
from swinir.image_io.picture import Metadata, Picture, rows_of
from swinir.image_io.reader import ImageError, open_rows, read_picture
from swinir.image_io.writer import write_picture, write_rows

ALPHA = RNG.integers(0, 256, (48, 64, 1)).astype(np.uint8)
RGBA = np.concatenate([SMOOTH, ALPHA], axis=2)
PLANES = np.ascontiguousarray(SMOOTH.transpose(2, 0, 1))
GREY16 = RGB16[..., 0]
# Files that are read by rows: of every sample type, with alpha, filters of other encoders, and layouts of TIFF.
BY_ROWS = {
    "png": FILES["png"],
    "png16": FILES["png16"],
    "png grey": by_pillow(SMOOTH[..., 0], "PNG"),
    "png grey alpha": by_pillow(np.concatenate([SMOOTH[..., :1], ALPHA], axis=2), "PNG"),
    "png alpha": by_pillow(RGBA, "PNG"),
    "png noise": by_opencv(RNG.integers(0, 256, (50, 40, 3)).astype(np.uint8), ".png"),
    "png grey16 alpha": png(RNG.integers(0, 65536, (13, 11, 2)).astype(np.uint16), 4),
    "png alpha16": png(RNG.integers(0, 65536, (13, 11, 4)).astype(np.uint16), 6),
    "png transparent": png(SMOOTH, 2, depth=8, extra=chunk(b"tRNS", struct.pack(">3H", *SMOOTH[3, 4]))),
    "png about": png(RGB16, 2, extra=chunk(b"eXIf", exif()) + chunk(b"pHYs", struct.pack(">IIB", 3000, 3000, 1))),
    "tiff": FILES["tiff"],
    "tiff lzw": FILES["tiff_lzw"],
    "tiff16": FILES["tiff16"],
    "tiff tiles": FILES["tiff_tiles"],
    "tiff one strip": by_tifffile(SMOOTH, photometric="rgb", rowsperstrip=48),
    "tiff one deflated": by_tifffile(SMOOTH, photometric="rgb", rowsperstrip=48, compression="zlib", predictor=2),
    "tiff planes": by_tifffile(PLANES, photometric="rgb", planarconfig="separate"),
    "tiff alpha": by_tifffile(RGBA, photometric="rgb", extrasamples=["unassalpha"]),
    "tiff multiplied": by_tifffile(RGBA.astype(np.uint16), photometric="rgb", extrasamples=["assocalpha"]),
    "tiff white": by_tifffile(GREY16, photometric="miniswhite"),
    "tiff grey": by_tifffile(SMOOTH[..., 0], photometric="minisblack", tile=(16, 32), compression="zlib"),
    "tiff white 8": by_tifffile(SMOOTH[..., 0], photometric="miniswhite"),
    "tiff floats": by_tifffile(RNG.random((19, 23, 3)).astype(np.float32), photometric="rgb"),
    "tiff big": by_tifffile(SMOOTH, photometric="rgb", bigtiff=True),
}  # fmt: skip
ONE_BLOCK = ("png grey16 alpha", "tiff lzw", "tiff planes", "tiff multiplied", "tiff white", "tiff big")
# Files that are not: `read_picture` reads them.
WHOLE = {
    "jpeg": FILES["jpeg"],
    "palette": by_pillow(Image.fromarray(SMOOTH).quantize(16), "PNG"),
    "interlaced": png(RGB16, 2, interlaced=True),
    "bits": by_pillow(Image.fromarray(SMOOTH[..., 0]).convert("1"), "PNG"),
    "turned": png(RGB16, 2, extra=chunk(b"eXIf", exif(6))),
    "cmyk": by_pillow(Image.new("CMYK", (16, 16)), "TIFF"),
    "nothing": b"nothing",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for module in (swinir.image_io.png, swinir.image_io.tiff):
        monkeypatch.setattr(module, "_BLOCK", 1000)


def gather(rows):
    """All of it, as a picture."""
    blocks = list(rows.blocks())
    rows.close()
    samples = np.concatenate(blocks)
    assert samples.shape == (rows.height, rows.width, rows.channels)
    colors = rows.colors
    alpha = samples[..., colors] if rows.channels > colors else None
    return Picture(samples[..., :colors], alpha, rows.metadata, rows.format, rows.jpeg_tables, rows.notes), len(blocks)


def read(path):
    """By rows where they can be had."""
    found = open_rows(path, max_pixels=10**6)
    return read_picture(path, max_pixels=10**6) if found is None else gather(found)[0]


def same(found, expected):
    assert np.array_equal(found.pixels, expected.pixels)
    assert found.pixels.dtype == expected.pixels.dtype
    assert (found.alpha is None) == (expected.alpha is None)
    assert expected.alpha is None or np.array_equal(found.alpha, expected.alpha)
    assert found.metadata == expected.metadata
    assert (found.format, found.notes) == (expected.format, expected.notes)


@pytest.mark.parametrize("name", BY_ROWS)
def test_rows_are_those_of_the_whole_picture(path, name):
    path.write_bytes(BY_ROWS[name])
    found, count = gather(open_rows(path))
    same(found, read_picture(path))
    assert count > 1 or name in ONE_BLOCK


@pytest.mark.parametrize("name", WHOLE)
def test_other_files_are_left_to_be_read_whole(path, name):
    path.write_bytes(WHOLE[name])
    assert open_rows(path) is None


def test_a_file_that_is_not_there_is_left_too(tmp_path):
    assert open_rows(tmp_path / "absent.png") is None


def test_rows_can_be_had_again(path):
    path.write_bytes(FILES["png"])
    rows = open_rows(path)
    first, again = (np.concatenate(list(rows.blocks())) for _ in range(2))
    rows.close()
    assert np.array_equal(first, again)


def test_a_small_picture_is_not_opened_where_large_ones_are_wanted(path):
    path.write_bytes(FILES["png"])
    asked = []
    assert open_rows(path, wanted=lambda *size: asked.append(size)) is None
    assert asked == [(48, 64)]


def test_the_limit_of_pixels_holds(path):
    path.write_bytes(FILES["png"])
    with pytest.raises(ImageError, match="64x48 is more than the limit"):
        open_rows(path, max_pixels=1000)


@pytest.mark.parametrize("name", BY_ROWS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_refused(path, name, share):
    path.write_bytes(BY_ROWS[name][: int(len(BY_ROWS[name]) * share)])
    with pytest.raises(ImageError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)


@given(st.sampled_from(sorted(BY_ROWS)), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1))))
@settings(max_examples=200, deadline=None)
def test_damage_is_refused_or_read_and_nothing_else(tmp_path_factory, name, changes):
    path, data = tmp_path_factory.getbasetemp() / "damaged", bytearray(BY_ROWS[name])
    for place, patch in changes:
        at = int(place * len(data))
        data[at : at + len(patch)] = patch
    path.write_bytes(data)
    with contextlib.suppress(ImageError):
        read(path)


def of_rows(raw, width=2, height=2):
    """A grey PNG file of 8 bits whose image data is `raw`."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return swinir.image_io.png.SIGNATURE + head + chunk(b"IDAT", raw) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (zlib.compress(bytes(3) + b"\5\0\0"), "unknown filter"),
        (zlib.compress(bytes(6))[:-1] + b"x", "damaged"),  # the checksum
        (zlib.compress(bytes(5)), "truncated"),
        (b"nonsense", "damaged"),
    ],
)
def test_image_data_that_is_wrong_inside_a_whole_container_is_told(path, raw, message):
    path.write_bytes(of_rows(raw))
    with pytest.raises(ImageError, match=message):
        gather(open_rows(path))


@pytest.mark.parametrize("method", range(5))
@given(rows=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=20, deadline=None)
def test_every_filter_is_undone_as_pillow_does(tmp_path_factory, method, rows):
    raw = b"".join(bytes([method]) + row.tobytes() for row in rows)
    data = of_rows(zlib.compress(raw), *rows.shape[::-1])
    path = tmp_path_factory.getbasetemp() / "filtered"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swinir.image_io.png, "_BLOCK", 2 * (1 + rows.shape[1]))
        found, _ = gather(open_rows(path))
    assert np.array_equal(found.pixels[..., 0], np.asarray(Image.open(io.BytesIO(data))))


# Writing.

IMAGES = st.sampled_from((np.uint8, np.uint16, np.float32)).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)),
        elements=st.floats(0, 1, width=32) if dtype is np.float32 else None,
    )
)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@given(image=IMAGES, step=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_what_is_written_by_rows_is_what_is_written_whole(tmp_path_factory, suffix, image, step):
    folder = tmp_path_factory.getbasetemp()
    colors = 1 if image.shape[2] < 3 else 3
    picture = Picture(image[..., :colors], image[..., colors] if image.shape[2] > colors else None)
    notes = write_picture(folder / f"whole{suffix}", picture)
    blocks = (image[y : y + step] for y in range(0, len(image), step))
    assert notes == write_rows(folder / f"rows{suffix}", blocks, image.shape, image.dtype, Metadata())
    same(read_picture(folder / f"rows{suffix}"), read_picture(folder / f"whole{suffix}"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_metadata_is_written_with_rows_too(tmp_path, suffix):
    about = Metadata(upright(exif()), None, b"<xmp/>", (300.0, 200.0))
    write_picture(tmp_path / f"whole{suffix}", Picture(SMOOTH, metadata=about))
    write_rows(tmp_path / f"rows{suffix}", [SMOOTH[:9], SMOOTH[9:]], SMOOTH.shape, SMOOTH.dtype, about)
    assert (tmp_path / f"rows{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_a_tiff_file_that_may_be_too_large_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(swinir.image_io.tiff, "_MOST_CLASSIC", 5000)
    about = Metadata(upright(exif()), None, b"<xmp/>", (300.0, 200.0))
    notes = write_rows(tmp_path / "x.tif", [SMOOTH[:9], SMOOTH[9:]], SMOOTH.shape, SMOOTH.dtype, about)
    assert notes == ("a TIFF file of more than 4 GiB has no place for its EXIF",)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.is_bigtiff
        assert np.array_equal(file.pages[0].asarray(), SMOOTH)
    found = read_picture(tmp_path / "x.tif")
    assert np.array_equal(found.pixels, SMOOTH)
    assert (found.metadata.xmp, found.metadata.dpi) == (b"<xmp/>", (300.0, 200.0))
    same(gather(open_rows(tmp_path / "x.tif"))[0], found)


def test_rows_that_fail_leave_no_file(tmp_path):
    def broken():
        yield SMOOTH[:9]
        raise ValueError("damaged")

    for suffix in (".png", ".tif", ".jpg"):
        with pytest.raises(ValueError, match="damaged"):
            write_rows(tmp_path / f"x{suffix}", broken(), SMOOTH.shape, SMOOTH.dtype, Metadata())
    assert not list(tmp_path.iterdir())


def test_a_picture_gives_its_rows():
    picture = Picture(RGB16, RGB16[..., 0], Metadata(dpi=(1.0, 2.0)), "TIFF", None, ("a note",))
    same(gather(rows_of(picture))[0], picture)

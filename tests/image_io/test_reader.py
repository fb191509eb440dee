"""What becomes of real files: depth, alpha, colours, orientation, metadata; and which are refused, and how."""

import io
import mmap
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from makers import FILES, RGB16, RNG, SMOOTH, by_opencv, by_pillow, chunk, exif, facts, png
from PIL import Image, ImageCms, PngImagePlugin

from swinir.image_io.canvas import Workspace
from swinir.image_io.reader import EXTENSIONS, ImageError, probe, read_picture

GREY = SMOOTH[..., 0]
EXACT = ("png", "webp", "tiff", "tiff_lzw", "tiff_tiles", "bmp", "ppm")
# How to store an upright image so that the flag's viewer shows it upright (EXIF 2.3, 4.6.4 A).
STORED = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: np.rot90(u, 1),
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),
    8: lambda u: np.rot90(u, -1),
}


@pytest.fixture
def read(tmp_path):
    """A function that writes bytes to a file and reads that as a picture."""

    def reading(data, name="x", **options):
        path = tmp_path / name
        path.write_bytes(data)
        return read_picture(path, **options)

    return reading


def refusal(path):
    """The message of a refusal, after checks that hold for each."""
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # fit for any terminal
    return str(caught.value)


# Formats.


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_known_by_its_content(read, name):
    picture = read(FILES[name])
    names = {"jpeg": "JPEG", "tiff": "TIFF", "pgm": "PPM"}
    kind = name.split("_")[0].removesuffix("16")
    assert picture.format == names.get(kind, kind.upper())
    assert picture.pixels.shape == (48, 64, 1 if kind == "pgm" else 3)
    assert picture.pixels.dtype == (np.uint16 if "16" in name else np.uint8)
    assert picture.pixels.flags.c_contiguous
    assert picture.alpha is None
    assert picture.notes == ()


@pytest.mark.parametrize("name", EXACT)
def test_lossless_files_are_read_exactly(read, name):
    assert np.array_equal(read(FILES[name]).pixels, SMOOTH)


@pytest.mark.parametrize("name", ["png16", "tiff16"])
def test_16_bits_are_kept(read, name):
    assert np.array_equal(read(FILES[name]).pixels, SMOOTH.astype(np.uint16) * 257)


def test_netpbm_of_16_bits_is_scaled_to_its_largest_value(read):
    values = RNG.integers(0, 1024, (7, 5, 3)).astype(np.uint16)
    pixels = read(b"P6 # of ten bits\n5 7\n1023\n" + values.astype(">u2").tobytes()).pixels
    assert np.array_equal(pixels, np.round(values * (65535 / 1023)))
    assert np.array_equal(read(by_opencv(RGB16, ".ppm")).pixels, RGB16)


def test_avif_is_near_the_picture_it_was_made_of(read):
    assert abs(read(FILES["avif"]).pixels - SMOOTH.astype(int)).mean() < 3


def test_heic_is_read_by_its_extra(read):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = by_pillow(SMOOTH, "HEIF", quality=90)
    picture = read(data)
    assert picture.format == "HEIC"
    assert abs(picture.pixels - SMOOTH.astype(int)).mean() < 3
    with pytest.raises(ImageError, match="outside of file"):
        read(data[: len(data) // 2])


def test_ten_bits_of_heic_are_kept(read):
    pillow_heif = pytest.importorskip("pillow_heif")
    ramp = np.linspace(0, 65535, 32 * 48 * 3).astype(np.uint16).reshape(32, 48, 3)
    file = io.BytesIO()
    pillow_heif.encode("RGB;16", (48, 32), ramp.tobytes(), file, quality=-1)
    picture = read(file.getvalue())
    assert picture.pixels.dtype == np.uint16
    assert abs(picture.pixels.astype(int) - ramp).max() < 2 * 65535 / 1023
    assert picture.notes == ()
    with pytest.raises(ImageError, match=r"48x32 is more than the limit"):
        read(file.getvalue(), max_pixels=100)


def test_heic_without_the_extra_names_it(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    boxes = struct.pack(">I4s4sI4s", 20, b"ftyp", b"heic", 0, b"heic") + b"\0\0\0\x08meta\0\0\0\x08mdat"
    with pytest.raises(ImageError, match=r"pip install 'swinir-toolkit\[heic\]'"):
        read(boxes)


@pytest.mark.parametrize(("name", "kind"), [("x.png", "JPEG"), ("x.JPEG", "PNG"), ("x.tif", "GIF")])
def test_a_file_under_the_suffix_of_another_format_is_read_with_a_note(read, name, kind):
    picture = read(FILES[kind.lower()], name)
    assert picture.format == kind
    assert picture.notes == (f"named {name[1:]}, but its content is {kind}",)


def test_the_quantisation_tables_of_a_jpeg_are_told(read):
    tables = ((3,) * 64, tuple(range(1, 65)))
    data = by_pillow(SMOOTH, "JPEG", qtables=[list(table) for table in tables])
    assert read(data).jpeg_tables == tables
    assert read(FILES["png"]).jpeg_tables is None


@pytest.mark.parametrize(
    ("name", "what"), [("PNG", "frames"), ("GIF", "frames"), ("WEBP", "frames"), ("TIFF", "pages")]
)
def test_of_several_frames_the_first_is_read_with_a_note(read, name, what):
    frames = [Image.fromarray(image).quantize(8).convert("RGB") for image in (SMOOTH, SMOOTH[::-1].copy())]
    options = {"lossless": True} if name == "WEBP" else {}
    picture = read(by_pillow(frames[0], name, save_all=True, append_images=frames[1:], **options))
    assert picture.notes == (f"the first of 2 {what}",)
    assert np.array_equal(picture.pixels, np.asarray(frames[0]))


# Colours and alpha.


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_keeps_them_in_every_colour_type(read, color, channels, interlaced):
    samples = RNG.integers(0, 65536, (13, 11, channels)).astype(np.uint16)
    picture = read(png(samples, color, interlaced=interlaced))
    colors = 3 if channels > 2 else 1
    assert np.array_equal(picture.pixels, samples[..., :colors])
    if channels in (2, 4):
        assert np.array_equal(picture.alpha, samples[..., -1])
    else:
        assert picture.alpha is None


@pytest.mark.parametrize(("color", "depth"), [(0, 8), (0, 16), (2, 8), (2, 16)])
def test_the_transparent_colour_of_a_png_becomes_alpha(read, color, depth):
    channels = 3 if color else 1
    samples = RNG.integers(0, 3, (9, 8, channels)).astype(np.uint16)
    key = samples[4, 4]
    picture = read(png(samples, color, depth=depth, extra=chunk(b"tRNS", struct.pack(f">{channels}H", *key))))
    top = 2**depth - 1
    assert np.array_equal(picture.pixels, samples)
    assert np.array_equal(picture.alpha, np.where((samples == key).all(axis=2), 0, top))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_grey_png_of_few_bits_is_spread_and_its_transparent_value_found(read, depth):
    values = RNG.integers(0, 2**depth, (6, 16))
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(6, -1).astype(np.uint8)
    head = struct.pack(">IIBBBBB", 16, 6, depth, 0, 0, 0, 0)
    raw = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    parts = chunk(b"IHDR", head) + chunk(b"tRNS", b"\0\1") + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    picture = read(b"\x89PNG\r\n\x1a\n" + parts)
    assert np.array_equal(picture.pixels[..., 0], values * 255 // (2**depth - 1))
    assert np.array_equal(picture.alpha, np.where(values == 1, 0, 255))


def test_a_palette_becomes_colours_and_its_transparency_alpha(read):
    palette, index = RNG.integers(0, 256, (4, 3)).astype(np.uint8), RNG.integers(0, 4, (6, 7)).astype(np.uint8)
    file = Image.fromarray(index, "P")
    file.putpalette(palette.tobytes())
    opaque, some = by_pillow(file, "PNG"), by_pillow(file, "PNG", transparency=bytes([10, 20]))
    assert np.array_equal(read(opaque).pixels, palette[index])
    assert read(opaque).alpha is None
    assert np.array_equal(read(some).pixels, palette[index])
    assert np.array_equal(read(some).alpha, np.array([10, 20, 255, 255])[index])


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_kept_and_colours_under_it_too(read, name):
    alpha = RNG.integers(0, 256, (48, 64, 1)).astype(np.uint8)
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    picture = read(by_pillow(np.concatenate([SMOOTH, alpha], 2), name, **options))
    assert np.array_equal(picture.pixels, SMOOTH)
    assert np.array_equal(picture.alpha, alpha[..., 0])


def test_cmyk_without_a_profile_is_converted_with_a_note(read):
    picture = read(by_pillow(Image.new("CMYK", (16, 16), (200, 20, 100, 0)), "JPEG", quality=100))
    assert picture.pixels == pytest.approx(np.broadcast_to((55, 235, 155), (16, 16, 3)), abs=3)
    assert picture.notes == ("CMYK converted to RGB without a profile",)


def cmyk_profile():
    """A profile by hand (ICC.1:2001-04, 6.5.8): cyan is a grey of L* 50, black is black, other inks leave no colour."""
    colors = bytearray()
    for corner in range(16):  # the first ink varies least rapidly
        cyan, black = corner >> 3 & 1, corner & 1
        colors += bytes([0 if black else 128 if cyan else 255, 128, 128])
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + bytes(colors) + ramp * 3
    size = 128 + 4 + 12 + len(table)
    head = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def test_cmyk_goes_through_its_profile(read):
    def middle(ink, suffix):
        data = by_pillow(Image.new("CMYK", (16, 16), ink), suffix, icc_profile=cmyk_profile())
        picture = read(data)
        assert picture.notes == ("CMYK converted to sRGB through its profile",)
        assert picture.metadata.icc is None
        return picture.pixels[8, 8].tolist()

    for suffix in ("JPEG", "TIFF"):
        assert middle((255, 0, 0, 0), suffix) == pytest.approx([119, 119, 119], abs=2)  # L* 50 in sRGB
        assert middle((0, 255, 255, 0), suffix) == pytest.approx([255, 255, 255], abs=2)


def test_a_damaged_cmyk_profile_is_not_used(read):
    file = Image.new("CMYK", (16, 16), (200, 20, 100, 0))
    picture = read(by_pillow(file, "JPEG", quality=100, icc_profile=b"no profile" * 20))
    assert picture.pixels == pytest.approx(np.broadcast_to((55, 235, 155), (16, 16, 3)), abs=3)
    assert picture.notes[0] == "its profile is damaged and was not used"
    assert picture.metadata.icc is None


# Orientation and metadata.


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_pictures_stand_upright_and_say_so(read, orientation, name):
    stored = np.ascontiguousarray(STORED[orientation](np.concatenate([SMOOTH, SMOOTH[..., :1]], 2)))
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    picture = read(by_pillow(stored, name, exif=oriented(orientation), **options))
    assert np.array_equal(picture.pixels, SMOOTH)
    assert np.array_equal(picture.alpha, SMOOTH[..., 0])
    tags, _, _ = facts(picture.metadata.exif)
    assert tags.get(0x112, 1) == 1
    assert tags[0x10F] == "Maker"


def oriented(orientation):
    found = Image.Exif()
    found[0x112], found[0x10F] = orientation, "Maker"
    return found


@pytest.mark.parametrize("orientation", STORED)
def test_deep_pictures_stand_upright_too(read, orientation):
    stored = np.ascontiguousarray(STORED[orientation](RGB16))
    data = png(stored, 2, extra=chunk(b"eXIf", exif(orientation)))
    assert np.array_equal(read(data).pixels, RGB16)


def test_exif_behind_the_image_data_counts(read):
    plain = png(STORED[6](RGB16), 2)
    end = len(plain) - 12
    assert np.array_equal(read(plain[:end] + chunk(b"eXIf", exif(6)) + plain[end:]).pixels, RGB16)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_is_told(read, name):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    block = exif()
    options = {"exif": b"Exif\0\0" + block, "icc_profile": icc, "dpi": (300, 200)}
    if name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    elif name == "TIFF":
        options["exif"] = Image.Exif()
        options["exif"].load(b"Exif\0\0" + block)
        options["exif"][700] = packet
    else:
        options["xmp"] = packet
    if name in ("WEBP", "AVIF"):
        del options["dpi"]
    found = read(by_pillow(SMOOTH, name, **options)).metadata
    (tags, taken, place), (expected, expected_taken, expected_place) = facts(found.exif), facts(block)
    assert {tag: tags.get(tag) for tag in (0x10F, 0x132)} == {tag: expected[tag] for tag in (0x10F, 0x132)}
    assert taken == expected_taken
    assert place == expected_place
    assert found.icc == icc
    assert found.xmp == packet
    assert found.dpi == (pytest.approx((300, 200), abs=0.01) if "dpi" in options else None)


def test_the_orientation_in_xmp_is_reset_as_well(read):
    packet = b'<rdf:Description tiff:Orientation="6"/><tiff:Orientation>8</tiff:Orientation>'
    found = read(by_pillow(SMOOTH, "JPEG", xmp=packet))
    assert found.metadata.xmp == b'<rdf:Description tiff:Orientation="1"/><tiff:Orientation>1</tiff:Orientation>'


def test_damaged_exif_costs_the_exif_and_not_the_picture(read):
    picture = read(by_pillow(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert picture.pixels.shape == SMOOTH.shape
    assert picture.metadata.exif is None


@pytest.mark.parametrize("orientation", [0, 9, 90])
def test_an_orientation_that_does_not_exist_does_not_matter(read, orientation):
    picture = read(by_pillow(SMOOTH, "PNG", exif=oriented(orientation)))
    assert np.array_equal(picture.pixels, SMOOTH)
    assert facts(picture.metadata.exif)[0][0x112] == 1


def test_the_thumbnail_of_the_picture_as_it_was_is_left_out(read):
    found = Image.Exif()
    found[0x10F] = "Maker"
    found.get_ifd(1).update({0x201: 0, 0x202: 4})
    block = read(by_pillow(SMOOTH, "JPEG", exif=found.tobytes())).metadata.exif
    again = Image.Exif()
    again.load(b"Exif\0\0" + block)
    assert again[0x10F] == "Maker"
    assert not again.get_ifd(1)


# Files that are not there, not whole, or not images.


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "x.png").touch()
    assert refusal(tmp_path / "x.png").endswith(": the file is empty")
    (tmp_path / "x.png").write_text("<html>404</html>" * 20)
    assert ": not an image of a known format (PNG, JPEG," in refusal(tmp_path / "x.png")


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "x.png").mkdir()
    assert refusal(tmp_path / "x.png").endswith(": not a regular file")
    os.mkfifo(tmp_path / "fifo.png")
    assert refusal(tmp_path / "fifo.png").endswith(": not a regular file")
    assert refusal("/dev/null").endswith(": not a regular file")


def test_links_are_followed_to_a_file_or_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(FILES["png"])
    (tmp_path / "link.png").symlink_to("x.png")
    assert read_picture(tmp_path / "link.png").format == "PNG"
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    assert refusal(tmp_path / "dangling.png").endswith(": a link to a file that is not there")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "symbolic links" in refusal(tmp_path / "loop.png")


def test_a_missing_file_is_refused(tmp_path):
    assert "x.png: not there; check the path" in refusal(tmp_path / "x.png")
    assert "a web address; download the image" in refusal("https://example.org/x.png")
    assert refusal(tmp_path / ("x" * 300)).startswith(str(tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(FILES["png"])
    (tmp_path / "x.png").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize(
    "name",
    [
        b"two words.png",
        b'it\'s "quoted".png',
        b"two\nlines.png",
        b"-n.png",
        b"--help",
        b"\xff\xfe.png",
        "ß日本.png".encode(),
        b"x" * 251 + b".png",
        b"\x1b[31mred.png",
    ],
)
def test_files_of_any_name_are_read_or_refused_in_one_line(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(FILES["png"])
    assert np.array_equal(read_picture(path).pixels, SMOOTH)
    path.write_bytes(FILES["png"][:-100])
    assert "truncated" in refusal(path)
    assert "\x1b" not in refusal(path)


# Sizes.


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (70_000, 10), (10, 70_000)])
@pytest.mark.parametrize("deep", [False, True])
def test_sizes_at_the_edge_are_read(read, size, deep):
    samples = RNG.integers(0, 65536 if deep else 256, (*size, 3)).astype(np.uint16)
    picture = read(png(samples, 2, depth=16 if deep else 8))
    assert np.array_equal(picture.pixels, samples)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_the_limit_is_ours_and_not_pillows(read, monkeypatch, name):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    assert read(FILES[name]).pixels.shape[:2] == (48, 64)
    with pytest.raises(ImageError, match=r"64x48 is more than the limit of 0\.003071 megapixels"):
        read(FILES[name], max_pixels=64 * 48 - 1)
    assert Image.MAX_IMAGE_PIXELS == 16


def test_an_animation_of_16_bits_is_read_without_its_animation(read):
    control = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, 23, 19, 0, 0, 1, 1, 0, 0)
    )
    data = png(RGB16, 2, extra=control)
    broken = data[:-12] + chunk(b"fcTL", bytes(3)) + chunk(b"fdAT", b"\0" * 50) + data[-12:]
    picture = read(broken)
    assert np.array_equal(picture.pixels, RGB16)
    assert picture.notes == ("the first of 2 frames",)


def test_texts_of_any_length_do_not_matter(read):
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))
    assert np.array_equal(read(png(SMOOTH, 2, depth=8, extra=text)).pixels, SMOOTH)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("name", FILES)
def test_the_header_tells_what_is_read(tmp_path, name, orientation):
    data = FILES[name] if orientation == 1 else by_pillow(SMOOTH, "JPEG", exif=b"Exif\0\0" + exif(orientation))
    (tmp_path / "x").write_bytes(data)
    header, picture = probe(tmp_path / "x"), read_picture(tmp_path / "x")
    assert (header.height, header.width, header.channels) == picture.pixels.shape
    assert (header.dtype, header.format) == (picture.pixels.dtype, picture.format)


@pytest.mark.parametrize("name", ["png16", "tiff_tiles", "jpeg", "webp", "ppm"])
def test_arrays_of_a_workspace_are_filled_block_by_block(tmp_path, monkeypatch, name):
    monkeypatch.setattr("swinir.image_io.decoders.BLOCK", 1000)
    monkeypatch.setattr("swinir.image_io.canvas.BLOCK", 1000)
    (tmp_path / "x").write_bytes(FILES[name])
    found = read_picture(tmp_path / "x", workspace=Workspace(tmp_path, memory_limit=0)).pixels
    assert isinstance(found.base, mmap.mmap)
    assert np.array_equal(found, read_picture(tmp_path / "x").pixels)


def test_suffixes_of_all_formats_are_listed():
    assert {".png", ".jpg", ".tif", ".webp", ".avif", ".heic", ".gif", ".bmp", ".ppm"} <= set(EXTENSIONS)

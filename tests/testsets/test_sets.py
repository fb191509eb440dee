"""The sets as rows and by the names of their files, and what is found of them by names."""

import csv
import hashlib
import re
from pathlib import Path, PurePosixPath

import pytest
from photographs import TRIO, photographs, write_set

from swinir.image_io.image import read, write
from swinir.testsets import BENCHMARK_SETS, BenchmarkSet, find_set
from swinir.testsets.pairs import reduced, rounded_once
from swinir.testsets.sets import known_files, known_images, pixel_hash, presence_of
from swinir.testsets.sources import role_of, set_of

README = (Path(__file__).parents[2] / "testsets" / "README.md").read_text(encoding="utf-8")
# From the paper: sets, their images, and what is measured at which scales.
IMAGES = {
    "Set5": 5,
    "Set14": 14,
    "BSD100": 100,
    "Urban100": 100,
    "Manga109": 109,
    "DIV2K-val": 100,
    "Set12": 12,
    "BSD68": 68,
    "CBSD68": 68,
    "Kodak24": 24,
    "McMaster": 18,
    "classic5": 5,
    "LIVE1": 29,
    "RealSRSet+5images": 25,
}


def readme_rows(heading):
    """The cells of a table of the README, by set."""
    table = README.split(f"| {heading}", 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in cells}


def test_the_table_has_the_papers_sets():
    assert {name: row.images for name, row in BENCHMARK_SETS.items()} == IMAGES
    assert {name for name, row in BENCHMARK_SETS.items() if row.gray} == {"Set12", "BSD68", "classic5"}
    assert [name for name, row in BENCHMARK_SETS.items() if not row.reference] == ["RealSRSet+5images"]


@pytest.mark.parametrize("row", BENCHMARK_SETS.values(), ids=lambda row: row.name)
def test_names_and_known_files_are_as_many_as_the_set_has(row):
    assert len(set(row.stems)) in (0, row.images)
    assert len(known_images(row.name)) in (0, row.images)
    assert len({file.pixels for file in known_images(row.name)}) == len(known_images(row.name))
    assert all(file.channels == 1 for file in known_images(row.name)) or not row.gray


@pytest.mark.parametrize("row", BENCHMARK_SETS.values(), ids=lambda row: row.name)
def test_the_readme_says_what_the_table_says(row):
    images, tasks, metrics = readme_rows("set | images | for | measured |")[row.name]
    color = "gray" if row.gray else "color"
    assert images.split(" and ")[0] == f"{row.images}, {color}"
    assert (tasks, metrics) == (row.tasks, row.metrics)
    source, terms = readme_rows("set | from | terms |")[row.name]
    assert (source, terms) == (row.source, row.terms)


def test_berkeleys_sets_share_their_pictures():
    color, large = BENCHMARK_SETS["CBSD68"], BENCHMARK_SETS["BSD100"]
    assert set(color.stems) < set(large.stems)
    assert all(re.fullmatch(r"\d{4,6}", stem) for stem in large.stems)


def test_the_hashes_are_those_of_the_public_files(public_folder):
    root = public_folder("testsets")
    with (root / "MANIFEST.csv").open(newline="") as file:
        files = {row["file"].removeprefix("testsets/"): row["sha256"] for row in csv.DictReader(file)}
    published = {name: digest for name, digest in files.items() if name.split("/")[0] in known_files()}
    ours = {f"{name}/{file.file}": file for name, files in known_files().items() for file in files}
    assert {name: file.sha256 for name, file in ours.items()} == published
    for name in ("Set5/HR/bird.png", "McMaster/1.tif", "classic5/lena.bmp"):
        image = read(root / name)
        assert (ours[name].height, ours[name].width, ours[name].channels) == image.shape
        assert (ours[name].pixels, ours[name].bytes) == (pixel_hash(image), (root / name).stat().st_size)


def test_bsd68_is_cbsd68_by_matlabs_formula(public_folder):
    from swinir.testsets.conversions import GRAY_CONVERSIONS, MATLAB_GRAY

    root = public_folder("testsets")
    gray = {file.stem: file.pixels for file in known_images("BSD68")}
    colors = sorted((root / "CBSD68").iterdir(), key=lambda path: path.stem)
    for stem, path in list(zip(sorted(gray), colors, strict=True))[::7]:
        assert pixel_hash(GRAY_CONVERSIONS[MATLAB_GRAY](read(path))) == gray[stem]


def test_the_pixel_hash_tells_shapes_and_values_apart():
    image = photographs()["coffee"]
    plain = hashlib.sha256(b"121x146x3\n" + image.tobytes()).hexdigest()
    assert pixel_hash(image) == plain
    assert len({pixel_hash(i) for i in (image, image[..., :1], image[..., ::-1], image.reshape(146, 121, 3))}) == 4


@pytest.mark.parametrize(
    ("given", "name"),
    [("set5", "Set5"), ("B100", "BSD100"), ("div2k_valid_HR", "DIV2K-val"), ("Classic-5", "classic5")],
)
def test_a_set_is_found_by_names_in_use(given, name):
    assert find_set(given).name == name


def test_an_unknown_set_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"unknown test set 'urbn100'; did you mean Urban100\?"):
        find_set("urbn100")


@pytest.mark.parametrize(
    ("path", "kind", "name", "scale"),
    [
        ("HR/baby.png", "gt", "baby", 1),
        ("baby_GT.bmp", "gt", "baby", 1),
        ("Set5/GTmod12/baby.png", "gt", "baby", 1),
        ("image_SRF_4/img_001_SRF_4_HR.png", "gt", "img_001", 1),
        ("image_SRF_4/img_001_SRF_4_LR.png", "lq", "img_001", 4),
        ("image_SRF_4/img_001_SRF_4_SelfExSR_SR.png", "other", "img_001_SRF_4_SelfExSR_SR", 1),
        ("LR_bicubic/X2/babyx2.png", "lq", "baby", 2),
        ("babyx2.png", "lq", "baby", 2),
        ("LRbicx4/baby.png", "lq", "baby", 4),
        ("DIV2K_valid_LR_bicubic_X3/0801x3.png", "lq", "0801", 3),
        ("DIV2K_valid_LR_mild/0801x4m.png", "other", "0801x4m", 1),
        ("DIV2K_valid_HR/0801.png", "gt", "0801", 1),
        ("BSDS300/images/test/101085.jpg", "gt", "101085", 1),
        ("CBSD68/noisy25/101085.png", "other", "101085", 1),
        ("CBSD68/original_png/101085.png", "gt", "101085", 1),
        ("LR/baby.png", "other", "baby", 1),
    ],
)
def test_a_path_tells_what_a_file_is(path, kind, name, scale):
    role = role_of(PurePosixPath(path))
    assert (role.kind, role.name, role.scale) == (kind, name, scale)
    assert bool(role.reason) == (kind == "other")


def test_the_nearest_folder_of_a_set_says_whose_a_file_is():
    assert set_of(PurePosixPath("benchmark/B100/HR/3096.png")) is BENCHMARK_SETS["BSD100"]
    assert set_of(PurePosixPath("Set14/Set5/baby.png")) is BENCHMARK_SETS["Set5"]
    assert set_of(PurePosixPath("images/test/3096.png")) is None


def test_stock_is_taken_of_sets_with_and_without_a_folder_for_ground_truths(tmp_path):
    assert presence_of(TRIO, tmp_path).state == "missing"
    folder = write_set(tmp_path)
    whole = presence_of(TRIO, tmp_path)
    assert (whole.state, whole.folder, whole.complete_scales) == ("present", folder / "HR", (2, 3))
    (folder / "LR_bicubic/X3/coffeex3.png").unlink()
    (folder / "HR/chelsea.png").unlink()
    part = presence_of(TRIO, tmp_path)
    assert (part.state, part.complete_scales) == ("incomplete (2 of 3)", (2,))
    assert {scale: len(files) for scale, files in part.low_quality.items()} == {2: 2, 3: 1}
    flat = BenchmarkSet("Flat", 2)
    (tmp_path / "Flat").mkdir()
    for name, image in photographs().items():
        write(tmp_path / "Flat" / f"{name}.png", image)
    assert presence_of(flat, tmp_path).state == "too many (3 of 2)"
    assert flat.gt_folder(tmp_path) == tmp_path / "Flat"


def test_a_reduced_image_is_cropped_at_the_right_and_bottom_first():
    image = photographs()["coffee"]
    assert reduced(image, 3).shape == (40, 48, 3)
    assert pixel_hash(reduced(image, 3)) == pixel_hash(reduced(image[:120, :144], 3))
    assert pixel_hash(reduced(image, 8)) == pixel_hash(rounded_once(image[:120, :144], 8))
    with pytest.raises(ValueError, match="146x121 is too small to be reduced by 122"):
        reduced(image, 122)

"""The benchmark sets: rows, known files, and their state in a folder."""

import csv
import hashlib
import re
from pathlib import Path

import pytest
from photographs import TRIO, photographs, write_images, write_set

from swinir.image_io.image import read
from swinir.testsets import BENCHMARK_SETS, BenchmarkSet, find_set
from swinir.testsets.conversions import GRAY_CONVERSIONS, MATLAB_GRAY
from swinir.testsets.pairs import reduced, rounded_once
from swinir.testsets.sets import known_files, known_images, pixel_hash, presence_of

README = (Path(__file__).parents[2] / "testsets" / "README.md").read_text(encoding="utf-8")
IMAGES = {  # from the paper, and of CC15
    "Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100, "Manga109": 109, "DIV2K-val": 100, "Set12": 12,
    "BSD68": 68, "CBSD68": 68, "Kodak24": 24, "McMaster": 18, "classic5": 5, "LIVE1": 29, "RealSRSet+5images": 25,
    "CC15": 15,
}  # fmt: skip


def readme_rows(heading):
    """The cells of a table of the README, by set."""
    table = README.split(f"| {heading}", 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in cells}


def test_the_rows_are_the_papers_sets_and_cc15():
    assert {name: row.images for name, row in BENCHMARK_SETS.items()} == IMAGES
    assert {name for name, row in BENCHMARK_SETS.items() if row.gray} == {"Set12", "BSD68", "classic5"}
    assert [name for name, row in BENCHMARK_SETS.items() if not row.reference] == ["RealSRSet+5images"]
    color, large = BENCHMARK_SETS["CBSD68"], BENCHMARK_SETS["BSD100"]
    assert set(color.stems) < set(large.stems)
    assert all(re.fullmatch(r"\d{4,6}", stem) for stem in large.stems)


@pytest.mark.parametrize("row", BENCHMARK_SETS.values(), ids=lambda row: row.name)
def test_names_hashes_and_readme_agree_with_the_row(row):
    known = known_images(row.name)
    assert len(set(row.stems)) in (0, row.images)
    assert len(known) == len({file.pixels for file in known})
    assert len(known) in (0, row.images)
    assert all(file.channels == 1 for file in known) or not row.gray
    images, tasks, metrics = readme_rows("set | images | for | measured |")[row.name]
    assert images.split(" and ")[0] == f"{row.images}, {'gray' if row.gray else 'color'}"
    assert (tasks, metrics) == (row.tasks, row.metrics)
    assert readme_rows("set | from | terms |")[row.name] == [row.source, row.terms]


def test_the_hashes_are_those_of_the_public_files(public_folder):
    root = public_folder("testsets")
    with (root / "MANIFEST.csv").open(newline="") as file:
        published = {row["file"].removeprefix("testsets/"): row["sha256"] for row in csv.DictReader(file)}
    published = {name: digest for name, digest in published.items() if name.split("/")[0] in known_files()}
    ours = {f"{name}/{file.file}": file for name, files in known_files().items() for file in files}
    assert {name: file.sha256 for name, file in ours.items()} == published
    for name in ("Set5/HR/bird.png", "McMaster/1.tif", "classic5/lena.bmp"):
        image = read(root / name)
        assert (ours[name].height, ours[name].width, ours[name].channels) == image.shape
        assert (ours[name].pixels, ours[name].bytes) == (pixel_hash(image), (root / name).stat().st_size)


def test_bsd68_is_cbsd68_by_matlabs_formula(public_folder):
    gray = {file.stem: file.pixels for file in known_images("BSD68")}
    colors = sorted((public_folder("testsets") / "CBSD68").iterdir(), key=lambda path: path.stem)
    for stem, path in list(zip(sorted(gray), colors, strict=True))[::7]:
        assert pixel_hash(GRAY_CONVERSIONS[MATLAB_GRAY](read(path))) == gray[stem]


def test_the_pixel_hash_distinguishes_shapes_and_values():
    image = photographs()["coffee"]
    assert pixel_hash(image) == hashlib.sha256(b"121x146x3\n" + image.tobytes()).hexdigest()
    assert len({pixel_hash(i) for i in (image, image[..., :1], image[..., ::-1], image.reshape(146, 121, 3))}) == 4


def test_a_set_is_found_by_names_in_use():
    for given, name in {
        "set5": "Set5",
        "B100": "BSD100",
        "div2k_valid_HR": "DIV2K-val",
        "Classic-5": "classic5",
    }.items():
        assert find_set(given).name == name
    with pytest.raises(ValueError, match=r"unknown test set 'urbn100'; did you mean Urban100\?"):
        find_set("urbn100")


def test_the_state_of_a_set_follows_from_its_files(tmp_path):
    assert presence_of(TRIO, tmp_path).state == "missing"
    folder = write_set(tmp_path)
    whole = presence_of(TRIO, tmp_path)
    assert (whole.state, whole.folder, whole.complete_scales) == ("present", folder / "HR", (2, 3))
    (folder / "LR_bicubic/X3/coffeex3.png").unlink()
    (folder / "HR/chelsea.png").unlink()
    part = presence_of(TRIO, tmp_path)
    assert (part.state, part.complete_scales) == ("incomplete (2 of 3)", (2,))
    assert {scale: len(files) for scale, files in part.low_quality.items()} == {2: 2, 3: 1}
    write_images(tmp_path / "Flat")
    flat = presence_of(BenchmarkSet("Flat", 2), tmp_path)
    assert (flat.state, flat.folder) == ("too many (3 of 2)", tmp_path / "Flat")


def test_a_reduced_image_is_cropped_at_the_right_and_bottom_first():
    image = photographs()["coffee"]
    assert reduced(image, 3).shape == (40, 48, 3)
    assert pixel_hash(reduced(image, 3)) == pixel_hash(reduced(image[:120, :144], 3))
    assert pixel_hash(reduced(image, 8)) == pixel_hash(rounded_once(image[:120, :144], 8))
    with pytest.raises(ValueError, match="146x121 is too small to be reduced by 122"):
        reduced(image, 122)

"""Checks of sets: planted faults are found and named."""

import shutil

import cv2
import numpy as np
import pytest
from photographs import GRAY, TRIO, add_hashes, add_sets, gray_photographs, photographs, write_set
from PIL import Image

from swinir.image_io.image import to_gray, write
from swinir.testsets import BenchmarkSet
from swinir.testsets.check import check_set
from swinir.testsets.pairs import reduced, rounded_once

GT, X2, X3 = "HR/coffee.png", "LR_bicubic/X2/coffeex2.png", "LR_bicubic/X3/coffeex3.png"
COFFEE = photographs()["coffee"]


@pytest.fixture
def folder(tmp_path):
    """The folder of a complete and correct set."""
    return write_set(tmp_path)


@pytest.fixture
def hashes(monkeypatch):
    """The pixels of the sets are known."""
    add_hashes(monkeypatch)


def findings(root, row=TRIO):
    """(level, file, text) of each finding."""
    return [(f.level, f.file.removeprefix(f"{row.name}/"), f.text) for f in check_set(row, root).findings]


def jpeg(image, quality):
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


PLANTED = [
    (X2, cv2.resize(COFFEE[:120], (73, 60), interpolation=cv2.INTER_CUBIC), "but by OpenCV's (or PyTorch's) bicubic"),
    (X2, reduced(np.roll(COFFEE[:120], 1, 1), 2), "is shifted by 1 to the right (pixels of the ground truth)"),
    (X2, jpeg(reduced(COFFEE, 2), 30), "was compressed by JPEG at quality 30"),
    (X2, reduced(photographs()["chelsea"], 2), "shows another scene than its ground truth"),
    (X2, COFFEE, "it is not reduced, or was enlarged again"),
    (X2, to_gray(reduced(COFFEE, 2)), "the low-quality image is gray, the ground truth in colors"),
    (X3, reduced(COFFEE, 3)[..., ::-1], "has its channels in the order BGR"),
    (X3, reduced(COFFEE, 2), "73x60 pixels, where 146x121 at scale 3 makes 48x40; its scale is 2"),
    (GT, COFFEE[..., ::-1], "has its channels in the order BGR"),
    (GT, np.rot90(COFFEE), "is turned by 90 degrees to the left"),
    (GT, to_gray(COFFEE), "gray where the set has colors"),
    (GT, jpeg(COFFEE, 75), "was compressed by JPEG at quality 75"),
    (GT, COFFEE[:120, :144], "144x120 pixels, where the set has 146x121"),
    (GT, photographs(90, 90)["coffee"], "90x90 pixels, where the set has 146x121"),
]


@pytest.mark.parametrize(("file", "image", "text"), PLANTED, ids=[text for *_, text in PLANTED])
def test_a_planted_fault_is_found_and_named(tmp_path, folder, hashes, file, image, text):
    write(folder / file, image)
    faults = [(name, said) for level, name, said in findings(tmp_path) if level == "fault"]
    assert any(text in said for _, said in faults), faults
    assert {name for name, _ in faults} == {file}


def test_a_correct_set_has_no_findings(tmp_path, folder, hashes):
    report = check_set(TRIO, tmp_path)
    assert report.verdict == "ok: 3 images, 3 as known by hash; X2 X3 by MATLAB's bicubic"
    assert report.findings == ()


def test_duplicates_and_truncated_files_are_faults(tmp_path, folder, hashes):
    shutil.copy(folder / GT, folder / "HR/chelsea.png")
    astronaut = folder / "HR/astronaut.png"
    astronaut.write_bytes(astronaut.read_bytes()[:-400])
    found = findings(tmp_path)
    assert ("fault", GT, "the same image as Trio/HR/chelsea.png") in found
    assert ("fault", "HR/astronaut.png") in [finding[:2] for finding in found]


def test_a_faulty_ground_truth_without_known_hashes_is_found_by_its_pairs(tmp_path, folder):
    write(folder / GT, COFFEE[..., ::-1])
    assert {name for _, name, text in findings(tmp_path) if "BGR" in text} == {X2, X3}


def test_missing_and_superfluous_files_are_counted(tmp_path, folder, hashes):
    (folder / GT).unlink()
    (folder / "LR_bicubic/X2/chelseax2.png").unlink()
    found = findings(tmp_path)
    assert ("fault", "", "1 of 3 images are missing: coffee") in found
    assert ("fault", "LR_bicubic/X2", "1 of 2 low-quality images are missing") in found
    assert ("note", "LR_bicubic/X3", "1 files belong to no ground truth (coffeex3.png); they are not used") in found


def test_jpeg_is_a_fault_as_a_format_and_a_note_by_its_traces(tmp_path, folder):
    lossless = BenchmarkSet("Trio", 3, scales=(2, 3), source="scikit-image")
    write(folder / GT, jpeg(COFFEE, 75))
    assert ("note", GT, "was compressed by JPEG at quality 75") in findings(tmp_path, lossless)
    Image.fromarray(COFFEE).save(folder / "HR/coffee.jpg", quality=75)
    (folder / GT).unlink()
    found = findings(tmp_path, lossless)
    assert ("fault", "HR/coffee.jpg", "a JPEG file at quality 75, where the set is lossless") in found


def test_another_rounding_is_a_note(tmp_path, folder):
    write(folder / X2, rounded_once(COFFEE[:120], 2))
    ((level, file, text),) = findings(tmp_path)
    assert (level, file, text.split(":")[0]) == ("note", X2, "is MATLAB's bicubic, rounded once")


def test_a_gray_image_with_three_channels_is_harmless(tmp_path, hashes):
    folder = write_set(tmp_path, GRAY, gray_photographs())
    write(folder / "coffee.png", np.repeat(gray_photographs()["coffee"], 3, axis=2))
    assert findings(tmp_path, GRAY) == [("note", "coffee.png", "a gray image saved with three channels")]


def test_colors_in_a_gray_set_are_a_fault_and_the_conversion_is_named(tmp_path, hashes):
    folder = write_set(tmp_path, GRAY, gray_photographs())
    write(folder / "coffee.png", COFFEE)
    (fault,) = check_set(GRAY, tmp_path).faults
    assert (fault.text, fault.way_out) == ("colors where the set is gray", "MATLAB's rgb2gray gives the set's image")


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("BT.601 luma in [16, 235]", (16 + COFFEE @ np.array([65.481, 128.553, 24.966]) / 255).round()[..., None]),
        ("OpenCV's conversion", cv2.cvtColor(COFFEE, cv2.COLOR_RGB2GRAY)[..., None]),
        # Pillow's documented formula, in its fixed point
        ("Pillow's convert", ((COFFEE.astype(int) @ np.array([19595, 38470, 7471]) + 0x8000) >> 16)[..., None]),
        ("the green channel", COFFEE[..., 1:2]),
    ],
)
def test_another_gray_conversion_is_named_if_the_color_set_is_present(tmp_path, hashes, monkeypatch, name, image):
    row = BenchmarkSet("GrayTrio", 3, gray=True, source="scikit-image", luma_of="Trio")
    add_sets(monkeypatch, TRIO)
    folder = write_set(tmp_path, row, gray_photographs())
    write_set(tmp_path)
    write(folder / "coffee.png", image.astype(np.uint8))
    (fault,) = check_set(row, tmp_path).faults
    assert f"made of the color image by {name}" in fault.text


def test_the_public_sets_are_correct(public_folder):
    from swinir.testsets import BENCHMARK_SETS

    root = public_folder("testsets")
    reports = [check_set(BENCHMARK_SETS[name], root) for name in ("Set5", "Set14", "classic5", "McMaster")]
    assert reports[0].verdict == "ok: 5 images, 5 as known by hash; X2 X3 X4 X8 by MATLAB's bicubic"
    assert all(report.verdict.startswith("ok: ") for report in reports)

"""`swinir data`: sets listed, laid out from whatever a user has, and checked; planted faults are found and named."""

import hashlib
import json
import shutil
import tarfile
import zipfile

import cv2
import numpy as np
import pytest
from photographs import GRAY, TRIO, known, photographs, write_set
from PIL import Image

from swinir.cli.main import main
from swinir.image_io.image import read, to_gray, write
from swinir.testsets import BENCHMARK_SETS, BenchmarkSet
from swinir.testsets.conversions import GRAY_CONVERSIONS, MATLAB_GRAY
from swinir.testsets.pairs import reduced, rounded_once
from swinir.testsets.sets import known_files, pixel_hash


@pytest.fixture(autouse=True)
def _trio(monkeypatch):
    monkeypatch.setitem(BENCHMARK_SETS, TRIO.name, TRIO)
    monkeypatch.setitem(BENCHMARK_SETS, GRAY.name, GRAY)


@pytest.fixture
def hashes(monkeypatch):
    """The sets' pixels are known."""
    for row, pictures in ((TRIO, photographs()), (GRAY, gray_photographs())):
        monkeypatch.setitem(known_files(), row.name, known(row, pictures))


def gray_photographs():
    return {name: GRAY_CONVERSIONS[MATLAB_GRAY](image) for name, image in photographs().items()}


@pytest.fixture
def run(capsys, tmp_path):
    """Exit code and lines of a subcommand of `swinir data`, for the sets under tmp_path / "sets"."""

    def call(*words):
        code = main(["data", *map(str, words), "--testsets", str(tmp_path / "sets")])
        out, err = capsys.readouterr()
        return code, (out + err).splitlines()

    return call


@pytest.fixture
def folder(tmp_path):
    """The set, whole and right."""
    return write_set(tmp_path / "sets")


def state(folder):
    """Contents and times of all files."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# list


def test_the_list_says_what_is_there(run, folder):
    (folder / "LR_bicubic" / "X3" / "coffeex3.png").unlink()
    code, lines = run("list")
    line = next(line for line in lines if line.startswith("Trio"))
    assert code == 0
    assert "present" in line
    assert "X2 X3 (2 of 3)" in line
    assert "missing" in next(line for line in lines if line.startswith("Urban100"))
    (folder / "HR" / "coffee.png").unlink()
    assert any(line.startswith("Trio") and "incomplete (2 of 3)" in line for line in run("list")[1])


def test_the_list_as_json_has_every_field(run, folder):
    facts = {entry["name"]: entry for entry in json.loads("\n".join(run("list", "--json")[1]))}
    assert facts["Trio"]["state"] == "present"
    assert facts["Trio"]["low_quality"] == {"2": 3, "3": 3}
    assert facts["Manga109"]["terms"] == "academic use; must not be passed on"


# prepare


def test_low_quality_images_are_made_for_what_stands_there(run, tmp_path, folder):
    expected = {path: pixel_hash(read(path)) for path in folder.rglob("LR_bicubic/*/*.png")}
    shutil.rmtree(folder / "LR_bicubic")
    flat = tmp_path / "sets" / "Trio"
    for path in (flat / "HR").iterdir():
        path.rename(flat / path.name)
    (flat / "HR").rmdir()
    code, lines = run("prepare", "Trio")
    assert (code, lines) == (0, [f"Trio: 0 copied, 6 low-quality images made, 0 existed; present in {flat}"])
    assert {path: pixel_hash(read(path)) for path in folder.rglob("LR_bicubic/*/*.png")} == expected


def test_the_second_run_changes_nothing(run, tmp_path, folder):
    source = shutil.copytree(folder, tmp_path / "source")
    shutil.rmtree(folder)
    assert run("prepare", "Trio", source)[0] == 0
    before = state(tmp_path / "sets")
    code, lines = run("prepare", "Trio", source)
    assert (code, lines[-1].split(";")[0]) == (0, "Trio: 0 copied, 0 low-quality images made, 9 existed")
    assert state(tmp_path / "sets") == before


def test_a_run_goes_on_where_it_was_stopped(run, tmp_path, folder):
    source = shutil.copytree(folder, tmp_path / "source")
    before = state(folder)
    for name in ("HR/coffee.png", "LR_bicubic/X2/chelseax2.png", "LR_bicubic/X3/coffeex3.png"):
        (folder / name).unlink()
    assert "3 copied, 0 low-quality images made, 6 existed" in run("prepare", "Trio", source)[1][-1]
    after = state(folder)
    assert {name: digest for name, (digest, _) in after.items()} == {
        name: digest for name, (digest, _) in before.items()
    }


LAYOUTS = {
    "flat": "{name}.png",
    "suffix": "deep/{name}_GT.png",
    "folders": "Trio/GTmod12/{name}.png",
    "selfexsr": "image_SRF_2/{name}_SRF_2_HR.png",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_any_layout_in_any_container_becomes_the_sets_own(run, tmp_path, layout, kind):
    source = tmp_path / "source"
    for name, image in photographs().items():
        path = source / layout.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, image)
    contents = {path.read_bytes() for path in source.rglob("*.png")}
    if kind != "folder":
        made = shutil.make_archive(str(tmp_path / "packed"), "gztar" if kind == "tar" else "zip", source)
        source = made
    code, lines = run("prepare", "trio", source)
    assert code == 0, lines
    truths = tmp_path / "sets" / "Trio" / "HR"
    assert sorted(path.name for path in truths.iterdir()) == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert {path.read_bytes() for path in truths.iterdir()} == contents
    assert run("check", "Trio")[0] == 0


def test_low_quality_files_are_taken_too_and_others_left_out_with_reasons(run, tmp_path):
    source = tmp_path / "source" / "image_SRF_2"
    source.mkdir(parents=True)
    for name, image in photographs().items():
        write(source / f"{name}_SRF_2_HR.png", image)
        write(source / f"{name}_SRF_2_LR.png", reduced(image, 2))
        write(source / f"{name}_SRF_2_nearest.png", image)
    write(source / "lone_SRF_2_LR.png", image)
    (source / "broken_SRF_2_HR.png").write_bytes((source / "coffee_SRF_2_HR.png").read_bytes()[:500])
    code, lines = run("prepare", "Trio", source.parent)
    assert code == 1  # one file could not be read
    assert any(
        line.startswith("not used, the output of a method: 3 (image_SRF_2/astronaut_SRF_2_nearest") for line in lines
    )
    assert any("without its ground truth: 1" in line for line in lines)
    assert any(line.startswith("image_SRF_2/broken_SRF_2_HR.png: ") for line in lines)
    assert "6 copied, 3 low-quality images made" in "".join(lines)


def test_known_pixels_give_a_file_its_name_in_any_format(run, tmp_path, hashes):
    source = tmp_path / "source"
    source.mkdir()
    for n, image in enumerate(photographs().values()):
        Image.fromarray(image).save(source / f"img_{n:03d}.{('bmp', 'tif', 'png')[n]}")
    write(source / "holiday.png", photographs(90, 90)["coffee"])
    code, lines = run("prepare", "Trio", source)
    assert code == 0
    assert any(
        line.startswith("not used, no image of Trio has its name or its pixels: 1 (holiday.png)") for line in lines
    )
    truths = tmp_path / "sets" / "Trio" / "HR"
    assert sorted(path.name for path in truths.iterdir()) == ["astronaut.bmp", "chelsea.tif", "coffee.png"]
    assert run("check", "Trio")[0] == 0


def test_of_a_set_with_known_names_other_files_are_not_even_decoded(run, tmp_path, monkeypatch):
    row = BenchmarkSet("Trio", 3, scales=(2,), source="scikit-image", names=tuple(photographs()), from_jpeg=True)
    monkeypatch.setitem(BENCHMARK_SETS, row.name, row)
    source = tmp_path / "BSDS300" / "images"
    for part in ("train", "test"):
        (source / part).mkdir(parents=True)
    for name, image in photographs().items():
        Image.fromarray(image).save(source / "test" / f"{name}.jpg")
    (source / "train" / "2092.jpg").write_bytes(b"no image at all")
    code, lines = run("prepare", "Trio", tmp_path / "BSDS300")
    assert code == 0
    assert lines[0] == "not used, no image of Trio has its name: 1 (images/train/2092.jpg)"
    assert sorted(p.name for p in (tmp_path / "sets/Trio/LR_bicubic/X2").iterdir())[0] == "astronautx2.png"
    assert run("check", "Trio")[0] == 0


def test_pictures_above_the_limit_of_pixels_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("swinir.testsets.prepare.MAX_PIXELS", 100 * 100)
    source = tmp_path / "source"
    source.mkdir()
    for name, image in photographs(90, 90).items():
        write(source / f"{name}.png", image)
    write(source / "coffee.png", photographs()["coffee"])
    code, lines = run("prepare", "Trio", source)
    assert code == 1
    assert any(line.startswith("coffee.png: ") and "146" in line for line in lines)
    assert "incomplete (2 of 3)" in "".join(lines)


def test_names_from_an_archive_cannot_write_to_the_terminal(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, image in photographs().items():
            archive.writestr(f"{name}.png", cv2.imencode(".png", image)[1].tobytes())
        archive.writestr("noisy\x1b[2J/coffee.png", b"")
    code, lines = run("prepare", "Trio", tmp_path / "x.zip")
    assert code == 0
    assert not any("\x1b" in line for line in lines)
    assert "x1b[2J" in lines[0]


def test_what_stands_there_is_never_overwritten(run, tmp_path, folder):
    source = tmp_path / "source"
    source.mkdir()
    write(source / "coffee.png", photographs()["chelsea"])
    before = state(folder)
    code, lines = run("prepare", "Trio", source)
    assert code == 0
    assert "has another image of its name, which is kept: 1 (coffee.png)" in lines[0]
    assert state(folder) == before


def test_the_best_of_several_files_of_a_name_is_taken(run, tmp_path):
    source = tmp_path / "source"
    for name, image in photographs().items():
        for part, crop in (("image_SRF_2", 2), ("image_SRF_4", 4)):
            (source / part).mkdir(parents=True, exist_ok=True)
            height, width = (side // crop * crop for side in image.shape[:2])
            write(source / part / f"{name}_SRF_{crop}_HR.png", image[:height, :width])
    assert run("prepare", "Trio", source)[0] == 0
    assert read(tmp_path / "sets/Trio/HR/coffee.png").shape == (120, 146, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "Nonsense"], "unknown test set 'Nonsense'"),
        (["prepare", "Set12"], "Set12 has no low-quality images to make"),
        (["prepare", "Trio"], "no images in"),
        (["prepare", "Trio", "/nowhere/at/all"], "no such folder or archive"),
        (["check", "Trio"], "folder not found"),
    ],
)
def test_wrong_usage_is_a_line_and_exit_code_2(run, words, message):
    code, lines = run(*words)
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


def test_a_hostile_archive_is_refused_before_anything_is_written(run, tmp_path, folder):
    shutil.rmtree(folder)
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("coffee.png", b"x")
        archive.writestr("../../escaped.png", b"x")
    code, lines = run("prepare", "Trio", path)
    assert code == 2
    assert "points out of the folder" in lines[0]
    with tarfile.open(tmp_path / "hostile.tar", "w") as archive:
        link = tarfile.TarInfo("coffee.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    code, lines = run("prepare", "Trio", tmp_path / "hostile.tar")
    assert code == 2
    assert "a link, or no regular file" in lines[0]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["hostile.tar", "hostile.zip"]


# check


def findings(run, name="Trio"):
    """Exit code and (level, file, text) of a check."""
    code, lines = run("check", name, "--json")
    (report,) = json.loads("\n".join(lines))
    return code, [(f["level"], f["file"].removeprefix(f"{name}/"), f["text"]) for f in report["findings"]]


def test_a_set_that_is_right_passes(run, folder, hashes):
    code, lines = run("check", "Trio")
    assert (code, lines) == (0, ["Trio: ok: 3 images, 3 as known by hash; X2 X3 by MATLAB's bicubic"])


def test_sets_that_are_missing_are_no_fault_unless_they_are_named(run, folder):
    code, lines = run("check")
    assert code == 0
    assert any(line.startswith("Set5: missing; ") for line in lines)
    assert run("check", "Set5")[0] == 1


def opencv_bicubic(folder):
    gt = read(folder / "HR/coffee.png")[:120, :146]
    write(folder / "LR_bicubic/X2/coffeex2.png", cv2.resize(gt, (73, 60), interpolation=cv2.INTER_CUBIC))


def one_pixel_shift(folder):
    gt = read(folder / "HR/coffee.png")[:120, :146]
    write(folder / "LR_bicubic/X2/coffeex2.png", reduced(np.roll(gt, 1, 1), 2))


def swapped_low_quality(folder):
    path = folder / "LR_bicubic/X3/coffeex3.png"
    write(path, read(path)[..., ::-1])


def swapped_ground_truth(folder):
    path = folder / "HR/coffee.png"
    write(path, read(path)[..., ::-1])


def mirrored_ground_truth(folder):
    path = folder / "HR/coffee.png"
    write(path, np.rot90(read(path)))


def compressed_low_quality(folder):
    path = folder / "LR_bicubic/X2/coffeex2.png"
    data = cv2.imencode(".jpg", read(path)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    write(path, cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def other_picture(folder):
    shutil.copy(folder / "LR_bicubic/X2/chelseax2.png", folder / "LR_bicubic/X2/coffeex2.png")


def other_scale(folder):
    write(folder / "LR_bicubic/X3/coffeex3.png", read(folder / "LR_bicubic/X2/coffeex2.png"))


def not_reduced(folder):
    write(folder / "LR_bicubic/X2/coffeex2.png", read(folder / "HR/coffee.png"))


def gray_low_quality(folder):
    path = folder / "LR_bicubic/X2/coffeex2.png"
    write(path, to_gray(read(path)))


def gray_ground_truth(folder):
    path = folder / "HR/coffee.png"
    write(path, to_gray(read(path)))


def compressed_ground_truth(folder):
    path = folder / "HR/coffee.png"
    data = cv2.imencode(".jpg", read(path)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    write(path, cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def cropped_ground_truth(folder):
    path = folder / "HR/coffee.png"
    write(path, read(path)[:120, :144])


def duplicate(folder):
    shutil.copy(folder / "HR/coffee.png", folder / "HR/chelsea.png")


def truncated(folder):
    path = folder / "HR/coffee.png"
    path.write_bytes(path.read_bytes()[:-400])


PLANTED = [
    (opencv_bicubic, "LR_bicubic/X2/coffeex2.png", "but by OpenCV's (or PyTorch's) bicubic"),
    (one_pixel_shift, "LR_bicubic/X2/coffeex2.png", "is shifted by 1 to the right (pixels of the ground truth)"),
    (swapped_low_quality, "LR_bicubic/X3/coffeex3.png", "has its channels in the order BGR"),
    (swapped_ground_truth, "HR/coffee.png", "has its channels in the order BGR"),
    (mirrored_ground_truth, "HR/coffee.png", "is turned by 90 degrees to the left"),
    (compressed_low_quality, "LR_bicubic/X2/coffeex2.png", "was compressed by JPEG at quality 30"),
    (other_picture, "LR_bicubic/X2/coffeex2.png", "shows another scene than its ground truth"),
    (other_scale, "LR_bicubic/X3/coffeex3.png", "73x60 pixels, where 146x121 at scale 3 makes 48x40; its scale is 2"),
    (not_reduced, "LR_bicubic/X2/coffeex2.png", "it is not reduced, or was enlarged again"),
    (gray_low_quality, "LR_bicubic/X2/coffeex2.png", "the low-quality image is gray, the ground truth in colors"),
    (gray_ground_truth, "HR/coffee.png", "gray where the set has colors"),
    (compressed_ground_truth, "HR/coffee.png", "was compressed by JPEG at quality 75"),
    (cropped_ground_truth, "HR/coffee.png", "144x120 pixels, where the set has 146x121"),
    (duplicate, "HR/coffee.png", "the same image as Trio/HR/chelsea.png"),
    (truncated, "HR/coffee.png", ""),
]


@pytest.mark.parametrize(("plant", "file", "text"), PLANTED, ids=[p[0].__name__ for p in PLANTED])
def test_a_planted_fault_is_found_and_named(run, folder, hashes, plant, file, text):
    plant(folder)
    code, found = findings(run)
    assert code == 1
    assert any(level == "fault" and name == file and text in said for level, name, said in found), found
    others = {name for level, name, _ in found if level == "fault"} - {file}
    assert all("chelsea" in name for name in others) if plant is duplicate else not others


def test_a_faulty_ground_truth_is_found_by_its_pair_where_no_hashes_are_known(run, folder):
    swapped_ground_truth(folder)
    code, found = findings(run)
    assert code == 1
    assert {name for _, name, text in found if "BGR" in text} == {
        "LR_bicubic/X2/coffeex2.png",
        "LR_bicubic/X3/coffeex3.png",
    }


def test_every_fault_is_a_line_with_the_way_out(run, folder):
    opencv_bicubic(folder)
    code, lines = run("check", "Trio")
    assert code == 1
    assert lines[0] == "Trio: present; faults in 1 file"
    assert lines[1].startswith("  fault: Trio/LR_bicubic/X2/coffeex2.png: is not by MATLAB's bicubic but by OpenCV's")
    assert lines[1].endswith("; remove it; swinir data prepare Trio makes it again")
    assert len(lines) == 2
    (folder / "LR_bicubic/X2/coffeex2.png").unlink()
    assert run("prepare", "Trio")[0] == 0
    assert run("check", "Trio")[0] == 0


def test_what_is_missing_and_what_is_too_much_is_told(run, folder, hashes):
    (folder / "HR/coffee.png").unlink()
    (folder / "LR_bicubic/X2/chelseax2.png").unlink()
    code, found = findings(run)
    assert code == 1
    assert ("fault", "", "1 of 3 images are missing: coffee") in found
    assert ("fault", "LR_bicubic/X2", "1 of 2 low-quality images are missing") in found
    assert ("note", "LR_bicubic/X3", "1 files belong to no ground truth (coffeex3.png); they are not used") in found


def test_jpeg_is_a_fault_as_a_format_and_noted_by_its_traces(run, folder, monkeypatch):
    row = BenchmarkSet("Trio", 3, scales=(2, 3), source="scikit-image")
    monkeypatch.setitem(BENCHMARK_SETS, row.name, row)
    compressed_ground_truth(folder)
    assert ("note", "HR/coffee.png", "was compressed by JPEG at quality 75") in findings(run)[1]
    Image.fromarray(photographs()["coffee"]).save(folder / "HR/coffee.jpg", quality=75)
    (folder / "HR/coffee.png").unlink()
    code, found = findings(run)
    assert code == 1
    assert ("fault", "HR/coffee.jpg", "a JPEG file at quality 75, where the set is lossless") in found


def test_another_rounding_is_a_note(run, folder):
    write(folder / "LR_bicubic/X2/coffeex2.png", rounded_once(read(folder / "HR/coffee.png")[:120, :146], 2))
    code, found = findings(run)
    assert code == 0
    assert [(level, text.split(":")[0]) for level, _, text in found] == [("note", "is MATLAB's bicubic, rounded once")]


# Grey sets.


def test_a_gray_picture_with_three_channels_is_harmless(run, tmp_path, hashes):
    folder = write_set(tmp_path / "sets", GRAY, gray_photographs())
    write(folder / "coffee.png", np.repeat(gray_photographs()["coffee"], 3, axis=2))
    code, found = findings(run, "GreyTrio")
    assert code == 0
    assert found == [("note", "coffee.png", "a gray image saved with three channels")]


def test_colors_in_a_gray_set_are_a_fault_and_the_formula_is_named(run, tmp_path, hashes):
    folder = write_set(tmp_path / "sets", GRAY, gray_photographs())
    write(folder / "coffee.png", photographs()["coffee"])
    code, lines = run("check", "GreyTrio")
    assert code == 1
    assert "coffee.png: colors where the set is gray; MATLAB's rgb2gray gives the set's image" in lines[1]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("BT.601 luma in [16, 235]", lambda i: cv2.cvtColor(i, cv2.COLOR_RGB2YCrCb)[..., :1]),
        ("OpenCV's conversion", lambda i: cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)[..., None]),
        ("Pillow's convert", lambda i: np.asarray(Image.fromarray(i).convert("L"))[..., None]),
        ("the green channel", lambda i: i[..., 1:2]),
    ],
)
def test_luma_by_another_formula_is_named_where_the_color_set_is_there(run, tmp_path, hashes, monkeypatch, name, make):
    row = BenchmarkSet("GreyTrio", 3, gray=True, source="scikit-image", luma_of="Trio")
    monkeypatch.setitem(BENCHMARK_SETS, row.name, row)
    folder = write_set(tmp_path / "sets", row, gray_photographs())
    write_set(tmp_path / "sets")
    if name.startswith("BT.601"):  # OpenCV's Y is of the full range; the other comes from the formula of the standard
        image = photographs()["coffee"].astype(float)
        studio = 16 + image @ np.array([65.481, 128.553, 24.966]) / 255
        write(folder / "coffee.png", studio.round().astype(np.uint8)[..., None])
    else:
        write(folder / "coffee.png", make(photographs()["coffee"]))
    code, found = findings(run, "GreyTrio")
    assert code == 1
    assert [text for _, _, text in found if f"made of the color image by {name}" in text], found


def test_the_public_sets_pass(run, public_folder, capsys):
    root = public_folder("testsets")
    code = main(["data", "check", "Set5", "Set14", "classic5", "McMaster", "--testsets", str(root)])
    lines = capsys.readouterr().out.splitlines()
    assert (code, lines[0]) == (0, "Set5: ok: 5 images, 5 as known by hash; X2 X3 X4 X8 by MATLAB's bicubic")
    assert [line.split(":")[1].strip() for line in lines] == ["ok"] * 4

"""Preparation of sets from any folder or archive: the right files arrive, nothing is overwritten."""

import hashlib
import shutil

import pytest
from photographs import TRIO, add_hashes, add_sets, photographs, write_images, write_set
from PIL import Image

from swinir.image_io.image import read, write
from swinir.testsets import BenchmarkSet
from swinir.testsets.check import check_set
from swinir.testsets.pairs import reduced
from swinir.testsets.prepare import prepare
from swinir.testsets.sets import KnownFile, known_files, pixel_hash


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """A folder of sets without any set."""
    add_sets(monkeypatch, TRIO)
    return tmp_path / "sets"


def state(folder):
    """Hash and time of each file."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


LAYOUTS = ("{name}.png", "deep/{name}_GT.png", "Trio/GTmod12/{name}.png", "image_SRF_2/{name}_SRF_2_HR.png")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_any_layout_in_any_container_becomes_the_layout_of_the_set(tmp_path, sets, layout, kind):
    source = write_images(tmp_path / "source", layout)
    contents = {path.read_bytes() for path in source.rglob("*.png")}
    if kind != "folder":
        source = shutil.make_archive(str(tmp_path / "packed"), kind, source)
    outcome = prepare(TRIO, tmp_path / source, sets)
    assert (len(outcome.copied), outcome.made, outcome.failed) == (3, 6, [])
    assert names(sets / "Trio/HR") == ["astronaut.png", "chelsea.png", "coffee.png"]
    assert {path.read_bytes() for path in (sets / "Trio/HR").iterdir()} == contents
    assert check_set(TRIO, sets).verdict.startswith("ok: 3 images")


def test_low_quality_images_are_made_in_place(sets):
    expected = {name: digest for name, (digest, _) in state(write_set(sets)).items()}
    for path in (sets / "Trio/HR").iterdir():
        path.rename(sets / "Trio" / path.name)
    (sets / "Trio/HR").rmdir()
    shutil.rmtree(sets / "Trio/LR_bicubic")
    assert prepare(TRIO, None, sets).made == 6
    assert {
        f"{'' if '/' in name else 'HR/'}{name}": digest for name, (digest, _) in state(sets / "Trio").items()
    } == expected


def test_a_second_run_changes_nothing_and_an_interrupted_one_is_continued(tmp_path, sets):
    source = shutil.copytree(write_set(sets), tmp_path / "source")
    before = state(sets)
    outcome = prepare(TRIO, source, sets)
    assert (len(outcome.copied), outcome.made, len(outcome.there)) == (0, 0, 9)
    assert state(sets) == before
    for name in ("HR/coffee.png", "LR_bicubic/X2/chelseax2.png", "LR_bicubic/X3/coffeex3.png"):
        (sets / "Trio" / name).unlink()
    outcome = prepare(TRIO, source, sets)
    assert (len(outcome.copied), outcome.made, len(outcome.there)) == (3, 0, 6)
    assert [digest for digest, _ in state(sets).values()] == [digest for digest, _ in before.values()]


def test_existing_files_are_never_overwritten(tmp_path, sets):
    before = state(write_set(sets))
    source = write_images(tmp_path / "source", images={"coffee": photographs()["chelsea"]})
    (reason,) = prepare(TRIO, source, sets).left_out
    assert "has another image of its name, which is kept" in reason
    assert state(sets / "Trio") == before


def test_low_quality_files_are_used_and_others_left_out_with_reasons(tmp_path, sets):
    source = write_images(tmp_path / "source", "image_SRF_2/{name}_SRF_2_HR.png")
    write_images(source, "image_SRF_2/{name}_SRF_2_nearest.png")
    write_images(source, "image_SRF_2/{name}_SRF_2_LR.png", {n: reduced(i, 2) for n, i in photographs().items()})
    write(source / "image_SRF_2/lone_SRF_2_LR.png", photographs()["coffee"])
    (source / "image_SRF_2/broken_SRF_2_HR.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = prepare(TRIO, source, sets)
    assert (len(outcome.copied), outcome.made) == (6, 3)
    assert {reason: len(files) for reason, files in outcome.left_out.items()} == {
        "the output of a method": 3, "a low-quality image without its ground truth": 1,
    }  # fmt: skip
    (message,) = outcome.failed
    assert message.startswith("image_SRF_2/broken_SRF_2_HR.png: ")


def test_known_pixels_give_a_file_its_name_in_any_format(tmp_path, sets, monkeypatch):
    add_hashes(monkeypatch)
    source = write_images(tmp_path / "source", images={"holiday": photographs(90, 90)["coffee"]})
    for n, image in enumerate(photographs().values()):
        Image.fromarray(image).save(source / f"img_{n:03d}.{('bmp', 'tif', 'png')[n]}")
    assert prepare(TRIO, source, sets).left_out == {"no image of Trio has its name or its pixels": ["holiday.png"]}
    assert names(sets / "Trio/HR") == ["astronaut.bmp", "chelsea.tif", "coffee.png"]
    assert check_set(TRIO, sets).verified == 3


def test_files_without_a_name_of_the_set_are_not_decoded(tmp_path, sets, monkeypatch):
    row = BenchmarkSet("Trio", 3, scales=(2,), source="scikit-image", names=tuple(photographs()), from_jpeg=True)
    add_sets(monkeypatch, row)
    source = write_images(tmp_path / "BSDS300", "images/test/{name}.png")
    (source / "images/train").mkdir()
    (source / "images/train/2092.jpg").write_bytes(b"no image at all")
    outcome = prepare(row, source, sets)
    assert (outcome.failed, outcome.left_out) == ([], {"no image of Trio has its name": ["images/train/2092.jpg"]})
    assert names(sets / "Trio/LR_bicubic/X2") == ["astronautx2.png", "chelseax2.png", "coffeex2.png"]


def test_the_largest_of_several_files_of_a_name_is_used(tmp_path, sets):
    for crop in (2, 4):
        images = {name: image[: 121 // crop * crop, : 146 // crop * crop] for name, image in photographs().items()}
        write_images(tmp_path / "source", f"image_SRF_{crop}/{{name}}_SRF_{crop}_HR.png", images)
    prepare(TRIO, tmp_path / "source", sets)
    assert read(sets / "Trio/HR/coffee.png").shape == (120, 146, 3)


def test_images_above_the_limit_of_pixels_are_refused(tmp_path, sets, monkeypatch):
    monkeypatch.setattr("swinir.testsets.prepare.MAX_PIXELS", 100 * 100)
    source = write_images(tmp_path / "source", images=photographs(90, 90) | {"coffee": photographs()["coffee"]})
    outcome = prepare(TRIO, source, sets)
    (message,) = outcome.failed
    assert message.startswith("coffee.png: ")
    assert "146" in message
    assert len(outcome.copied) == 2


PAIRS = BenchmarkSet("Duo", 3, pairs=("noisy", "clean"), source="the authors")


@pytest.mark.parametrize("layout", ["{kind}/{name}.png", "{name}_{kind}.png"])
def test_pairs_of_one_size_are_arranged_and_a_wrong_partner_is_a_fault(tmp_path, monkeypatch, layout):
    add_sets(monkeypatch, PAIRS)
    both = {"clean": photographs(), "noisy": {name: image // 2 for name, image in photographs().items()}}
    known = [
        KnownFile("Duo", f"{kind}/{name}.png", 0, "", 146, 121, 3, pixel_hash(image))
        for kind, images in both.items()
        for name, image in images.items()
    ]
    monkeypatch.setitem(known_files(), "Duo", tuple(known))
    for kind, images in both.items():
        write_images(tmp_path / "source", layout.replace("{kind}", kind), images)
    outcome = prepare(PAIRS, tmp_path / "source", tmp_path)
    assert (len(outcome.copied), outcome.made, outcome.left_out) == (6, 0, {})
    assert names(tmp_path / "Duo/noisy") == names(tmp_path / "Duo/clean") == [f"{name}.png" for name in photographs()]
    assert check_set(PAIRS, tmp_path).verdict == "ok: 3 images, 3 as known by hash"
    shutil.copy(tmp_path / "Duo/clean/coffee.png", tmp_path / "Duo/noisy/coffee.png")
    (tmp_path / "Duo/noisy/chelsea.png").unlink()
    faults = check_set(PAIRS, tmp_path).faults
    assert [(fault.file, fault.text) for fault in faults] == [
        ("Duo/noisy", "1 of 3 low-quality images are missing"),
        ("Duo/noisy/coffee.png", "its pixels are not those of the known file"),
    ]

"""Inputs and the names of their outputs."""

import shutil
from pathlib import Path

import pytest
from pictures import smooth, write, write_folder

from swinir.photos.jobs import Output, Shard, describe_request, plan_jobs
from swinir.photos.restore_photo import Treatment
from swinir.photos.select_models import Wish


@pytest.fixture
def images(tmp_path):
    return write_folder(tmp_path / "in")


def test_the_layout_of_folders_is_kept(images, tmp_path):
    jobs = plan_jobs([images], tmp_path / "out", Output(), recursive=True)
    assert [job.target.relative_to(tmp_path / "out") for job in jobs] == [
        Path("a.png"), Path("b.tif"), Path("below/c.jpg"),
    ]  # fmt: skip
    assert len(plan_jobs([images], tmp_path / "out", Output())) == 2


def test_names_take_a_suffix_and_an_extension():
    assert Output("_x2", "webp", request="_x4").name(Path("in/photo.JPG")) == "photo_x2.webp"
    assert Output().name(Path("photo.JPG")) == "photo.JPG"
    assert Output().name(Path("photo.gif")) == "photo.png"


@pytest.mark.parametrize(
    ("treatment", "name"),
    [
        (Treatment(), "a.png"),
        (Treatment(outscale=2.5, wish=Wish(2.5)), "a_x2.5.png"),
        (Treatment(outscale=4.0, wish=Wish(4, "real_sr", 15, 40)), "a_x4_noise15_jpeg40_real_sr.png"),
        (Treatment("001_classicalSR_DF2K_s64w8_SwinIR-M_x4"), "a_classical_sr_x4_DF2K.png"),
        (Treatment("folder/mine.v2.pth", outscale=2.0), "a_x2_mine.v2.png"),
        (Treatment(strength=0.5), "a_strength0.5.png"),
    ],
)
def test_names_state_the_request(treatment, name):
    assert Output(request=describe_request(treatment)).name(Path("in/a.png")) == name


def test_a_single_file_may_get_a_name_of_its_own(images, tmp_path):
    (job,) = plan_jobs([images / "a.png"], tmp_path / "other.webp", Output())
    assert job.target == tmp_path / "other.webp"


@pytest.mark.parametrize(
    ("inputs", "output", "recursive", "message"),
    [
        (["in/a.png", "in/below/a.png"], "out", False, "would both become"),
        (["in"], "in", False, "is the input folder itself"),
        (["in"], "in/out", True, "lies inside the input folder"),
        (["in/a.png"], "in", False, "would replace the input"),
        (["in/b.tif"], "in/a.png", False, None),
        (["empty"], "out", False, "no images in .*empty; -r also"),
        (["empty"], "out", True, "no images in .*empty$"),
    ],
)
def test_jobs_that_would_lose_an_image_are_refused(images, tmp_path, monkeypatch, inputs, output, recursive, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(images / "a.png", images / "below" / "a.png")
    if message is None:  # another image of the folder, as the name of a single output
        assert plan_jobs([Path(p) for p in inputs], Path(output), Output())
        return
    with pytest.raises(ValueError, match=message):
        plan_jobs([Path(p) for p in inputs], Path(output), Output(), recursive=recursive)


def test_an_input_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.png is not there"):
        plan_jobs([tmp_path / "absent.png"], tmp_path / "out", Output())


def test_names_that_differ_only_in_case_collide(tmp_path):
    for name in ("a.png", "A.png"):
        write(tmp_path / name, smooth(8, 8))
    with pytest.raises(ValueError, match="would both become"):
        plan_jobs([tmp_path], tmp_path / "out", Output())


@pytest.mark.parametrize("options", [{"suffix": "a/b"}, {"extension": "xyz"}])
def test_an_impossible_output_is_refused(options):
    with pytest.raises(ValueError, match=r"suffix must be|images are written as"):
        Output(**options)


def test_each_output_belongs_to_one_part_whatever_else_there_is():
    targets = [Path(f"out/{number}.png") for number in range(200)]
    parts = [{target for target in targets if target in Shard.parse(f"{i}/3")} for i in (1, 2, 3)]
    assert set.union(*parts) == set(targets)
    assert sum(map(len, parts)) == len(targets)
    assert min(map(len, parts)) > 40


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5"])
def test_an_impossible_part_is_refused(text):
    with pytest.raises(ValueError, match="--shard must be I/N with I from 1 to N"):
        Shard.parse(text)

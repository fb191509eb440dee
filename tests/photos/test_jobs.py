"""What is planned before any picture is opened."""

import shutil
from pathlib import Path

import pytest
from pictures import smooth, write, write_folder

from swinir.photos.jobs import Output, plan_jobs


@pytest.fixture
def pictures(tmp_path):
    return write_folder(tmp_path / "in")


def test_the_layout_of_folders_is_kept(pictures, tmp_path):
    jobs = plan_jobs([pictures], tmp_path / "out", Output(), recursive=True)
    assert [job.target.relative_to(tmp_path / "out") for job in jobs] == [
        Path("a.png"), Path("b.tif"), Path("below/c.jpg"),
    ]  # fmt: skip
    assert len(plan_jobs([pictures], tmp_path / "out", Output())) == 2


def test_names_take_a_suffix_and_an_extension():
    assert Output("_x2", "webp").name(Path("in/photo.JPG")) == "photo_x2.webp"
    assert Output().name(Path("photo.JPG")) == "photo.JPG"
    assert Output().name(Path("photo.gif")) == "photo.png"


def test_a_single_file_may_get_a_name_of_its_own(pictures, tmp_path):
    (job,) = plan_jobs([pictures / "a.png"], tmp_path / "other.webp", Output())
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
def test_what_would_lose_a_picture_is_refused_before_the_work(
    pictures, tmp_path, monkeypatch, inputs, output, recursive, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(pictures / "a.png", pictures / "below" / "a.png")
    if message is None:  # another picture of the folder, as the name of a single result
        assert plan_jobs([Path(p) for p in inputs], Path(output), Output())
        return
    with pytest.raises(ValueError, match=message):
        plan_jobs([Path(p) for p in inputs], Path(output), Output(), recursive=recursive)


def test_an_input_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.png is not there"):
        plan_jobs([tmp_path / "absent.png"], tmp_path / "out", Output())


def test_names_that_differ_in_case_alone_are_taken_for_one(tmp_path):
    for name in ("a.png", "A.png"):
        write(tmp_path / name, smooth(8, 8))
    with pytest.raises(ValueError, match="would both become"):
        plan_jobs([tmp_path], tmp_path / "out", Output())


@pytest.mark.parametrize("options", [{"suffix": "a/b"}, {"extension": "xyz"}])
def test_an_output_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"suffix must be|images are written as"):
        Output(**options)

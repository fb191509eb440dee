"""Jobs listed folder by folder."""

from itertools import islice
from pathlib import Path

import pytest

from swinir.cluster import plan, storage
from swinir.cluster.plan import stream_pairs
from swinir.photos.jobs import Output, plan_jobs
from swinir.photos.manifest import Result


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.gif", "below/c.jpg", "below/deep/d.tif"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return Path("in")


def test_jobs_are_those_of_the_plain_command(images):
    naming = Output("_x2")
    for recursive in (False, True):
        jobs = plan_jobs([images], Path("out"), naming, recursive=recursive)
        pairs = list(stream_pairs([images], Path("out"), naming, recursive=recursive))
        assert sorted(pairs) == sorted((str(job.source), str(job.target)) for job in jobs)
    files = [images / "a.png", images / "b.gif"]
    assert list(stream_pairs(files, Path("out"), naming)) == [
        ("in/a.png", "out/a_x2.png"), ("in/b.gif", "out/b_x2.png"),
    ]  # fmt: skip


def test_urls_become_urls(images):
    (pair,) = islice(stream_pairs([Path(f"file://{images.resolve()}")], Path("s3://bucket/out"), Output()), 1)
    assert pair == (f"file://{images.resolve()}/a.png", "s3://bucket/out/a.png")


def test_of_two_images_with_one_output_the_second_fails(images):
    (images / "B.png").touch()
    first, _, second = stream_pairs([images], Path("out"), Output())
    assert first == ("in/B.png", "out/B.png")
    assert isinstance(second, Result)
    assert second.error == "in/b.gif: its output would be that of B.png; restore it into another folder"


def test_folders_are_listed_when_their_turn_comes(images, monkeypatch):
    seen = []

    def noted(given, recursive):
        for below, names in storage.folders(given, recursive):
            seen.append(below)
            yield below, names

    monkeypatch.setattr(plan, "folders", noted)
    pairs = stream_pairs([images], Path("out"), Output(), recursive=True)
    next(pairs)
    assert seen == ["."]
    assert len(list(pairs)) == 3
    assert seen == [".", "below", "below/deep"]


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["in"], "in", "is the input folder itself"),
        (["in"], "in/out", "lies inside the input folder"),
        (["in", "in/a.png"], "out", "--ray takes one folder"),
        (["in/a.png"], "s3://bucket/out", "--ray takes one folder"),
        (["in/a.png"], "out.png", "and --ray is for many; name a folder with -o"),
        (["file:///nowhere/at/all"], "out", "is not there"),
        (["nowhere.png"], "out", "nowhere.png is not there"),
    ],
)
def test_mistakes_are_found_at_the_first_job(images, inputs, output, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        next(stream_pairs([Path(text) for text in inputs], Path(output), Output(), recursive=True))


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no images in .*; -r also takes subfolders"):
        next(stream_pairs([tmp_path], tmp_path / "out", Output()))

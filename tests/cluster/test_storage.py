"""Paths and URLs, and copies of files behind URLs."""

from pathlib import Path

import fsspec
import pytest
from forks import in_another_process

from swinir.cluster.storage import Copies, as_text, folders, join


@pytest.fixture
def memory():
    """A storage in memory, empty before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Copies(max_pixels=1000)


@pytest.mark.parametrize(
    "text", ["s3://bucket/a.png", "gs://bucket/below/a.png", "file:///data/a.png", "in/a.png", "/data/a.png", "c:/a"]
)
def test_a_path_gives_back_the_url_that_it_was_made_from(text):
    assert as_text(Path(text)) == text


def test_images_are_listed_folder_by_folder(memory, tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "below/c.webp", ".hidden/d.png"):
        memory.pipe(f"/in/{name}", b"x")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = [(".", ["a.JPG", "b.png"]), ("below", ["c.webp"])]
    for place in ("memory://in", str(tmp_path)):
        assert list(folders(place, True)) == expected
        assert list(folders(place, False)) == expected[:1]
    assert join("memory://in", "below", "c.webp") == "memory://in/below/c.webp"
    assert join("memory://in/", ".", "a.JPG") == "memory://in/a.JPG"


def test_a_folder_that_is_not_there_is_named(memory):
    with pytest.raises(FileNotFoundError, match="memory://none is not there"):
        list(folders("memory://none", True))


def test_a_file_is_fetched_and_its_output_sent_and_both_copies_are_dropped(memory, copies):
    memory.pipe("/in/a.png", b"input")
    job = copies.job("memory://in/a.png", "memory://out/below/a.png")
    copies.fetch(job.source, required=True)
    copies.fetch(job.target, required=False)
    assert job.source.read_bytes() == b"input"
    assert not job.target.exists()
    assert copies.rename(f"{job.source}: bad") == "memory://in/a.png: bad"
    assert copies.name(job.target) == "memory://out/below/a.png"
    job.target.parent.mkdir()
    job.target.write_bytes(b"output")
    copies.send(job.target)
    assert memory.cat("/out/below/a.png") == b"output"
    copies.drop(job.source, job.target)
    assert not any(copies.folder.rglob("*.png"))


def test_paths_are_used_as_they_are(copies):
    job = copies.job("in/a.png", "out/a.png")
    copies.fetch(job.source, required=True)
    copies.send(job.target)
    copies.drop(job.source, job.target)
    assert (str(job.source), str(job.target)) == ("in/a.png", "out/a.png")
    assert not copies.folder.exists()


def test_a_copy_has_the_time_of_its_file_so_that_a_change_is_noticed(memory, copies):
    memory.pipe("/out/a.png", b"x")
    job = copies.job("memory://in/a.png", "memory://out/a.png")
    copies.fetch(job.target, required=False)
    time = job.target.stat().st_mtime_ns
    assert abs(time - memory.modified("/out/a.png").timestamp() * 1e9) < 1e6
    again = copies.job("memory://in/a.png", "memory://out/a.png")
    copies.fetch(again.target, required=False)
    assert again.target.stat().st_mtime_ns == time


def test_files_that_no_image_within_the_limit_can_have_are_not_fetched(memory, copies):
    memory.pipe("/in/a.png", bytes(copies.max_bytes + 1))
    job = copies.job("memory://in/a.png", "memory://out/a.png")
    with pytest.raises(ValueError, match="more than an image within --max-pixels"):
        copies.fetch(job.source, required=True)
    assert not job.source.exists()


def test_an_output_that_is_cut_off_while_it_is_sent_does_not_appear(tmp_path, copies, monkeypatch):
    job = copies.job("in/a.png", f"file://{tmp_path}/out/a.png")
    job.target.parent.mkdir(parents=True)
    job.target.write_bytes(b"output")

    def cut(source, target, length):
        target.write(source.read(3))
        raise OSError("the connection was lost")

    monkeypatch.setattr("swinir.cluster.storage.shutil.copyfileobj", cut)
    with pytest.raises(OSError, match="the connection was lost"):
        copies.send(job.target)
    assert list((tmp_path / "out").iterdir()) == []


def test_copies_of_a_process_that_was_killed_are_deleted_by_the_next(tmp_path, copies):
    def leave():
        folder = Copies(1000).folder
        folder.mkdir()
        (folder / "a.png").touch()
        return 0

    assert in_another_process(leave) == 0
    assert len(list(tmp_path.glob("swinir-copies-*"))) == 1
    Copies(1000)
    assert list(tmp_path.glob("swinir-copies-*")) == []

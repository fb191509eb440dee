"""Folders of images: records, and no output lost, made twice or half written."""

import errno
import json
import os
import random
import shutil
import signal
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import Beside, Command, commands
from pictures import smooth, write, write_expert, write_folder
from PIL import Image

import swinir.photos.batch
from swinir.image_io.reader import read_picture
from swinir.inference.options import RunOptions
from swinir.locks import LOCK, FolderLock
from swinir.photos.batch import Policy, restore_files
from swinir.photos.jobs import Output, plan_jobs
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.manifest import RECORDS, OutputError
from swinir.photos.restore_photo import Treatment

CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path):
    return write_folder(tmp_path / "in")


@pytest.fixture
def treatment(tmp_path):
    return Treatment(model=str(write_expert(tmp_path / "x2.pth")))


def run(folder, output, treatment, how=None, shown=None, **policy):
    """All results of a folder."""
    how = how or Output()
    jobs = plan_jobs([folder], output, how, recursive=True)
    return list(restore_files(jobs, output, treatment, LoadedModels(CPU, 1e9), how, Policy(**policy), shown=shown))


def statuses(results):
    return [result.status for result in results]


def contents(folder):
    """Bytes of the results, by name."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != RECORDS}


def test_results_are_written_and_recorded(images, tmp_path, treatment):
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == ["restored"] * 3
    assert read_picture(tmp_path / "out" / "b.tif").pixels.shape == (40, 48, 1)
    assert read_picture(tmp_path / "out" / "b.tif").pixels.dtype == np.uint16
    rows = [json.loads(line) for line in (tmp_path / "out" / RECORDS).read_text().splitlines()]
    assert [(Path(row["input"]).name, row["status"]) for row in rows if row["status"] != "begun"] == [
        ("a.png", "restored"), ("b.tif", "restored"), ("c.jpg", "restored"),
    ]  # fmt: skip
    assert rows[-1]["experts"][0][0] == treatment.model
    assert (rows[-1]["engine"], rows[-1]["precision"]) == (f"torch {torch.__version__}", "fp32")
    assert len(rows[-1]["experts"][0][1]) == len(rows[-1]["input_sha256"]) == 64


def test_a_clean_file_is_copied_unless_another_format_is_asked_for(tmp_path):
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in" / "clean.jpg", smooth(64, 64))
    (result,) = run(tmp_path / "in", tmp_path / "out", Treatment())
    assert result.status == "unchanged"
    assert (tmp_path / "out" / "clean.jpg").read_bytes() == source.read_bytes()
    run(tmp_path / "in", tmp_path / "smaller", Treatment(), Output(quality=50))
    assert (tmp_path / "smaller" / "clean.jpg").stat().st_size < source.stat().st_size
    run(tmp_path / "in", tmp_path / "png", Treatment(), Output(extension="png"))
    assert np.array_equal(read_picture(tmp_path / "png" / "clean.png").pixels, read_picture(source).pixels)


def test_estimates_are_recorded(tmp_path):
    (tmp_path / "in").mkdir()
    noisy = smooth(64, 64) / 4 + 96 + np.random.default_rng(0).normal(0, 15, (64, 64, 3))
    write(tmp_path / "in" / "noisy.png", noisy.round().clip(0, 255).astype(np.uint8))
    Image.fromarray(smooth(64, 64)).save(tmp_path / "in" / "packed.jpg", quality=40)
    noisy, packed = run(tmp_path / "in", tmp_path / "out", Treatment())
    assert abs(noisy.noise_level - 15) < 3
    assert noisy.jpeg_quality is None
    assert packed.jpeg_quality == 40
    named = replace(Treatment(), model=str(write_expert(tmp_path / "x2.pth")))
    assert {row.noise_level for row in run(tmp_path / "in", tmp_path / "named", named)} == {None}


def test_a_failure_costs_one_image(images, tmp_path, treatment):
    (images / "b.tif").write_bytes(b"II*\0 not really")
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == ["restored", "failed", "restored"]
    assert "b.tif" in results[1].error
    assert not (tmp_path / "out" / "b.tif").exists()


def test_a_second_run_skips_what_is_done(images, tmp_path, treatment, monkeypatch):
    run(images, tmp_path / "out", treatment)
    before = contents(tmp_path / "out")
    monkeypatch.setattr(swinir.photos.batch, "restore_photo", None)  # would be called for work
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == ["skipped"] * 3
    assert {result.error for result in results} == {"done before"}
    assert contents(tmp_path / "out") == before


def test_images_too_large_for_memory_come_out_the_same(images, tmp_path, treatment, caplog):
    treatment = replace(treatment, run=RunOptions(tile=16, tile_overlap=4))
    whole = run(images, tmp_path / "whole", treatment)
    assert not caplog.text
    mapped = run(images, tmp_path / "mapped", treatment, memory_limit=0)
    assert "a.png is too large for memory: up to 0.0 GB of temporary files in " in caplog.text
    assert [replace(row, output="", seconds=0) for row in mapped] == [
        replace(row, output="", seconds=0) for row in whole
    ]
    assert contents(tmp_path / "mapped") == contents(tmp_path / "whole")
    assert statuses(run(images, tmp_path / "mapped", treatment, memory_limit=0)) == ["skipped"] * 3


def test_a_disk_without_room_for_temporary_files_costs_one_image(images, tmp_path, treatment, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(7000))
    results = run(images, tmp_path / "out", replace(treatment, outscale=1.5), memory_limit=5000)
    assert statuses(results) == ["failed"] * 3
    assert "a.png: too large for memory, and temporary files need 0.0 GB in" in results[0].error
    assert [p.name for p in (tmp_path / "out").iterdir()] == [RECORDS]


def test_a_large_image_is_not_shown_side_by_side(images, tmp_path, treatment):
    shown = []
    results = run(images, tmp_path / "out", treatment, memory_limit=0, shown=shown.append)
    assert not shown
    assert {row.notes for row in results} == {("too large to be shown side by side",)}
    run(images, tmp_path / "other", treatment, shown=shown.append)
    assert [item.restored.pixels.shape for item in shown] == [(40, 48, 3), (40, 48, 1), (40, 48, 3)]


@pytest.mark.parametrize("change", ["settings", "input", "weights"])
def test_changed_settings_inputs_and_models_are_noticed(images, tmp_path, treatment, change):
    run(images, tmp_path / "out", treatment)
    if change == "settings":
        treatment = replace(treatment, strength=0.5)
    elif change == "input":
        write(images / "a.png", smooth(20, 24, seed=1))
    else:
        write_expert(Path(treatment.model), mlp_ratio=1.0)
    changed = ["failed"] + ["skipped" if change == "input" else "failed"] * 2
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == changed
    assert "was made from another input or with other settings; --overwrite" in results[0].error
    left = run(images, tmp_path / "out", treatment, existing="skip")
    assert statuses(left) == ["skipped"] * 3
    assert "other settings" in left[0].error
    assert statuses(run(images, tmp_path / "out", treatment, existing="overwrite")) == ["restored"] * 3
    assert statuses(run(images, tmp_path / "out", treatment)) == ["skipped"] * 3


def test_a_file_without_a_record_is_left_alone(images, tmp_path, treatment):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == ["failed", "restored", "restored"]
    assert "is there, and not by this command" in results[0].error
    assert (tmp_path / "out" / "a.png").read_text() == "mine"


def test_a_torn_record_is_ignored(images, tmp_path, treatment):
    run(images, tmp_path / "out", treatment)
    records = tmp_path / "out" / RECORDS
    content = records.read_bytes()
    records.write_bytes(content[:-30])  # the last picture's own line; that it was begun stands before
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == ["skipped"] * 3
    records.write_bytes(content + b'{"input": "x')
    (tmp_path / "out" / "a.png").unlink()
    assert statuses(run(images, tmp_path / "out", treatment)) == ["restored", "skipped", "skipped"]
    assert statuses(run(images, tmp_path / "out", treatment)) == ["skipped"] * 3


@pytest.mark.parametrize(("code", "advice"), [(errno.ENOSPC, "make room"), (errno.EROFS, "check the folder")])
def test_a_disk_that_takes_no_more_stops_the_run(images, tmp_path, treatment, monkeypatch, code, advice):
    real = swinir.photos.batch.write_picture

    def full(path, *args, **options):
        if path.name == "b.tif":
            raise OSError(code, os.strerror(code))
        return real(path, *args, **options)

    monkeypatch.setattr(swinir.photos.batch, "write_picture", full)
    results = restore_files(
        plan_jobs([images], tmp_path / "out", Output(), recursive=True),
        tmp_path / "out",
        treatment,
        LoadedModels(CPU, 1e9),
    )
    assert next(results).status == "restored"
    with pytest.raises(OutputError, match=advice):
        next(results)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", RECORDS]
    monkeypatch.undo()
    assert statuses(run(images, tmp_path / "out", treatment)) == ["skipped", "restored", "restored"]


def test_an_output_folder_that_vanishes_stops_the_run(images, tmp_path, treatment):
    jobs = plan_jobs([images], tmp_path / "out", Output(), recursive=True)
    results = restore_files(jobs, tmp_path / "out", treatment, LoadedModels(CPU, 1e9))
    next(results)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match="cannot write"):
        list(results)


def test_lack_of_memory_costs_one_image(images, tmp_path, treatment, monkeypatch):
    real = swinir.photos.batch.restore_photo

    def limited(picture, *args, **options):
        if picture.pixels.dtype == np.uint16:
            raise MemoryError("no memory for 24x24 pixels at once")
        return real(picture, *args, **options)

    monkeypatch.setattr(swinir.photos.batch, "restore_photo", limited)
    results = run(images, tmp_path / "out", treatment)
    assert statuses(results) == ["restored", "failed", "restored"]
    assert "no memory for 24x24 pixels at once; a smaller model" in results[1].error


@pytest.mark.parametrize(
    ("claimed", "order"),
    [(["b.tif"], ["a.png", "c.jpg", "b.tif"]), (["a.png", "b.tif", "below/c.jpg"], ["a.png", "b.tif", "c.jpg"])],
    ids=["one", "all"],
)
def test_an_image_that_another_run_works_on_is_left_to_it_and_made_if_that_run_ends_without(
    images, tmp_path, treatment, monkeypatch, caplog, claimed, order
):
    (tmp_path / "out").mkdir()

    def claim():
        lock = FolderLock(tmp_path / "out")
        lock.share()
        for name in claimed:
            lock.claim(swinir.photos.batch._claim(tmp_path / "out" / name))
        return lock

    other = Beside(claim)
    theirs = tmp_path / "out" / f".{'0' * 16}.part"  # as one of another machine
    theirs.touch()
    turns = iter([lambda: None, lambda: None, other.kill])
    monkeypatch.setattr(swinir.photos.batch.time, "sleep", lambda _seconds: next(turns)())
    results = run(images, tmp_path / "out", treatment)
    assert [(Path(row.output).name, row.status) for row in results] == [(name, "restored") for name in order]
    assert caplog.text.count("waiting for another run, which restores") == 1
    assert theirs.exists()
    assert statuses(run(images, tmp_path / "out", treatment)) == ["skipped"] * 3
    assert not theirs.exists()
    assert not (tmp_path / "out" / LOCK).exists()


@pytest.mark.slow
def test_two_runs_on_one_folder_and_their_kills_make_each_image_once_with_the_same_bytes(tmp_path, treatment):
    folder, output, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    folder.mkdir()
    for i in range(8):
        write(folder / f"{i}.png", smooth(32 + i, 40, seed=i))
    words = ["restore", str(folder), "-n", treatment.model, "--device", "cpu", "-o"]
    run = Command([*words, str(output)], str(log), metrics=str(output / RECORDS))
    chance = random.Random(1)

    def killed(most):
        return replace(run, kill=signal.SIGKILL, rows=chance.randrange(most), operations=chance.randrange(12))

    with commands() as command:
        assert command(Command([*words, str(tmp_path / "whole")], str(log))) == [0]
        expected = contents(tmp_path / "whole")
        for _ in range(4):
            shutil.rmtree(output, ignore_errors=True)
            assert command(killed(3), killed(7)) == [-signal.SIGKILL] * 2
            assert command(killed(7), run) == [-signal.SIGKILL, 0]  # the second takes over the images of the first
            left = {name for name in contents(output) if name.suffix == ".part" or name.name == LOCK}  # of the killed
            assert {name: made for name, made in contents(output).items() if name not in left} == expected
            assert command(run, run) == [0, 0]
            assert contents(output) == expected
            rows = [json.loads(line) for line in (output / RECORDS).read_text().splitlines() if line.endswith("}")]
            done = [row["output"] for row in rows if row["status"] != "begun"]
            assert len(done) == len(set(done))
    assert "failed:" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_kills_leave_no_partial_file_and_the_folder_is_finished_with_the_same_bytes(tmp_path, treatment):
    folder, output, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    folder.mkdir()
    for i in range(8):
        write(folder / f"{i}.png", smooth(32 + i, 40, seed=i))
    words = ["restore", str(folder), "-n", treatment.model, "--device", "cpu", "-o"]
    chance = random.Random(0)
    with commands() as command:
        assert command(Command([*words, str(tmp_path / "whole")], str(log))) == [0]
        expected = contents(tmp_path / "whole")
        assert len(expected) == 8
        for _ in range(5):
            shutil.rmtree(output, ignore_errors=True)
            for attempt in range(10):
                before = len((output / RECORDS).read_bytes().splitlines()) if (output / RECORDS).exists() else 0
                kill = {"rows": min(before, 7) * (attempt % 2), "operations": chance.randrange(12)}
                (code,) = command(
                    Command([*words, str(output)], str(log), kill=signal.SIGKILL, metrics=str(output / RECORDS), **kill)
                )
                assert code == -signal.SIGKILL
                made = (
                    {n: c for n, c in contents(output).items() if not n.name.endswith(".part")}
                    if output.exists()
                    else {}
                )
                assert made == {name: expected[name] for name in made}
            assert command(Command([*words, str(output)], str(log))) == [0]
            rows = [json.loads(line) for line in (output / RECORDS).read_text().splitlines() if line.endswith("}")]
            assert contents(output) == expected
            done = [row["output"] for row in rows if row["status"] == "restored"]
            assert len(done) == len(set(done))

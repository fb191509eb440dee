"""Folders of images prepared: pieces that cover their image, pairs, an index, a cache that training finds."""

import csv
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from swinir.degradations.resize import imresize
from swinir.image_io.image import read, write
from swinir.train import images as training_images
from swinir.train.images import find_sources, load_images

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_dataset.py"


def load_script():
    specification = importlib.util.spec_from_file_location("prepare_dataset", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


prepare_dataset = load_script()


def run(*words, workers=1):
    """Exit code, stdout, stderr."""
    extra = [] if words[0] == "cache" else ["--workers", str(workers)]
    result = CliRunner().invoke(prepare_dataset.app, [str(word) for word in words] + extra)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def picture(height, width, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def large(tmp_path):
    """A folder with a subfolder: a colour image, a grey one, one smaller than a piece of 32, one narrower."""
    folder = tmp_path / "large"
    (folder / "deep" / "er").mkdir(parents=True)
    write(folder / "a.png", picture(75, 101, 1))
    write(folder / "deep" / "er" / "grey.png", picture(64, 32, 2, channels=1))
    write(folder / "deep" / "small.png", picture(20, 24, 3))
    write(folder / "narrow.png", picture(50, 9, 4))
    return folder


@given(
    length=st.integers(1, 300),
    side=st.integers(1, 12),
    step=st.integers(1, 12),
    scale=st.integers(1, 4),
)
def test_pieces_start_so_that_every_pixel_is_in_one(length, side, step, scale):
    how = prepare_dataset.Cut(side * scale, min(step, side) * scale, least=1, scale=scale)
    starts = how.starts(length)
    covered = {pixel for start in starts for pixel in range(start, min(start + side, length))}
    assert covered == set(range(length))
    assert len(set(starts)) == len(starts)
    assert all(start + side <= length for start in starts) or starts == [0]


def test_pieces_equal_their_part_of_the_image_and_cover_it(large, tmp_path):
    out = tmp_path / "out"
    assert run("cut", large, out, "--side", 32, "--step", 16)[0] == 0
    image = picture(75, 101, 1)
    rows, columns = [0, 16, 32, 43], [0, 16, 32, 48, 64, 69]
    places = [(y, x) for y in rows for x in columns]
    assert [n for n in names(out) if n.startswith("a_")] == [f"a_s{n:03d}.png" for n in range(1, len(places) + 1)]
    seen = np.zeros(image.shape[:2], bool)
    for number, (y, x) in enumerate(places, 1):
        np.testing.assert_array_equal(read(out / f"a_s{number:03d}.png"), image[y : y + 32, x : x + 32])
        seen[y : y + 32, x : x + 32] = True
    assert seen.all()


def test_the_layout_is_kept_small_images_stay_whole_and_a_small_rest_is_left_out(large, tmp_path):
    out = tmp_path / "out"
    run("cut", large, out, "--side", 32, "--step", 16)
    np.testing.assert_array_equal(read(out / "deep" / "small_s001.png"), picture(20, 24, 3))
    np.testing.assert_array_equal(read(out / "deep" / "er" / "grey_s003.png"), picture(64, 32, 2, channels=1)[32:])
    assert [n for n in names(out) if n.startswith("narrow")] == [f"narrow_s00{n}.png" for n in (1, 2, 3)]
    np.testing.assert_array_equal(read(out / "narrow_s003.png"), picture(50, 9, 4)[18:])
    run("cut", large, tmp_path / "fewer", "--side", 32, "--step", 16, "--least", 6)
    # 75 = 32 + 2 * 16 + 11 and 101 = 32 + 4 * 16 + 5: one more row, no more column.
    assert len([n for n in names(tmp_path / "fewer") if n.startswith("a_")]) == 4 * 5


def test_what_was_cut_stays_and_what_is_missing_is_made(large, tmp_path):
    out = tmp_path / "out"
    _, first, _ = run("cut", large, out, "--side", 32, "--step", 16)
    kept, lost = out / "a_s002.png", out / "a_s007.png"
    content = lost.read_bytes()
    lost.unlink()
    kept.write_bytes(b"mine")
    code, second, _ = run("cut", large, out, "--side", 32, "--step", 16)
    total = len(names(out))
    assert first.startswith(f"{total} pieces written, 0 already there")
    assert code == 0
    assert second.startswith(f"1 pieces written, {total - 1} already there")
    assert lost.read_bytes() == content
    assert kept.read_bytes() == b"mine"


def test_a_broken_image_is_named_and_the_rest_is_cut(large, tmp_path):
    (large / "broken.png").write_bytes((large / "a.png").read_bytes()[:500])
    code, stdout, stderr = run("cut", large, tmp_path / "out", "--side", 32, "--step", 16)
    assert code == 1
    assert "broken.png" in stderr
    assert len(stderr.splitlines()) == 1
    assert "1 images failed" in stdout
    assert {n.split("_")[0] for n in names(tmp_path / "out")} == {"a", "deep/er/grey", "deep/small", "narrow"}


def test_two_images_of_one_name_are_not_taken_for_each_other(tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    write(folder / "a.png", picture(40, 40))
    (folder / "a.bmp").write_bytes((folder / "a.png").read_bytes())
    code, _, stderr = run("cut", folder, tmp_path / "out", "--side", 32, "--step", 16)
    assert code == 1
    assert "a.png: a.bmp beside it has the same output" in stderr
    assert run("pairs", folder, tmp_path / "lq", "--scale", 2)[0] == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--side", "32", "--step", "33"], "--step must not exceed"),
        (["--side", "33", "--step", "16", "--scale", "2"], "multiples"),
        (["--side", "7"], "--side"),
    ],
)
def test_sizes_and_folders_that_cannot_be_are_refused(large, tmp_path, words, part):
    code, _, stderr = run("cut", large, tmp_path / "out", *words)
    assert code == 2
    assert part in stderr
    assert not (tmp_path / "out").exists()
    code, _, stderr = run("cut", large, large / "deep" / "pieces")
    assert (code, "cut again" in stderr) == (2, True)
    assert run("cut", tmp_path / "absent", tmp_path / "out")[0] == 2


def test_pieces_of_pairs_are_pairs_again(large, tmp_path):
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    gt.mkdir()
    write(gt / "odd.png", picture(75, 101, 1))
    write(gt / "even.png", picture(64, 48, 2))
    assert run("pairs", gt, lq, "--scale", 2)[0] == 0
    sizes = ["--side", 32, "--step", 16]
    assert run("cut", gt, tmp_path / "gt_sub", *sizes, "--multiple", 2)[0] == 0
    assert run("cut", lq, tmp_path / "lq_sub", *sizes, "--scale", 2)[0] == 0
    sources = find_sources([tmp_path / "gt_sub"], [tmp_path / "lq_sub"], 2)
    assert {source.lq.name for source in sources} == {f"{Path(s.name).stem}x2.png" for s in sources}
    loaded = load_images(sources, scale=2)
    whole = {name: imresize(read(gt / f"{name}.png")[:74, :100], 0.5) for name in ("odd", "even")}
    for image in loaded:
        assert image.lq().shape == (16, 16, 3)
        # Reduced from a piece or from the whole image: the same but for the edges.
        np.testing.assert_array_equal(image.lq()[4:-4, 4:-4], imresize(image.gt(), 0.5)[4:-4, 4:-4])
    assert len(loaded) > len(whole)


def test_pairs_are_the_bicubic_reduction_and_what_is_there_stays(tmp_path):
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    gt.mkdir()
    lq.mkdir()
    write(gt / "a.png", picture(25, 32, 1))
    write(gt / "b.png", picture(24, 24, 2, channels=1))
    write(gt / "tiny.png", picture(2, 2, 3))
    (lq / "bx3.png").write_bytes(b"mine")
    code, stdout, stderr = run("pairs", gt, lq, "--scale", 3)
    np.testing.assert_array_equal(read(lq / "ax3.png"), imresize(picture(25, 32, 1)[:24, :30], 1 / 3))
    assert (lq / "bx3.png").read_bytes() == b"mine"
    assert code == 1
    assert stdout == "1 written, 1 already there, 1 failed\n"
    assert "tiny.png" in stderr


@pytest.mark.slow  # three processes load PyTorch
def test_several_processes_do_the_same(large, tmp_path):
    (large / "broken.png").write_bytes(b"no image")
    words = [sys.executable, SCRIPT, "cut", large, tmp_path / "two", "--side", "32", "--step", "16", "--workers", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    run("cut", large, tmp_path / "one", "--side", 32, "--step", 16)
    assert done.returncode == 1
    assert "broken.png" in done.stderr
    assert names(tmp_path / "two") == names(tmp_path / "one")
    for name in names(tmp_path / "one"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_the_index_describes_every_image_and_agrees_with_the_folder(large):
    assert run("index", large)[0] == 0
    with (large / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.png", "deep/er/grey.png", "deep/small.png", "narrow.png"]
    content = (large / "deep" / "er" / "grey.png").read_bytes()
    assert rows[1] == {
        "file": "deep/er/grey.png",
        "width": "32",
        "height": "64",
        "channels": "1",
        "bytes": str(len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert run("index", large, "--check") == (0, "4 in the index, 0 differ, 0 failed\n", "")


def test_the_check_names_what_is_missing_changed_and_new_and_the_index_leaves_out_broken_images(large):
    run("index", large)
    (large / "a.png").unlink()
    write(large / "narrow.png", picture(50, 9, 5))
    write(large / "deep" / "more, and.png", picture(9, 9))
    code, stdout, _ = run("index", large, "--check")
    assert code == 1
    assert stdout.splitlines()[:-1] == ["missing: a.png", "new: deep/more, and.png", "changed: narrow.png"]
    (large / "broken.png").write_bytes(b"no image")
    code, _, stderr = run("index", large)
    assert code == 1
    assert "broken.png" in stderr
    assert "broken" not in (large / "index.csv").read_text()


def test_a_check_without_a_good_index_is_refused(large):
    code, _, stderr = run("index", large, "--check")
    assert (code, "no index at" in stderr) == (2, True)
    (large / "index.csv").write_text("file,width\na.png\n")
    code, _, stderr = run("index", large, "--check")
    assert (code, "not an index" in stderr) == (2, True)


@pytest.mark.parametrize(
    ("task", "scale", "made"),
    [
        ("lightweight_sr", 2, {"scale": 2, "bicubic": True}),
        ("gray_dn", 1, {"gray": True}),
        ("classical_sr", 4, {"scale": 4}),  # pairs
    ],
)
def test_training_finds_the_cache_and_decodes_nothing(large, tmp_path, monkeypatch, task, scale, made):
    folder, pairs = tmp_path / "cache", []
    if task == "classical_sr":
        for name in ("narrow.png", "deep"):
            (large / name).rename(tmp_path / name)
        run("pairs", large, tmp_path / "lq", "--scale", scale)
        pairs = [tmp_path / "lq"]
    sources = find_sources([large], pairs, scale)
    expected = load_images(sources, **made)
    code, stdout, _ = run(
        "cache", large, folder, "--task", task, "--scale", scale, *(["--lq", *pairs] if pairs else [])
    )
    assert code == 0
    assert f"{len(sources)} images decoded" in stdout
    monkeypatch.setattr(training_images, "read", lambda path: pytest.fail(f"{path} was decoded"))
    for found, image in zip(load_images(sources, cache=folder, **made), expected, strict=True):
        np.testing.assert_array_equal(found.gt(), image.gt())
        assert (found.lq is None) == (image.lq is None)
        if found.lq:
            np.testing.assert_array_equal(found.lq(), image.lq())


def test_a_cache_names_broken_images_and_unknown_tasks(large, tmp_path):
    (large / "broken.png").write_bytes(b"no image")
    code, _, stderr = run("cache", large, tmp_path / "cache", "--task", "color_dn")
    assert code == 1
    assert "broken.png" in stderr
    assert len(names(tmp_path / "cache")) == 4
    for words in (["--task", "nonsense"], ["--task", "classical_sr", "--scale", "5"]):
        code, _, stderr = run("cache", large, tmp_path / "none", *words)
        assert code == 2
        assert len(stderr.splitlines()) == 1

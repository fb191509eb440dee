"""Records of `swinir restore`: which lines count, where their files are, scores against references."""

import json
import math

import numpy as np
import pytest
from pictures import smooth, write
from reports import record, write_pair, write_records
from skimage.metrics import structural_similarity

from swinir.report.restore_records import find_files, read_results, with_scores


@pytest.fixture
def pair(tmp_path):
    """The record of an image of 24x20 that was doubled."""
    return write_pair(tmp_path, "a.png", smooth(20, 24), smooth(40, 48))


def test_the_last_finished_record_of_an_output_counts(tmp_path):
    path = write_records(
        tmp_path,
        record(output="out/a.png", seconds=1.0),
        record(output="out/b.png", status="failed", error="disk on fire"),
        record(output="out/a.png", seconds=2.0, added_by_a_later_version=3),
        record(output="out/b.png", status="restored"),
        record(output="out/b.png", status="begun"),
    )
    results, invalid = read_results(path)
    assert [(r.output, r.status, r.seconds) for r in results] == [
        ("out/a.png", "restored", 2.0), ("out/b.png", "restored", 1.5),
    ]  # fmt: skip
    assert invalid == 0


def test_every_field_of_a_record_is_read(tmp_path):
    fields = {
        "noise_level": 25, "jpeg_quality": 40.5, "tile": 64, "findings": ["f"], "notes": ["n"], "error": "\udce9",
        "experts": [["a", "b"], ["c", "d"]], "strength": 0.5,
    }  # fmt: skip
    (result,) = read_results(write_records(tmp_path, record(**fields)))[0]
    assert json.loads(json.dumps(vars(result))) == json.loads(record(**fields))


def test_lines_that_are_no_records_are_counted_and_skipped(tmp_path):
    wrong = [
        {"status": "done"}, {"status": ["restored"]}, {"width": "<b>"}, {"width": -1}, {"width": True},
        {"seconds": math.inf}, {"seconds": "1"}, {"findings": [1]}, {"findings": None}, {"findings": "text"},
        {"experts": [["a"]]}, {"experts": 7}, {"tile": [1]}, {"error": None}, {"noise_level": "25"},
        {"jpeg_quality": math.nan}, {"jpeg_quality": -1}, {"output": 3},
    ]  # fmt: skip
    lines = [record()[:-40], "[]", "3", '{"status": "restored"}', "[" * 100_000, b"\xff\xfe\0".decode("latin-1")]
    lines += [record().replace("24", "9" * digits) for digits in (30, 5000)]
    lines += [record(**fields) for fields in wrong]
    results, invalid = read_results(write_records(tmp_path, *lines, record(output="out/good.png")))
    assert [r.output for r in results] == ["out/good.png"]
    assert invalid == len(lines)


def test_files_are_found_from_other_folders(tmp_path, pair, monkeypatch):
    records = write_records(tmp_path, pair)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (entry,) = find_files(read_results(records)[0], records.parent)
    assert entry.source.samefile(tmp_path / "in" / "a.png")
    assert entry.target.samefile(tmp_path / "out" / "a.png")


def test_outputs_are_found_in_a_renamed_folder_and_never_taken_for_inputs(tmp_path, pair):
    write_records(tmp_path, pair)
    (tmp_path / "in" / "a.png").unlink()
    moved = (tmp_path / "out").rename(tmp_path / "new")
    (entry,) = find_files(read_results(moved)[0], moved)
    assert entry.target.samefile(moved / "a.png")
    assert not entry.source.exists()


def test_psnr_has_its_closed_form_and_ssim_is_that_of_scikit_image(tmp_path, pair):
    rng = np.random.default_rng(0)
    gt = np.clip(smooth(40, 48).astype(int), 10, 245).astype(np.uint8)
    noisy = np.clip(gt + rng.normal(0, 20, gt.shape), 0, 255).astype(np.uint8)
    (tmp_path / "gt").mkdir()
    write(tmp_path / "gt" / "a.tif", gt)
    (entry,) = find_files(read_results(write_records(tmp_path, pair))[0], tmp_path / "out", tmp_path / "gt")
    write(entry.target, gt + np.uint8(10))
    scores = with_scores(entry).scores
    assert scores.psnr == pytest.approx(20 * math.log10(255 / 10))
    luma_step = 10 / 255 * (65.481 + 128.553 + 24.966)
    assert scores.psnr_y == pytest.approx(20 * math.log10(255 / luma_step), abs=0.005)
    write(entry.target, noisy)
    _, similarity = structural_similarity(
        gt, noisy, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert with_scores(entry).scores.ssim == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-6)


def test_equal_and_small_images_have_the_scores_that_are_defined(tmp_path):
    lines = [write_pair(tmp_path, f"{n}.png", smooth(n, n), smooth(n, n)) for n in (8, 12)]
    small, large = find_files(read_results(write_records(tmp_path, *lines))[0], tmp_path / "out", tmp_path / "in")
    assert (with_scores(small).scores.psnr, with_scores(small).scores.ssim) == (math.inf, None)
    assert (with_scores(large).scores.psnr_y, with_scores(large).scores.ssim_y) == (math.inf, 1)

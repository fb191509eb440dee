"""The images of a benchmark: pairs by name, the low-quality image of each task, refusals that name the file."""

import cv2
import numpy as np
import pytest

from swinir.degradations.resize import imresize
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.samples import Sample, find_samples, find_set, load_sample
from swinir.image_io.image import read, write
from swinir.tasks import TASKS, get_task
from swinir.testsets import BENCHMARK_SETS

SR = Protocol(TASKS["lightweight_sr"], scale=2)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path):
    """Three pairs of a x2 benchmark: (folder_lq, folder_gt)."""
    for name in ("lq", "gt"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c"):
        write(tmp_path / "gt" / f"{name}.png", noise(32, 40))
        write(tmp_path / "lq" / f"{name}x2.png", noise(16, 20))
    return tmp_path / "lq", tmp_path / "gt"


def test_pairs_are_joined_by_the_name_with_the_scale(pairs):
    lq, gt = pairs
    assert find_samples(SR, lq, gt) == [Sample(name, lq / f"{name}x2.png", gt / f"{name}.png") for name in "abc"]


def test_a_partner_may_have_another_suffix_but_the_same_one_comes_first(pairs):
    lq, gt = pairs
    cv2.imwrite(str(lq / "ax2.bmp"), noise(16, 20))
    assert find_samples(SR, lq, gt)[0].lq == lq / "ax2.png"
    (lq / "ax2.png").unlink()
    assert find_samples(SR, lq, gt)[0].lq == lq / "ax2.bmp"


@pytest.mark.parametrize(
    ("files", "partner"),
    [(["a.png", "ax1.png", "a.bmp"], "a.png"), (["ax1.png", "a.bmp"], "ax1.png"), (["a.bmp"], "a.bmp"), ([], None)],
)
def test_images_of_one_size_are_joined_by_the_same_name(tmp_path, files, partner):
    for folder, names in (("lq", files), ("gt", ["a.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            cv2.imwrite(str(tmp_path / folder / name), noise(16, 20))
    (sample,) = find_samples(Protocol(TASKS["real_photo"]), tmp_path / "lq", tmp_path / "gt")
    problem = "" if partner else f"{tmp_path / 'gt/a.png'}: no low-quality partner {tmp_path / 'lq/a.png'}"
    assert (sample.lq and sample.lq.name, sample.gt.name, sample.problem) == (partner, "a.png", problem)


@pytest.mark.parametrize(
    ("scale", "lq", "gt"), [(2.5, (12, 16), (30, 40)), (3.7, (8, 10), (30, 37)), (1.1, (29, 36), (32, 40))]
)
def test_at_another_scale_low_quality_images_are_made_and_ground_truths_cropped(pairs, scale, lq, gt):
    protocol = Protocol(TASKS["lightweight_sr"], scale=scale)
    loaded = load_sample(find_samples(protocol, None, pairs[1])[0], protocol)
    picture = read(pairs[1] / "a.png")[: gt[0], : gt[1]]
    assert np.array_equal(loaded[0], imresize(picture, size=lq).astype(np.float32) / 255)
    assert np.array_equal(loaded[1], picture)


def test_a_missing_partner_is_named_and_the_others_stay(pairs):
    lq, gt = pairs
    (lq / "bx2.png").unlink()
    problems = [sample.problem for sample in find_samples(SR, lq, gt)]
    assert problems == ["", f"{gt / 'b.png'}: no low-quality partner {lq / 'bx2.png'}", ""]


def test_files_whose_outputs_would_share_a_name_are_told_apart(tmp_path):
    write(tmp_path / "a.png", noise(16, 16))
    cv2.imwrite(str(tmp_path / "a.bmp"), noise(16, 16))
    first, second = find_samples(Protocol(TASKS["color_dn"]), None, tmp_path)
    assert not first.problem
    assert str(tmp_path / "a.png") in second.problem
    assert str(tmp_path / "a.bmp") in second.problem


@pytest.mark.parametrize(
    ("task", "lq", "gt", "role"),
    [
        ("color_dn", False, True, "gt"),
        ("color_dn", True, False, "lq"),
        ("color_dn", True, True, "gt"),
        ("jpeg_car", False, True, "gt"),
        ("real_sr", True, True, "lq"),
        ("classical_sr", True, False, "lq"),
    ],
)
def test_the_task_and_the_folders_given_decide_what_a_file_is(tmp_path, task, lq, gt, role):
    write(tmp_path / "a.png", noise(16, 16))
    protocol = Protocol(TASKS[task], scale=TASKS[task].scales[0])
    (sample,) = find_samples(protocol, tmp_path if lq else None, tmp_path if gt else None)
    assert [name for name in ("lq", "gt") if getattr(sample, name) is not None] == [role]


def test_missing_options_and_empty_folders_are_refused_by_name(tmp_path):
    for task, option in (("color_dn", "--folder_gt"), ("real_sr", "--folder_lq"), ("classical_sr", "--folder_lq")):
        with pytest.raises(ValueError, match=f"{task} needs {option}"):
            find_samples(Protocol(TASKS[task]), None, None)
    with pytest.raises(ValueError, match=f"no images in {tmp_path}; look at --folder_gt"):
        find_samples(Protocol(TASKS["color_dn"]), None, tmp_path)
    write(tmp_path / "a.png", noise(16, 16))
    with pytest.raises(ValueError, match="needs --folder_lq beside --folder_gt"):
        find_samples(SR, None, tmp_path)


def test_a_benchmark_set_is_found_as_its_task_wants_it(tmp_path):
    pair, one, raw = tmp_path / "Set5", tmp_path / "McMaster", tmp_path / "RealSRSet+5images"
    same_size = tmp_path / "CC15"
    files = [(pair / "HR", "a"), (pair / "LR_bicubic" / "X2", "ax2"), (one, "b"), (raw, "c")]
    for folder, name in (*files, (same_size / "noisy", "d"), (same_size / "clean", "d")):
        folder.mkdir(parents=True)
        write(folder / f"{name}.png", np.zeros((8, 8, 3), np.uint8))

    def found(task, name, **level):
        (sample,) = find_set(Protocol(get_task(task), **level), BENCHMARK_SETS[name], tmp_path)
        return sample.lq and sample.lq.name, sample.gt and sample.gt.name

    assert found("real_photo", "CC15") == ("d.png", "d.png")
    assert found("color_dn", "CC15", noise=25) == (None, "d.png")
    assert found("classical_sr", "Set5", scale=2) == ("ax2.png", "a.png")
    assert found("color_dn", "McMaster") == (None, "b.png")
    assert found("real_sr", "RealSRSet+5images", scale=4) == ("c.png", None)


# Low-quality images, made without the package


def test_super_resolution_reads_the_file_and_crops_the_reference_to_it(tmp_path):
    gt, lq = noise(35, 41), noise(16, 20)
    write(tmp_path / "gt.png", gt)
    write(tmp_path / "lq.png", lq)
    ours, reference = load_sample(Sample("a", tmp_path / "lq.png", tmp_path / "gt.png"), SR)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, lq.astype(np.float32) / 255)
    assert np.array_equal(reference, gt[:32, :40])


@pytest.mark.parametrize("size", [(31, 40), (32, 39), (32, 52), (64, 80)])
def test_a_partner_of_the_wrong_size_is_named_with_both_sizes(tmp_path, size):
    write(tmp_path / "gt.png", noise(*size))
    write(tmp_path / "lq.png", noise(16, 20))
    with pytest.raises(ValueError, match=r"lq.png: 20x16 at scale 2 does not match .*gt.png") as caught:
        load_sample(Sample("a", tmp_path / "lq.png", tmp_path / "gt.png"), SR)
    assert f"{size[1]}x{size[0]}" in str(caught.value)


def load(tmp_path, image, task, **level):
    write(tmp_path / "gt.png", image)
    return load_sample(Sample("a", None, tmp_path / "gt.png"), Protocol(TASKS[task], **level))


def test_denoising_adds_the_benchmarks_noise(tmp_path):
    gt = noise(9, 7)
    lq, reference = load(tmp_path, gt, "color_dn", noise=25)
    added = np.random.RandomState(0).normal(0, 25 / 255, gt.shape)
    assert np.array_equal(lq[..., ::-1], (gt[..., ::-1].astype(np.float32) / 255 + added).astype(np.float32))
    assert np.array_equal(reference, gt)
    _, reference = load(tmp_path, gt, "gray_dn")
    assert np.array_equal(reference[..., 0], cv2.imread(str(tmp_path / "gt.png"), cv2.IMREAD_GRAYSCALE))


def test_jpeg_tasks_compress_the_reference(tmp_path):
    gt = noise(20, 24)
    lq, reference = load(tmp_path, gt, "color_jpeg_car", jpeg=10)
    data = cv2.imencode(".jpg", gt[..., ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, 10])[1]
    assert np.array_equal(lq[..., ::-1], cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / 255)
    assert np.array_equal(reference, gt)


def test_grey_jpeg_takes_the_studio_range_luma_of_colour_files_and_grey_ones_as_they_are(tmp_path):
    gt = noise(20, 24)
    _, of_colour = load(tmp_path, gt, "jpeg_car")
    _, of_grey = load(tmp_path, gt[..., :1], "jpeg_car")
    exact = gt @ np.array([65.481, 128.553, 24.966]) / 255 + 16
    assert np.abs(of_colour[..., 0] - exact).max() <= 0.501
    assert np.array_equal(of_grey, gt[..., :1])


def test_an_input_that_is_a_file_of_its_own_is_left_as_it_is(tmp_path):
    noisy = noise(9, 7)
    write(tmp_path / "noisy.png", noisy)
    lq, reference = load_sample(Sample("a", tmp_path / "noisy.png", None), Protocol(TASKS["color_dn"]))
    assert np.array_equal(lq, noisy.astype(np.float32) / 255)
    assert reference is None

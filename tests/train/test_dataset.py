"""Training samples: places, numbers, degradations, and what a configuration makes of them."""

import itertools
import math
import multiprocessing
import pickle
import warnings
from collections import Counter
from itertools import islice
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from training import configuration

from swinir.degradations.jpeg import SUBSAMPLINGS, jpeg
from swinir.degradations.resize import imresize
from swinir.image_io.image import to_gray, write
from swinir.train.dataset import (
    Degrader,
    JpegOptions,
    Part,
    TaskStream,
    TrainingSamples,
    batches,
    build_degrader,
    chain_degrader,
    jpeg_degrader,
    load_samples,
    noise_degrader,
    on_device,
    reducer,
    to_unit,
)
from swinir.train.distributed import Processes
from swinir.train.images import TrainingImage, find_sources, load_images

UNCHANGED = Degrader(lambda gt, rng: (gt, gt))


def image(gt, lq=None):
    """A decoded image of (H, W, C) uint8."""
    return TrainingImage("x", 0, gt.shape[0], gt.shape[1], lambda: gt, None if lq is None else lambda: lq)


def coordinates(height, width, scale=1, mark=0):
    """Pixels hold their coordinates; of a block of ground truth, the low-quality pixel holds the least."""
    rows, cols = np.mgrid[: height * scale, : width * scale].astype(np.uint8)
    gt = np.stack([rows, cols, np.full_like(rows, mark)], axis=2)
    return image(gt, gt[::scale, ::scale])


def noisy_picture(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def patches(samples, count):
    """The first samples as (lq, gt), each (H, W, C)."""
    return [tuple(tensor.permute(1, 2, 0).numpy() for tensor in samples[n]) for n in range(count)]


# Places.


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_patches_show_the_same_place_in_both_images(scale):
    for lq, gt in patches(TrainingSamples([coordinates(20, 24, scale)], patch=8, scale=scale, seed=0), 80):
        assert lq.shape == (8, 8, 3)
        assert gt.shape == (8 * scale, 8 * scale, 3)
        assert lq.dtype == gt.dtype == np.uint8
        assert np.array_equal(gt.reshape(8, scale, 8, scale, 3).min(axis=(1, 3)), lq)


@pytest.mark.parametrize("degrader", [None, UNCHANGED], ids=["files", "degraded"])
def test_patches_are_turned_in_all_eight_ways_and_reach_every_place(degrader):
    samples = TrainingSamples([coordinates(11, 10, 1)], patch=8, scale=1, seed=0, degrader=degrader)
    ways, places = Counter(), Counter()
    for lq, _ in patches(samples, 1200):
        down, right = (lq[1, 0] - lq[0, 0].astype(int)).tolist(), (lq[0, 1] - lq[0, 0].astype(int)).tolist()
        ways[*down, *right] += 1
        places[tuple(lq[..., :2].min(axis=(0, 1)).tolist())] += 1
    assert len(ways) == 8
    assert set(places) == {(y, x) for y in range(4) for x in range(3)}
    assert all(abs(count - 150) < 5 * math.sqrt(150) for count in ways.values())
    assert all(abs(count - 100) < 5 * math.sqrt(100) for count in places.values())


def test_samples_of_a_batch_share_a_scale_however_it_is_split_and_batches_differ():
    images = [image(noisy_picture(40, 44))]
    samples = TrainingSamples(images, patch=8, scale=(1.1, 4), seed=0, degrader=reducer(8))
    whole = [part for [part] in islice(batches(samples, first=6, batch=4), 5)]
    sides = [gt.shape[-1] for _, gt in whole]
    assert all(lq.shape == (4, 3, 8, 8) for lq, _ in whole)
    assert len(set(sides)) > 2
    assert all(round(1.1 * 8) <= side <= 32 for side in sides)
    for index in range(2):
        for (lq, gt), [part] in zip(whole, batches(samples, first=6, batch=4, parts=[Part(index, 2)]), strict=False):
            assert torch.equal(part[0], lq[2 * index : 2 * index + 2])
            assert torch.equal(part[1], gt[2 * index : 2 * index + 2])


def test_patches_of_any_scale_are_reduced_to_their_size():
    samples = TrainingSamples([image(noisy_picture(40, 44))], patch=8, scale=(1.1, 4), seed=0, degrader=reducer(8))
    for lq, gt in patches(samples, 5):
        assert np.array_equal(lq, imresize(gt, size=(8, 8)))


def test_images_are_drawn_in_proportion_to_their_pixels():
    images = [coordinates(10, 10, mark=1), coordinates(20, 20, mark=2)]
    counts = Counter(int(lq[0, 0, 2]) for lq, _ in patches(TrainingSamples(images, patch=4, scale=1, seed=0), 2000))
    assert counts[2] / 2000 == pytest.approx(0.8, abs=0.04)


def test_images_may_be_drawn_equally_often_whatever_their_size():
    samples = TrainingSamples([coordinates(10, 10, 1), coordinates(20, 20, 1)], patch=4, scale=1, seed=0, draw="images")
    sizes = Counter(lq[..., :2].max() >= 10 for lq, _ in patches(samples, 2000))
    # Of the large image, 17 * 17 places less the 7 * 7 that lie within its first 10 rows and columns are told apart.
    assert sizes[True] / 2000 == pytest.approx(0.5 * (1 - 49 / 289), abs=0.04)


def test_bytes_become_units_of_one_and_floats_are_kept():
    cpu = torch.device("cpu")
    found = to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8), cpu)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.tensor([0, 51, 255]) / torch.tensor(255.0))
    values = torch.tensor([-0.5, 1.5])
    assert torch.equal(to_unit(values, cpu), values)
    assert to_unit(values, cpu, torch.float64).dtype == torch.float64


# Numbers.


def stream(samples, count, **options):
    """The first samples of a stream of batches, one by one."""
    found = []
    for ((lq, gt),) in batches(samples, **options):
        found += zip(lq, gt, strict=True)
        if len(found) >= count:
            return found[:count]
    raise AssertionError("it ended")


def equal(one, other):
    return all(
        torch.equal(a, b) for pair, twin in zip(one, other, strict=True) for a, b in zip(pair, twin, strict=True)
    )


@pytest.fixture
def samples():
    images = [coordinates(30 + i, 40, mark=i) for i in range(3)]
    return TrainingSamples(images, patch=8, scale=1, seed=5, degrader=noise_degrader((0, 50)))


@pytest.mark.parametrize(("workers", "batch", "first"), [(0, 2, 0), (1, 6, 0), (2, 3, 7)])
def test_a_sample_depends_on_its_number_and_the_seed_alone(samples, workers, batch, first):
    expected = [samples[n] for n in range(first, first + 12)]
    assert equal(stream(samples, 12, first=first, batch=batch, workers=workers), expected)
    other = TrainingSamples(samples.images, patch=8, scale=1, seed=6, degrader=samples.degrader)
    assert not equal([samples[first]], [other[first]])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_of_all_processes_are_the_batch(samples, accumulate):
    count = 2 * accumulate
    hands = []
    for rank in range(2):
        parts = [Part(i * 2 + rank, count) for i in range(accumulate)]
        hands.append([part for batch in islice(batches(samples, first=0, batch=8, parts=parts), 2) for part in batch])
    dealt = [hands[index % 2][index // 2] for index in range(2 * count)]
    assert all(len(lq) == 8 // count for lq, _ in dealt)
    assert equal([pair for lq, gt in dealt for pair in zip(lq, gt, strict=True)], [samples[n] for n in range(16)])


KINDS = {  # of degradations, with the task that has them
    "bicubic": {},
    "noise": {"task": "color_dn", "scale": 1},
    "jpeg": {"task": "color_jpeg_car", "scale": 1, "data": {"patch": 14}},
    "bsrgan": {"task": "real_sr", "network": {}},
}


def made(images, kind, **data):
    """The samples that a configuration describes."""
    options = KINDS[kind] | {"data": KINDS[kind].get("data", {}) | data}
    return load_samples(configuration(images, **options), find_sources([images]))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_can_be_pickled_for_workers(images, tmp_path, kind):
    for data in ({}, {"cache": tmp_path / "cache"}):
        ours = made(images, kind, **data)
        assert equal([pickle.loads(pickle.dumps(ours))[3]], [ours[3]])


@pytest.fixture(params=["spawn", "forkserver"])
def start_method(request):
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no such start method")
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_workers_that_are_not_forked_draw_the_same_samples(images, start_method):
    ours = made(images, "noise")
    assert equal(stream(ours, 6, first=0, batch=2, workers=2), [ours[n] for n in range(6)])


class Recorded:
    """A tensor of which only the copies to a device are known."""

    def __init__(self, name, events):
        self.name, self.events = name, events

    def to(self, device, non_blocking):
        assert non_blocking
        self.events.append(f"copy {self.name}")
        return self

    def record_stream(self, stream):
        self.events.append(f"{stream} uses {self.name}")


def test_the_next_batch_is_copied_to_a_gpu_before_the_one_before_it_is_trained_on(monkeypatch):
    events = []
    main = MagicMock(wait_stream=lambda side: events.append("wait"), __str__=lambda _: "main")
    monkeypatch.setattr(torch.cuda, "Stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    pinned = ([(Recorded(f"lq{n}", events), Recorded(f"gt{n}", events))] for n in itertools.count())
    for number, batch in zip(range(2), on_device(pinned, torch.device("cuda")), strict=False):
        assert [tensor.name for part in batch for tensor in part] == [f"lq{number}", f"gt{number}"]
        events.append(f"train {number}")
    assert events[:2] == ["copy lq0", "copy gt0"]
    step = ["wait", "main uses lq{0}", "main uses gt{0}", "copy lq{1}", "copy gt{1}", "train {0}"]
    assert events[2:14] == [event.format(n, n + 1) for n in range(2) for event in step]


def test_batches_for_a_gpu_are_prepared_by_workers_in_pinned_memory_and_others_are_not(images, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr("swinir.train.dataset.DataLoader", lambda samples, **options: asked.append(options) or [None])
    monkeypatch.setattr("swinir.train.dataset.on_device", lambda batches, device: batches)
    for name in ("cuda", "cpu"):
        stream = TaskStream(configuration(images), Processes(torch.device(name)))
        stream.load()
        next(stream.batches(0, 0))
    assert [(options["num_workers"], options["pin_memory"]) for options in asked] == [(8, True), (0, False)]


def test_samples_are_copies(images, tmp_path):
    write(images / "a.png", noisy_picture(16, 16))
    for cache in (None, tmp_path / "cache"):
        loaded = load_images(find_sources([images]), cache=cache)
        before = loaded[0].gt().copy()
        whole = TrainingSamples(loaded[:1], patch=16, scale=1, seed=0, degrader=UNCHANGED)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for number in range(60):
                lq, _ = whole[number]
                lq += 1
        assert np.array_equal(loaded[0].gt(), before)


# Degradations.


def test_super_resolution_learns_from_matlabs_bicubic_of_the_whole_image(images):
    loaded = load_images(find_sources([images]), scale=2, bicubic=True)
    wholes = [imresize(i.gt(), 0.5) for i in loaded]
    for lq, _ in patches(TrainingSamples(loaded, patch=8, scale=2, seed=0), 10):
        turned = [np.rot90(lq, k)[:, ::step] for k in range(4) for step in (1, -1)]
        windows = [np.lib.stride_tricks.sliding_window_view(w, (8, 8), axis=(0, 1)) for w in wholes]
        found = [(w == t.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any() for w in windows for t in turned]
        assert sum(found) >= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_has_the_stated_deviation_and_is_not_clipped(channels):
    gt = np.full((64, 64, channels), 255, np.uint8)
    samples = TrainingSamples([image(gt)], patch=64, scale=1, seed=0, degrader=noise_degrader(25))
    found = patches(samples, 20)
    assert all(lq.dtype == np.float32 and clean.dtype == np.uint8 for lq, clean in found)
    noise = np.stack([lq - 1 for lq, _ in found]) * 255
    values = noise.size
    assert noise.mean() == pytest.approx(0, abs=5 * 25 / math.sqrt(values))
    assert noise.std() == pytest.approx(25, abs=5 * 25 / math.sqrt(2 * values))
    assert (noise > 0).mean() == pytest.approx(0.5, abs=0.02)
    if channels == 3:
        correlation = np.corrcoef(noise.reshape(-1, 3), rowvar=False)
        assert np.abs(correlation - np.eye(3)).max() < 0.02


def test_noise_of_a_range_has_every_deviation_of_it_as_often():
    gt = np.full((32, 32, 3), 128, np.uint8)
    samples = TrainingSamples([image(gt)], patch=32, scale=1, seed=0, degrader=noise_degrader((10, 50)))
    sigmas = np.array([(lq - np.float32(128) / 255).std() * 255 for lq, _ in patches(samples, 400)])
    assert 9 < sigmas.min() < 12
    assert 48 < sigmas.max() < 53
    counts, _ = np.histogram(sigmas, [10, 20, 30, 40, 50])
    assert all(abs(count - 100) < 5 * math.sqrt(100) for count in counts)


@pytest.mark.parametrize("channels", [1, 3])
def test_compressed_patches_are_cut_from_a_larger_one_at_its_corner_or_anywhere(channels):
    crops = []
    plain = jpeg_degrader(JpegOptions(40, 14))
    degrader = Degrader(lambda gt, rng: (crops.append(gt.copy()), plain.degrade(gt, rng))[1], plain.margin)
    samples = TrainingSamples([image(noisy_picture(60, 60, channels))], patch=14, scale=1, seed=0, degrader=degrader)
    places = Counter()
    for (lq, gt), crop in zip(patches(samples, 600), crops, strict=True):
        assert crop.shape == (22, 22, channels)
        assert lq.dtype == gt.dtype == np.uint8
        compressed = jpeg(crop, 40)
        (place,) = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if np.array_equal(compressed[y : y + 14, x : x + 14], lq)
            and np.array_equal(crop[y : y + 14, x : x + 14], gt)
        ]
        places[place] += 1
    aligned = 0.5 + 0.5 / 81
    assert places[0, 0] / 600 == pytest.approx(aligned, abs=4 * math.sqrt(aligned * (1 - aligned) / 600))
    assert len(places) > 70


@pytest.mark.parametrize(("unaligned", "corner"), [(0.0, 40), (1.0, 0)])
def test_the_share_of_patches_off_the_grid_is_a_choice(unaligned, corner):
    gt = noisy_picture(24, 24)
    degrader = jpeg_degrader(JpegOptions(30, 8, 16, unaligned))
    compressed = jpeg(gt, 30)[:8, :8]
    found = [degrader.degrade(gt, np.random.default_rng(n))[0] for n in range(40)]
    assert sum(np.array_equal(lq, compressed) for lq in found) == pytest.approx(corner, abs=2)


def test_qualities_of_a_range_are_all_met_both_ends_included():
    gt = noisy_picture(16, 16)
    degrader = jpeg_degrader(JpegOptions((30, 33), 16, 0))
    known = {jpeg(gt, quality).tobytes(): quality for quality in range(29, 35)}
    counts = Counter(known[degrader.degrade(gt, np.random.default_rng(n))[0].tobytes()] for n in range(200))
    assert set(counts) == {30, 31, 32, 33}
    assert min(counts.values()) > 25


def test_the_logarithm_of_a_quality_may_be_uniform():
    """Half of the qualities from 5 to 80 then lie below 20, the geometric mean."""
    gt = noisy_picture(16, 16, channels=1)
    degrader = jpeg_degrader(JpegOptions((5, 80), 16, 0, log_quality=True))
    low = {jpeg(gt, quality).tobytes() for quality in range(5, 20)}
    count = sum(degrader.degrade(gt, np.random.default_rng(n))[0].tobytes() in low for n in range(300))
    assert count / 300 == pytest.approx(0.5, abs=0.13)


def test_a_share_of_patches_keeps_its_chroma_planes_whole():
    gt = noisy_picture(16, 16)
    degrader = jpeg_degrader(JpegOptions(50, 16, 0, full_chroma_prob=0.3))
    known = {jpeg(gt, 50, subsampling).tobytes(): subsampling for subsampling in SUBSAMPLINGS}
    counts = Counter(known[degrader.degrade(gt, np.random.default_rng(n))[0].tobytes()] for n in range(300))
    assert counts["4:4:4"] / 300 == pytest.approx(0.3, abs=0.12)


def test_a_share_of_patches_is_compressed_twice():
    """Compressing once more changes an image that was compressed before much less than a fresh one."""
    gt = noisy_picture(16, 16)
    degrader = jpeg_degrader(JpegOptions((30, 80), 16, 0, double_prob=0.4))
    once = {jpeg(gt, quality).tobytes() for quality in range(30, 81)}
    twice = sum(degrader.degrade(gt, np.random.default_rng(n))[0].tobytes() not in once for n in range(300))
    assert twice / 300 == pytest.approx(0.4, abs=0.13)


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({"task": "color_dn", "noise": 20}, 20),
        ({"task": "color_jpeg_car", "jpeg": 10, "data": {"patch": 14}}, None),
        ({"task": "color_dn", "degradation": {"kind": "photo"}}, None),
    ],
    ids=["noise", "jpeg", "photo"],
)
def test_a_share_of_patches_is_grey_in_three_equal_channels(options, level):
    degradation = options.get("degradation", {}) | {"gray_prob": 0.5, "unaligned": 0.0}
    degrader = build_degrader(configuration("images", **options | {"scale": 1, "degradation": degradation}))
    side = 64 + degrader.margin
    gt = noisy_picture(side, side)
    found = [degrader.degrade(gt, np.random.default_rng(n)) for n in range(100)]
    grey = [(lq, clean) for lq, clean in found if (clean[..., :1] == clean).all()]
    assert len(grey) == pytest.approx(50, abs=22)
    for lq, clean in grey:
        assert np.array_equal(lq, np.repeat(lq[..., :1], 3, axis=2))
        assert np.array_equal(clean[..., :1], to_gray(gt)[: clean.shape[0], : clean.shape[1]])
        if level:
            assert (lq - clean / 255).std() * 255 == pytest.approx(level, rel=0.05)


def test_a_share_of_patches_is_softened_with_its_ground_truth():
    """A white dot keeps its sum and becomes a Gaussian of at most 1.2 pixels; the noise on it stays white."""
    degradation = {"soft_prob": 0.5}
    degrader = build_degrader(configuration("images", task="color_dn", scale=1, noise=10, degradation=degradation))
    gt = np.zeros((33, 33, 3), np.uint8)
    gt[16, 16] = 255
    found = [degrader.degrade(gt, np.random.default_rng(n)) for n in range(100)]
    soft = [(lq, clean) for lq, clean in found if not np.array_equal(clean, gt)]
    assert len(soft) == pytest.approx(45, abs=20)  # the weakest blurs change no value
    for lq, clean in soft:
        assert clean.sum(dtype=int) == pytest.approx(gt.sum(dtype=int), rel=0.06)
        assert clean.max() >= 255 / (2 * math.pi * 1.2**2) - 1
        assert (lq - clean / 255).std() * 255 == pytest.approx(10, rel=0.08)


@pytest.mark.parametrize(("name", "scale"), [("bsrgan", 2), ("bsrgan_plus", 4), ("realesrgan", 4), ("photo", 1)])
def test_chains_for_photographs_give_patches_of_the_right_size_and_range(name, scale):
    samples = TrainingSamples(
        [image(noisy_picture(100, 100))], patch=16, scale=scale, seed=0, degrader=chain_degrader(name, scale, {})
    )
    for number in range(2):
        lq, gt = samples[number]
        assert lq.shape == (3, 16, 16)
        assert gt.shape == (3, 16 * scale, 16 * scale)
        assert (lq.dtype, gt.dtype) == (torch.float32, torch.uint8)
        assert lq.min() >= 0
        assert lq.max() <= 1
        assert torch.equal(lq, samples[number][0])


# From configurations.


def drawn(config, gt):
    degrader = build_degrader(config)
    return degrader.degrade(gt, np.random.default_rng(0))[0]


@pytest.mark.parametrize(("options", "level"), [({}, 50), ({"noise": 5}, 5)])
def test_the_noise_level_is_the_tasks_or_the_chosen_one(options, level):
    config = configuration("images", task="color_dn", scale=1, noise=50, degradation=options)
    assert drawn(config, np.full((64, 64, 3), 128, np.uint8)).std() * 255 == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize(("options", "quality"), [({}, 10), ({"quality": 90}, 90)])
def test_the_quality_is_the_tasks_or_the_chosen_one(options, quality):
    gt, degradation = to_gray(noisy_picture(14, 14)), {"margin": 0} | options
    config = configuration("images", task="jpeg_car", scale=1, jpeg=10, data={"patch": 14}, degradation=degradation)
    assert np.array_equal(drawn(config, gt), jpeg(gt, quality))


def test_files_and_bicubic_need_no_degrader_and_chains_take_their_options_from_the_configuration():
    real = {"task": "real_sr", "network": {}}
    assert build_degrader(configuration("images")) is None
    assert build_degrader(configuration("images", task="color_dn", scale=1, data={"train_lq": "lq"})) is None
    assert build_degrader(configuration("images", degradation={"kind": "bicubic"}, **real)) is None
    with pytest.raises(ValueError, match=r"unknown key degradation\.options\.nonsense"):
        build_degrader(configuration("images", degradation={"options": {"nonsense": 1}}, **real))

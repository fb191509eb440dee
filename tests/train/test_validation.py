"""Validation: the tester's numbers on separate or held-out images, shared among any number of processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training import CPU, SMALL, configuration, cpu_trainer, smooth_image

from swinir.degradations.jpeg import jpeg
from swinir.degradations.noise import benchmark_noise
from swinir.degradations.resize import imresize
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.results import means
from swinir.evaluation.samples import Sample, find_samples
from swinir.image_io.color import luma
from swinir.image_io.image import ImageError, read, to_gray, write
from swinir.inference.restore import restore
from swinir.metrics.full_reference import psnr, ssim
from swinir.models.any_scale import at_scale
from swinir.train.distributed import Processes
from swinir.train.images import Source, find_sources, split_holdout
from swinir.train.initialize import build_network
from swinir.train.validation import Validation

NUMBERS = ("psnr", "ssim", "psnr_y", "ssim_y", "psnrb", "psnrb_y")


def network_of(config):
    return build_network(config).eval()


def held_out(images, count=2):
    return split_holdout(find_sources([images]), count)[1]


def numbers(rows):
    return [(row.image, row.status, *(getattr(row, name) for name in NUMBERS)) for row in rows]


def restored(network, lq):
    """Output of the network for an (H, W, C) float32 image, as uint8."""
    out = restore(network, torch.from_numpy(lq.transpose(2, 0, 1).copy())[None], check=False)  # noise exceeds [0, 1]
    return (out[0] * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.fixture
def benchmark(tmp_path):
    """Folders with three ground-truth images and their low-quality partners at scale 2."""
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    gt.mkdir()
    lq.mkdir()
    for i in range(3):
        picture = smooth_image(40 + 2 * i, 48, i)
        write(gt / f"{i}.png", picture)
        write(lq / f"{i}x2.png", imresize(picture, 0.5))
    return gt, lq


def test_files_give_the_testers_numbers_and_so_does_ground_truth_alone(benchmark):
    gt, lq = benchmark
    config = configuration("images", data={"holdout": 0, "validate_gt": gt, "validate_lq": lq})
    network = network_of(config)
    expected = list(evaluate(network, find_samples(config.protocol, lq, gt), config.protocol))
    assert all(row.status == "ok" for row in expected)
    alone = configuration("images", data={"holdout": 0, "validate_gt": gt})
    for options in (config, alone):
        assert numbers(Validation(options, []).run(network, Processes(CPU))) == numbers(expected)


def test_held_out_images_are_measured_as_the_benchmarks_are(images):
    config = configuration(images)
    network, sources = network_of(config), held_out(images)
    rows = Validation(config, sources).run(network, Processes(CPU))
    assert [row.image for row in rows] == [source.name for source in sources]
    for row, source in zip(rows, sources, strict=True):
        gt = read(source.gt)
        gt = gt[: gt.shape[0] // 2 * 2, : gt.shape[1] // 2 * 2]
        ours = restored(network, imresize(gt, 0.5).astype(np.float32) / 255)
        assert row.psnr_y == psnr(luma(ours)[2:-2, 2:-2], luma(gt)[2:-2, 2:-2])
        assert row.ssim == ssim(ours, gt, crop_border=2)


def test_a_network_of_any_scale_is_measured_at_several(images):
    config = configuration(images, scale=[1.1, 3])
    network, sources = network_of(config), held_out(images)
    rows = Validation(config, sources).run(network, Processes(CPU))
    one_by_one = []
    for scale in (2, 3):
        protocol = replace(config.protocol, scale=scale)
        samples = [Sample(source.name, lq=None, gt=source.gt) for source in sources]
        one_by_one += evaluate(at_scale(network, scale), samples, protocol)
    assert numbers(rows) == numbers(one_by_one)
    assert len({row.psnr_y for row in rows}) == 4


@pytest.mark.parametrize(
    ("options", "degraded"),
    [
        ({"task": "color_dn", "noise": 25}, lambda gt: benchmark_noise(gt, 25)),
        ({"task": "gray_dn", "noise": 50}, lambda gt: benchmark_noise(gt, 50)),
        (
            {"task": "color_jpeg_car", "jpeg": 10, "data": {"patch": 14}},
            lambda gt: jpeg(gt, 10).astype(np.float32) / 255,
        ),
    ],
    ids=["noise", "grey", "jpeg"],
)
def test_noise_and_compression_are_the_testers(images, options, degraded):
    config = configuration(images, scale=1, **options)
    network, sources = network_of(config), held_out(images)
    for row, source in zip(Validation(config, sources).run(network, Processes(CPU)), sources, strict=True):
        gt = (to_gray if config.task_row.gray else lambda image: image)(read(source.gt))
        assert row.psnr == psnr(restored(network, degraded(gt)), gt)
        assert (row.psnr_y is None) == config.task_row.gray


@pytest.mark.parametrize("kind", ["bsrgan", "bsrgan_plus", "realesrgan"])
def test_photographs_are_degraded_in_the_same_way_every_time(images, kind):
    config = configuration(images, task="real_sr", degradation={"kind": kind}, network=SMALL | {"num_feat": 8})
    network = network_of(config)
    first, second = (Validation(config, held_out(images)).run(network, Processes(CPU)) for _ in range(2))
    assert numbers(first) == numbers(second)
    assert all(row.status == "ok" for row in first)
    assert all(row.psnr is not None for row in first)
    (alone,) = Validation(config, held_out(images)[1:]).run(network, Processes(CPU))
    assert numbers([alone]) == numbers(first[1:])


def test_pairs_are_validated_on_their_files(images, tmp_path):
    write(tmp_path / "lq.png", smooth_image(25, 32, 7))
    config = configuration(images)
    sources = [Source("a", images / "a.png", tmp_path / "lq.png")]
    network = network_of(config)
    (row,) = Validation(config, sources).run(network, Processes(CPU))
    ours = restored(network, read(tmp_path / "lq.png").astype(np.float32) / 255)
    assert row.psnr == psnr(ours, read(images / "a.png"), crop_border=2)


class Hand(Processes):
    """One of several processes, whose `gather` meets what the others had put there before."""

    def __init__(self, rank, count, table):
        super().__init__(CPU, rank, count)
        self.table = table

    def gather(self, items):
        self.table[self.rank] = list(items)
        return self.table


@pytest.mark.parametrize("count", [2, 7])
def test_processes_share_out_the_images(images, count):
    config = configuration(images)
    network, sources, table = network_of(config), held_out(images, 4), {}
    for rank in range(count):
        Validation(config, sources).run(network, Hand(rank, count, table))
    alone = Validation(config, sources).run(network, Processes(CPU))
    assert {rank: numbers(rows) for rank, rows in table.items()} == {
        rank: numbers(alone[rank::count]) for rank in range(count)
    }


def test_an_image_that_cannot_be_read_is_warned_of_and_the_rest_counts(images, tmp_path, caplog):
    config = configuration(images, data={"holdout": 2})
    trainer = cpu_trainer(config, tmp_path / "run")
    names = [sample.gt for sample in trainer.validation.samples]
    names[0].write_bytes(b"")
    found = trainer.validate()
    rows = trainer.validation.run(trainer.averaged(), Processes(CPU))
    assert [row.status for row in rows] == ["failed", "ok"]
    assert found == means(rows[1:])
    assert (
        f"validation of {trainer.validation.samples[0].name} failed: {names[0]}: the file is empty" in caplog.messages
    )


def test_images_to_validate_on_that_cannot_be_used_are_named_before_training(images, tmp_path):
    gt, lq = tmp_path / "gt", tmp_path / "lq"
    for folder in (gt, lq):
        folder.mkdir()
    write(gt / "a.png", smooth_image(32, 32, 0))
    (gt / "b.png").write_text("not an image")
    write(lq / "bx2.png", smooth_image(16, 16, 0))
    data = {"holdout": 0, "validate_gt": str(gt)}
    with pytest.raises(ImageError, match=r"b\.png: not an image of a known format"):
        cpu_trainer(configuration(images, data=data), tmp_path / "run")
    (gt / "b.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png: no low-quality partner"):
        cpu_trainer(configuration(images, data=data | {"validate_lq": str(lq)}), tmp_path / "run")

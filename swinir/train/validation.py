"""Validation: the tester's own `evaluate` on held-out or separate images, shared out between the processes."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swinir.degradations.resize import imresize
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.results import Row
from swinir.evaluation.samples import Sample, find_samples, load_sample
from swinir.image_io.image import list_images, read, to_gray, to_rgb
from swinir.inference.forward import Restorer
from swinir.train.config import TrainConfig
from swinir.train.dataset import chain_degrader
from swinir.train.distributed import Processes
from swinir.train.images import Source, check_readable


class Validation:
    """Images to validate on, and how their low-quality versions come about.

    Where there are no files of those, they are made as the benchmarks do: bicubic, or noise and JPEG as the
    tester makes them. For the degradations without a benchmark each image has a generator seeded by its name,
    so it is the same every time.
    """

    def __init__(self, config: TrainConfig, held_out: Sequence[Source]) -> None:
        self.config, self.protocol = config, config.protocol
        self.samples = [Sample(source.name, lq=source.lq, gt=source.gt) for source in held_out]
        if config.data.validate_gt:
            self.samples = self._separate(config.data.validate_gt, config.data.validate_lq)

    def _separate(self, gt: Path, lq: Path | None) -> list[Sample]:
        if lq is not None or self.protocol.task.degradation:
            return find_samples(self.protocol, lq, gt)
        return [Sample(path.stem, lq=None, gt=path) for path in list_images(gt)]

    def check(self) -> None:
        """Name the images that cannot be read or have no partner: before training, not at the first validation.

        Raises:
            ValueError: one line with all of them.
        """
        check_readable([Source(s.name, gt=s.gt, lq=s.lq) for s in self.samples if s.gt is not None])
        alone = [sample.problem for sample in self.samples if sample.problem]
        if alone:
            raise ValueError("; ".join(alone))

    def run(self, network: Restorer, processes: Processes) -> list[Row]:
        """One row per image, the same in all processes."""
        share = self.samples[processes.rank :: processes.count]
        return processes.gather(list(evaluate(network, share, self.protocol, load=self.load)))

    def load(self, sample: Sample, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
        """As `evaluate.load_sample`, and for samples without a low-quality file by the degradation."""
        if sample.lq is not None or protocol.task.degradation or sample.gt is None:
            return load_sample(sample, protocol)
        gt = (to_gray if protocol.task.gray else to_rgb)(read(sample.gt))
        scale = protocol.scale
        gt = gt[: gt.shape[0] // scale * scale, : gt.shape[1] // scale * scale]
        kind = self.config.degradation_kind
        if kind == "bicubic":
            return imresize(gt, 1 / scale).astype(np.float32) / 255, gt
        degrader = chain_degrader(kind, scale, self.config.degradation.options)
        lq, gt = degrader.degrade(gt, np.random.default_rng(zlib.crc32(sample.name.encode())))
        return lq, gt

"""Validation during training: the tester's `evaluate` on held-out or separate images, shared among the processes."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.results import Row
from swinir.evaluation.samples import Sample, find_samples, load_sample
from swinir.image_io.image import list_images, read, to_gray, to_rgb
from swinir.inference.forward import Restorer
from swinir.models.any_scale import at_scale
from swinir.models.swinir import SwinIR
from swinir.testsets.pairs import cropped
from swinir.testsets.sources import set_of
from swinir.train.config import TrainConfig
from swinir.train.dataset import chain_degrader
from swinir.train.distributed import Processes
from swinir.train.images import Source, check_readable


class Validation:
    """Validation images and the degradation that makes their low-quality images.

    Without files of low-quality images they are made as the benchmarks are: by bicubic, or by the tester's noise and
    JPEG. For the other degradations each image has a random generator seeded by its name, so that all validations are
    equal.
    """

    def __init__(self, config: TrainConfig, held_out: Sequence[Source]) -> None:
        self.config, self.protocol = config, config.protocol
        self.samples = [Sample(source.name, lq=source.lq, gt=source.gt) for source in held_out]
        if config.data.validate_gt:
            self.samples = self._separate(config.data.validate_gt, config.data.validate_lq)

    def _separate(self, gt: Path, lq: Path | None) -> list[Sample]:
        for folder in filter(None, (gt, lq)):
            if not folder.is_dir():
                raise FileNotFoundError(f"validation folder not found: {folder}; {_remedy(folder)}")
        if lq is not None or self.protocol.task.degradation:
            return find_samples(self.protocol, lq, gt)
        return [Sample(path.stem, lq=None, gt=path) for path in list_images(gt)]

    def check(self) -> None:
        """Check before the training that all images can be read and are paired.

        Raises:
            ValueError: one line with all that cannot be used.
        """
        check_readable([Source(s.name, gt=s.gt, lq=s.lq) for s in self.samples if s.gt is not None])
        alone = [sample.problem for sample in self.samples if sample.problem]
        if alone:
            raise ValueError("; ".join(alone))

    def run(self, network: Restorer, processes: Processes) -> list[Row]:
        """Return one row per image, and per scale for a range of scales, the same in all processes."""
        share: Sequence[Sample] = self.samples[processes.rank :: processes.count]
        rows: list[Row] = []
        for scale in self.config.validated_scales:
            ready = at_scale(network, scale) if isinstance(network, SwinIR) else network
            rows += evaluate(ready, share, replace(self.protocol, scale=scale), load=self.load)
        return processes.gather(rows)

    def load(self, sample: Sample, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
        """Load a sample as `evaluate.load_sample` does, or degrade the ground truth by the training's chain."""
        kind = self.config.degradation_kind
        if sample.lq is not None or protocol.task.degradation or sample.gt is None or kind == "bicubic":
            return load_sample(sample, protocol)
        gt = cropped((to_gray if protocol.task.gray else to_rgb)(read(sample.gt)), protocol.scale)
        degrader = chain_degrader(kind, int(protocol.scale), self.config.degradation.options)
        lq, gt = degrader.degrade(gt, np.random.default_rng(zlib.crc32(sample.name.encode())))
        return lq, gt


def _remedy(folder: Path) -> str:
    """Advice on a folder that is missing: the command that lays out the test set it belongs to."""
    row = set_of(PurePosixPath(folder.as_posix()) / "image.png")
    laid_out = f"run `swinir data prepare {row.name} FOLDER_OR_ARCHIVE`, or " if row else ""
    return f"{laid_out}name another by --set data.validate_gt=FOLDER"

"""Measurement of a cell by the tester's own functions. Results are kept as JSON; interrupted cells resume.

Cell -> Bench.measure -> Measured -> Bench.alternatives -> Measured in further ways
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swinir.environment import environment
from swinir.evaluation.evaluate import evaluate
from swinir.evaluation.protocol import RELEASED, Protocol, check_network
from swinir.evaluation.results import METRICS, Row, means, run_facts, write_json
from swinir.evaluation.samples import Sample, find_set
from swinir.image_io.image import read, to_rgb
from swinir.inference.forward import Runnable
from swinir.inference.options import RunOptions
from swinir.models.any_scale import at_scale
from swinir.models.complexity import count_parameters
from swinir.models.optimized import resolve_precision
from swinir.models.swinir import SwinIR
from swinir.reproduce.plan import Cell, Weights
from swinir.tasks import get_task
from swinir.testsets.pairs import reduced
from swinir.weights.checkpoint import Checkpoint, build_model, read_checkpoint
from swinir.weights.verify import sha256

FORMAT = 1  # version of the kept files; cells of another version are measured again
SAVE_SECONDS = 10
SAMPLE = 3  # number of images whose low-quality files are compared with MATLAB's bicubic
NO_PADDING = "no padding"
MATLAB = "MATLAB's bicubic"
PADDING_MATTERS = 0.3  # dB: the extra window has never changed a score by more


@dataclass(frozen=True)
class Measured:
    """A measured cell.

    Attributes:
        rows: results of its images, in their order.
        facts: settings, versions and hardware, as in the kept file.
        parameters: number of parameters of the network.
        published_network: the network has the published architecture.
        alternatives: means that were measured in other ways, by the way's name.
        reused: an earlier run had measured all images.
    """

    cell: Cell
    rows: tuple[Row, ...]
    facts: Mapping[str, Any]
    parameters: int
    published_network: bool
    alternatives: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reused: bool = False

    @cached_property
    def means(self) -> dict[str, float]:
        """Means of the metrics over the measured images."""
        return means(self.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows of the images that could not be measured."""
        return tuple(row for row in self.rows if row.status == "failed")


@dataclass
class _Loaded:
    weights: Weights
    checkpoint: Checkpoint
    sha256: str
    model: Runnable


class Bench:
    """Measures cells, one network in memory at a time.

    Args:
        testsets: folder of the benchmark sets.
        folder: folder of the kept results.
        device: device of the networks.
        options: how networks are run.
        notice: called with the reason why a cell is measured again.
    """

    def __init__(
        self,
        testsets: Path,
        folder: Path,
        device: torch.device,
        options: RunOptions = RELEASED,
        *,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.testsets, self.folder, self.device, self.options, self.notice = testsets, folder, device, options, notice
        self._loaded: _Loaded | None = None
        self._hashes: dict[Path, str] = {}

    def measure(self, cell: Cell, *, progress: Callable[[int, int], None] | None = None) -> Measured:
        """Measure the images of a cell that have no valid kept result.

        A failed image becomes a failed row and is tried again next time. Results are saved every few seconds, and when
        the run is interrupted.

        Args:
            progress: called with (images done, images in all).

        Raises:
            ValueError, OSError: for weights that cannot be read or do not fit the task, and a set without images.
        """
        loaded = self._load(cell)
        protocol = self.protocol(cell)
        checkpoint = loaded.checkpoint
        check_network(checkpoint.network, protocol, cell.weights.path.name, stated=checkpoint.task)
        samples = find_set(protocol, cell.set, self.testsets)
        key = self._key(protocol, loaded, samples)
        file = self.folder / cell.file
        kept = _read(file)
        rows = self._kept_rows(cell, kept, key)
        left = [sample for sample in samples if sample.name not in rows]
        if not left and kept is not None and kept["complete"]:
            return replace(self._measured(cell, loaded, rows, samples, kept), reused=True)
        facts = self._describe_run(cell, protocol, loaded, samples) | {"key": key}
        file.parent.mkdir(parents=True, exist_ok=True)
        saved = time.monotonic()
        try:
            for row in evaluate(loaded.model, left, protocol):
                rows[row.image] = row
                if progress is not None:
                    progress(len(rows), len(samples))
                if time.monotonic() - saved > SAVE_SECONDS:
                    write_json(file, _ordered(rows, samples), facts)
                    saved = time.monotonic()
        finally:
            facts["complete"] = len(rows) == len(samples)
            write_json(file, _ordered(rows, samples), facts)
        return self._measured(cell, loaded, rows, samples, facts)

    def alternatives(self, measured: Measured, distance: float) -> Measured:
        """Measure a cell in other ways that may explain its difference, and keep the results.

        Args:
            distance: largest difference of a PSNR in dB; ways that cannot explain it are skipped.
        """
        cell, facts = measured.cell, dict(measured.facts)
        tried = dict(facts["alternatives"])
        protocol = self.protocol(cell)
        samples = find_set(protocol, cell.set, self.testsets)
        loaded = self._load(cell)
        if NO_PADDING not in tried and distance <= PADDING_MATTERS and protocol.options.tile is None:
            self.notice(f"{cell.title} differs: measured again without the additional window of padding")
            unpadded = replace(protocol.options, extra_window=False)
            tried[NO_PADDING] = _means(evaluate(loaded.model, samples, replace(protocol, options=unpadded)))
        lq = facts["lq_as_matlab"]
        if MATLAB not in tried and lq is not None and lq["same"] < lq["compared"]:
            self.notice(f"{cell.title} differs: measured again with inputs made by MATLAB's bicubic")
            made = [replace(sample, lq=None) for sample in samples]
            tried[MATLAB] = _means(evaluate(loaded.model, made, protocol))
        if tried != facts["alternatives"]:
            facts["alternatives"] = tried
            write_json(self.folder / cell.file, measured.rows, facts)
        return replace(measured, facts=facts, alternatives=tried)

    def protocol(self, cell: Cell) -> Protocol:
        """Settings of the tester for a cell."""
        task = get_task(cell.table.task)
        return Protocol(
            task,
            scale=cell.level if task.degradation is None else 1,
            noise=cell.level if task.degradation == "noise" else Protocol.noise,
            jpeg=cell.level if task.degradation == "jpeg" else Protocol.jpeg,
            options=replace(self.options, self_ensemble=cell.plus),
        )

    def _load(self, cell: Cell) -> _Loaded:
        weights = cell.weights
        if self._loaded is None or self._loaded.weights != weights:
            self._loaded = None  # free the last network before the next one is loaded
            checkpoint = read_checkpoint(weights.path, key=get_task(weights.task).weights_key)
            model = build_model(checkpoint, self.device)
            self._loaded = _Loaded(weights, checkpoint, self._hash(weights.path), model)
        network = self._loaded.model
        if isinstance(network, SwinIR) and network.config.any_scale:
            return replace(self._loaded, model=at_scale(network, self.protocol(cell).scale))
        return self._loaded

    def _describe_run(
        self, cell: Cell, protocol: Protocol, loaded: _Loaded, samples: Sequence[Sample]
    ) -> dict[str, Any]:
        """Settings, weights, versions and hardware, for readers of the kept file."""
        facts = run_facts(
            protocol,
            self.device,
            checkpoint=cell.weights.path,
            digest=loaded.sha256,
            key=loaded.checkpoint.key,
            engine=f"torch {torch.__version__}",
            complete=False,
        )
        return facts | {
            "table": cell.table.name,
            "set": cell.set.name,
            "weights": cell.weights.name,
            "network": loaded.checkpoint.network.to_dict(),
            "noise_seed": 0 if protocol.task.degradation == "noise" else None,
            "lq_as_matlab": self._lq_as_matlab(cell, samples),
            "alternatives": {},
        }

    def _key(self, protocol: Protocol, loaded: _Loaded, samples: Sequence[Sample]) -> dict[str, Any]:
        """Everything that the figures depend on; a kept file with another key is measured again."""
        return {
            "format": FORMAT,
            "checkpoint_sha256": loaded.sha256,
            "task": protocol.task.name,
            "level": protocol.level,
            "self_ensemble": protocol.options.self_ensemble,
            "precision": resolve_precision(protocol.options.precision, self.device),
            "tile": protocol.options.tile,
            "tile_overlap": protocol.options.tile_overlap if protocol.options.tile else None,
            "images_sha256": {
                path.name: self._hash(path) for sample in samples for path in (sample.gt, sample.lq) if path
            },
        }

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256(path)
        return self._hashes[path]

    def _kept_rows(self, cell: Cell, kept: Mapping[str, Any] | None, key: Mapping[str, Any]) -> dict[str, Row]:
        """Valid rows of an earlier run, by image, if the same figures can be expected now."""
        if kept is None:
            return {}
        changed = [name for name, value in key.items() if kept["key"].get(name) != value]
        if changed:
            self.notice(f"{cell.title}: measured again, because {', '.join(changed)} changed")
            return {}
        here = environment(self.device)
        if not kept["complete"] and any(kept.get(name) != value for name, value in here.items()):
            self.notice(f"{cell.title}: measured from the start, because it was begun with other versions or hardware")
            return {}
        rows = [_row(image) for image in kept["images"]]
        return {row.image: row for row in rows if row.status == "ok"}

    def _lq_as_matlab(self, cell: Cell, samples: Sequence[Sample]) -> dict[str, int] | None:
        """Compare a few low-quality files with MATLAB's bicubic of their ground truth."""
        if not cell.is_sr:
            return None
        few = [sample for sample in samples if sample.gt and sample.lq][:SAMPLE]
        return {"compared": len(few), "same": sum(_is_reduced(sample, cell.level) for sample in few)}

    def _measured(
        self,
        cell: Cell,
        loaded: _Loaded,
        rows: Mapping[str, Row],
        samples: Sequence[Sample],
        facts: Mapping[str, Any],
    ) -> Measured:
        network = loaded.checkpoint.network
        wanted = get_task(cell.table.task).network_for(self.protocol(cell).scale, img_size=network.img_size)
        return Measured(
            cell,
            tuple(_ordered(rows, samples)),
            {name: value for name, value in facts.items() if name not in ("images", "means")},
            count_parameters(network),
            network == wanted,
            facts["alternatives"],
        )


def _ordered(rows: Mapping[str, Row], samples: Sequence[Sample]) -> list[Row]:
    return [rows[sample.name] for sample in samples if sample.name in rows]


def _means(rows: Iterator[Row]) -> dict[str, float]:
    """Means over a whole set; empty if an image failed, because the means of the others are not comparable."""
    found = list(rows)
    return {} if any(row.status == "failed" for row in found) else means(found)


def _read(file: Path) -> dict[str, Any] | None:
    """Read a kept file; None if there is none, or it is damaged."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = ("key", "complete", "images", "alternatives", "lq_as_matlab")
    return kept if isinstance(kept, dict) and all(name in kept for name in needed) else None


def _row(image: Mapping[str, Any]) -> Row:
    """Row from JSON, where infinite numbers are strings."""
    values: dict[str, Any] = dict(image)
    for metric in METRICS:
        values[metric] = None if values[metric] is None else float(values[metric])
    return Row(**values)


def _is_reduced(sample: Sample, scale: int) -> bool:
    assert sample.gt is not None
    assert sample.lq is not None
    try:
        return np.array_equal(reduced(to_rgb(read(sample.gt)), scale), to_rgb(read(sample.lq)))
    except (ValueError, OSError):  # reported by the image's failed row
        return False

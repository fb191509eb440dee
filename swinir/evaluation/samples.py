"""The images of a benchmark: files paired, read, and degraded as the released tester does it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinir.degradations.jpeg import jpeg
from swinir.degradations.noise import benchmark_noise
from swinir.evaluation.protocol import Protocol
from swinir.image_io.color import luma
from swinir.image_io.image import list_images, read, to_gray, to_rgb
from swinir.models.phases import enlarged
from swinir.testsets import BenchmarkSet
from swinir.testsets.pairs import cropped, fits, reduced, reduced_side


@dataclass(frozen=True)
class Sample:
    """Files of one image: low-quality, ground truth or both; `problem` says why the sample cannot be used."""

    name: str
    lq: Path | None
    gt: Path | None
    problem: str = ""


def find_samples(protocol: Protocol, folder_lq: Path | None, folder_gt: Path | None) -> list[Sample]:
    """Pair the files of a benchmark.

    Tasks that make their own input read `folder_gt`, or, without one, restore `folder_lq` as it is.
    Other tasks pair ground truth NAME.png with low-quality NAMEx{scale}.png, at scale 1 also with NAME.png. For
    other scales than those of the task, low-quality images are made when they are loaded, if `folder_lq` is None.

    Raises:
        ValueError, FileNotFoundError, NotADirectoryError: for folders that are missing or hold no images.
    """
    task = protocol.task
    with_gt = task.has_reference and folder_gt is not None
    main, option = (folder_gt, "--folder_gt") if with_gt else (folder_lq, "--folder_lq")
    if main is None:
        option = "--folder_gt" if task.degradation else "--folder_lq"
        raise ValueError(f"{task.name} needs {option}")
    images = list_images(main)
    if not images:
        raise ValueError(f"no images in {main}; look at {option}")
    if not with_gt:
        samples = [Sample(p.stem, lq=p, gt=None) for p in images]
    elif task.degradation or (folder_lq is None and protocol.scale not in task.scales):
        samples = [Sample(p.stem, lq=None, gt=p) for p in images]
    else:
        if folder_lq is None:
            raise ValueError(f"{task.name} needs --folder_lq beside --folder_gt")
        partners = {p.stem: p for p in reversed(list_images(folder_lq))}
        samples = [_pair(p, partners, folder_lq, protocol.scale) for p in images]
    repeated = {name for name, count in Counter(s.name for s in samples).items() if count > 1}
    return [_only_first(s, samples) if s.name in repeated else s for s in samples]


def find_set(protocol: Protocol, benchmark: BenchmarkSet, testsets: Path) -> list[Sample]:
    """Pair the files of a benchmark set in the folder of sets; without references where set or task has none.

    Raises:
        ValueError, FileNotFoundError, NotADirectoryError: as `find_samples`.
    """
    gt = benchmark.gt_folder(testsets)
    if not (benchmark.reference and protocol.task.has_reference):
        return find_samples(protocol, gt, None)
    has_lq = protocol.task.degradation is None and protocol.scale in protocol.task.scales
    lq = benchmark.lq_folder(testsets, int(protocol.scale)) if has_lq else None
    return find_samples(protocol, lq, gt)


def _pair(gt: Path, partners: dict[str, Path], folder_lq: Path, scale: float) -> Sample:
    stems = ([gt.stem] if scale == 1 else []) + [f"{gt.stem}x{scale:g}"]
    same_format = [folder_lq / f"{stem}{gt.suffix}" for stem in stems]
    found = [path for path in same_format if path.is_file()] + [partners[stem] for stem in stems if stem in partners]
    lq = found[0] if found else None
    problem = "" if lq else f"{gt}: no low-quality partner {same_format[0]}"
    return Sample(gt.stem, lq=lq, gt=gt, problem=problem)


def _only_first(sample: Sample, samples: list[Sample]) -> Sample:
    """The sample itself, or, if an earlier one has its name, one with the problem that outputs would collide."""
    first = next(s for s in samples if s.name == sample.name)
    if sample is first:
        return sample
    problem = f"{sample.gt or sample.lq}: would be written over the result of {first.gt or first.lq}; rename one"
    return Sample(sample.name, sample.lq, sample.gt, problem)


def load_sample(sample: Sample, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
    """Low-quality (H, W, C) float32 in units of 1 and ground-truth (H*scale, W*scale, C) uint8, if there is one.

    What has no file is made of the ground truth by the task's degradation, or by MATLAB's bicubic.

    Raises:
        ValueError: for unreadable files and pairs whose sizes do not match, named.
    """
    task = protocol.task
    convert = _to_luma_or_gray if task.gray and task.degradation == "jpeg" else to_gray if task.gray else to_rgb
    gt = convert(read(sample.gt)) if sample.gt else None
    if sample.lq is not None:
        lq = convert(read(sample.lq))
        if gt is not None:
            gt = _crop_to(gt, lq, protocol.scale, sample)
        return lq.astype(np.float32) / 255, gt
    assert gt is not None
    if task.degradation is None:
        return reduced(gt, protocol.scale).astype(np.float32) / 255, cropped(gt, protocol.scale)
    if task.degradation == "noise":
        return benchmark_noise(gt, protocol.noise), gt
    return jpeg(gt, protocol.jpeg).astype(np.float32) / 255, gt


def _to_luma_or_gray(image: np.ndarray) -> np.ndarray:
    """Grey images unchanged; the BT.601 luma of colour ones, as the grey JPEG benchmark takes it."""
    return image if image.shape[2] == 1 else luma(image).round().astype(np.uint8)


def _crop_to(gt: np.ndarray, lq: np.ndarray, scale: float, sample: Sample) -> np.ndarray:
    height, width = enlarged(lq.shape[0], scale), enlarged(lq.shape[1], scale)
    if not fits(gt.shape, lq.shape, scale):
        expected = f"{reduced_side(gt.shape[1], scale)}x{reduced_side(gt.shape[0], scale)}"
        raise ValueError(
            f"{sample.lq}: {lq.shape[1]}x{lq.shape[0]} at scale {scale:g} does not match "
            f"{sample.gt} of {gt.shape[1]}x{gt.shape[0]}; expected about {expected}"
        )
    return gt[:height, :width]

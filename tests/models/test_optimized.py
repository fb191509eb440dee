"""The optimized form of a network: the outputs of the plain one, from copies of its weights."""

import copy
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DATA
from fake_cuda import FakeCuda
from golden_state import state
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONFIGS, SMALL, live
from torch.nn.attention import sdpa_kernel

import swinir.models.cpu_layer
import swinir.models.eager_layer
import swinir.models.kernels
import swinir.models.optimized
from swinir.inference.restore import restore
from swinir.models.eager_layer import EagerLayer
from swinir.models.graphs import Recordings
from swinir.models.optimized import ATTENTION, OptimizedSwinIR, optimize, resolve_precision
from swinir.models.reconstruction import MergedShuffles
from swinir.models.reference import ReferenceSwinIR
from swinir.models.swinir import NetworkConfig, SwinIR

GOLDENS = sorted((DATA / "network").glob("*.npz"))
TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2,), num_heads=(3,), img_size=16)
UPSAMPLERS = [("pixelshuffle", s) for s in (2, 3, 4, 8)] + [("pixelshuffledirect", 2), ("nearest+conv", 4), ("", 1)]


def psnr(a, b):
    return 10 * torch.log10(1 / (a - b).double().square().mean()).item()


def plain(network, lq):
    with torch.no_grad():
        return ReferenceSwinIR(network.config, network.state_dict())(lq)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("fp32", 1e-5), ("bf16", 3e-2)],
)
def test_outputs_are_those_of_the_released_network(path, precision, tolerance):
    data = np.load(path)
    config = NetworkConfig.from_dict(json.loads(str(data["config"])))
    weights = state(json.loads(str(data["shapes"])), seed=1, img_range=config.img_range)
    network = SwinIR(config).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    optimized = OptimizedSwinIR(network, precision)
    for name in (name for name in data.files if name.startswith("input_")):
        lq, expected = (torch.from_numpy(data[n]).float() for n in (name, name.replace("input_", "output_")))
        assert (optimized(lq) - expected).abs().max() < tolerance


@given(
    st.sampled_from(UPSAMPLERS),
    st.sampled_from([7, 8]),
    st.sampled_from([(12, 3), (60, 6), (60, 2), (16, 1)]),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 3),
    st.sampled_from(["kernels", "eager"]),
)
@settings(max_examples=20, deadline=None)
def test_any_network_restores_any_size_as_the_paper_says(tail, window, width, unusual, height, breadth, batch, layers):
    config = NetworkConfig(
        upsampler=tail[0],
        upscale=tail[1],
        window_size=window,
        img_size=3 * window,
        embed_dim=width[0],
        num_heads=(width[1],),
        depths=(2,),
        num_feat=8,
        qkv_bias=not unusual,
        patch_norm=not unusual,
        resi_connection="3conv" if unusual else "1conv",
    )
    network = live(config, torch.float64)
    lq = torch.rand(batch, 3, height, breadth, dtype=torch.float64)
    expected = plain(network, lq)
    assert (OptimizedSwinIR(network)(lq) - expected).abs().max() < 1e-10
    assert (OptimizedSwinIR(network.float(), layers=layers)(lq) - expected).abs().max() < 1e-5
    assert psnr(OptimizedSwinIR(network, "bf16", layers=layers)(lq), expected) > 40


def test_the_position_embedding_is_used():
    network = live(replace(SMALL, ape=True), torch.float64)
    lq = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert (OptimizedSwinIR(network)(lq) - plain(network, lq)).abs().max() < 1e-10
    with pytest.raises(ValueError, match="32x32, got 40x32"):
        OptimizedSwinIR(network)(lq[:, :, :1].expand(-1, -1, 40, -1))


def test_any_chunk_size_gives_the_same_output(monkeypatch):
    network = live(CONFIGS["pixelshuffledirect x3"], torch.float64)
    lq = torch.rand(2, 3, 40, 50, dtype=torch.float64)
    expected, single = plain(network, lq), live(CONFIGS["pixelshuffledirect x3"])
    for chunk in (1, 64, 64 * 3, 10**9):
        monkeypatch.setattr(swinir.models.eager_layer, "CHUNK_TOKENS", {"cpu": chunk})
        monkeypatch.setattr(swinir.models.cpu_layer, "CHUNK", chunk * 24)
        assert (OptimizedSwinIR(network)(lq) - expected).abs().max() < 1e-10
        assert (OptimizedSwinIR(single, layers="kernels")(lq.float()) - expected).abs().max() < 1e-5


def test_linear_layers_need_no_onednn(monkeypatch):
    network = live(CONFIGS["same size"])
    lq = torch.rand(1, 1, 20, 20)
    expected = plain(network, lq)
    monkeypatch.setattr(swinir.models.eager_layer, "_pack", lambda weight: None)
    for layers in ("kernels", "eager"):
        assert (OptimizedSwinIR(network, layers=layers)(lq) - expected).abs().max() < 1e-5
        assert psnr(OptimizedSwinIR(network, "bf16", layers=layers)(lq), expected) > 40


def test_layers_are_eager_without_llvm_or_in_double_precision_and_the_reason_is_logged(monkeypatch, caplog):
    caplog.set_level("INFO")
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    assert optimize(network).form.layers == "kernels"
    assert optimize(copy.deepcopy(network).double()).form.layers == "eager"
    assert "compute in float32 or bfloat16, got weights in float64" in caplog.text
    monkeypatch.setattr(swinir.models.kernels, "INSTALLED", False)
    form = optimize(network)
    assert torch.equal(form(lq), OptimizedSwinIR(network, layers="eager")(lq))
    assert "need llvmlite, which is not installed; PyTorch's operators are used instead" in caplog.text


@pytest.mark.parametrize("layers", ["kernels", "eager"])
def test_the_number_of_threads_changes_no_bit_of_the_layers(layers):
    network, x = live(CONFIGS["pixelshuffle x4, window 7"]), torch.rand(1, 35, 42, 24)
    outputs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        stream = x.clone()
        try:
            for block in OptimizedSwinIR(network, layers=layers).layers:
                for layer in block.layers:
                    layer.run(stream)
        finally:
            torch.set_num_threads(1)
        outputs.append(stream)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_large_logits_overflow_nowhere():
    network = live(TINY, torch.float64)
    lq = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    for layer in network.layers[0].residual_group.blocks:
        layer.attn.qkv.weight.mul_(30)
    assert (OptimizedSwinIR(network)(lq) - plain(network, lq)).abs().max() < 1e-8
    assert OptimizedSwinIR(network.float(), "bf16")(lq).isfinite().all()


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_merged_shuffles_are_exact_up_to_the_edge(scale):
    network = live(replace(SMALL, upsampler="pixelshuffle", upscale=scale, num_feat=6), torch.float64)
    merged = MergedShuffles(network.upsample, network.conv_last)
    for size in ((1, 9), (4, 4), (5, 9), (12, 7)):
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        with torch.no_grad():
            expected = network.conv_last(network.upsample(x))
            assert (merged(x) - expected).abs().max() < 1e-12


# The form that a caller holds


def test_it_says_where_and_how_it_computes():
    form = optimize(live(TINY), "bf16")
    assert (form.config, form.precision) == (TINY, "bf16")
    assert (form.device, form.dtype) == (torch.device("cpu"), torch.float32)
    assert optimize(live(TINY), "auto").precision == resolve_precision("auto", form.device)


@pytest.fixture
def fused_layers(monkeypatch):
    """Layers that pass for fused ones, on a device that passes for a GPU; what is put into `faults` is raised."""
    faults = []

    class Layer(EagerLayer):
        def __init__(self, layer, narrow):
            super().__init__(layer, narrow, compile=False)

        def run(self, x):
            for fault in faults:
                raise fault
            super().run(x)

    monkeypatch.setattr(swinir.models.optimized, "fused_problem", lambda config, device: None)
    monkeypatch.setattr(swinir.models.optimized, "FusedLayer", Layer)
    return faults


def test_layers_are_fused_where_the_kernel_runs(fused_layers):
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    for precision in ("fp32", "bf16"):
        form = optimize(network, precision)
        assert form.form.layers == form.exact.form.layers == "fused"
        assert torch.equal(form(lq), OptimizedSwinIR(network, precision, layers="eager")(lq))
    assert optimize(network, compile=True).form.layers == "compiled"
    assert optimize(live(TINY, torch.float64)).form.layers == "eager"


def test_wide_layers_are_fused_in_16_bits_only(fused_layers):
    network = live(replace(TINY, embed_dim=66))
    assert optimize(network).form.layers == "eager"
    assert optimize(network, "bf16").form.layers == "fused"


def test_layers_are_eager_where_the_kernel_fails_and_the_reason_is_logged(fused_layers, caplog):
    fused_layers.append(RuntimeError("Failed to find C compiler.\nPlease specify one"))
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    form = optimize(network)
    assert torch.equal(form(lq), OptimizedSwinIR(network, layers="eager")(lq))
    assert "the fused layer fails here (Failed to find C compiler.)" in caplog.text
    fused_layers[:] = [torch.OutOfMemoryError("CUDA out of memory")]
    with pytest.raises(torch.OutOfMemoryError):
        optimize(network)


def test_later_changes_of_the_network_do_not_reach_it():
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    forms = optimize(network), optimize(network, "bf16")
    before = [form(lq) for form in forms] + [forms[1].exact(lq)]
    network.load_state_dict(live(TINY, seed=5).state_dict())
    for form, expected in zip((*forms, forms[1].exact), before, strict=True):
        assert torch.equal(form(lq), expected)
    assert torch.equal(restore(network, lq), restore(optimize(network), lq))
    assert (optimize(network)(lq) - before[0]).abs().max() > 1e-3


def test_bf16_holds_the_exact_form_too():
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    assert torch.equal(optimize(network, "bf16").exact(lq), optimize(network)(lq))


def test_the_dtype_is_that_of_the_weights():
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert optimize(network.to(dtype))(lq).dtype == dtype


def test_a_form_made_in_inference_mode_serves_outside_of_it():
    network, lq = live(TINY), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        form = optimize(network)
        inside = form(lq)
    assert torch.equal(form(lq), inside)
    network.requires_grad_(True)
    network.train()(lq).sum().backward()  # the geometry that is shared with training is no inference tensor


def test_the_input_and_the_network_are_left_as_they_were():
    for config in (TINY, replace(TINY, patch_norm=False)):
        network, lq = live(config), torch.rand(1, 3, 8, 8)
        image, weights = lq.clone(), copy.deepcopy(network.state_dict())
        for precision in ("fp32", "bf16"):
            optimize(network, precision)(lq)
        assert torch.equal(lq, image)
        assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


def test_no_gradient_is_recorded():
    network = live(TINY).requires_grad_(True)
    assert not optimize(network)(torch.rand(1, 3, 8, 8, requires_grad=True)).requires_grad


def test_half_precision_differs_and_stays_close():
    network, lq = live(CONFIGS["pixelshuffle x2"]), torch.rand(1, 3, 40, 40)
    exact, half = optimize(network)(lq), optimize(network, "bf16")(lq)
    assert half.dtype == torch.float32
    assert not torch.equal(exact, half)
    assert psnr(exact, half) > 55


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, auto, got 'fp16'"):
        optimize(live(TINY), "fp16")


def test_input_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"input must be \(B, 3, H, W\)"):
        optimize(live(TINY))(torch.zeros(1, 1, 8, 8))


# A GPU, played by the CPU


@pytest.fixture
def fake_cuda(monkeypatch):
    return FakeCuda(monkeypatch)


def on_fake_gpu(network, precision, *, graphs=True):
    form = OptimizedSwinIR(network, precision, layers="eager")
    form.device = torch.device("cuda", 1)
    form.recordings = Recordings(form.device) if graphs else None
    return form


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recordings_of_a_network_compute_what_it_does_directly(fake_cuda, precision):
    network = live(CONFIGS["pixelshuffle x2"])
    recorded, direct = on_fake_gpu(network, precision), OptimizedSwinIR(network, precision, layers="eager")
    for _ in range(3):
        for size in ((8, 8), (16, 11)):
            lq = torch.rand(1, 3, *size)
            with sdpa_kernel(ATTENTION):
                expected = direct(lq)
            assert torch.equal(recorded(lq), expected)
    assert [graph.replays for graph in fake_cuda.graphs] == [1, 1]


def test_a_recording_made_in_inference_mode_serves_outside_of_it(fake_cuda):
    form, lq = on_fake_gpu(live(TINY), "fp32"), torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        form(torch.rand(1, 3, 8, 8))
        expected = form(lq)
    weight = torch.ones_like(expected, requires_grad=True)
    (form(lq) * weight).sum().backward()
    assert len(fake_cuda.captures) == 1
    assert torch.equal(weight.grad, expected)


def test_memory_of_a_network_on_a_gpu_is_free_when_its_last_name_is_gone(fake_cuda):
    form = on_fake_gpu(live(TINY), "fp32")
    for _ in range(3):
        form(torch.rand(1, 3, 8, 8))
    assert len(fake_cuda.graphs) == 1
    gone = weakref.ref(form)
    del form  # no circle that waits for the garbage collector
    assert gone() is None
    assert not fake_cuda.graphs


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch 2.9 brought the setting")
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(("precision", "convolutions"), [("fp32", "ieee"), ("bf16", "tf32")])
def test_kernels_of_a_gpu_are_chosen_by_name(fake_cuda, monkeypatch, precision, convolutions, graphs):
    seen, attend = set(), F.scaled_dot_product_attention

    def record(*tensors, attn_mask, scale):
        cuda = torch.backends.cuda
        enabled = [
            *(cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled()),
            *(cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()),
        ]
        seen.add((*enabled, torch.backends.cudnn.conv.fp32_precision))
        return attend(*tensors, attn_mask=attn_mask, scale=scale)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    form = on_fake_gpu(live(TINY), precision, graphs=graphs)
    for layer in (layer for block in form.layers for layer in block.layers):
        layer.attention.fused = True
    form(torch.rand(1, 3, 8, 8))
    assert seen == {(False, False, True, True, convolutions)}


@pytest.mark.parametrize(("capability", "expected"), [((8, 6), "bf16"), ((7, 5), "fp32")])
def test_automatic_precision_asks_the_device_named(monkeypatch, capability, expected):
    asked = {torch.device("cuda", 0): (9, 0), torch.device("cuda", 1): capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", asked.__getitem__)
    assert resolve_precision("auto", torch.device("cuda", 1)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False, "amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_automatic_precision_asks_the_cpu(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_gpu_computes_what_the_cpu_does(config, cuda):
    network = live(config)
    lq = torch.rand(2, config.in_chans, 40, 29)
    expected = plain(network, lq)
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert (optimize(network.to(cuda))(lq.to(cuda)).cpu() - expected).abs().max() < 1e-4
    assert psnr(optimize(network, "bf16")(lq.to(cuda)).cpu(), expected) > 40

"""The path from a low-quality image to a restored one: padding, tiles, ensemble, precision, refusals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_state import state

import swinir.inference.forward
import swinir.inference.memory
import swinir.inference.restore
import swinir.models.optimized
from swinir.inference.arrays import restore_array
from swinir.inference.memory import bytes_per_pixel
from swinir.inference.restore import align_tile, restore
from swinir.inference.tiling import TooLargeError
from swinir.models.any_scale import at_scale
from swinir.models.optimized import OptimizedSwinIR, optimize
from swinir.models.swinir import NetworkConfig, SwinIR

TINY = NetworkConfig(upscale=2, upsampler="pixelshuffledirect", embed_dim=12, depths=(2,), num_heads=(3,), img_size=16)


def build(seed=0, **options):
    """A network in float64 whose outputs of images in [0.3, 0.7] lie strictly inside (0, 1)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SwinIR(replace(TINY, **options)).double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.mul_(20)  # so that attention, and with it the place in the window, matters
        network.upsample[0].weight.mul_(0.3)
    return network


def image(height, width, channels=3, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand(batch, channels, height, width, dtype=torch.float64, generator=generator)


@pytest.fixture
def sizes_seen(monkeypatch):
    """Sizes of all tensors that networks are run on."""
    seen = []
    call = OptimizedSwinIR.__call__

    def record(self, x):
        seen.append(tuple(x.shape[-2:]))
        return call(self, x)

    monkeypatch.setattr(OptimizedSwinIR, "__call__", record)
    return seen


def test_values_are_clamped_to_the_range():
    network = build()
    with torch.no_grad():
        network.upsample[0].weight.mul_(300)
    for options in ({}, {"tile": 8, "tile_overlap": 0}, {"self_ensemble": True}):
        restored = restore(network, image(20, 20), **options)
        assert restored.min() == 0
        assert restored.max() == 1


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 30)])
def test_without_extension_the_output_is_the_networks_own(height, width):
    network, lq = build(), image(height, width)
    plain = restore(network, lq, extra_window=False)
    assert (plain - network(lq)).abs().max() < 1e-12
    assert (plain - restore(network, lq)).abs().max() > 1e-6
    assert restore(network, lq, extra_window=False, self_ensemble=True).shape == (1, 3, 2 * height, 2 * width)


@pytest.mark.parametrize("window", [7, 8])
def test_a_whole_window_is_added_as_the_released_program_does(sizes_seen, window):
    network = build(window_size=window, img_size=2 * window)
    for height, width in ((1, 5), (window - 1, window), (2 * window, 3 * window), (17, 30)):
        restore(network, image(height, width))
        assert sizes_seen.pop() == ((height // window + 1) * window, (width // window + 1) * window)


def test_padding_repeats_the_edge_pixel_and_the_result_is_its_crop():
    network = build()
    lq = image(13, 16)
    padded = np.pad(lq.numpy(), ((0, 0), (0, 0), (0, 3), (0, 8)), mode="symmetric")
    with torch.no_grad():
        expected = network(torch.from_numpy(padded))[..., :26, :32]
    assert torch.allclose(restore(network, lq), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("tile", "window", "expected"), [(400, 7, 399), (400, 8, 400), (8, 8, 8), (15, 8, 8)])
def test_a_tile_is_rounded_down_to_the_window(tile, window, expected):
    assert align_tile(tile, window) == expected


@pytest.mark.parametrize("tile", [24, 64])
def test_an_image_smaller_than_a_tile_runs_whole(sizes_seen, tile):
    whole = restore(build(), lq := image(20, 12))
    for blend in ("mean", "cut"):
        assert torch.equal(restore(build(), lq, tile=tile, tile_blend=blend), whole)
    assert sizes_seen == [(24, 16)] * 3


def test_mean_tiles_are_those_of_the_padded_image_and_averaged_by_hand():
    network = build()
    lq = image(20, 10)
    padded = torch.from_numpy(np.pad(lq.numpy(), ((0, 0), (0, 0), (0, 4), (0, 6)), mode="symmetric"))
    total, count = torch.zeros(1, 3, 48, 32, dtype=torch.float64), torch.zeros(1, 1, 48, 32)
    with torch.no_grad():
        for top in (0, 4, 8):  # stride 16 - 12, up to 24 - 16
            part = network(padded[..., top : top + 16, :])
            total[..., 2 * top : 2 * top + 32, :] += part
            count[..., 2 * top : 2 * top + 32, :] += 1
    expected = (total / count)[..., :40, :20]
    ours = restore(network, lq, tile=16, tile_overlap=12, tile_blend="mean")
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12)


def test_cut_tiles_are_those_of_the_padded_image_and_joined_by_hand():
    network = build()
    lq = image(28, 10)
    padded = torch.from_numpy(np.pad(lq.numpy(), ((0, 0), (0, 0), (0, 4), (0, 6)), mode="symmetric"))
    with torch.no_grad():
        upper, lower = network(padded[..., :24, :]), network(padded[..., 8:, :])
    # 8 to 24 is seen by both: the seam is at 16.
    expected = torch.cat([upper[..., :32, :20], lower[..., 16:40, :20]], dim=2)
    cut = restore(network, lq, tile=24, tile_overlap=9, tile_blend="cut")
    assert torch.allclose(cut, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("window", "depths"), [(8, (4,)), (7, (2, 2))])
def test_cut_tiles_approach_the_whole_image_as_the_overlap_grows(window, depths):
    network = build(window_size=window, img_size=2 * window, depths=depths, num_heads=(3,) * len(depths))
    shapes = {name: tuple(values.shape) for name, values in network.state_dict().items()}
    lively = {name: torch.from_numpy(values) for name, values in state(shapes).items()}
    assert not network.load_state_dict(lively, strict=False).unexpected_keys
    tile = 10 * window
    worst = {"cut": [], "mean": []}
    for overlap in (window, 3 * window, 8 * window):
        lq = image(window, 2 * tile - overlap - 1)  # two tiles that overlap by just that
        whole = restore(network, lq)
        for blend, differences in worst.items():
            tiles = restore(network, lq, tile=tile, tile_overlap=overlap, tile_blend=blend)
            differences.append((tiles - whole).abs().max().item())
    assert worst["cut"][0] > 1e-2
    assert worst["cut"][0] > worst["cut"][1] > worst["cut"][2]
    assert worst["cut"][2] < 1e-4
    assert min(worst["mean"]) > 1e-2


def build_any(scale):
    """As `build`, of any scale, at this one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SwinIR(replace(TINY, upsampler="any", upscale=4)).double().eval()
        torch.nn.init.normal_(network.phase_weights.fc2.weight, std=0.1)
    with torch.no_grad():
        for parameter in network.conv_coefficients.parameters():
            parameter.mul_(0.02)
    return at_scale(network, scale)


@pytest.mark.parametrize("scale", [1, 1.3, 2.5, 3.7])
def test_tiles_of_any_scale_have_the_offsets_of_the_whole_image(scale):
    network, lq = build_any(scale), image(79, 90)
    whole = restore(network, lq)
    assert whole.shape == (1, 3, round(79 * scale), round(90 * scale))
    assert whole.std() > 0.01
    with torch.no_grad():
        assert (restore(network, lq, extra_window=False) - network(lq)).abs().max() < 1e-12
    assert 0 < whole.min() < whole.max() < 1
    # Two windows, one of them shifted, and the convolutions reach no further than half of this overlap.
    assert (restore(network, lq, tile=64, tile_overlap=48) - whole).abs().max() < 1e-12


@pytest.mark.parametrize("blend", ["cut", "mean"])
def test_tiles_of_any_scale_are_those_of_an_ordinary_network_at_an_integer_one(blend, monkeypatch):
    network, lq, options = build_any(3), image(40, 27), {"tile": 16, "tile_overlap": 8, "tile_blend": blend}
    expected = restore(network, lq, **options)
    assert network.config.upsampler == "pixelshuffledirect"
    monkeypatch.setattr(swinir.models.optimized, "at_scale", lambda model, scale: model)
    assert (restore(replace_scale(3), lq, **options) - expected).abs().max() < 1e-12


def replace_scale(scale):
    """A network of any scale at an integer one, without its conversion to an ordinary one."""
    network = build_any(2.5)
    network.config = replace(network.config, upscale=scale)
    return network


def test_the_self_ensemble_of_any_scale_is_the_mean_of_the_eight_turned_outputs():
    network, lq = build_any(2.5), image(16, 24)
    turned = []
    for turn in range(8):
        part = torch.rot90(lq, turn % 4, (-2, -1))
        restored = restore(network, part.flip(-1) if turn >= 4 else part)
        turned.append(torch.rot90(restored.flip(-1) if turn >= 4 else restored, -(turn % 4), (-2, -1)))
    expected = torch.stack(turned).mean(0)
    assert (expected - turned[0]).abs().max() > 1e-3
    assert (restore(network, lq, self_ensemble=True) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(("blend", "overlap", "tiles"), [("mean", 12, 3), ("cut", 8, 2)])
def test_progress_is_told_every_tile(blend, overlap, tiles):
    seen = []
    options = {"tile": 16, "tile_overlap": overlap, "tile_blend": blend}
    restore(build(), image(20, 10), progress=lambda *step: seen.append(step), **options)
    assert seen == [(i, tiles) for i in range(1, tiles + 1)]


EIGHT = [(flip_rows, flip_cols, swap) for flip_rows in (0, 1) for flip_cols in (0, 1) for swap in (0, 1)]


def turn(x, flip_rows, flip_cols, swap):
    x = x.flip(2) if flip_rows else x
    x = x.flip(3) if flip_cols else x
    return x.transpose(2, 3) if swap else x


def turn_back(x, flip_rows, flip_cols, swap):
    x = x.transpose(2, 3) if swap else x
    x = x.flip(3) if flip_cols else x
    return x.flip(2) if flip_rows else x


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": 8, "tile_overlap": 2, "tile_blend": "mean"}, {"tile": 16, "tile_overlap": 2}],
    ids=["whole", "mean", "cut"],
)
def test_self_ensemble_is_the_mean_of_eight_by_hand(options):
    network, lq = build(), image(20, 13)
    each = [turn_back(restore(network, turn(lq, *way), **options), *way) for way in EIGHT]
    assert all(part.min() > 0 and part.max() < 1 for part in each)  # clamping does not act
    assert (each[0] - each[1]).abs().max() > 1e-4  # nor is the network symmetric by itself
    ours = restore(network, lq, self_ensemble=True, **options)
    assert torch.allclose(ours, torch.stack(each).mean(0), rtol=0, atol=1e-12)


def test_self_ensemble_turns_with_the_image():
    network, lq = build(), image(20, 13)
    upright = restore(network, lq, self_ensemble=True)
    for way in EIGHT:
        turned = restore(network, turn(lq, *way), self_ensemble=True)
        assert torch.allclose(turned, turn(upright, *way), rtol=0, atol=1e-12)


@pytest.mark.parametrize("blend", ["mean", "cut"])
def test_images_of_a_batch_do_not_influence_one_another(blend):
    network, lq = build(), image(22, 12, batch=3)
    options = {"tile": 16, "tile_overlap": 4, "tile_blend": blend}
    together = restore(network, lq, **options)
    for i in range(3):
        alone = restore(network, lq[i : i + 1], **options)
        assert torch.allclose(together[i], alone[0], rtol=0, atol=1e-12)


def test_tiles_are_chosen_by_free_memory(sizes_seen, monkeypatch):
    network, lq = build(), image(60, 100)
    whole = restore(network, lq, tile="auto")
    assert sizes_seen == [(64, 104)]
    assert torch.equal(whole, restore(network, lq))
    sizes_seen.clear()
    monkeypatch.setattr(
        swinir.inference.memory, "free_memory", lambda device: 2 * 48**2 * bytes_per_pixel(network.config)
    )
    tiled = restore(network, lq, tile="auto", tile_overlap=24)
    assert max(max(size) for size in sizes_seen) == 48
    assert (tiled - whole).abs().max() < 1e-3


def test_tiles_for_which_memory_runs_out_are_divided(monkeypatch, caplog):
    network, lq = build(), image(60, 100)
    whole = restore(network, lq)
    call, sizes = OptimizedSwinIR.__call__, []

    def limited(self, x):
        sizes.append(x.shape[-2:].numel())
        if sizes[-1] > 48**2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, x)

    monkeypatch.setattr(OptimizedSwinIR, "__call__", limited)
    assert (restore(network, lq, tile="auto", tile_overlap=24) - whole).abs().max() < 1e-3
    assert sizes[0] == 64 * 104
    with pytest.raises(TooLargeError, match="cpu has no memory for 104x64 pixels at once"):
        restore(network, lq)
    with pytest.raises(TooLargeError, match="cpu has no memory for 56x56"):
        restore(network, lq, tile=56, tile_blend="mean", tile_overlap=0)


@pytest.fixture
def gpu(monkeypatch):
    """Let the code that places tensors take the CPU for a GPU of 1e9 free bytes; gives the sizes of its tensors."""
    made = []

    def on_gpu(shape, *, dtype, device):
        made.append((tuple(shape), str(device)))
        return torch.empty(shape, dtype=dtype)

    place = SimpleNamespace(device=torch.device("cuda", 1), dtype=torch.float64)
    monkeypatch.setattr(swinir.inference.restore, "place_of", lambda model: place)
    monkeypatch.setattr(swinir.inference.restore, "free_memory", lambda device: 10**9)
    monkeypatch.setattr(swinir.inference.restore, "torch", SimpleNamespace(empty=on_gpu))
    return made


@pytest.mark.parametrize("share", [0.05, 0])
def test_sums_lie_on_a_gpu_that_has_memory_for_them(gpu, monkeypatch, share):
    monkeypatch.setattr(swinir.inference.restore, "SCRATCH_SHARE", share)
    network, lq, options = build(), image(20, 13), {"tile": 16, "tile_overlap": 2, "tile_blend": "mean"}
    restored = restore(network, lq, self_ensemble=True, **options)
    padded = [((1, 3, *size), "cuda:1") for size in ((48, 32), (32, 48))]
    assert gpu == ([((1, 3, 40, 26), "cuda:1")] + padded * 4 if share else [])
    monkeypatch.undo()
    assert torch.equal(restored, restore(network, lq, self_ensemble=True, **options))


def test_tiles_run_together_on_a_gpu_unless_they_fill_its_memory(gpu, monkeypatch):
    monkeypatch.setattr(swinir.inference.restore, "auto_tile", lambda *_, **__: 64)
    seen, call = [], OptimizedSwinIR.__call__
    monkeypatch.setattr(OptimizedSwinIR, "__call__", lambda self, x: seen.append(len(x)) or call(self, x))
    for tile in (64, "auto"):
        restore(build(), image(60, 100, batch=2), tile=tile, tile_overlap=8)
    assert seen == [4, 2, 2]


def test_when_memory_runs_out_recordings_are_dropped_before_tiles_are_divided(monkeypatch):
    network, lq = build(), image(60, 100)
    expected = restore(network, lq, tile=40, tile_overlap=8)
    call, events, recorded = OptimizedSwinIR.__call__, [], [True]

    def limited(self, x):
        events.append(tuple(x.shape[-2:]))
        if len(events) > 3 and recorded[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, x)

    def release(device):
        events.append(str(device))
        dropped, recorded[0] = recorded[0], False
        return dropped

    monkeypatch.setattr(OptimizedSwinIR, "__call__", limited)
    monkeypatch.setattr(swinir.inference.forward, "release_memory", release)
    assert torch.equal(restore(network, lq, tile=40, tile_overlap=8), expected)
    assert events == [(40, 40)] * 4 + ["cpu"] + [(40, 40)] * 3  # finished tiles stay, none is divided


def test_an_error_that_is_not_of_memory_passes(monkeypatch):
    def broken(self, x):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(OptimizedSwinIR, "__call__", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        restore(build(), image(20, 20), tile="auto")


def test_values_beyond_bf16_are_computed_in_fp32(monkeypatch, caplog):
    network, lq = build().float(), image(20, 40).float()
    call = OptimizedSwinIR.__call__

    def overflowing(self, x):
        restored = call(self, x)
        if self.precision == "bf16":
            restored[..., 0, 0] = float("nan")
        return restored

    monkeypatch.setattr(OptimizedSwinIR, "__call__", overflowing)
    restored = restore(network, lq, precision="bf16")
    assert torch.equal(restored, restore(network, lq))
    assert "computing these pixels in fp32" in caplog.text


@pytest.mark.slow
def test_a_compiled_network_restores_the_same():
    network, lq = build().float(), image(40, 56).float()
    for precision in ("fp32", "bf16"):
        for tile in (None, 32):
            options = {"precision": precision, "tile": tile, "tile_overlap": 8}
            compiled, eager = restore(network, lq, compile=True, **options), restore(network, lq, **options)
            assert (compiled - eager).abs().max() < (1e-5 if precision == "fp32" else 5e-3)


def test_bf16_stays_close_to_fp32():
    network, lq = build().float(), image(30, 30)
    exact, half = restore(network, lq), restore(network, lq, precision="bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(exact, half)
    assert 10 * torch.log10(1 / (exact - half).square().mean()) > 40


def test_input_of_another_dtype_is_computed_in_the_models():
    assert restore(build().float(), image(9, 9)).dtype == torch.float32
    assert restore(build(), image(9, 9).float()).dtype == torch.float64


def test_the_input_is_left_as_it_was():
    lq = image(16, 16)
    before = lq.clone()
    restore(build(), lq, self_ensemble=True)
    assert torch.equal(lq, before)


@pytest.mark.parametrize("shape", [(1, 1, 9, 9), (1, 4, 9, 9), (3, 9, 9), (9, 9, 3), (1, 3, 0, 9)])
def test_input_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"lq must be \(B, 3, H, W\), got"):
        restore(build(), torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 7}, "tile must be at least one window of 8 pixels, got 7"),
        ({"tile": -8}, "tile must be at least one window of 8 pixels, got -8"),
        ({"tile": 24, "tile_overlap": 24, "tile_blend": "mean"}, "tile_overlap must be from 0 to below tile, got 24"),
        ({"tile": 24, "tile_overlap": -1, "tile_blend": "mean"}, "tile_overlap must be from 0 to below tile, got -1"),
        ({"tile": 24, "tile_overlap": 24}, "tile_overlap must be from 0 to 16 for tile 24 in .*, got 24"),
        ({"tile": 24, "tile_overlap": -1}, "tile_overlap must be from 0 to 16 for tile 24 in .*, got -1"),
        ({"tile": "all"}, "tile must be a number of pixels, 'auto' or None, got 'all'"),
        ({"tile_blend": "ramp"}, "tile_blend must be one of mean, cut, got 'ramp'"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, auto, got 'fp16'"),
        ({"tile": 8, "extra_window": False}, "extra_window=False is for whole images"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        restore(build(), image(40, 40), **options)


@pytest.mark.gpu
def test_gpu_and_cpu_agree(cuda):
    network, lq = build(), image(30, 20)
    expected = restore(network, lq, tile=16, tile_overlap=4)
    restored = restore(network.to(cuda), lq, tile=16, tile_overlap=4)
    assert restored.device == lq.device
    assert torch.allclose(restored, expected, rtol=0, atol=1e-10)


@pytest.mark.gpu
def test_tiles_for_which_a_gpus_memory_runs_out_are_divided_and_finished_ones_kept():
    held, lq, steps = optimize(build().cuda()), image(600, 1000), []
    expected = restore(held, lq, tile=64, tile_overlap=24)
    stream = 8 * 12 * 600 * 512  # bytes of one of the tensors that a tile needs, of which there are at least five

    def fill(done, total):
        steps.append((done, total))
        if done == 1:
            torch.cuda.empty_cache()
            limit = torch.cuda.memory_reserved() + 3 * stream
            torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)

    try:
        restored = restore(held, lq, tile=512, tile_overlap=24, progress=fill)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (restored - expected).abs().max() < 1e-6
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[0][1] < steps[-1][1]  # tiles were divided


@pytest.mark.gpu
@pytest.mark.parametrize("index", [0, 1])
def test_a_network_on_any_gpu_restores_images_of_mixed_sizes(index):
    if index >= torch.cuda.device_count():
        pytest.skip("one CUDA device")
    device, sizes = torch.device("cuda", index), [(20, 30), (8, 9), (40, 17), (31, 31), (9, 50), (16, 16)]
    expected = [restore(build(), image(*size)) for size in sizes]
    held = optimize(build().to(device))
    for _ in range(4):
        for size, output in zip(sizes, expected, strict=True):
            assert (restore(held, image(*size)) - output).abs().max() < 1e-10
            array = restore_array(held, (image(*size)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
            assert array.dtype == np.uint8


@pytest.mark.parametrize(
    ("lq", "error", "message"),
    [
        (image(8, 8) * 255, ValueError, r"must be in \[0, 1\], got .* to .*; divide values in \[0, 255\] by 255"),
        (image(8, 8) - 1, ValueError, r"must be in \[0, 1\], got -0\."),
        (image(8, 8) * torch.nan, ValueError, r"must be in \[0, 1\], got nan to nan"),
        ((image(8, 8) * 255).to(torch.uint8), ValueError, r"must be of floats in \[0, 1\], got torch\.uint8; divide"),
        (image(8, 8).numpy(), TypeError, r"must be a tensor, got ndarray; swinir\.restore_image takes arrays"),
    ],
)
def test_values_that_would_become_nonsense_are_refused(lq, error, message):
    with pytest.raises(error, match=message):
        restore(build(), lq)


def test_noise_beyond_the_range_is_restored_where_it_is_asked_for():
    noisy = image(16, 16) + torch.linspace(-0.5, 0.5, 16, dtype=torch.float64)
    assert restore(build(), noisy, check=False).isfinite().all()


def test_values_are_looked_at_once_however_many_tiles_there_are(monkeypatch):
    looks = []
    aminmax = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda self, **options: looks.append(1) or aminmax(self, **options))
    restore(build(), image(40, 40), tile=16, tile_overlap=8)
    assert len(looks) == 1

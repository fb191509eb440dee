"""External networks: loaded from untrusted files, run by `restore`, and their cost."""

import pytest
import torch
from external_networks import KINDS, build, write_external
from pictures import to_tensor, write_expert

from swinir.degradations.resize import imresize
from swinir.inference.external import Bicubic, load_external
from swinir.inference.restore import restore
from swinir.models.complexity import count_macs, count_parameters, measure_macs
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TASKS
from swinir.weights.checkpoint import CheckpointError

CPU = torch.device("cpu")
SR = TASKS["classical_sr"]


@pytest.fixture
def _little_to_count(monkeypatch):
    monkeypatch.setattr("swinir.inference.external.MACS_SIDE", 48)
    monkeypatch.setattr("swinir.inference.external.OUTPUT", (96, 96))


def image(height=21, width=18, chans=3):
    return torch.rand(1, chans, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.usefixtures("_little_to_count")
@pytest.mark.parametrize("kind", KINDS)
def test_an_external_network_restores_as_spandrel_runs_it_and_at_any_size(kind, tmp_path):
    loaded = load_external(str(write_external(tmp_path / "x.pth", kind)), SR, 2, CPU)
    assert loaded.architecture == KINDS[kind][0]
    import spandrel

    theirs = spandrel.MAIN_REGISTRY.load(build(kind).state_dict())
    lq = image(32, 24)
    before, restored = lq.clone(), restore(loaded.model, lq)
    assert torch.equal(lq, before)
    assert torch.allclose(restored, theirs(lq.clone()), atol=1e-6)
    assert restored.std() > 0
    for height, width in ((21, 18), (5, 40), (1, 3)):
        assert restore(loaded.model, image(height, width)).shape == (1, 3, 2 * height, 2 * width)


@pytest.mark.parametrize(
    ("kind", "padding", "extended"), [("RCAN", "none", (16, 17)), ("RealESRGAN x2", "to multiples of 4", (16, 20))]
)
def test_sides_are_extended_to_the_multiples_that_a_network_needs(kind, padding, extended, tmp_path):
    loaded, seen = load_external(str(write_external(tmp_path / "x.pth", kind)), SR, 2, CPU), []
    assert loaded.padding == padding
    loaded.model.network.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    assert restore(loaded.model, image(16, 17)).shape == (1, 3, 32, 34)
    assert seen == [extended]


def test_tiles_and_bf16_reach_an_external_network(tmp_path):
    path = write_external(tmp_path / "x.pth", "ESRGAN")
    model, lq = load_external(str(path), SR, 2, CPU).model, image(60, 50)
    exact = restore(model, lq)
    assert torch.allclose(restore(model, lq, tile=40, tile_overlap=32), exact, atol=1e-5)
    assert 0 < (exact - restore(model, lq, precision="bf16")).abs().max() < 0.02


def test_bicubic_is_matlabs_on_8_bits_and_at_scale_1_the_input():
    pixels = (image()[0].permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    restored = restore(Bicubic(3, 3), to_tensor(pixels.astype("float32") / 255))
    assert torch.equal((restored * 255).round(), to_tensor(imresize(pixels, 3).astype("float32")))
    lq = image() * 1.5 - 0.25  # as noise leaves it
    assert torch.equal(restore(Bicubic(3, 1), lq, check=False), lq.clamp(0, 1))


def test_swinir_comes_as_this_package_runs_it(tmp_path):
    loaded = load_external(str(write_expert(tmp_path / "x2.pth")), SR, 2, CPU)
    assert isinstance(loaded.model, SwinIR)
    assert loaded.parameters == count_parameters(loaded.model.config)


@pytest.mark.parametrize("format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_exported_network_is_told_by_its_suffix(sample, format):
    from exports import need

    need(format)
    loaded = load_external(str(sample(format).written.files[0]), SR, 2, CPU)
    assert loaded.macs == count_macs(sample(format).network.config, 256, 256)
    assert loaded.bf16 is False


NETWORKS = {
    "classical": NetworkConfig(upsampler="pixelshuffle", upscale=4, embed_dim=24, depths=(2, 1), num_heads=(2, 2)),
    "light": NetworkConfig(upsampler="pixelshuffledirect", upscale=3, embed_dim=12, depths=(2,), num_heads=(2,)),
    "real": NetworkConfig(
        upsampler="nearest+conv", upscale=4, embed_dim=24, depths=(2,), num_heads=(2,), resi_connection="3conv"
    ),
    "JPEG": NetworkConfig(window_size=7, img_range=255.0, img_size=14, embed_dim=12, depths=(2,), num_heads=(2,)),
}


def test_operations_counted_as_a_network_runs_are_those_of_our_formula():
    for config in NETWORKS.values():
        for norms in (False, True):
            counted = measure_macs(SwinIR(config).eval(), 3, 30, 41, norms=norms)
            assert counted == count_macs(config, 30, 41, norms=norms)


def test_operations_of_a_convolution_and_a_product():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Linear(11, 7)

        def forward(self, x):
            return self.linear(self.conv(x))

    assert measure_macs(Both(), 3, 6, 11) == 6 * 11 * 3 * 5 * 9 + 5 * 6 * 7 * 11


def test_operations_of_normalisation_and_pooling_are_those_of_fvcore():
    layers = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.LayerNorm(11), torch.nn.AdaptiveAvgPool2d(1)).eval()
    assert measure_macs(layers, 3, 6, 11) == 0
    assert measure_macs(layers, 3, 6, 11, norms=True) == (2 + 5 + 1) * 3 * 6 * 11


def test_rcans_cost_by_hand(tmp_path):
    loaded = load_external(str(write_external(tmp_path / "x.pth", "RCAN")), SR, 2, CPU)
    f, area = 8, 256 * 256

    def conv(a, b, k=3):
        return a * b * k * k

    convs = conv(3, f) + 2 * conv(f, f) + conv(f, f) + conv(f, f) + conv(f, 4 * f)
    attention = conv(f, f // 2, 1) + conv(f // 2, f, 1)
    biases = f + 2 * f + f + f + 4 * f + (f // 2 + f) + 3
    mean_colour = 2 * (9 + 3)  # 1x1 convolutions, of fixed values, that are parameters all the same
    assert loaded.parameters == convs + attention + conv(f, 3) + biases + mean_colour
    assert loaded.macs == (convs + 4 * conv(f, 3) + 9 + 4 * 9) * area + attention


def test_another_scale_or_number_of_channels_is_refused(tmp_path):
    path = str(write_external(tmp_path / "x.pth", "RCAN"))
    with pytest.raises(ValueError, match=r"x\.pth enlarges by 2, not by 4; name one of that scale"):
        load_external(path, SR, 4, CPU)
    with pytest.raises(ValueError, match=r"takes 1 channels, classical_sr has 3"):
        load_external(str(write_expert(tmp_path / "g.pth", in_chans=1)), SR, 2, CPU)


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    state = build("RCAN").state_dict()
    torch.save({"params": state, "more": Harmful()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="asks to run"):
        load_external(str(tmp_path / "x.pth"), SR, 2, CPU)
    assert capsys.readouterr().out == ""


def test_weights_that_nobody_knows_are_refused_with_both_reasons(tmp_path):
    pytest.importorskip("spandrel", reason="networks of others need spandrel, the extra `baselines`")
    torch.save({"a.weight": torch.zeros(3, 3)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"weights of no network that spandrel knows, and no SwinIR's \(.*x\.pth"):
        load_external(str(tmp_path / "x.pth"), SR, 2, CPU)


def test_damaged_weights_are_refused(tmp_path):
    state = build("RCAN").state_dict()
    state["body.1.bias"][0] = float("nan")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="NaN"):
        load_external(str(tmp_path / "x.pth"), SR, 2, CPU)
    del state["body.1.bias"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="spandrel cannot load it"):
        load_external(str(tmp_path / "x.pth"), SR, 2, CPU)


def test_without_spandrel_the_extra_is_named(tmp_path, monkeypatch):
    path = write_external(tmp_path / "x.pth", "RCAN")
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(ImportError, match=r"pip install 'swinir-toolkit\[baselines\]'"):
        load_external(str(path), SR, 2, CPU)


def test_a_network_that_breaks_names_its_file_unless_memory_is_missing(tmp_path, monkeypatch):
    def starve(_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    model = load_external(str(write_external(tmp_path / "x.pth", "RCAN")), SR, 2, CPU).model
    monkeypatch.setattr(model.network, "forward", lambda _: 1 / 0)
    with pytest.raises(ValueError, match=r"x\.pth: RCAN cannot run: division by zero"):
        restore(model, image())
    monkeypatch.setattr(model.network, "forward", starve)
    with pytest.raises(MemoryError):
        restore(model, image())

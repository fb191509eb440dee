"""Export: PyTorch's outputs at every size, the facts in the files, and refusals."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from exports import TINY, need
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONFIGS, live

import swinir.inference.export
from swinir.cli.main import main
from swinir.inference.export import SUFFIXES, WholeWindows, export, shift_mask, shift_order, window_order
from swinir.inference.runtimes import load_exported
from swinir.models.any_scale import at_scale
from swinir.models.reference import ReferenceSwinIR, region_mask
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.models.windows import shifted_windows, to_windows
from swinir.weights.checkpoint import write_checkpoint

SIZES = [(1, 1), (1, 3), (4, 1), (2, 2), (5, 3)]  # in windows


def picture(config, rows, columns, batch=1):
    return torch.rand(batch, config.in_chans, rows * config.window, columns * config.window)


# The form that is exported


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([2, 7, 8]))
@settings(max_examples=30, deadline=None)
def test_gathers_and_masks_are_those_of_the_windows(rows, columns, window):
    image = torch.arange(rows * columns * window**2)
    into, back = window_order(rows, columns, window)
    expected = to_windows(image.view(1, 1, rows * window, columns * window), window).flatten()
    assert torch.equal(into, expected)
    assert torch.equal(into[back], image)
    order, inverse = shift_order(rows, columns, window)
    assert torch.equal(order[inverse], image)
    windows = shifted_windows(rows * window, columns * window, window, image.device)
    ours = {tuple(w) for w in order.view(-1, window**2).tolist()}
    assert ours == {tuple(w) for w in windows.order.view(-1, window**2).tolist()}
    assert torch.equal(
        shift_mask(rows, columns, window)[:, 0], region_mask(*(rows * window, columns * window), window, window // 2)
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_exported_form_is_the_papers_network(config):
    network = live(config, torch.float32)
    reference = ReferenceSwinIR(config, network.state_dict())
    for size in SIZES:
        lq = picture(config, *size)
        assert (WholeWindows(network)(lq) - reference(lq)).abs().max() < 1e-5


# Files


def check_written(written, format, network):
    """Compare a file with the paper at sizes that it was not checked with."""
    assert max(check.difference for check in written.checks) < 1e-5
    assert written.bytes == sum(file.stat().st_size for file in written.files)
    run = torch.export.load(written.files[0]).module() if format == "torch" else load_exported(written.files[0])
    plain = ReferenceSwinIR(network.config, {name: tensor.float() for name, tensor in network.state_dict().items()})
    for size in SIZES:
        lq = picture(network.config, *size)
        assert (run(lq) - plain(lq)).abs().max() < 1e-5


@pytest.mark.parametrize("format", [f if f == "onnx" else pytest.param(f, marks=pytest.mark.slow) for f in SUFFIXES])
def test_a_file_gives_the_papers_numbers_at_any_size(format, sample):
    check_written(sample(format).written, format, sample(format).network)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONFIGS)[::4])  # the exported form of all of them is compared above
def test_a_file_gives_the_papers_numbers_for_any_network(name, tmp_path):
    need("onnx")
    network = live(replace(CONFIGS[name], depths=(2,), num_heads=(3,)))
    check_written(export(network, tmp_path / "network.onnx", "onnx"), "onnx", network)


def test_a_file_says_what_it_holds(sample):
    file = sample("onnx").written.files[0]
    model = pytest.importorskip("onnx").load(file)
    facts = json.loads({p.key: p.value for p in model.metadata_props}["swinir"])
    assert NetworkConfig.from_dict(facts["network"]) == TINY
    assert (facts["task"], facts["checkpoint"], facts["checkpoint_sha256"]) == ("lightweight_sr", "x2.pth", "0f")
    assert facts["input"] == "(1, 3, H, W) RGB float32 in [0, 1], H and W multiples of 8"
    values = (*model.graph.input, *model.graph.output)
    sides = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values]
    assert sides == [[1, 3, "H", "W"], [1, 3, "2*H", "2*W"]]


@pytest.mark.slow
def test_the_network_stays_as_it_is(sample):
    network, before, _ = sample("torch")
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# What is refused


@pytest.mark.slow
@pytest.mark.parametrize("format", SUFFIXES)
def test_a_file_that_fails_the_check_is_not_written(format, sample, tmp_path, monkeypatch):
    files = sample(format).written.files
    monkeypatch.setattr(swinir.inference.export, "_make", lambda *_: files)  # of a network with other weights
    path = tmp_path / files[0].name
    path.write_bytes(b"as it was")
    network = live(TINY)
    for weight, difference in ((2.0, "[0-9]"), (torch.nan, "nan")):
        network.norm.weight.fill_(weight)
        with pytest.raises(ValueError, match=rf"not written, .* differs from PyTorch's by {difference}"):
            export(network, path, format)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, b"as it was")]


@pytest.mark.parametrize(
    ("name", "format", "options", "message"),
    [
        ("network.onnx", "tflite", {}, "unknown format 'tflite'; choose one of onnx, openvino, torch"),
        ("network.xml", "onnx", {}, "in the format onnx ends in .onnx, got '.xml'"),
        ("no/network.pt2", "torch", {}, "folder not found"),
        ("network.pt2", "torch", {"ape": True}, "only images of its training size, 16x16"),
    ],
)
def test_what_cannot_be_exported_is_refused(name, format, options, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(live(replace(TINY, **options)), tmp_path / name, format)
    assert not list(tmp_path.iterdir())


# The command


def test_the_command_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_checkpoint("small.pth", live(TINY).state_dict(), TINY)
    assert main(["export", "small.pth", "--format", "torch"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("wrote small.pt2, ")
    assert all(f"{size}: " in out for size in ("8x8", "16x24", "40x32"))
    assert "load only files that you trust" in out
    assert main(["export", "small.pth", "--format", "tflite"]) == 2
    assert main(["export", "small.pth", "-o", "no/small.onnx"]) == 2


def test_a_network_of_any_scale_is_exported_at_the_scale_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network, seen = replace(TINY, upsampler="any", upscale=4), []
    write_checkpoint("any.pth", SwinIR(network).state_dict(), network)

    def write(model, path, *_, **options):
        seen.append(at_scale(model, model.config.upscale).config)
        return swinir.inference.export.Written((path,), 0, ())

    monkeypatch.setattr(swinir.inference.export, "export", write)
    for words in ([], ["--scale", "2"]):
        assert main(["export", "any.pth", *words]) == 0
    assert [(config.upsampler, config.upscale) for config in seen] == [
        ("pixelshuffledirect", 4),
        ("pixelshuffledirect", 2),
    ]
    assert "output restored: 2 times as high" in capsys.readouterr().out


def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "lightweight_sr_x1-4_tiny", "-o", str(tmp_path / "network.onnx")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["swinir: onnx is not installed; install it with: pip install 'swinir-toolkit[onnx]'"]

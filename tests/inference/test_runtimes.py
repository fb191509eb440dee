"""Exported files as networks: the outputs of PyTorch by the same path, and refusal of broken and hostile files."""

import json
import shutil

import numpy as np
import pytest
import torch
from exports import TINY
from networks import live
from pictures import to_tensor

import swinir.inference.memory
from swinir.cli.main import main
from swinir.image_io.image import write
from swinir.inference.export import exported
from swinir.inference.memory import bytes_per_pixel
from swinir.inference.restore import restore
from swinir.inference.runtimes import METADATA, ExportedNetwork, load_exported
from swinir.models.optimized import resolve_precision
from swinir.weights.checkpoint import load_model

BACKENDS = ("onnx", "openvino")
WINDOW = torch.rand(1, 3, 8, 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_restore_gives_the_networks_image_of_any_size(backend, sample):
    network, _, written = sample(backend)
    exported_network = load_exported(written.files[0])
    for size in ((1, 1), (8, 8), (13, 29), (40, 17)):
        lq = torch.rand(1, 3, *size)
        restored = restore(exported_network, lq)
        assert restored.dtype == torch.float32
        assert (restored - restore(network.float(), lq)).abs().max() < 1e-5


@pytest.mark.parametrize("options", [{"tile_blend": "cut"}, {"tile_blend": "mean"}, {"self_ensemble": True}], ids=str)
def test_tiles_and_the_ensemble_are_the_networks(options, sample):
    network, _, written = sample("onnx")
    lq = torch.rand(2, 3, 40, 33)
    restored = restore(load_exported(written.files[0]), lq, tile=24, tile_overlap=8, **options)
    assert (restored - restore(network.float(), lq, tile=24, tile_overlap=8, **options)).abs().max() < 1e-5


@pytest.mark.slow
def test_a_bundled_model_is_run_by_onnx_in_tiles():
    pytest.importorskip("onnxscript", reason="onnxscript comes with the extra `onnx`")
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra `onnx`")
    model, lq = load_model("color_jpeg_car_jpeg5-95_tiny", device="cpu"), torch.rand(1, 3, 50, 40)
    ours = restore(exported(model, "onnx"), lq, tile=28, tile_overlap=7)
    assert (ours - restore(model, lq, tile=28, tile_overlap=7)).abs().max() < 1e-4


def test_tiles_are_smaller_by_the_memory_that_engines_take(monkeypatch):
    free = 2 * 4 * 48**2 * bytes_per_pixel(TINY)
    monkeypatch.setattr(swinir.inference.memory, "free_memory", lambda device: free)
    seen = []

    def run(image):
        seen.append(image.shape[-2:])
        return image.repeat(2, 2).repeat(2, 3)

    restore(failing(run), torch.rand(1, 3, 60, 100), tile="auto", tile_overlap=24)
    assert max(map(max, seen)) == 48


def test_backends_are_two():
    with pytest.raises(ValueError, match="unknown backend 'torch'; choose onnx or openvino"):
        exported(live(TINY), "torch")


def test_an_exported_network_keeps_its_precision(sample):
    network = load_exported(sample("onnx").written.files[0])
    assert torch.equal(restore(network, WINDOW, precision="auto"), restore(network, WINDOW))
    with pytest.raises(ValueError, match="computes in fp32, got precision 'bf16'"):
        restore(network, WINDOW, precision="bf16")
    with pytest.raises(ValueError, match=r"network.onnx: .onnx files run in fp32, .* got 'bf16'"):
        load_exported(network.path, "bf16")


@pytest.mark.skipif(resolve_precision("auto", torch.device("cpu")) != "bf16", reason="this CPU has no bf16")
def test_openvino_computes_in_either_precision(sample):
    network, _, written = sample("openvino")
    half, expected = load_exported(written.files[0], "bf16"), restore(network.float(), WINDOW)
    errors = restore(half, WINDOW, precision="bf16") - expected
    assert 1e-4 < errors.square().mean().sqrt() < 0.01
    assert (restore(half.exact, WINDOW) - expected).abs().max() < 1e-5


def test_other_shapes_are_refused(sample):
    network = load_exported(sample("onnx").written.files[0])
    for shape in ((1, 3, 8, 9), (1, 1, 8, 8), (3, 8, 8), (0, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"input must be \(B, 3, H, W\), H and W multiples of 8"):
            network(torch.zeros(shape))


# An engine that fails


def failing(run):
    return ExportedNetwork("x.onnx", {"network": TINY}, lambda _: run, "engine 1")


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"x.onnx: gives torch.float32 \(1, 3, 8, 8\).* expected .*\(1, 3, 16, 16\)"):
        failing(lambda image: image)(WINDOW)


@pytest.mark.parametrize(
    ("message", "kind"), [("bad graph\nat node 5", ValueError), ("Failed to allocate memory for buffer", MemoryError)]
)
def test_a_failure_of_the_engine_is_one_line(message, kind):
    def run(_):
        raise RuntimeError(message)

    with pytest.raises(kind) as caught:
        failing(run)(WINDOW)
    assert "\n" not in str(caught.value)


# Files that are not what they say


def refusal(path):
    with pytest.raises((ValueError, OSError)) as caught:
        load_exported(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_missing_and_other_files_are_refused_in_one_line(backend, sample, tmp_path):
    files = sample(backend).written.files
    for file in files:
        shutil.copy(file, tmp_path)
    path, whole = tmp_path / files[0].name, files[0].read_bytes()
    for content in (b"", b"junk", b"<?xml version='1.0'?><net", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert "cannot be run" in refusal(path)
    path.unlink()
    assert "file not found" in refusal(path)
    assert "not an exported network" in refusal(tmp_path / "network.pt2")


def test_an_onnx_file_that_names_another_file_is_refused(sample, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra `onnx`")
    model = onnx.load(sample("onnx").written.files[0])
    (tmp_path / "secret").write_bytes(bytes(4096))
    constant = onnx.helper.make_node("Constant", [], ["read"], value=onnx.numpy_helper.from_array(np.zeros(4), "t"))
    for tensor in (constant.attribute[0].t, model.graph.initializer[0]):
        hostile = onnx.ModelProto()
        hostile.CopyFrom(model)
        tensor = onnx.TensorProto.FromString(tensor.SerializeToString())
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")
        if tensor.name == "t":
            constant.attribute[0].t.CopyFrom(tensor)
            hostile.graph.node.append(constant)
        else:
            hostile.graph.initializer[0].CopyFrom(tensor)
        (tmp_path / "network.onnx").write_bytes(hostile.SerializeToString())
        assert "keeps weights in other files" in refusal(tmp_path / "network.onnx")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (None, "does not state its network"),
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        ('{"network": {"upscale": "2"}}', "wrong type"),
        ('{"network": {"window_size": 9000, "img_size": 18000}}', "bytes of buffers"),
    ],
)
def test_an_onnx_file_that_does_not_say_what_it_is_is_refused(stated, message, sample, tmp_path):
    model = pytest.importorskip("onnx").load(sample("onnx").written.files[0])
    del model.metadata_props[:]
    if stated is not None:
        model.metadata_props.add(key=METADATA, value=stated)
    (tmp_path / "network.onnx").write_bytes(model.SerializeToString())
    assert message in refusal(tmp_path / "network.onnx")


def test_weights_of_another_file_are_refused(sample, tmp_path):
    for file in sample("openvino").written.files:
        shutil.copy(file, tmp_path)
    weights = bytearray((tmp_path / "network.bin").read_bytes())
    weights[100] ^= 1
    (tmp_path / "network.bin").write_bytes(weights)
    assert "does not belong to network.bin" in refusal(tmp_path / "network.xml")


# The tester


def test_the_tester_takes_an_exported_file(sample, tmp_path, capsys):
    file = sample("onnx").written.files[0]
    picture = np.random.default_rng(0).integers(0, 256, (20, 16, 3)).astype(np.uint8)
    (tmp_path / "lq").mkdir()
    write(tmp_path / "lq" / "a.png", picture)
    words = ["test", "--task", "lightweight_sr", "--scale", "2", "--model_path", str(file)]
    words += ["--folder_lq", str(tmp_path / "lq"), "--save_dir", str(tmp_path / "out")]
    assert main([*words, "--json", str(tmp_path / "run.json")]) == 0
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["engine"].startswith("onnxruntime ")
    assert facts["checkpoint"] == "network.onnx"
    assert (tmp_path / "out" / "a_SwinIR.png").is_file()
    assert restore(load_exported(file), to_tensor(picture / np.float32(255))).shape == (1, 3, 40, 32)
    capsys.readouterr()
    assert main([*words, "--precision", "bf16"]) == 2
    assert "exported networks run on the CPU in fp32" in capsys.readouterr().err

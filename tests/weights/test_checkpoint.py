"""Weights files: formats, inferred networks, refusals; and `swinir info`."""

import builtins
import gzip
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from golden_state import state as golden_state
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from swinir.cli.info import info
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.tasks import TASKS
from swinir.weights import infer_config as architecture
from swinir.weights import safe_load as untrusted
from swinir.weights.checkpoint import (
    CheckpointError,
    build_model,
    guess_tasks,
    infer_network,
    load_model,
    read_checkpoint,
    read_state,
    sha256,
    write_checkpoint,
)

DATA = Path(__file__).parents[1] / "data"
OFFICIAL_CONFIGS = json.loads((DATA / "official_configs.json").read_text())
OFFICIAL_SHAPES = json.loads(gzip.decompress((DATA / "official_shapes.json.gz").read_bytes()))
TASK_OF_ID = {
    "001_classicalSR": "classical_sr",
    "002_lightweightSR": "lightweight_sr",
    "003_realSR": "real_sr",
    "004_grayDN": "gray_dn",
    "005_colorDN": "color_dn",
    "006_CAR": "jpeg_car",
    "006_colorCAR": "color_jpeg_car",
}

SMALL = NetworkConfig(
    upscale=2, upsampler="pixelshuffledirect", depths=(2, 1), num_heads=(2, 3), embed_dim=12, window_size=4, img_size=8
)
MASK = "layers.0.residual_group.blocks.1.attn_mask"
INDEX = "layers.0.residual_group.blocks.0.attn.relative_position_index"


def official(name: str) -> NetworkConfig:
    return NetworkConfig.from_dict(OFFICIAL_CONFIGS[name]["config"])


def meta_tensors(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def weights(network: NetworkConfig = SMALL, seed: int = 1) -> dict[str, Tensor]:
    """A complete state dict with reproducible learned weights."""
    state = SwinIR(network).state_dict()
    learned = golden_state({name: tensor.shape for name, tensor in state.items()}, seed, network.img_range)
    return dict(state) | {name: torch.from_numpy(array) for name, array in learned.items()}


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    return weights()


def changed(state: dict[str, Tensor], **entries: Any) -> dict[str, Any]:
    """`state` with entries replaced or added (`__` in a name stands for a dot), or left out where None."""
    new = {name.replace("__", "."): value for name, value in entries.items()}
    return {name: value for name, value in (state | new).items() if value is not None}


def learned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if not name.endswith(("attn_mask", "relative_position_index"))}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].float()), name


def refusal(path: Path, **options: Any) -> str:
    """The one line with which a file is refused, without the path that it opens with."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 1000
    return message.removeprefix(f"{path}: ")


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(content, path, **options)
    return path


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


# The network from the weights.


@pytest.mark.parametrize("name", OFFICIAL_SHAPES)
def test_every_released_network_is_inferred_from_its_shapes(name: str) -> None:
    network, rules = infer_network(meta_tensors(OFFICIAL_SHAPES[name]))
    assert network == official(name)
    assert len(rules) == 2
    assert "img_range" in rules[0]
    assert "drop_path_rate" in rules[1]


@pytest.mark.parametrize("name", OFFICIAL_SHAPES)
def test_the_layout_that_is_written_is_that_of_the_released_file(name: str) -> None:
    shapes = {key: tuple(shape) for key, shape in OFFICIAL_SHAPES[name].items()}
    assert architecture.state_shapes(official(name)) == shapes


@pytest.mark.parametrize("name", OFFICIAL_SHAPES)
def test_every_released_network_is_guessed_to_serve_its_task(name: str) -> None:
    assert guess_tasks(official(name)) == [TASK_OF_ID["_".join(name.split("_")[:2])]]


def test_every_network_of_the_papers_tasks_is_guessed_to_serve_its_task() -> None:
    for name, task in ((name, task) for name, task in TASKS.items() if task.in_paper):
        for scale in task.scales:
            assert guess_tasks(task.network_for(scale, img_size=4 * task.network.window_size)) == [name]


def test_a_small_network_is_guessed_by_its_family() -> None:
    assert guess_tasks(SMALL) == ["lightweight_sr"]
    assert guess_tasks(replace(SMALL, upscale=1, upsampler="", in_chans=1)) == ["gray_dn"]


def test_a_network_of_no_task_is_not_guessed() -> None:
    assert guess_tasks(replace(SMALL, in_chans=4)) == []
    assert guess_tasks(replace(SMALL, upscale=5)) == []


@st.composite
def networks(draw: st.DrawFn) -> NetworkConfig:
    upsampler, scales = draw(
        st.sampled_from(
            [
                ("pixelshuffle", (2, 3, 4, 8)),
                ("pixelshuffledirect", (2, 3, 5)),
                ("nearest+conv", (2, 4)),
                ("", (1,)),
                ("any", (4,)),
            ]
        )
    )
    dim = draw(st.sampled_from([4, 12, 15]))
    heads = [n for n in (1, 2, 3, 5) if dim % n == 0]
    rstbs = draw(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(heads)), min_size=1, max_size=2))
    window = draw(st.integers(2, 8))
    return NetworkConfig(
        in_chans=draw(st.integers(1, 4)),
        upscale=draw(st.sampled_from(scales)),
        upsampler=upsampler,
        window_size=window,
        img_range=255.0 if window == 7 else 1.0,
        depths=tuple(depth for depth, _ in rstbs),
        num_heads=tuple(n for _, n in rstbs),
        embed_dim=dim,
        mlp_ratio=draw(st.sampled_from([1.0, 2.0, 4.0])),
        resi_connection=draw(st.sampled_from(["1conv", "3conv", "1x1", "none"])),
        img_size=window * draw(st.integers(1, 3)),
        qkv_bias=draw(st.booleans()),
        ape=draw(st.booleans()),
        patch_norm=draw(st.booleans()),
        num_feat=draw(st.sampled_from([3, 8])) if upsampler in ("pixelshuffle", "nearest+conv") else 64,
    )


@settings(max_examples=25)
@given(networks())
def test_any_network_is_inferred_from_its_own_state_dict(network: NetworkConfig) -> None:
    with torch.device("meta"):
        state = SwinIR(network).state_dict()
    inferred, _ = infer_network(state)
    if max(network.depths) == 1 and not network.ape:  # nothing is shifted, so nothing tells the training size
        inferred = replace(inferred, img_size=network.img_size)
    assert inferred == network


@settings(max_examples=15)
@given(networks())
def test_without_derived_buffers_only_the_training_size_is_lost(network: NetworkConfig) -> None:
    with torch.device("meta"):
        state = learned(SwinIR(network).state_dict())
    inferred, rules = infer_network(state)
    assert replace(inferred, img_size=network.img_size) == network
    assert network.ape or any(rule.startswith("img_size") for rule in rules)


@pytest.mark.parametrize(("window", "size"), [(8, 64), (7, 126), (4, 64), (6, 66), (40, 80)])
def test_stripped_files_are_assumed_to_shift_at_the_usual_training_size(window: int, size: int) -> None:
    with torch.device("meta"):
        state = learned(SwinIR(replace(SMALL, window_size=window, img_size=2 * window)).state_dict())
    network, rules = infer_network(state)
    assert network.img_size == size
    assert network.shifted
    assert any("stripped" in rule for rule in rules)


def test_a_file_with_index_but_no_mask_was_trained_within_one_window() -> None:
    network = replace(SMALL, window_size=8, img_size=4)
    inferred, rules = infer_network(SwinIR(network).state_dict())
    assert (inferred.window, inferred.shifted, inferred.img_size) == (4, False, 4)
    assert any("within one window" in rule for rule in rules)


@settings(max_examples=50)
@given(dim=st.integers(1, 300), hidden=st.integers(1, 2000))
def test_the_mlp_ratio_gives_back_the_hidden_width(dim: int, hidden: int) -> None:
    assert int(dim * architecture._ratio(hidden, dim)) == hidden


# Layouts.


@pytest.mark.parametrize("key", ["params", "params_ema", "state_dict", "model"])
def test_weights_are_found_under_each_usual_entry(tmp_path: Path, small: dict[str, Tensor], key: str) -> None:
    found = read_checkpoint(saved(tmp_path, {key: small, "epoch": 3}))
    assert found.key == key
    assert found.network == SMALL
    assert not found.self_described
    assert_same(found.state, learned(small))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_bare_state_dict_is_read_in_both_formats_of_pytorch(
    tmp_path: Path, small: dict[str, Tensor], new_format: bool
) -> None:
    path = saved(tmp_path, OrderedDict(small), _use_new_zipfile_serialization=new_format)
    assert read_checkpoint(path).key == ""
    assert_same(read_checkpoint(path).state, learned(small))


@pytest.mark.parametrize("prefix", ["module.", "module.module."])
def test_prefixes_of_data_parallel_training_are_removed(tmp_path: Path, small: dict[str, Tensor], prefix: str) -> None:
    path = saved(tmp_path, {"params": {prefix + name: tensor for name, tensor in small.items()}})
    assert_same(read_checkpoint(path).state, learned(small))


def test_parameters_load_as_well_as_tensors(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path, {name: torch.nn.Parameter(tensor) for name, tensor in learned(small).items()})
    assert not any(tensor.requires_grad for tensor in read_checkpoint(path).state.values())


def test_the_averaged_weights_are_preferred_unless_others_are_asked_for(tmp_path: Path) -> None:
    raw, averaged = weights(seed=1), weights(seed=2)
    path = saved(tmp_path, {"params": raw, "params_ema": averaged})
    assert_same(read_checkpoint(path).state, learned(averaged))
    assert_same(read_checkpoint(path, key="params").state, learned(raw))
    assert read_checkpoint(path, key="state_dict").key == "params_ema"


def test_an_entry_without_tensors_is_passed_over(tmp_path: Path, small: dict[str, Tensor]) -> None:
    assert read_checkpoint(saved(tmp_path, {"params_ema": None, "params": small})).key == "params"


def test_safetensors_of_another_tool_are_read_like_a_bare_state_dict(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = tmp_path / "other.safetensors"
    save_file({name: tensor.clone() for name, tensor in small.items()}, path, {"format": "pt", "network": "a SwinIR"})
    found = read_checkpoint(path)
    assert (found.key, found.network, found.self_described) == ("", SMALL, False)
    assert_same(found.state, learned(small))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_float_types_become_float32(
    tmp_path: Path, small: dict[str, Tensor], dtype: torch.dtype
) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in learned(small).items()}
    assert_same(read_checkpoint(saved(tmp_path, stored)).state, stored)


def test_weights_do_not_keep_the_storage_they_were_cut_from(tmp_path: Path, small: dict[str, Tensor]) -> None:
    wide = torch.cat([small["norm.weight"], torch.zeros(1000)])
    found = read_checkpoint(saved(tmp_path, changed(small, norm__weight=wide[:12])))
    assert found.state["norm.weight"].untyped_storage().nbytes() == 12 * 4


# Writing.


def test_a_safetensors_file_whose_length_begins_like_a_pickle_is_read(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path, state = tmp_path / "w.safetensors", {name: tensor.clone() for name, tensor in small.items()}
    for pad in range(0, 256, 8):
        save_file(state, path, metadata={"pad": "x" * pad})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert read_checkpoint(path).state.keys() <= state.keys()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_what_is_written_is_read_back(tmp_path: Path, small: dict[str, Tensor], suffix: str) -> None:
    network = replace(SMALL, img_range=255.0, drop_path_rate=0.1, use_checkpoint=True)
    path = tmp_path / f"w{suffix}"
    write_checkpoint(path, small, network, key="params_ema", task="lightweight_sr", step=500_000)
    found = read_checkpoint(path)
    assert (found.network, found.key, found.task, found.step) == (network, "params_ema", "lightweight_sr", 500_000)
    assert found.self_described
    assert found.rules == ()
    assert_same(found.state, learned(small))


def test_a_written_file_has_the_released_keys_in_order_with_derived_values(tmp_path: Path) -> None:
    network = replace(TASKS["lightweight_sr"].network, embed_dim=12)
    write_checkpoint(tmp_path / "w.pth", weights(network), network)
    content = torch.load(tmp_path / "w.pth", weights_only=True)["params"]
    assert set(content) == set(OFFICIAL_SHAPES["002_lightweightSR_DIV2K_s64w8_SwinIR-S_x2"])
    for name, tensor in SwinIR(network).state_dict().items():
        if name.endswith(("attn_mask", "relative_position_index")):
            assert torch.equal(content[name], tensor)


def test_derived_buffers_given_to_the_writer_are_made_anew(tmp_path: Path, small: dict[str, Tensor]) -> None:
    write_checkpoint(tmp_path / "w.pth", small | {MASK: torch.zeros(1)}, SMALL)
    assert torch.equal(torch.load(tmp_path / "w.pth", weights_only=True)["params"][MASK], small[MASK])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    small: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    failure: type[BaseException],
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"old")

    def fail(*_arguments: Any) -> None:
        raise failure("in the middle")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else CheckpointError, match="in the middle"):
        write_checkpoint(path, small, SMALL)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_a_serialiser_that_breaks_off_leaves_no_file(
    tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_content: Any, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CheckpointError, match="disk full"):
        write_checkpoint(tmp_path / "w.pth", small, SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "w.ckpt"}, r"suffix.*\.safetensors"),
        ({"key": "weights"}, "'weights'.*params_ema"),
        ({"task": "deblur"}, "deblur.*classical_sr"),
        ({"network": replace(SMALL, embed_dim=24)}, "misshapen"),
        ({"path": "nowhere/w.pth"}, "cannot be written"),
    ],
)
def test_the_writer_refuses_what_could_not_be_read(
    tmp_path: Path, small: dict[str, Tensor], arguments: dict[str, Any], words: str
) -> None:
    options = {"network": SMALL, "path": "w.pth"} | arguments
    with pytest.raises((CheckpointError, ValueError), match=words):
        write_checkpoint(tmp_path / options.pop("path"), small, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_writer_refuses_weights_of_a_diverged_training(tmp_path: Path, small: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"norm\.bias has NaN"):
        write_checkpoint(tmp_path / "w.pth", changed(small, norm__bias=torch.full((12,), math.nan)), SMALL)


# Models.


def test_a_loaded_model_computes_what_the_network_computes(tmp_path: Path, small: dict[str, Tensor]) -> None:
    network = SwinIR(SMALL).eval()
    network.load_state_dict(small)
    image = torch.rand(1, 3, 10, 13, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image)
    write_checkpoint(tmp_path / "w.pth", small, SMALL)
    model = load_model(tmp_path / "w.pth", device="cpu")
    assert torch.equal(model(image), expected)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_is_built_in_the_dtype_asked_for(tmp_path: Path, small: dict[str, Tensor]) -> None:
    model = build_model(read_checkpoint(saved(tmp_path, small)), "cpu", torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.fixture
def poison() -> Iterator[None]:
    """Memory that nobody filled reads as NaN, or as the largest integer."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "network",
    [
        SMALL,
        replace(SMALL, ape=True, qkv_bias=False, patch_norm=False, resi_connection="3conv"),
        replace(SMALL, upsampler="nearest+conv", in_chans=1, num_feat=8, drop_path_rate=0.1),
    ],
    ids=["direct", "ape", "nearest+conv"],
)
def test_a_model_built_without_initial_weights_has_every_value_of_one_with_them(
    tmp_path: Path, network: NetworkConfig, dtype: torch.dtype
) -> None:
    assert torch.empty(1).isnan()
    expected = SwinIR(network)
    expected.load_state_dict(weights(network))
    expected.requires_grad_(False).eval().to(dtype)
    write_checkpoint(tmp_path / "w.pth", weights(network), network)
    model = build_model(read_checkpoint(tmp_path / "w.pth"), "cpu", dtype)
    for kind in ("named_parameters", "named_buffers"):
        found = dict(getattr(model, kind)())
        assert list(found) == [name for name, _ in getattr(expected, kind)()]
        for name, tensor in getattr(expected, kind)():
            assert torch.equal(found[name], tensor), name
            assert (found[name].dtype, found[name].device) == (tensor.dtype, tensor.device)
            assert not found[name].requires_grad
    image = torch.rand(1, network.in_chans, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(model(image), expected(image))


def test_models_of_one_checkpoint_share_no_memory(tmp_path: Path, small: dict[str, Tensor]) -> None:
    found = read_checkpoint(saved(tmp_path, small))
    build_model(found, "cpu").norm.weight.zero_()
    assert torch.equal(found.state["norm.weight"], small["norm.weight"])
    assert torch.equal(build_model(found, "cpu").norm.weight, small["norm.weight"])


def test_loading_leaves_the_random_stream_alone(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path, small)
    before = torch.get_rng_state()
    load_model(path, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_name_that_is_no_file_is_looked_up_in_the_zoo(
    tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, small)
    monkeypatch.setattr("swinir.weights.zoo.locate", lambda name: path if name == "expert" else None)
    assert load_model("expert", device="cpu").config == SMALL


def test_a_name_that_nobody_knows_is_refused_in_one_line() -> None:
    with pytest.raises(CheckpointError, match=r"no such file, and unknown weights 'nowhere\.pth'"):
        load_model("nowhere.pth")


def test_a_path_that_is_no_file_is_not_taken_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; check the path"):
        load_model(tmp_path / "nowhere.pth")


def test_sha256_is_that_of_the_standard_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# Files that are no checkpoints.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><title>404</title></html>", "web page"),
        (bytes(range(1, 200)), "starts with bytes 01 02 03"),
        (b"\x80" + bytes(range(1, 200)), "damaged or cut-off pickle"),
        (b"PK\x03\x04" + bytes(100), "cut-off zip archive"),
        (b"\x1f\x8b" + bytes(100), "gzip"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
        (bytes(257) + b"ustar" + bytes(250), "tar archive"),
        (pickle.dumps({"params": 1}, protocol=2), "cut-off pickle"),
        (struct.pack("<Q", 10**12) + b"{}", "damaged safetensors"),
        (struct.pack("<Q", 7) + b'{"a":1}', "damaged safetensors"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value.replace(" ", "_"),
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert words in refusal(path)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.pth")
    assert "no such file" in refusal(tmp_path / "zero\0byte")
    assert "is a folder" in refusal(tmp_path)
    assert "too long" in refusal(tmp_path / ("a" * 300)).lower()
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_refused_with_the_reason(
    tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: Any, **_options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path, small)
    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in refusal(path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
def test_a_cut_off_file_is_refused(tmp_path: Path, small: dict[str, Tensor], new_format: bool, part: float) -> None:
    path = saved(tmp_path, small, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert "download the file again" in refusal(path)


def test_a_cut_off_safetensors_file_is_refused(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, small, SMALL)
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged safetensors" in refusal(path)


@settings(max_examples=40)
@given(data=st.data())
def test_no_changed_byte_raises_anything_but_a_checkpoint_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "w.pth"
    form = data.draw(st.sampled_from(["zip", "legacy", "safetensors"]))
    state = {"norm.weight": torch.ones(3)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    refusal(path)  # whatever is left of it, it holds no SwinIR


# Archives and pickles that mean harm.


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_a_zip_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pth", {"readme.txt": b"hello"}, zipfile.ZIP_DEFLATED)
    assert "zip archive but no checkpoint" in refusal(path)


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pth", {"a/data.pkl": b"", "a/constants.pkl": b""})
    assert "TorchScript" in refusal(path)


def test_a_compressed_archive_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path, {"norm.weight": torch.zeros(10_000_000)})) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    bomb = archive(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    assert "compressed entries" in refusal(bomb)


def test_an_archive_whose_entries_overlap_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pth", {"a/data.pkl": b"", "a/data/0": bytes(1000), "a/data/1": bytes(10)})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 2000, 2000)  # both sizes in the directory
    path.write_bytes(content)
    assert "in a file of" in refusal(path)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"norm.weight": torch.zeros(100)})
    monkeypatch.setattr(untrusted, "MAX_BYTES", 300)
    assert "more than the limit of 300" in refusal(path)


def test_an_entry_that_fails_its_checksum_is_named(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path, small)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "entry weights/data/" in refusal(path)
    assert "checksum" in refusal(path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("where", ["params", "optimizer"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(
    tmp_path: Path, small: dict[str, Tensor], new_format: bool, where: str
) -> None:
    canary = tmp_path / "canary"
    content = {"params": small} | {where: Calls(os.system, f"touch {canary}")}
    message = refusal(saved(tmp_path, content, _use_new_zipfile_serialization=new_format))
    assert f"{os.name}.system" in message
    assert "nothing was run" in message
    assert not canary.exists()


@pytest.mark.parametrize("function", [builtins.eval, builtins.bytearray, torch.FloatTensor])
def test_a_line_that_would_fill_the_memory_is_refused(tmp_path: Path, function: Callable[..., Any]) -> None:
    path = saved(tmp_path, {"params": Calls(function, 10**10)})
    assert function.__name__ in refusal(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_an_endless_description_of_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_format: bool
) -> None:
    path = saved(tmp_path, {str(i): i for i in range(1000)}, _use_new_zipfile_serialization=new_format)
    monkeypatch.setattr(untrusted, "MAX_PICKLE_BYTES", 2000)
    assert "more than 2,000 bytes" in refusal(path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    depth = 20_000
    pickled = b"\x80\x02}X\x06\x00\x00\x00params" + b"]" * depth + b"a" * (depth - 1) + b"s."
    path = archive(tmp_path / "w.pth", {"a/data.pkl": pickled, "a/version": b"3\n", "a/byteorder": b"little"})
    assert "its entry params is a list" in refusal(path)


def test_attributes_planted_on_a_table_do_not_confuse_the_reader(tmp_path: Path, small: dict[str, Tensor]) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return OrderedDict, (), {"items": 3, "keys": 3, "get": 3}, None, iter(small.items())

    for content in (Planted(), {"params": Planted()}):
        assert read_checkpoint(saved(tmp_path, content)).network == SMALL


# Tables that are no SwinIR.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(3), "holds a Tensor"),
        ({}, "no tensors inside"),
        ({"epoch": 3}, "no tensors inside"),
        ({"params": [1, 2]}, "its entry params is a list"),
        ({"params": {"epoch": 3}}, "its entry params is a dict without tensors"),
        ({"params": {1: torch.ones(1)}}, "a key of type int"),
        ({"layer1.0.conv1.weight": torch.ones(1)}, "like a ResNet: it has layer1.0.conv1.weight"),
        ({"body.0.rdb1.conv1.weight": torch.ones(1)}, "like RRDBNet"),
        ({"fc.weight": torch.ones(1), "a\nb": torch.ones(1)}, "but fc.weight, 'a\\nb'"),
    ],
    ids=str,
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    assert words in refusal(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("key", "network"),
    [
        ("layers.0.residual_group.blocks.0.attn.logit_scale", "Swin2SR"),
        ("layers.0.residual_group.overlap_attn.qkv.weight", "HAT"),
        ("layers.0.residual_group.blocks.0.attn.aligned_relative_position_index", "SRFormer"),
    ],
)
def test_relatives_of_swinir_are_told_apart_by_a_key(
    tmp_path: Path, small: dict[str, Tensor], key: str, network: str
) -> None:
    message = refusal(saved(tmp_path, small | {key: torch.ones(1)}))
    assert network in message
    assert key in message


BAD_TENSORS = {
    "sparse": (lambda: torch.ones(12).to_sparse(), "is sparse"),
    "meta": (lambda: torch.ones(12, device="meta"), "has no values"),
    "expanded": (lambda: torch.ones(1).expand(12), "claims 48 bytes of a storage of 4"),
    "huge": (lambda: torch.ones(1).expand(10**9, 10**9), "claims 4,000,000,000,000,000,000 bytes"),
    "zero-size": (lambda: torch.ones(0), "has shape (0,), expected (12,)"),
    "misshapen": (lambda: torch.ones(13), "has shape (13,), expected (12,)"),
    "integer": (lambda: torch.ones(12, dtype=torch.int8), "torch.int8"),
    "NaN": (lambda: torch.tensor([math.nan] * 12), "NaN or infinite"),
    "infinite": (lambda: torch.tensor([1.0] * 11 + [math.inf]), "NaN or infinite"),
    "too large": (lambda: torch.full((12,), 1e300, dtype=torch.float64), "NaN or infinite"),
    "text": (lambda: "weights", "is a str"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_a_tensor_that_cannot_be_used_is_named(tmp_path: Path, small: dict[str, Tensor], kind: str) -> None:
    make, words = BAD_TENSORS[kind]
    message = refusal(saved(tmp_path, changed(small, norm__weight=make())))
    assert "norm.weight" in message
    assert words in message


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_weights_are_refused(tmp_path: Path, small: dict[str, Tensor]) -> None:
    quantized = torch.quantize_per_tensor(small["norm.weight"], 0.1, 0, torch.qint8)
    assert "is quantized" in refusal(saved(tmp_path, changed(small, norm__weight=quantized)))


def test_missing_surplus_and_misshapen_weights_are_all_named(tmp_path: Path, small: dict[str, Tensor]) -> None:
    broken = changed(small, norm__weight=None, conv_after_body__bias=torch.ones(5), extra=torch.ones(1))
    message = refusal(saved(tmp_path, broken))
    assert "missing: norm.weight;" in message
    assert "surplus: extra;" in message
    assert "misshapen: conv_after_body.bias has shape (5,), expected (12,);" in message


def test_of_many_missing_weights_three_are_named(tmp_path: Path, small: dict[str, Tensor]) -> None:
    kept = {name: tensor for name, tensor in small.items() if ".proj." not in name}
    message = refusal(saved(tmp_path, kept))
    assert message.count(".proj.") == 3
    assert "and 3 more" in message


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"conv_first__weight": None}, "has no conv_first.weight"),
        ({"conv_first__weight": torch.ones(12)}, "conv_first.weight has shape (12,)"),
        ({"conv_first__weight": torch.ones(0, 3, 3, 3)}, "non-empty dimensions"),
        ({"upsample__0__weight": torch.ones(13, 12, 3, 3)}, "gives 13 channels"),
        ({"upsample__0__weight": None}, "surplus: upsample.0.bias"),
        (
            {"layers__7__residual_group__blocks__0__norm1__weight": torch.ones(12)},
            "no layers.2.residual_group.blocks.0",
        ),
        (
            {"layers__0__residual_group__blocks__9__norm1__weight": torch.ones(12)},
            "no layers.0.residual_group.blocks.2",
        ),
        ({"layers__0__residual_group__blocks__0__attn_mask": torch.ones(4, 16, 16)}, "surplus"),
        ({MASK: torch.ones(6, 16, 16)}, "no square"),
        ({MASK: torch.ones(4, 9, 16)}, "attn_mask has shape"),
        ({"layers{0.x}[1].attn_mask": torch.ones(1)}, "surplus"),
        ({f"layers.0.residual_group.blocks.{'9' * 5000}.x": torch.ones(1)}, "surplus"),
    ],
    ids=range(12),
)
def test_an_inconsistent_network_is_refused(
    tmp_path: Path, small: dict[str, Tensor], entries: dict[str, Any], words: str
) -> None:
    assert words in refusal(saved(tmp_path, changed(small, **entries)))


def test_differing_windows_are_refused(tmp_path: Path, small: dict[str, Tensor]) -> None:
    name = "layers.1.residual_group.blocks.0.attn.relative_position_bias_table"
    assert f"{name} has shape (25, 3), expected (49, 3)" in refusal(saved(tmp_path, small | {name: torch.ones(25, 3)}))
    tables = {key: torch.ones(50, 2) for key in small if key.endswith("bias_table")}
    assert "has 50 rows" in refusal(saved(tmp_path, small | tables))


def test_names_with_and_without_prefix_do_not_overwrite_each_other(tmp_path: Path, small: dict[str, Tensor]) -> None:
    assert "twice" in refusal(saved(tmp_path, small | {"module.norm.weight": torch.ones(12)}))


def test_a_small_file_cannot_ask_for_a_huge_window(tmp_path: Path) -> None:
    block = "layers.0.residual_group.blocks.0"
    state = {
        "conv_first.weight": torch.ones(1, 1, 3, 3),
        "conv_last.weight": torch.ones(1, 1, 3, 3),
        f"{block}.attn.relative_position_bias_table": torch.ones(399**2, 1),
        f"{block}.mlp.fc1.weight": torch.ones(1, 1),
    }
    assert "a window of 200" in refusal(saved(tmp_path, state))


def test_an_absurd_number_of_layers_is_refused_at_once() -> None:
    state = {f"layers.0.residual_group.blocks.{i}.norm1.weight": torch.ones(1) for i in range(10_000)}
    with pytest.raises(CheckpointError, match="10,000 layers"):
        infer_network(state)


def test_absurd_sizes_are_refused_without_memory() -> None:
    block = "layers.0.residual_group.blocks.0"
    shapes = {
        "conv_first.weight": [2**40, 3, 3, 3],
        f"{block}.attn.relative_position_bias_table": [225, 1],
        f"{block}.mlp.fc1.weight": [2, 2],
    }
    with pytest.raises(CheckpointError, match="embed_dim must be from 1 to 4194304"):
        infer_network(meta_tensors(shapes))


# Files that describe themselves.


def described(tmp_path: Path, state: dict[str, Tensor], **entries: Any) -> Path:
    options = entries.pop("network", {})
    return saved(tmp_path, {"params": state, "network": SMALL.to_dict() | options} | entries)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"embed_dim": 24}, "embed_dim 24 for 12"),
        ({"img_size": 16}, "img_size 16 for 8"),
        ({"img_size": 4}, "img_size 4 for 8"),
        ({"window_size": 2}, "window_size 2 for 4"),
        ({"mlp_ratio": 4.0}, "mlp_ratio 4.0 for 2.0"),
        ({"num_heads": [3, 2]}, "num_heads (3, 2) for (2, 3)"),
        ({"upscale": 1}, "upscale of 2 or more"),
        ({"colour": "red"}, "'colour'"),
        ({"embed_dim": "12"}, "embed_dim has a value of the wrong type"),
        ({"embed_dim": True}, "embed_dim has a value of the wrong type"),
        ({"depths": [2, 10**50]}, "depths has a value of the wrong type"),
        ({"img_range": math.nan}, "img_range has a value of the wrong type"),
        ({"img_range": -1.0}, "img_range must be positive"),
    ],
    ids=str,
)
def test_a_description_that_disagrees_with_the_weights_is_refused(
    tmp_path: Path, small: dict[str, Tensor], options: dict[str, Any], words: str
) -> None:
    assert words in refusal(described(tmp_path, small, network=options))


def test_a_description_decides_what_weights_do_not_tell(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = described(tmp_path, learned(small), network={"img_range": 255.0, "img_size": 48}, task="lightweight_sr")
    found = read_checkpoint(path)
    assert (found.network.img_range, found.network.img_size, found.rules) == (255.0, 48, ())


def test_a_network_of_any_scale_keeps_its_largest_one(tmp_path: Path) -> None:
    network = replace(SMALL, upsampler="any", upscale=3.5)
    state = SwinIR(network).state_dict()
    write_checkpoint(tmp_path / "x1-4.pth", state, network, task="lightweight_sr")
    assert read_checkpoint(tmp_path / "x1-4.pth").network == network
    inferred, rules = infer_network(state)
    assert inferred == replace(network, upscale=4)
    assert any(rule.startswith("upscale is 4") for rule in rules)


def test_rules_remain_for_what_a_description_leaves_out(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path, {"params": small, "network": {"drop_path_rate": 0.1}})
    found = read_checkpoint(path)
    assert found.network == replace(SMALL, drop_path_rate=0.1)
    assert len(found.rules) == 1
    assert "img_range" in found.rules[0]


def test_a_window_that_was_shrunk_keeps_its_described_size(tmp_path: Path) -> None:
    network = replace(SMALL, window_size=8, img_size=4)
    write_checkpoint(tmp_path / "w.pth", weights(network), network)
    assert read_checkpoint(tmp_path / "w.pth").network == network


def test_tensors_that_share_memory_cannot_ask_for_more_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "MAX_BYTES", 2**20)
    torch.save(dict.fromkeys((f"{i}.weight" for i in range(64)), torch.zeros(2**14)), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"its tensors take more than the limit of 1,048,576 bytes, in a file of"):
        read_state(tmp_path / "x.pth")


def test_a_described_size_cannot_ask_for_huge_buffers(tmp_path: Path, small: dict[str, Tensor]) -> None:
    assert "img_size of 4000000" in refusal(described(tmp_path, learned(small), network={"img_size": 4_000_000}))


def test_an_unknown_stated_task_is_refused(tmp_path: Path, small: dict[str, Tensor]) -> None:
    assert "unknown task 'deblur'" in refusal(described(tmp_path, small, task="deblur"))


def test_facts_of_other_tools_are_not_taken_for_ours(tmp_path: Path, small: dict[str, Tensor]) -> None:
    found = read_checkpoint(saved(tmp_path, {"params": small, "network": "SwinIR", "task": 7, "step": "late"}))
    assert (found.task, found.step, found.self_described) == (None, None, False)


# swinir info


def run_info(*arguments: str | Path) -> str:
    app = typer.Typer()
    app.command("info")(info)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_info_tells_all_facts_as_json(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"
    write_checkpoint(path, small, SMALL, task="lightweight_sr", step=7)
    facts = json.loads(run_info(path, "--json", "--size", "8x12"))
    assert facts["bytes"] == path.stat().st_size
    assert facts["sha256"] == sha256(path)
    assert (facts["key"], facts["task"], facts["task_told_by"], facts["step"]) == (
        "params",
        "lightweight_sr",
        "file",
        7,
    )
    assert NetworkConfig.from_dict(facts["network"]) == SMALL
    assert facts["parameters"] == sum(parameter.numel() for parameter in SwinIR(SMALL).parameters())
    assert facts["macs_size"] == [8, 12]
    assert facts["training_patch"] == 8
    assert facts["rules"] == []


def test_info_tells_what_it_assumed(tmp_path: Path, small: dict[str, Tensor]) -> None:
    text = run_info(saved(tmp_path, small))
    assert "lightweight_sr (inferred from its network)" in text
    assert "the top level" in text
    assert "256x256" in text
    assert "img_range is 1 as in all released networks" in text


def test_info_states_the_count_that_the_paper_prints_instead(tmp_path: Path) -> None:
    network = TASKS["lightweight_sr"].network
    path = saved(tmp_path, learned(weights(network)))
    text = run_info(path, "--size", "64x64")
    assert "910,152 (the paper says 878K, its Table 3 omits one 3x3 convolution)" in text


def test_info_counts_a_network_with_position_embedding_at_its_only_size(tmp_path: Path) -> None:
    path = saved(tmp_path, weights(replace(SMALL, ape=True)))
    assert json.loads(run_info(path, "--json"))["macs_size"] == [8, 8]
    with pytest.raises(ValueError, match="only images of 8x8"):
        run_info(path, "--size", "9x9")


@pytest.mark.parametrize("size", ["256", "0x8", "-1x8", "axb", "8x8x8"])
def test_info_refuses_a_size_that_is_none(tmp_path: Path, small: dict[str, Tensor], size: str) -> None:
    with pytest.raises(ValueError, match="try --size 256x256"):
        run_info(saved(tmp_path, small), f"--size={size}")

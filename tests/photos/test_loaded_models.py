"""Loaded models: the memory that they take, and the libraries that run them."""

import pytest
import torch
from exports import TINY

from swinir.inference.options import RunOptions
from swinir.inference.runtimes import ExportedNetwork
from swinir.photos.loaded_models import LoadedModels, load_by

CPU = torch.device("cpu")
TORCH = f"torch {torch.__version__}"


def test_the_model_used_longest_ago_leaves_first():
    loaded = []

    def load(name, device):
        loaded.append(name)
        return torch.nn.Linear(10, 100)  # 4,400 bytes, two and a half times

    models = LoadedModels(CPU, budget=25_000, load=load)
    for name in ("a", "b", "a", "c", "a", "b"):
        models.get(name)
    assert loaded == ["a", "b", "c", "b"]


def test_one_model_stays_however_small_the_budget():
    models = LoadedModels(CPU, budget=0, load=lambda name, device: torch.nn.Linear(2, 2))
    assert models.get("a") is models.get("a")


def test_the_library_and_precision_of_a_model_are_those_that_run_it():
    exported = ExportedNetwork("x.onnx", {"network": TINY}, lambda precision: None, "engine 1")
    for network, expected in ((exported, ("engine 1", "fp32")), (torch.nn.Linear(2, 2), (TORCH, "bf16"))):
        models = LoadedModels(CPU, load=lambda *_, network=network: network, options=RunOptions(precision="bf16"))
        assert models.engine("a") == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("tensorrt", CPU, "auto"), "backend must be one of onnx, openvino, got 'tensorrt'"),
        (("openvino", torch.device("cuda"), "auto"), "runs on the CPU, and the device is cuda"),
        (("onnx", CPU, "bf16"), "backend onnx computes in fp32, and the precision is bf16"),
    ],
    ids=str,
)
def test_a_backend_that_cannot_be_is_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        load_by(*request_)

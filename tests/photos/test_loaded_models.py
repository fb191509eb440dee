"""Memory that loaded models take."""

import torch

from swinir.photos.loaded_models import LoadedModels

CPU = torch.device("cpu")


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

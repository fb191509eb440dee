"""The choice between two forms of a network: by measurement, once, kept in a cache that is not trusted."""

import itertools
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from exports import TINY
from networks import live

from swinir.inference import fastest as module
from swinir.inference.fastest import CHOICE, NETWORK, fastest
from swinir.models.optimized import OptimizedSwinIR, optimize


class Theirs:
    """The network by OpenVINO, a little off."""

    def __init__(self, network, error):
        self.network, self.error = network, error

    def __call__(self, x):
        return self.network(x) + self.error


@pytest.fixture
def machine(monkeypatch):
    """A function that states the seconds of both forms; it returns the list of conversions so far."""
    network = live(TINY, torch.float32)
    made = []

    def export(model, path, format):
        made.append(path)
        path.write_text("<?xml?>")
        path.with_suffix(".bin").write_bytes(b"weights")

    def state(ours, theirs, error=1e-6):
        clock = itertools.cycle([0.0, ours, 0.0, theirs])
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
        monkeypatch.setattr(module, "load_exported", lambda path, precision: Theirs(optimize(network), error))
        return made

    monkeypatch.setattr(module, "WINDOWS", 2)
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(__version__="1"))
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    monkeypatch.setattr(module, "export", export)
    state.network = network
    return state


@pytest.mark.parametrize(
    ("ours", "theirs", "error", "expected"),
    [(2.0, 1.0, 1e-6, Theirs), (1.05, 1.0, 1e-6, OptimizedSwinIR), (2.0, 1.0, 1e-2, OptimizedSwinIR)],
    ids=["faster", "hardly faster", "too far off"],
)
def test_the_choice_is_kept(ours, theirs, error, expected, machine, tmp_path):
    made = machine(ours, theirs, error)
    assert isinstance(fastest(machine.network, "fp32", tmp_path), expected)
    machine(theirs, ours)
    assert isinstance(fastest(machine.network, "fp32", tmp_path), expected)
    assert len(made) == 1
    fastest(machine.network, "bf16", tmp_path)
    assert len(made) == 2


def test_a_damaged_cache_is_made_again(machine, tmp_path):
    made = machine(2.0, 1.0)
    fastest(machine.network, "fp32", tmp_path)
    (folder,) = tmp_path.iterdir()
    choice = json.loads((folder / CHOICE).read_text())
    for name, content in (
        (NETWORK, "<?xml other?>"),
        ("network.bin", "other"),
        (CHOICE, "{"),
        (CHOICE, "[]"),
        (CHOICE, json.dumps(choice | {"engine": "other"})),
    ):
        (folder / name).write_text(content)
        before = len(made)
        assert isinstance(fastest(machine.network, "fp32", tmp_path), Theirs)
        assert len(made) == before + 1


def test_networks_used_longest_ago_leave_a_full_cache(machine, tmp_path, monkeypatch):
    machine(2.0, 1.0)
    fastest(machine.network, "fp32", tmp_path)
    (first,) = tmp_path.iterdir()
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    fastest(machine.network, "bf16", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert not first.exists()


def test_without_openvino_or_a_cache_it_is_this_packages_form(machine, tmp_path, monkeypatch, caplog):
    machine(2.0, 1.0)
    (tmp_path / "file").write_text("")
    assert isinstance(fastest(machine.network, "fp32", tmp_path / "file"), OptimizedSwinIR)
    assert "OpenVINO cannot be used" in caplog.text
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert isinstance(fastest(machine.network, "fp32", tmp_path), OptimizedSwinIR)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

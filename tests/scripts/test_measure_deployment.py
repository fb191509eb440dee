"""The measurement of deployments: each level is served by its model, in the process that has it."""

from pathlib import Path

import pytest
import torch
from scripted import load_script

from swinir.weights.checkpoint import load_model


class Door:
    """The end of a pipe to a process that answers at once."""

    def __init__(self):
        self.sent, self.received = [], 0

    def send(self, name):
        self.sent.append(name)

    def recv(self):
        self.received += 1


@pytest.fixture(scope="module")
def script():
    return load_script("scripts/measure_deployment.py")


def test_a_turn_sends_each_level_to_the_process_that_serves_it(script):
    form = script.Form("two processes", [["a"], ["b"]], ["a", "b"])
    form.doors = {"a": Door(), "b": Door()}
    form.turn([0, 1, 1, 0, 1])
    assert (form.doors["a"].sent, form.doors["b"].sent) == (["a"] * 2, ["b"] * 3)
    assert (form.doors["a"].received, form.doors["b"].received) == (2, 3)
    assert len(form.rates) == 1


def test_each_level_has_a_checkpoint_of_its_own_weights(script, tmp_path):
    network = load_model("color_dn_noise0-55_tiny", "cpu").config
    names = script.write_models(tmp_path, network)
    assert len(set(names)) == script.LEVELS
    assert {load_model(name, "cpu").config for name in names[:2]} == {network}
    assert len({Path(name).read_bytes() for name in names}) == script.LEVELS
    form = script.Form("", [names], names)
    assert form.disk() == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_adapters_are_networks_of_their_own_in_one_file(script, tmp_path):
    network = load_model("color_dn_noise0-55_tiny", "cpu").config
    names = script.write_adapters(tmp_path / "joint.pth", network)
    first, second = (load_model(name, "cpu") for name in names[:2])
    assert first.config == second.config == network
    layer = "layers.0.residual_group.blocks.0.mlp.fc1.weight"
    assert not torch.equal(first.state_dict()[layer], second.state_dict()[layer])
    assert script.Form("", [names], names).disk() == (tmp_path / "joint.pth").stat().st_size

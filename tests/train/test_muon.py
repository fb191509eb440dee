"""Muon in batches of equal shapes, beside PyTorch's own."""

import copy

import pytest
import torch
from operations import Operations

from swinir.models.multitask import JointSwinIR
from swinir.models.swinir import NetworkConfig
from swinir.train.config import OptimizerConfig
from swinir.train.muon import BatchedMuon
from swinir.train.optimizer import build_optimizers

SHAPES = [(36, 12), (12, 12), (24, 12), (12, 24)] * 4


@pytest.fixture
def twins():
    """The project's Muon and PyTorch's, with equal options and parameters."""
    options = {"lr": 4e-3, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) * 0.02 for shape in SHAPES]
    return [
        kind([torch.nn.Parameter(v.clone()) for v in values], **options) for kind in (BatchedMuon, torch.optim.Muon)
    ]


def parameters(optimizer):
    return optimizer.param_groups[0]["params"]


def step(optimizer, seed, count=99):
    """Step with random gradients for the first parameters."""
    generator = torch.Generator().manual_seed(seed)
    for number, parameter in enumerate(parameters(optimizer)):
        parameter.grad = torch.randn(parameter.shape, generator=generator) if number < count else None
    optimizer.step()


def test_steps_are_those_of_pytorchs_muon(twins):
    before = [p.detach().clone() for p in parameters(twins[0])]
    for optimizer in twins:
        for seed, count in enumerate((6, 16, 16)):  # parameters without gradients keep their moments
            step(optimizer, seed, count)
    for ours, theirs, first in zip(*map(parameters, twins), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert (ours - first).abs().max() > 1e-3


def test_either_resumes_the_others_state(twins):
    ours, theirs = twins
    step(theirs, 0)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    step(ours, 1)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()
    step(ours, 2)
    step(theirs, 2)
    for number in range(len(SHAPES)):
        moments = [o.state_dict()["state"][number]["momentum_buffer"] for o in twins]
        assert torch.equal(*moments)


def test_operations_are_those_of_the_shapes_and_not_of_the_matrices(twins):
    counts = []
    for optimizer in twins:
        step(optimizer, 0)
        with Operations() as operations:
            optimizer.step()
        counts.append(len(operations.names))
    assert counts[0] < counts[1] / 2


def test_muon_takes_the_factors_of_adapters_and_nothing_of_a_frozen_body():
    network = JointSwinIR({"x": NetworkConfig(embed_dim=12, depths=(2,), num_heads=(2,), img_size=16)})
    network.adapt(3)
    adam, muon = build_optimizers(network, OptimizerConfig(name="muon"))
    taken = [{id(p) for group in one.param_groups for p in group["params"]} for one in (muon, adam)]
    assert taken == [{id(p) for p in part.values()} for part in (network.adapter(), network.ends("x"))]

"""A network for several tasks: the shared body, and a SwinIR for each task."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.models.complexity import count_parameters
from swinir.models.multitask import BODY, JointSwinIR, count_joint_parameters
from swinir.models.swinir import NetworkConfig

BASE = NetworkConfig(embed_dim=12, depths=(2, 2), num_heads=(3, 3), img_size=16)
CONFIGS = {
    "x2": replace(BASE, upscale=2, upsampler="pixelshuffledirect"),
    "x4": replace(BASE, upscale=4, upsampler="pixelshuffle", num_feat=8),
    "noise": BASE,
    "gray": replace(BASE, in_chans=1),
}


def body_of(dim, depths, heads, window, ratio):
    """Learned values of patch norm, RSTBs, norm and last convolution, counted by hand."""
    hidden = int(dim * ratio)
    layer = 4 * dim + 4 * dim * dim + 4 * dim + (2 * window - 1) ** 2 * heads + 2 * dim * hidden + hidden + dim
    convolution = 9 * dim * dim + dim
    return 2 * dim + sum(depths) * layer + len(depths) * convolution + 2 * dim + convolution


def ends_of(dim, chans, scale):
    """Learned values of conv_first, and of what "pixelshuffledirect" or no upsampler ends in, counted by hand."""
    return 9 * chans * dim + dim + 9 * dim * chans * scale**2 + chans * scale**2


@given(
    st.sampled_from([8, 12, 24]),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1.5, 2.0]),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
@settings(max_examples=10, deadline=None)
def test_the_body_counts_once_and_every_task_adds_its_head_and_tail(dim, depths, heads, ratio, scales):
    configs = {
        f"task{i}": NetworkConfig(
            upscale=scale,
            upsampler="pixelshuffledirect" if scale > 1 else "",
            embed_dim=dim,
            depths=depths,
            num_heads=[heads] * len(depths),
            mlp_ratio=ratio,
            img_size=16,
        )
        for i, scale in enumerate(scales)
    }
    body, ends = body_of(dim, depths, heads, 8, ratio), [ends_of(dim, 3, scale) for scale in scales]
    assert count_joint_parameters(configs) == body + sum(ends)
    assert sum(map(count_parameters, configs.values())) == len(scales) * body + sum(ends)


@pytest.fixture
def adapted_joint():
    """A joint network with an adapter that changes every linear layer and convolution."""
    joint = JointSwinIR(CONFIGS)
    joint.adapt(4)
    with torch.no_grad():
        for factor in joint.adapter().values():
            factor.normal_(0, 0.1)
    return joint


def test_an_adapter_changes_nothing_at_first():
    joint = JointSwinIR(CONFIGS).eval()
    lq = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = joint(lq, "x2")
        joint.adapt(4)
        assert torch.equal(joint(lq, "x2"), before)


def test_an_adapter_changes_every_linear_layer_and_convolution_by_a_matrix_of_its_rank(adapted_joint):
    layers = dict(adapted_joint.expert("noise").named_modules())
    for name, weight in adapted_joint.body().items():
        layer = layers[name.rpartition(".")[0]]
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and name.endswith("weight"):
            assert torch.linalg.matrix_rank((layer.weight - weight).flatten(1), atol=1e-4) == 4, name
    adapted = {name.split(".")[-2] for name in adapted_joint.adapter()}
    assert adapted == {"qkv", "proj", "fc1", "fc2", "conv", "conv_after_body"}


def test_with_an_adapter_a_loss_has_gradients_in_it_and_in_head_and_tail_only(adapted_joint):
    adapted_joint(torch.rand(1, 3, 16, 16), "noise").square().sum().backward()
    met = {id(p) for p in adapted_joint.parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    own = (*adapted_joint.adapter().values(), *adapted_joint.ends("noise").values())
    assert met == {id(p) for p in own}


def test_an_adapter_is_counted_for_each_rank(adapted_joint):
    assert count_joint_parameters(CONFIGS, (4,)) == sum(p.numel() for p in adapted_joint.parameters())
    assert count_joint_parameters(CONFIGS, (4, 4)) - count_joint_parameters(CONFIGS, (4,)) == sum(
        p.numel() for p in adapted_joint.adapter().values()
    )


def test_the_body_is_the_same_for_all_tasks_and_nothing_else_is():
    joint = JointSwinIR(CONFIGS)
    first, other = (dict(joint.expert(task).named_parameters()) for task in ("x2", "noise"))
    shared = {name for name in first if any(first[name] is parameter for parameter in other.values())}
    assert shared == {name for name in first if name.startswith(BODY)}
    assert {name.split(".")[0] for name in first.keys() - shared} == {"conv_first", "upsample"}
    joint = JointSwinIR({"a": replace(BASE, ape=True), "b": replace(BASE, ape=True)})
    assert joint.expert("a").absolute_pos_embed is joint.expert("b").absolute_pos_embed


def test_one_tasks_loss_has_no_gradient_in_the_others_heads_and_tails():
    joint = JointSwinIR(CONFIGS)
    joint(torch.rand(1, 3, 16, 16), "noise").square().sum().backward()
    met = {name for name, p in joint.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    body = {name for name, _ in joint.named_parameters() if name.split(".")[2] in BODY}
    own = {name for name, _ in joint.named_parameters() if name.startswith("experts.noise.")}
    assert met == body | own


def test_a_copy_shares_its_body_too_and_not_with_the_first():
    joint = JointSwinIR(CONFIGS)
    other = copy.deepcopy(joint)
    assert other.expert("x2").norm.weight is other.expert("gray").norm.weight
    assert other.expert("x2").norm.weight is not joint.expert("x2").norm.weight
    assert len(list(other.parameters())) == len(list(joint.parameters()))


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({}, "at least one task"),
        ({"a": BASE, "b": replace(BASE, embed_dim=24)}, "embed_dim is 12 for a and 24 for b"),
        ({"a": BASE, "b": replace(BASE, img_range=255.0)}, "img_range is 1.0 for a and 255.0 for b"),
    ],
)
def test_networks_without_a_common_body_are_refused(configs, message):
    with pytest.raises(ValueError, match=message):
        JointSwinIR(configs)


def test_an_unknown_task_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no task 'x3'; choose one of x2, x4, noise, gray"):
        JointSwinIR(CONFIGS).expert("x3")

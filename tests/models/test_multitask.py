"""A network for several tasks: the shared body, and a SwinIR for each task."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinir.models.complexity import count_parameters
from swinir.models.multitask import BODY, JointSwinIR, count_joint_parameters
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.weights.checkpoint import load_model, write_checkpoint

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


def test_the_network_of_a_task_is_saved_and_loaded_as_an_ordinary_one_with_the_same_bits(tmp_path):
    joint = JointSwinIR(CONFIGS).eval()
    for task, config in CONFIGS.items():
        write_checkpoint(tmp_path / "x.pth", joint.expert(task).state_dict(), config)
        loaded = load_model(tmp_path / "x.pth", device="cpu")
        assert type(loaded) is SwinIR
        lq = torch.rand(2, config.in_chans, 19, 24)
        with torch.no_grad():
            assert torch.equal(loaded(lq), joint(lq, task))


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

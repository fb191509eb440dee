"""What a network looks at: closed forms for receptive fields, attention, shifts and attributions."""

import numpy as np
import pytest
import torch
from networks import live
from scripted import load_script

from swinir.models.swinir import NetworkConfig

study = load_script("scripts/study_attention.py")

SMALL = NetworkConfig(
    embed_dim=12, depths=(2,), num_heads=(2,), window_size=4, img_size=16, upscale=2, upsampler="pixelshuffledirect"
)


@pytest.fixture
def network():
    return live(SMALL).requires_grad_(False)


@pytest.fixture
def lq():
    return torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_the_receptive_field_of_a_convolution_is_its_kernel_and_that_of_later_stages_is_larger(network, lq):
    fields = study.receptive_fields(network, lq)
    assert list(fields) == ["shallow", "RSTB 1", "deep", "output"]
    rows, cols = np.nonzero(fields["shallow"])
    assert {rows.min(), rows.max(), cols.min(), cols.max()} == {23, 25}
    assert study.radius(fields["shallow"], 1) == pytest.approx(2**0.5)
    assert study.radius(fields["deep"], 0.99) > 4
    assert all(field.sum() == pytest.approx(1, abs=1e-5) for field in fields.values())


def test_the_radius_of_equal_weights_is_that_of_a_disc():
    field = np.ones((201, 201))
    assert study.radius(field, 0.25) == pytest.approx(201 * (0.25 / np.pi) ** 0.5, abs=1)


def test_attention_without_preferences_has_the_mean_distance_of_tokens(network, lq):
    for layer in network.layers[0].residual_group.blocks:
        layer.attn.qkv.weight.zero_()
        layer.attn.qkv.bias.zero_()
        layer.attn.relative_position_bias_table.zero_()
    plain, shifted = study.attention_distances(network, lq)
    places = [(y, x) for y in range(4) for x in range(4)]
    mean = np.mean([np.hypot(a - c, b - d) for a, b in places for c, d in places])
    assert plain == pytest.approx([mean, mean])
    assert (shifted < mean).all()  # masked windows at the border are smaller


def test_attention_to_the_token_itself_has_no_distance(network, lq):
    table = network.layers[0].residual_group.blocks[0].attn.relative_position_bias_table
    table.fill_(-100)
    table[len(table) // 2] = 100
    assert study.attention_distances(network, lq)[0] == pytest.approx([0, 0], abs=1e-6)


def test_the_output_depends_on_the_place_of_windows_but_not_on_a_shift_by_whole_ones(network, lq):
    changes = study.shift_changes(network, lq, margin=14)
    assert min(changes[0], changes[1], changes[2]) > 1e-3
    assert max(changes[3], changes[7]) < 1e-3 * max(changes)


def test_a_detail_is_attributed_to_the_pixels_that_it_is_made_of(lq):
    found = study.attribute(lambda x: x, lq, scale=1)
    rows, cols = np.nonzero(found > 1e-9)
    reach = study.DETAIL // 2 + 1
    assert abs(rows - 24).max() <= reach
    assert abs(cols - 24).max() <= reach


@pytest.mark.parametrize(("weights", "index"), [(np.ones(100), 100), (np.eye(1, 100), 1)])
def test_the_diffusion_index_tells_equal_weights_from_a_single_one(weights, index):
    assert study.diffusion_index(weights / weights.sum()) == pytest.approx(index)

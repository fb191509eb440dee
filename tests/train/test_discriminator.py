"""The U-Net discriminator: shapes, weights, and a forward pass assembled by hand."""

import pytest
import torch
import torch.nn.functional as F

from swinir.train.discriminator import UNetDiscriminator

NORMALISED = [f"conv{n}" for n in range(1, 9)]


def discriminator(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNetDiscriminator(**{"num_feat": 8} | options)


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_the_published_network_has_its_keys_and_four_million_parameters():
    network = UNetDiscriminator()
    assert sum(p.numel() for p in network.parameters()) == 4_376_897
    expected = {f"conv{n}.{part}" for n in (0, 9) for part in ("weight", "bias")}
    expected |= {f"{name}.weight_{part}" for name in NORMALISED for part in ("orig", "u", "v")}
    assert set(network.state_dict()) == expected


@pytest.mark.parametrize("size", [(8, 8), (37, 50), (8, 63)])
def test_there_is_a_logit_for_every_pixel_of_any_size(size):
    assert discriminator()(images(2, 3, *size)).shape == (2, 1, *size)
    assert discriminator(in_chans=1)(images(1, 1, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("size", [(7, 32), (32, 1)])
def test_images_too_small_to_halve_three_times_are_refused(size):
    with pytest.raises(ValueError, match=f"at least 8, got {size[0]} x {size[1]}"):
        discriminator()(images(1, 3, *size))


def test_the_forward_pass_is_that_of_the_published_network():
    network = discriminator()
    network(images(1, 3, 16, 16))  # the first estimate of singular values
    network.eval()
    x = images(2, 3, 24, 32)
    with torch.no_grad():
        weights = {}
        for name, tensor in network.state_dict().items():
            layer, kind = name.split(".")
            if kind == "weight":
                weights[layer] = tensor
            elif kind == "weight_orig":
                u, v = (network.state_dict()[f"{layer}.weight_{part}"] for part in "uv")
                weights[layer] = tensor / (u @ tensor.flatten(1) @ v)

        def conv(n, x, stride=1, bias=None):
            return F.conv2d(x, weights[f"conv{n}"], bias, stride, padding=1)

        def act(x):
            return torch.maximum(x, 0.2 * x)

        def double(x):
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

        x0 = act(conv(0, x, bias=network.conv0.bias))
        x1 = act(conv(1, x0, 2))
        x2 = act(conv(2, x1, 2))
        x3 = act(conv(3, x2, 2))
        y = act(conv(4, double(x3))) + x2
        y = act(conv(5, double(y))) + x1
        y = act(conv(6, double(y))) + x0
        expected = conv(9, act(conv(8, act(conv(7, y)))), bias=network.conv9.bias)
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-6)


def test_weights_start_orthogonal_with_gain_and_biases_at_zero():
    for name, tensor in discriminator().named_parameters():
        if name.endswith("bias"):
            assert (tensor == 0).all()
            continue
        rows = tensor.detach().flatten(1)
        small = rows if len(rows) <= rows.shape[1] else rows.T
        torch.testing.assert_close(small @ small.T, 0.04 * torch.eye(len(small)), rtol=0, atol=1e-5)


def test_in_training_the_largest_singular_value_of_every_normalised_weight_goes_to_one():
    network = discriminator().train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(2)
        for name in NORMALISED:
            getattr(network, name).weight_orig.normal_(std=3)
        for _ in range(100):
            network(images(1, 3, 8, 8))
    for name in NORMALISED:
        largest = torch.linalg.matrix_norm(getattr(network, name).weight.detach().flatten(1), 2)
        assert largest.item() == pytest.approx(1, abs=0.01), name


def test_evaluation_leaves_the_estimate_alone():
    network = discriminator()
    network(images(1, 3, 8, 8))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.eval()(images(1, 3, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_it_learns_to_tell_flat_images_from_noise_and_its_gradients_reach_the_images():
    network = discriminator()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    noise = images(4, 3, 16, 16).requires_grad_()
    flat = noise.detach().mean(dim=(2, 3), keepdim=True).expand_as(noise)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.softplus(-network(noise)).mean() + F.softplus(network(flat)).mean()
        loss.backward()
        optimizer.step()
    assert network(noise).mean() > 0 > network(flat).mean()
    assert (noise.grad != 0).any()

"""Networks of any scale, upsampler "any", at one scale: at an integer one, an ordinary network."""

import copy
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from swinir.models.phases import COEFFICIENTS, Axis, legendre, whole
from swinir.models.reconstruction import reconstruction_modules
from swinir.models.swinir import NetworkConfig, SwinIR


def config_at(config: NetworkConfig, scale: float) -> NetworkConfig:
    """Return the configuration of `at_scale`'s network; a ValueError as there."""
    scale = whole(scale)
    if not config.any_scale:
        if scale != config.upscale:
            raise ValueError(f"the network enlarges by {config.upscale:g} only, got {scale:g}; name one of any scale")
        return config
    if scale < 1:
        raise ValueError(f"a network of any scale enlarges by 1 or more, got {scale:g}; resize the image instead")
    ordinary = isinstance(scale, int) and scale >= 2
    return replace(config, upscale=scale, upsampler="pixelshuffledirect" if ordinary else config.upsampler)


@torch.no_grad()
def at_scale(model: SwinIR, scale: float) -> SwinIR:
    """Return a network for one scale; a network of any scale gives one of another scale.

    At an integer scale of 2 or more it is an ordinary network that ends in "pixelshuffledirect". At another scale it
    shares the weights of `model`.

    Raises:
        ValueError: for a scale below 1, and another scale than that of a network of one scale.
    """
    config = config_at(model.config, scale)
    if not model.config.any_scale:
        return model
    if config.any_scale:
        other = copy.copy(model)  # the attributes, not the modules
        other.config = config
        return other
    fixed = copy.deepcopy(model)
    del fixed.conv_coefficients, fixed.phase_weights
    fixed.config = config
    modules = reconstruction_modules(
        config.upsampler, config.upscale, config.embed_dim, config.num_feat, config.in_chans
    )
    fixed.add_module("upsample", modules["upsample"].to(model.conv_first.weight))
    axis = Axis.of(1, int(config.upscale))
    weights = model.phase_weights.weights(axis, axis).double()
    for name, tensor in model.conv_coefficients.named_parameters():
        filters = rearrange(tensor.double(), "(j c) ... -> j c ...", j=COEFFICIENTS)
        merged = torch.einsum("jyx,jc...->cyx...", weights, filters).flatten(0, 2)
        fixed.get_parameter(f"upsample.0.{name}").copy_(merged)
    return fixed.requires_grad_(False).train(model.training)


def coefficients_of(state: dict[str, Tensor], scale: int) -> dict[str, Tensor]:
    """Convert the weights of a "pixelshuffledirect" network to those of a network of any scale that equals it at first.

    The subpixels are interpolated by polynomials of as high a degree as they determine, 3 at most. Nothing is returned
    for the learned change, which is zero at first.

    Args:
        state: weights by name.
        scale: of the network that they belong to.
    """
    basis = legendre(Axis.of(1, scale).offsets)
    basis[:, scale:] = 0  # degrees that the subpixels do not determine
    inverse = torch.linalg.pinv(basis)
    state = dict(state)
    for name in ("weight", "bias"):
        subpixels = state.pop(f"upsample.0.{name}")
        filters = rearrange(subpixels.double(), "(c y x) ... -> c y x ...", y=scale, x=scale)
        solved = torch.einsum("iy,jx,cyx...->ijc...", inverse, inverse, filters).flatten(0, 2)
        state[f"conv_coefficients.{name}"] = solved.to(subpixels)
    return state

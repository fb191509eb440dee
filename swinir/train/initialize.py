"""Networks of a training: built from a configuration, initialized from other weights, and written."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from swinir.inference.forward import Restorer
from swinir.models.any_scale import at_scale, coefficients_of
from swinir.models.rcan import RCAN
from swinir.models.swinir import NetworkConfig, SwinIR
from swinir.train.config import InitConfig, TrainConfig
from swinir.train.losses import Adversary
from swinir.weights.checkpoint import (
    Checkpoint,
    build_model,
    find_checkpoint,
    read_checkpoint,
    read_state,
    sha256,
    write_checkpoint,
    write_state,
)

MAX_NAMED = 8  # layers listed in one message


def build_network(config: TrainConfig) -> Restorer:
    """Return the network with initial weights from the configuration's seed; the global generator is not changed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.seed)
        network = config.network_config()
        if config.network_name == "rcan":
            options = {name: value for name, value in config.network.items() if name != "name"}
            return RCAN(network.in_chans, int(network.upscale), **options)
        return SwinIR(network)


def start_from(network: Restorer, init: InitConfig) -> dict[str, Any]:
    """Copy the weights of a checkpoint into a network, layer by layer.

    Returns:
        Facts for run.json: file, SHA-256, and the layers that keep their random weights.

    Raises:
        ValueError: with the layers that do not fit and are not allowed to differ.
    """
    if init.weights is None:
        return {}
    path = find_checkpoint(init.weights)
    if isinstance(network, RCAN):
        network.load_released_state(read_state(path))
        return {"weights": path.name, "sha256": sha256(path), "fresh": []}
    checkpoint = read_checkpoint(init.weights)
    allowed_to_differ = init.allow_mismatch
    if init.adapt_scale:
        checkpoint = replace(checkpoint, state=_adapted(checkpoint, network.config))
        allowed_to_differ += ("phase_weights.",)
    parameters = dict(network.named_parameters())
    fitting = {n: t for n, t in checkpoint.state.items() if n in parameters and t.shape == parameters[n].shape}
    misfits = _misfits(parameters, checkpoint.state)
    refused = [text for name, text in misfits.items() if not name.startswith(allowed_to_differ)]
    if refused:
        more = f" and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
        allowed = json.dumps(sorted({name.split(".")[0] for name in misfits}))
        raise ValueError(
            f"{path} does not fit the network: {', '.join(refused[:MAX_NAMED])}{more}; "
            f"to leave such layers fresh: --set 'init.allow_mismatch={allowed}'"
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            parameters[name].copy_(tensor)
    return {"weights": path.name, "sha256": sha256(path), "fresh": sorted(parameters.keys() - fitting.keys())}


def _adapted(checkpoint: Checkpoint, network: NetworkConfig) -> dict[str, Tensor]:
    """Return a checkpoint's weights with the convolution of "pixelshuffledirect" adapted to another scale, or any.

    Raises:
        ValueError: unless both networks end in "pixelshuffledirect" or "any".
    """
    before, after = checkpoint.network.upsampler, network.upsampler
    if not {before, after} <= {"pixelshuffledirect", "any"}:
        raise ValueError(f"init.adapt_scale needs networks that end in pixelshuffledirect, got {before} and {after}")
    if before == "any":
        if after == "any":
            return checkpoint.state
        return dict(at_scale(build_model(checkpoint, "cpu"), network.upscale).named_parameters())
    old, new = int(checkpoint.network.upscale), int(network.upscale)
    if after == "any":
        return coefficients_of(checkpoint.state, old)
    nearest = ((torch.arange(new) + 0.5) * old / new).long()
    state = dict(checkpoint.state)
    for name in ("upsample.0.weight", "upsample.0.bias"):
        subpixels = rearrange(state[name], "(c y x) ... -> c y x ...", y=old, x=old)
        state[name] = rearrange(subpixels[:, nearest][:, :, nearest], "c y x ... -> (c y x) ...")
    return state


def _misfits(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, str]:
    """Describe the layers that differ, by name: missing in the checkpoint, not in the network, or of another shape."""
    texts = {}
    for name in [*parameters, *(n for n in state if n not in parameters)]:
        if name not in state:
            texts[name] = f"{name} (missing)"
        elif name not in parameters:
            texts[name] = f"{name} (not in the network)"
        elif state[name].shape != parameters[name].shape:
            texts[name] = f"{name} ({_by(state[name])} for {_by(parameters[name])})"
    return texts


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def start_adversary_from(adversary: Adversary | None, init: InitConfig) -> dict[str, Any]:
    """Copy the weights of another run's discriminator; returns facts for run.json.

    Raises:
        ValueError: when the configuration has no discriminator, or the weights do not fit.
    """
    if init.discriminator is None:
        return {}
    if adversary is None:
        raise ValueError(f"init.discriminator is {init.discriminator}, but there is no [loss.adversarial]")
    try:
        adversary.load_weights(read_state(init.discriminator))
    except ValueError as error:
        path = str(init.discriminator)
        raise ValueError(str(error) if path in str(error) else f"{path}: {error}") from error
    return {"discriminator": init.discriminator.name, "discriminator_sha256": sha256(init.discriminator)}


def write_adversary(path: Path, adversary: Adversary, step: int) -> None:
    """Write a discriminator's weights, from which another run can start."""
    state = {name: tensor.cpu() for name, tensor in adversary.discriminator.state_dict().items()}
    write_state(path, state, {"name": "unet_discriminator"}, step=step)


def write_weights(path: Path, network: Restorer, config: TrainConfig, step: int) -> None:
    """Write a trained network's weights in the released layout."""
    key = config.task_row.weights_key
    if isinstance(network, RCAN):
        write_state(path, network.released_state(), network.config.to_dict(), key=key, task=config.task, step=step)
        return
    write_checkpoint(path, network.state_dict(), network.config, key=key, task=config.task, step=step)


def describe_weights(path: Path) -> dict[str, Any]:
    """Return file name, bytes and SHA-256 of a checkpoint, as the zoo's index records them."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}

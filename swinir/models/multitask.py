"""One network for several tasks, as IPT is (Chen et al., CVPR 2021): a head and a tail for each, one body for all.

    lq of a task -> its conv_first -> shared body -> + -> its reconstruction -> restored

It is built as one SwinIR for each task, all of which hold the same modules for the body. Each of them can be trained,
run and saved like any SwinIR. An adapter fits a finished body to one task, or to a group of similar ones: a low-rank
change of every linear layer (LoRA, Hu et al., ICLR 2022) and every convolution, whose weight is taken as a matrix of
output channels by everything else. Merged into the layers, it leaves an ordinary SwinIR.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from swinir.models.swinir import NetworkConfig, SwinIR

BODY = ("patch_embed", "absolute_pos_embed", "layers", "norm", "conv_after_body")  # the other modules are head and tail
OWN_OPTIONS = ("in_chans", "upscale", "upsampler", "num_feat")  # that decide head and tail


class Adapter(nn.Module):
    """Low-rank change of a layer's weight W to W + BA, as a parametrization of it. B is zero at first.

    Args:
        weight: (outputs, inputs), or (outputs, inputs, height, width) of a convolution; only its shape and type are
            used.
        rank: rows of A and columns of B.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = matrix_shape(weight.shape)
        self.a = nn.Parameter(weight.new_empty(rank, inputs))
        self.b = nn.Parameter(weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)  # as linear layers of PyTorch, and as in LoRA

    def forward(self, weight: Tensor) -> Tensor:
        return adapted(weight, self.a, self.b)


def adapted(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return W + BA, in W's shape."""
    return weight + (b @ a).view_as(weight)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of a layer's weight as a matrix: output channels, and all inputs of one of them."""
    return shape[0], math.prod(shape[1:])


class JointSwinIR(nn.Module):
    """SwinIRs that share their body, by the names of their tasks.

    A shared parameter occurs once among `parameters()`, under the first task's name. A backward pass through the
    network of one task does not change the gradients of the other tasks' heads and tails.

    Args:
        configs: the network of each task, in its order; names are free of dots.

    Raises:
        ValueError: if there is none, or two differ in an option of the body, with both values.
    """

    def __init__(self, configs: Mapping[str, NetworkConfig]) -> None:
        super().__init__()
        check_bodies(configs)
        self.experts = nn.ModuleDict()
        first: SwinIR | None = None
        for name, config in configs.items():
            expert = SwinIR(config)
            first = first or expert
            for part in BODY:
                if hasattr(expert, part):
                    setattr(expert, part, getattr(first, part))
            self.experts[name] = expert

    def expert(self, task: str) -> SwinIR:
        """Get the network of one task, whose body is shared.

        Raises:
            ValueError: for an unknown task, naming the known ones.
        """
        if task not in self.experts:
            raise ValueError(f"the joint network has no task {task!r}; choose one of {', '.join(self.experts)}")
        return cast(SwinIR, self.experts[task])

    def forward(self, x: Tensor, task: str) -> Tensor:
        """Restore (B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale) of the task."""
        restored: Tensor = self.expert(task)(x)
        return restored

    def body(self) -> dict[str, nn.Parameter]:
        """Parameters of the body by their names in SwinIR, without those of adapters."""
        named = next(iter(self.experts.values())).named_parameters()
        plain = ((name.replace("parametrizations.weight.original", "weight"), p) for name, p in named)
        return {name: p for name, p in plain if in_body(name) and ".parametrizations." not in name}

    def ends(self, task: str) -> dict[str, nn.Parameter]:
        """Parameters of a task's head and tail by their names in SwinIR."""
        return {name: p for name, p in self.expert(task).named_parameters() if not in_body(name)}

    def adapt(self, rank: int) -> None:
        """Freeze the body and give each of its linear layers and convolutions an adapter."""
        for parameter in self.body().values():
            parameter.requires_grad_(False)
        for _, layer in self._adaptable_layers():
            adapter = Adapter(layer.weight, min(rank, *matrix_shape(layer.weight.shape)))
            parametrize.register_parametrization(layer, "weight", adapter)

    def adapter(self) -> dict[str, nn.Parameter]:
        """Parameters of the adapters: A and B of a layer as LAYER.a and LAYER.b; empty without `adapt`."""
        found = {}
        for name, layer in self._adaptable_layers():
            for factor, parameter in layer.named_parameters():
                if ".0." in factor:
                    found[f"{name}.{factor[-1]}"] = parameter
        return found

    def _adaptable_layers(self) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
        for name, module in next(iter(self.experts.values())).named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and in_body(name):
                yield name, module


def in_body(name: str) -> bool:
    """True for the name of a module or parameter of the body."""
    return name.split(".")[0] in BODY


def count_joint_parameters(configs: Mapping[str, NetworkConfig], ranks: tuple[int, ...] = ()) -> int:
    """Count the learned values, those of the body once, and those of an adapter for each of `ranks`."""
    with torch.device("meta"):
        network = JointSwinIR(configs)
        count = sum(p.numel() for p in network.parameters())
        shapes = [matrix_shape(layer.weight.shape) for _, layer in network._adaptable_layers()]
    return count + sum(min(rank, *shape) * sum(shape) for rank in ranks for shape in shapes)


def check_bodies(configs: Mapping[str, NetworkConfig]) -> None:
    """Raise a ValueError unless there are networks, and all have the same options of the body."""
    if not configs:
        raise ValueError("a joint network needs at least one task")
    (first_name, first), *others = configs.items()
    for name, config in others:
        for option in (f.name for f in fields(NetworkConfig) if f.name not in OWN_OPTIONS):
            ours, theirs = getattr(first, option), getattr(config, option)
            if ours != theirs:
                raise ValueError(
                    f"tasks of a joint network share their body: {option} is {ours} for {first_name} and {theirs} "
                    f"for {name}; make them equal"
                )

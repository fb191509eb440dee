"""One network for several tasks, as IPT is (Chen et al., CVPR 2021): a head and a tail for each, one body for all.

    lq of a task -> its conv_first -> shared body -> + -> its reconstruction -> restored

It is built as one SwinIR for each task, all of which hold the same modules for the body. Each of them can be trained,
run and saved like any SwinIR.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import cast

import torch
from torch import Tensor, nn

from swinir.models.swinir import NetworkConfig, SwinIR

BODY = ("patch_embed", "absolute_pos_embed", "layers", "norm", "conv_after_body")  # the other modules are head and tail
OWN_OPTIONS = ("in_chans", "upscale", "upsampler", "num_feat")  # that decide head and tail


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
        _check_bodies(configs)
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


def count_joint_parameters(configs: Mapping[str, NetworkConfig]) -> int:
    """Count the learned values, those of the body once."""
    with torch.device("meta"):
        return sum(p.numel() for p in JointSwinIR(configs).parameters())


def _check_bodies(configs: Mapping[str, NetworkConfig]) -> None:
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

"""The networks of a file for several tasks in the memory of one, for programs that change tasks often."""

from pathlib import Path

import torch

from swinir.models.multitask import JointSwinIR, adapted
from swinir.models.swinir import SwinIR
from swinir.weights.checkpoint import joint_networks, read_joint


class JointModel:
    """A file for several tasks on a device. `select` makes it the network of a task in milliseconds.

    Args:
        path: the file.
        device: None is the GPU where there is one.

    Raises:
        CheckpointError: as `read_joint`.
    """

    def __init__(self, path: str | Path, device: str | torch.device | None = None) -> None:
        joint = read_joint(path)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with torch.device("meta"):
            self._network = JointSwinIR(joint_networks(joint)).requires_grad_(False).eval()
        self._network.to_empty(device=device)
        for task in joint.facts:
            self._network.expert(task).reset_derived_buffers()
            for name, parameter in self._network.ends(task).items():
                parameter.copy_(joint.ends[task][name])
        self._body = self._network.body()
        for name, parameter in self._body.items():
            parameter.copy_(joint.body[name])
        self._joint = joint.converted(lambda _, tensor: tensor.to(device))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self._joint.facts)

    def select(self, task: str) -> SwinIR:
        """Return the network of a task, an ordinary SwinIR in eval mode.

        Networks that were returned before share its body: use only the last one. The optimized form is a copy.

        Raises:
            ValueError: for an unknown task, naming the known ones.
        """
        network, factors = self._network.expert(task), self._joint.adapter(task)
        for name, weight in self._body.items():
            layer, original = name.removesuffix(".weight"), self._joint.body[name]
            if f"{layer}.a" in factors:
                weight.copy_(adapted(original, factors[f"{layer}.a"], factors[f"{layer}.b"]))
            else:
                weight.copy_(original)
        return network

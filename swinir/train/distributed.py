"""Training in several processes, as started by torchrun."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from swinir.inference.device import choose_device

T = TypeVar("T")
# Of processes that wait for the first one, which may decode thousands of images; NCCL's own limit is ten minutes.
PATIENCE = timedelta(hours=12)


class Processes:
    """The processes of a run; a single one without torchrun.

    Each process runs its share of every batch. Gradients are averaged after the backward pass, so that all processes
    have the same weights.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        device: device of this process.
    """

    def __init__(self, device: torch.device, rank: int = 0, count: int = 1) -> None:
        self.device, self.rank, self.count = device, rank, count

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Average every gradient over the processes, in place."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of (N,) values over the processes, on their device."""
        if self.count == 1:
            return values
        total = values.to(self.device, torch.float64)
        dist.all_reduce(total)
        return total / self.count

    def any(self, flag: bool) -> bool:
        """Return true if any process's flag is."""
        return flag if self.count == 1 else self.mean(torch.tensor([float(flag)])).item() > 0

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return the items of all processes, each of which has `items[rank::count]`, in the original order."""
        if self.count == 1:
            return list(items)
        hands: list[Any] = [None] * self.count
        dist.all_gather_object(hands, list(items))
        longest = max(len(hand) for hand in hands)
        return [hand[i] for i in range(longest) for hand in hands if i < len(hand)]

    def share(self, item: T) -> T:
        """Return the first process's item in all processes."""
        if self.count == 1:
            return item
        hand: list[Any] = [item]
        dist.broadcast_object_list(hand, src=0)
        shared: T = hand[0]
        return shared

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            dist.barrier()


def _attempt() -> str:
    """Return a name of torchrun's current attempt, the same in all processes.

    torchrun keeps its store over restarts, with the addresses of processes that have ended (PyTorch 2.15). Every node
    counts its own restarts, so with several nodes the count cannot be used.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else '0'}"


@contextmanager
def start_processes(device: str | torch.device | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started; without torchrun, run alone.

    Args:
        device: None is a GPU of this process's own if there are any, else the CPU.

    Raises:
        ValueError: for a device that cannot be used.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    chosen = device if isinstance(device, torch.device) else choose_device(device)
    if count == 1:
        yield Processes(chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    store, rank, _ = next(rendezvous("env://"))
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    joint = dist.PrefixStore(_attempt(), store)
    dist.init_process_group(backend, store=joint, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield Processes(chosen, dist.get_rank(), count)
    finally:
        dist.destroy_process_group()

"""Several training processes, as torchrun starts them, that act as one."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")


class Processes:
    """The processes of one run; a single one when torchrun did not start it.

    Each process runs its share of every batch. Gradients are averaged after the backward pass, so the weights
    stay equal without being sent.

    Attributes:
        rank: this process, from 0.
        count: how many there are.
        device: the one that this process computes on.
    """

    def __init__(self, device: torch.device, rank: int = 0, count: int = 1) -> None:
        self.device, self.rank, self.count = device, rank, count

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over the processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.count).tolist()

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, dealt out as `items[rank::count]`, in their first order."""
        if self.count == 1:
            return list(items)
        hands: list[Any] = [None] * self.count
        dist.all_gather_object(hands, list(items))
        longest = max(len(hand) for hand in hands)
        return [hand[i] for i in range(longest) for hand in hands if i < len(hand)]

    def share(self, item: T) -> T:
        """The first process's item, in all of them."""
        if self.count == 1:
            return item
        hand: list[Any] = [item]
        dist.broadcast_object_list(hand, src=0)
        shared: T = hand[0]
        return shared

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            dist.barrier()


def _attempt() -> str:
    """Name of torchrun's present attempt, the same in all processes.

    torchrun keeps its store over restarts, and with it the addresses of processes that have ended (PyTorch 2.15).
    Nodes count their restarts apart, so of several of them the attempts cannot be told apart.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else '0'}"


@contextmanager
def start_processes(device: str | torch.device | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: None is a GPU of this process's own where there are any, else the CPU.

    Raises:
        ValueError: for a device that cannot be used.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ValueError(f"--device {device} cannot be used: {str(error).splitlines()[0]}; try --device cpu") from error
    if count == 1:
        yield Processes(chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    store, rank, _ = next(rendezvous("env://"))
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.PrefixStore(_attempt(), store), rank=rank, world_size=count)
    try:
        yield Processes(chosen, dist.get_rank(), count)
    finally:
        dist.destroy_process_group()

"""From a batch to new weights: forward, backward, averaging over processes, clipping, Adam or Muon, averages."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from swinir.models.swinir import StochasticDepth
from swinir.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from swinir.train.dataset import Part, to_unit
from swinir.train.distributed import Processes
from swinir.train.ema import Ema
from swinir.train.objective import Objective

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 1e-3  # of fp16's losses; below it even tiny gradients overflow, so they are not the scale's fault
NORM_LIMIT = 1e-6  # keeps a gradient of zero from being divided by its norm, as PyTorch's clipping does


N = TypeVar("N", bound=nn.Module)


class NotFiniteError(FloatingPointError):
    """A loss or gradient became NaN or infinite; `batches` holds this process's parts of the batch.

    The weights are those before the step.
    """

    def __init__(self, message: str, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__(message)
        self.batches = list(batches)


@dataclass(frozen=True)
class StepResult:
    """What one step was like: means over the whole batch, and the norm of the gradient before clipping."""

    loss: float
    parts: dict[str, float]
    grad_norm: float
    lr: float


def learning_rate(schedule: ScheduleConfig, lr: float, step: int) -> float:
    """Learning rate of step 0, 1, ... under a schedule."""
    if step < schedule.warmup:
        return lr * (step + 1) / schedule.warmup
    if schedule.kind == "multistep":
        return lr * schedule.gamma ** sum(step >= m for m in schedule.milestones)
    done = (step - schedule.warmup) / max(schedule.iterations - schedule.warmup, 1)
    return lr * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


class Optimization(Generic[N]):
    """A network, its averaged weights and everything that changes them.

    fp16 needs two things that bf16 does not: a scaled loss, since gradients below 6e-8 vanish, and a residual
    stream in float32, since trained SwinIRs' streams grow past 65,504, where fp16 ends. The network keeps its
    stream in float32 under autocast, in either precision.

    Args:
        network: moved to the device and, with "fp64", to float64.
        config: which losses, optimizer, schedule and precision.
        processes: what this process is one of.
    """

    def __init__(self, network: N, config: TrainConfig, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.device = processes.device
        self.dtype = torch.float64 if config.precision == "fp64" else torch.float32
        self.network: N = network.to(self.device, self.dtype)
        if config.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(network) if config.compile else network
        self.ema = Ema(network, config.ema)
        options = config.optimizer
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer, self.muon = build_optimizers(network, options)
        self._rates: list[tuple[torch.optim.Optimizer, float]] = [(self.optimizer, options.rest_lr or options.lr)]
        if self.muon:
            self._rates.append((self.muon, options.lr))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.seed)
            self.objective = Objective(config.loss, config.network_config().in_chans, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self._depths = [m for m in network.modules() if isinstance(m, StochasticDepth)]

    def parts(self) -> list[Part]:
        """Which parts of every batch this process runs, one after the other."""
        count = self.config.accumulate * self.processes.count
        return [Part(i * self.processes.count + self.processes.rank, count) for i in range(self.config.accumulate)]

    def step(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        step: int,
        *,
        forward: Callable[[Tensor], Tensor] | None = None,
        objective: Objective | None = None,
    ) -> StepResult:
        """Train on one batch, given as this process's parts of it, of low-quality and ground-truth images.

        Args:
            batches: the parts.
            step: from 0 on; the learning rate and all random draws follow from it.
            forward: a path through the network, where it has several. Only what the path meets is changed.
            objective: the loss of that path, without an adversary; the configuration's by default.

        Raises:
            NotFiniteError: when the loss or the gradient is not finite, before any weight moves.
        """
        config, adversary = self.config, self.objective.adversary
        lr = self._set_rates(step)
        seed = step_seed(config.seed, step)
        for optimizer, _ in self._rates:
            optimizer.zero_grad(set_to_none=True)
        if adversary:
            adversary.optimizer.zero_grad(set_to_none=True)
        seen, values = [], []
        for part, (lq, gt) in zip(self.parts(), batches, strict=True):
            torch.manual_seed(seed)  # equal in all processes and for all parts, as StochasticDepth wants it
            lq, gt = (to_unit(x, self.device, self.dtype) for x in (lq, gt))
            seen.append((lq, gt))
            values.append(self._backward(lq, gt, part, forward or self.forward, objective or self.objective))
        names = list(values[0])
        sums = torch.stack([torch.stack(list(v.values())) for v in values]).mean(0).tolist()
        found = dict(zip(names, self.processes.mean(sums), strict=True))
        if not all(map(math.isfinite, found.values())):
            named = ", ".join(f"{name} {value}" for name, value in found.items() if not math.isfinite(value))
            raise NotFiniteError(f"not finite: {named}; lower optimizer.lr or set optimizer.clip_norm", seen)
        norm = self._apply(seen)
        return StepResult(found.pop("loss"), found, norm, lr)

    def _set_rates(self, step: int) -> float:
        config = self.config
        for optimizer, lr in self._rates:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config.schedule, lr, step)
        if self.objective.adversary:
            for group in self.objective.adversary.optimizer.param_groups:
                group["lr"] = learning_rate(config.schedule, self.objective.adversary.lr, step)
        return learning_rate(config.schedule, config.optimizer.lr, step)

    def _backward(
        self, lq: Tensor, gt: Tensor, part: Part, forward: Callable[[Tensor], Tensor], objective: Objective
    ) -> dict[str, Tensor]:
        """Add one part's gradients; returns its losses."""
        for depth in self._depths:
            depth.share = (part.index, part.count)
        if self.config.channels_last:
            lq = lq.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            restored = forward(lq)
        loss, named = objective(restored, gt)
        share = self.config.accumulate
        self.scaler.scale(loss / share).backward()
        values = {"loss": loss.detach()} | named
        if self.objective.adversary:
            values["discriminator"] = self.objective.adversary.discriminator_loss(restored, gt)
            (values["discriminator"] / share).backward()
            values["discriminator"] = values["discriminator"].detach()
        return values

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, kind, enabled=kind is not None)

    def _apply(self, seen: Sequence[tuple[Tensor, Tensor]]) -> float:
        """Move the weights along the gradients; returns the norm of the network's."""
        adversary, limit = self.objective.adversary, self.config.optimizer.clip_norm
        self.processes.average_gradients(self.parameters)
        for optimizer, _ in self._rates:
            self.scaler.unscale_(optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item()
        finite = math.isfinite(norm)
        overflown = self.scaler.is_enabled() and self.scaler.get_scale() >= LEAST_SCALE
        if not finite and not overflown:
            raise NotFiniteError(f"not finite: gradient {norm}; lower optimizer.lr or set optimizer.clip_norm", seen)
        if limit is not None and limit < norm < math.inf:
            torch._foreach_mul_(gradients, limit / (norm + NORM_LIMIT))
        if finite:  # a gradient that overflowed stops both optimizers, the scaler alone would stop one of them
            for optimizer, _ in self._rates:
                self.scaler.step(optimizer)
        self.scaler.update()  # lowers the scale if any gradient overflowed
        if finite:
            self.ema.update(self.network)
        if adversary:
            self.processes.average_gradients(adversary.discriminator.parameters())
            adversary.optimizer.step()
        return norm

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on exactly, tensors and plain values."""
        adversary = self.objective.adversary
        return {
            "network": dict(self.network.named_parameters()),
            "averages": self.ema.averages,
            "optimizer": self.optimizer.state_dict(),
            "muon": self.muon.state_dict() if self.muon else None,
            "scaler": self.scaler.state_dict(),
            "adversary": adversary.state() if adversary else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; a ValueError when it is another network's."""
        parameters = dict(self.network.named_parameters())
        if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in state["network"].items()}:
            raise ValueError("the state belongs to another network")
        if bool(state["adversary"]) != bool(self.objective.adversary):
            raise ValueError("the state and the configuration differ in loss.adversarial")
        muon = state.get("muon") or {}  # states from before the choice of optimizers have no such entry
        if bool(muon) != bool(self.muon):
            raise ValueError("the state and the configuration differ in optimizer.name")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state["network"][name])
        self.ema.load(state["averages"])
        load_moments(self.optimizer, state["optimizer"])
        if self.muon:
            load_moments(self.muon, muon)
        if state["scaler"]:  # none if the precision was another
            self.scaler.load_state_dict(state["scaler"])
        if self.objective.adversary:
            self.objective.adversary.load_state(state["adversary"])


def build_optimizers(
    network: nn.Module, options: OptimizerConfig
) -> tuple[torch.optim.Adam, torch.optim.Optimizer | None]:
    """Adam for all parameters and None, or Adam for what Muon does not take and Muon for the linear layers' weights.

    A relative position bias table has two dimensions as well, but is looked up in, not multiplied with: Adam's.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if options.name == "adam":
        return torch.optim.Adam(parameters, lr=options.lr, betas=options.betas, weight_decay=options.weight_decay), None
    linear = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    matrices = [p for p in parameters if id(p) in linear]
    rest = [p for p in parameters if id(p) not in linear]
    muon = torch.optim.Muon(matrices, lr=options.lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw")
    return torch.optim.Adam(rest, lr=options.rest_lr or options.lr, betas=options.betas), muon


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over an optimizer's moments; its options stay the configuration's."""
    optimizer.load_state_dict(state | {"param_groups": optimizer.state_dict()["param_groups"]})


def step_seed(seed: int, step: int) -> int:
    """Seed of everything that PyTorch draws in a step."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))

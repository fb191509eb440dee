"""One training step: forward, backward, gradients averaged over processes, clipping, Adam or Muon, averaged weights."""

import copy
import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from swinir.models.multitask import Adapter
from swinir.models.swinir import StochasticDepth, SwinIR, SwinTransformerLayer
from swinir.models.windows import Windows
from swinir.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from swinir.train.dataset import Batch, Part, own_parts, to_unit
from swinir.train.distributed import Processes
from swinir.train.losses import Objective

logger = logging.getLogger(__name__)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 1e-3  # of fp16's losses; gradients that overflow at a smaller scale are infinite in themselves
NORM_LIMIT = 1e-6  # added to the norm that gradients are divided by, as PyTorch's clipping does


N = TypeVar("N", bound=nn.Module)


class NotFiniteError(FloatingPointError):
    """A loss or gradient is NaN or infinite. The weights are those before the step.

    Attributes:
        batch: this process's parts of the batch.
    """

    def __init__(self, message: str, batch: Batch) -> None:
        super().__init__(message)
        self.batch = batch


@dataclass(frozen=True)
class StepResult:
    """Losses of a step, as means over the whole batch, and the norm of the gradient before clipping."""

    loss: float
    parts: dict[str, float]
    grad_norm: float
    lr: float


def learning_rate(schedule: ScheduleConfig, lr: float, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    if step < schedule.warmup:
        return lr * (step + 1) / schedule.warmup
    if schedule.kind == "multistep":
        return lr * schedule.gamma ** sum(step >= m for m in schedule.milestones)
    done = (step - schedule.warmup) / max(schedule.iterations - schedule.warmup, 1)
    return lr * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


class Ema:
    """Exponential moving average of a network's parameters: average += (1 - decay) (parameter - average)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.averages = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the averages towards the parameters."""
        parameters = [p.detach() for _, p in network.named_parameters()]
        torch._foreach_lerp_(list(self.averages.values()), parameters, 1 - self.decay)

    def load(self, averages: dict[str, Tensor]) -> None:
        """Restore stored averages; a ValueError where names differ."""
        if averages.keys() != self.averages.keys():
            raise ValueError("stored averages belong to another network")
        for name, value in averages.items():
            self.averages[name].copy_(value)


class Optimization(Generic[N]):
    """A network in training with its averaged weights, optimizers and losses.

    fp16 needs a scaled loss, because gradients below 6e-8 vanish. The network keeps its residual stream in float32
    under autocast: the values of trained SwinIRs exceed 65,504, the largest number of fp16.

    Args:
        network: moved to the device and, with "fp64", to float64.
        config: losses, optimizer, schedule and precision.
        processes: the processes of the run.
    """

    def __init__(self, network: N, config: TrainConfig, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.device = processes.device
        self.dtype = torch.float64 if config.precision == "fp64" else torch.float32
        self.network: N = network.to(self.device, self.dtype)
        if config.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = compile_layers(network) if config.compile else network
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
        self._part = torch.zeros(1, dtype=torch.long, device=self.device)  # index, for the layers that drop branches
        for depth in (m for m in network.modules() if isinstance(m, StochasticDepth)):
            depth.count, depth.part = config.accumulate * processes.count, self._part

    def step(
        self,
        batch: Batch,
        step: int,
        *,
        forward: Callable[[Tensor], Tensor] | None = None,
        objective: Objective | None = None,
    ) -> StepResult:
        """Train on one batch.

        Args:
            batch: this process's parts of it, each the low-quality and the ground-truth images.
            step: number of the step, from 0; the learning rate and all random draws follow from it.
            forward: part of the network to train, for a network of several; the default is the whole network.
            objective: loss of that part, without a discriminator; the default is the configuration's.

        Raises:
            NotFiniteError: when the loss or the gradient is not finite. No weight has changed.
        """
        config, adversary = self.config, self.objective.adversary
        lr = self._set_rates(step)
        seed = step_seed(config.seed, step)
        for optimizer, _ in self._rates:
            optimizer.zero_grad(set_to_none=True)
        if adversary:
            adversary.optimizer.zero_grad(set_to_none=True)
        seen, values = [], []
        for part, (lq, gt) in zip(own_parts(config, self.processes), batch, strict=True):
            torch.manual_seed(seed)  # the same in all processes and for all parts, as StochasticDepth requires
            lq, gt = (to_unit(x, self.device, self.dtype) for x in (lq, gt))
            seen.append((lq, gt))
            values.append(self._backward(lq, gt, part, forward or self.forward, objective or self.objective))
        losses = self.processes.mean(torch.stack([torch.stack(list(v.values())) for v in values]).mean(0))
        gradients = self._gradients()
        # The only transfer of a step that waits for the device.
        *means, norm = torch.cat([losses, nn.utils.get_total_norm(gradients).view(1)]).tolist()
        found = dict(zip(values[0], means, strict=True))
        self._check(found, norm, seen)
        self._apply(gradients, norm)
        return StepResult(found.pop("loss"), found, norm, lr)

    def _set_rates(self, step: int) -> float:
        """Set the learning rates of a step; returns the main one."""
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
        """Add the gradients of one part; returns its losses."""
        self._part.fill_(part.index)
        if self.config.channels_last:
            lq = lq.contiguous(memory_format=torch.channels_last)
        # Of a network of any scale, which has another one for each batch.
        size = (gt.shape[-2:],) if isinstance(forward, SwinIR) and forward.config.any_scale else ()
        with self._autocast():
            restored = forward(lq, *size)
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

    def _gradients(self) -> list[Tensor]:
        """Average the network's gradients over the processes, remove the loss scale, and return them."""
        self.processes.average_gradients(self.parameters)
        for optimizer, _ in self._rates:
            self.scaler.unscale_(optimizer)
        return [p.grad for p in self.parameters if p.grad is not None]

    def _check(self, losses: dict[str, float], norm: float, seen: Batch) -> None:
        """Refuse losses and gradients that are not finite, except the gradients of an fp16 overflow."""
        wrong = [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]
        if not wrong and not math.isfinite(norm):
            overflown = self.scaler.is_enabled() and self.scaler.get_scale() >= LEAST_SCALE
            wrong = [] if overflown else [f"gradient {norm}"]
        if wrong:
            message = f"not finite: {', '.join(wrong)}; lower optimizer.lr or set optimizer.clip_norm"
            raise NotFiniteError(message, seen)

    def _apply(self, gradients: list[Tensor], norm: float) -> None:
        """Update the weights, except after an overflow, which lowers the loss scale."""
        adversary, limit = self.objective.adversary, self.config.optimizer.clip_norm
        if limit is not None and limit < norm < math.inf:
            torch._foreach_mul_(gradients, limit / (norm + NORM_LIMIT))
        if math.isfinite(norm):
            for optimizer, _ in self._rates:
                optimizer.step()  # GradScaler.step would read from the device, and skip one optimizer of two
            self.ema.update(self.network)
        self.scaler.update()  # lowers the scale if any gradient overflowed
        if adversary:
            self.processes.average_gradients(adversary.discriminator.parameters())
            adversary.optimizer.step()

    def averaged(self) -> N:
        """Return a network with the averaged weights, in eval mode and float32."""
        other = copy.deepcopy(self.network)
        for module in other.modules():
            vars(module).pop("forward", None)  # images of other sizes than the patches would need graphs of their own
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                parameter.copy_(self.ema.averages[name])
        return other.requires_grad_(False).float().eval()

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs to resume exactly, as tensors and plain values."""
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
        """Restore what `state` returned.

        Raises:
            ValueError: if it belongs to another network, optimizer or loss. Nothing has changed.
        """
        parameters = dict(self.network.named_parameters())
        if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in state["network"].items()}:
            raise ValueError("the state belongs to another network")
        if bool(state["adversary"]) != bool(self.objective.adversary):
            raise ValueError("the state and the configuration differ in loss.adversarial")
        muon = state.get("muon") or {}  # older states have no such entry
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


def compile_layers(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile the forward pass of SwinIR's layers, in place; returns the network, or a compiled one of another kind.

    Two graphs, of a plain and of a shifted layer, serve all layers, and a third the first layer without stochastic
    depth. When PyTorch's limit on graphs is reached, a warning is logged and the layers run without compilation.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit  # here, because it takes a second

    layers = [m for m in network.modules() if isinstance(m, SwinTransformerLayer)]
    if not layers:
        return torch.compile(network)
    plain = SwinTransformerLayer.forward
    run = torch.compile(plain, fullgraph=True)  # which makes the limit an error instead of a silent fall-back

    def forward(layer: SwinTransformerLayer, x: Tensor, windows: Windows) -> Tensor:
        nonlocal run
        try:
            return run(layer, x, windows)
        except FailOnRecompileLimitHit:
            limit = torch._dynamo.config.recompile_limit
            logger.warning("compile: a layer needs more than %d graphs; training goes on without compilation", limit)
            run = plain
            return run(layer, x, windows)

    for layer in layers:
        layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return network


def build_optimizers(
    network: nn.Module, options: OptimizerConfig
) -> tuple[torch.optim.Adam, torch.optim.Optimizer | None]:
    """Return Adam, with fused kernels on a CUDA device, and Muon, if the options say so.

    Muon takes the weights of the linear layers, or the two factors of all adapters, and Adam all other parameters,
    relative position bias tables included: these are matrices too, but nothing is multiplied by them.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    adam = partial(torch.optim.Adam, betas=options.betas, fused=fused(parameters[0].device))
    if options.name == "adam":
        return adam(parameters, lr=options.lr, weight_decay=options.weight_decay), None
    from swinir.train.muon import BatchedMuon  # here, because PyTorch before 2.9 has no Muon

    layers = [m for m in network.modules() if isinstance(m, nn.Linear | Adapter)]
    linear = {id(p) for layer in layers for p in layer.parameters(recurse=False) if p.ndim == 2}
    matrices = [p for p in parameters if id(p) in linear]
    rest = [p for p in parameters if id(p) not in linear]
    muon = BatchedMuon(matrices, lr=options.lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw")
    return adam(rest, lr=options.rest_lr or options.lr), muon


def fused(device: torch.device) -> bool | None:
    """Return true if Adam should use its fused kernels; None leaves the choice to PyTorch."""
    return True if device.type == "cuda" else None


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimizer's moments and keep its present options."""
    optimizer.load_state_dict(state | {"param_groups": optimizer.state_dict()["param_groups"]})


def step_seed(seed: int, step: int) -> int:
    """Return the seed of all random numbers that PyTorch draws in a step."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))

"""The training loop: steps, averaged weights, validation, and a state from which a run goes on exactly."""

import json
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swinir.atomic import atomic_path
from swinir.checkpoint import sha256, write_checkpoint
from swinir.color import luma
from swinir.evaluate import to_tensor, to_uint8
from swinir.metrics import psnr
from swinir.network import SwinIR
from swinir.restoration import restore
from swinir.tasks import get_task
from swinir.train.config import ScheduleConfig, TrainConfig
from swinir.train.data import PatchSampler, find_images, load_pairs, split_holdout
from swinir.train.ema import Ema
from swinir.train.losses import build_loss

Log = Callable[[dict[str, Any]], None]


def learning_rate(schedule: ScheduleConfig, lr: float, step: int) -> float:
    """Learning rate of step 0, 1, ... under a schedule."""
    if step < schedule.warmup:
        return lr * (step + 1) / schedule.warmup
    if schedule.kind == "multistep":
        return lr * schedule.gamma ** sum(step >= m for m in schedule.milestones)
    done = (step - schedule.warmup) / max(schedule.iterations - schedule.warmup, 1)
    return lr * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


def train_step(
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    lq: Tensor,
    gt: Tensor,
    *,
    clip_norm: float | None = None,
    half: bool = False,
) -> Tensor:
    """Forward, backward, one optimizer step; returns the loss. A non-finite loss raises before any weight moves."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(lq.device.type, torch.bfloat16, enabled=half):
        restored = network(lq)
    loss = loss_function(restored, gt)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss.item()}; lower optimizer.lr or set optimizer.clip_norm")
    loss.backward()
    if clip_norm is not None:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        nn.utils.clip_grad_norm_(weights, clip_norm)
    optimizer.step()
    return loss.detach()


class Trainer:
    """One run in a folder: `config.json`, `metrics.jsonl`, `state.pt` to go on from, and at the end `NAME.pth`.

    Args:
        config: what to train.
        run: the folder, made if absent.
        device: where to train; CUDA if there is one by default.
        log: called with every row that also goes to `metrics.jsonl`.
        progress: wraps the list of images while they are loaded.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        *,
        device: str | torch.device | None = None,
        log: Log = lambda row: None,
        progress: Callable[[list[Path]], Any] = lambda paths: paths,
    ) -> None:
        self.config, self.run, self._log = config, run, log
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.task = get_task(config.task)
        train, held = split_holdout(find_images(config.data.train), config.data.holdout)
        patch = config.data.patch
        self.validation = load_pairs(held, config.scale, patch, progress)
        self.sampler = PatchSampler(
            load_pairs(train, config.scale, patch, progress),
            patch=patch,
            scale=config.scale,
            batch=config.data.batch,
            seed=config.seed,
        )
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = SwinIR(config.network_config()).to(self.device)
            self._rng_state = torch.get_rng_state()  # of drop path's draws
        self.ema = Ema(self.network, config.ema)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.optimizer.lr, betas=config.optimizer.betas
        )
        self.loss = build_loss(config.loss)
        self.step = 0

    @property
    def weights_path(self) -> Path:
        """Where the finished weights go."""
        return self.run / f"{self.config.name}.pth"

    def fit(self, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the last iteration; returns False when `stop` asked to leave before, with the state saved."""
        self.run.mkdir(parents=True, exist_ok=True)
        (self.run / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        self._forget_rows_after(self.step)
        self.network.train()
        network: Callable[[Tensor], Tensor] = torch.compile(self.network) if self.config.compile else self.network
        with torch.random.fork_rng():
            torch.set_rng_state(self._rng_state)
            finished = self._loop(network, stop)
            self.save()
        if finished:
            write_checkpoint(
                self.weights_path,
                self.averaged().state_dict(),
                self.network.config,
                key=self.task.weights_key,
                task=self.config.task,
                step=self.step,
            )
        return finished

    def _loop(self, network: Callable[[Tensor], Tensor], stop: Callable[[], bool]) -> bool:
        config = self.config
        losses: list[Tensor] = []
        since = time.monotonic()
        while self.step < config.schedule.iterations:
            if stop():
                return False
            losses.append(self._train_one(network))
            if self.step % config.log_every == 0:
                self._write(
                    {
                        "step": self.step,
                        "loss": torch.stack(losses).mean().item(),
                        "lr": self.optimizer.param_groups[0]["lr"],
                        "images_per_second": round(len(losses) * config.data.batch / (time.monotonic() - since), 2),
                    }
                )
                losses, since = [], time.monotonic()
            if self.step % config.validate_every == 0 and self.validation:
                self._write({"step": self.step, "psnr_y": self.validate()})
            if self.step % config.save_every == 0:
                self.save()
        return True

    def _train_one(self, network: Callable[[Tensor], Tensor]) -> Tensor:
        """One batch through `network`, which is ours or its compiled form; returns the loss."""
        config = self.config
        lq, gt = (t.to(self.device) for t in self.sampler.next())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.schedule, config.optimizer.lr, self.step)
        half, clip = config.precision == "bf16", config.optimizer.clip_norm
        loss = train_step(network, self.optimizer, self.loss, lq, gt, clip_norm=clip, half=half)
        self.ema.update(self.network)
        self.step += 1
        return loss

    def averaged(self) -> SwinIR:
        """A network with the averaged weights, in eval mode."""
        state = self.network.state_dict() | self.ema.averages
        return SwinIR.from_state(self.network.config, state).to(self.device).eval()

    def validate(self) -> float:
        """Mean PSNR on luma of the averaged weights over the held-out images, by the same `restore` as the tester."""
        network = self.averaged()
        border = self.task.crop_border(self.config.scale)
        values = []
        for pair in self.validation:
            restored = to_uint8(restore(network, to_tensor(pair.lq.astype(np.float32) / 255)))
            values.append(psnr(luma(restored), luma(pair.gt), crop_border=border))
        return float(np.mean(values))

    def save(self) -> None:
        """Write the state atomically to `state.pt`."""
        state = {
            "step": self.step,
            "config": self.config.model_dump_json(),
            "network": dict(self.network.named_parameters()),
            "averages": self.ema.averages,
            "optimizer": self.optimizer.state_dict(),
            "sampler": json.dumps(self.sampler.state()),
            "torch_rng": torch.get_rng_state(),
        }
        with atomic_path(self.run / "state.pt") as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Go on from a state that `save` wrote; a ValueError if it belongs to another network."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if not isinstance(state, dict):
                raise TypeError("not a dict")
            stored = TrainConfig.model_validate_json(state["config"])
        except (RuntimeError, KeyError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path}: not a training state; delete it to start afresh") from error
        if stored.network_config() != self.config.network_config():
            raise ValueError(f"{path}: belongs to another network; choose another --run folder or delete it")
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(state["network"][name])
        self.ema.load(state["averages"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state(json.loads(state["sampler"]))
        self._rng_state = state["torch_rng"].cpu()
        self.step = int(state["step"])

    def _forget_rows_after(self, step: int) -> None:
        """Drop rows of `metrics.jsonl` that a run from `step` will write again, and a last one cut short."""
        path = self.run / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                kept.append(f"{line}\n")
        path.write_text("".join(kept), encoding="utf-8")

    def _write(self, row: dict[str, Any]) -> None:
        self._log(row)
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def describe_weights(path: Path) -> dict[str, Any]:
    """File, bytes and SHA-256 of finished weights, as the zoo's index records them."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}

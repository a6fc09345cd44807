"""One training loop for every network of the house: accelerate underneath, exact resume, logs for people and machines.

Everything random in a step (which rows, noise, augmentation) is derived from (seed, step), never from a running generator. The
state is therefore weights, optimiser, moving average and the step number, and a run that was killed ends where it would have.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from .config import Config
from .device import Precision
from .errors import UserError
from .files import write_atomic, write_bytes, write_json
from .progress import bar, log
from .seeds import numpy_rng


class LoopConfig(Config):
    """How long, how fast, how often saved.

    Attributes:
        steps: optimiser steps in all.
        batch: rows a step over all processes together.
        ema: keep a moving average of the weights (decay min(ema_max, 1 - (1 + n)^-0.75)); it is what is shipped.
        clip: largest gradient norm; 0 turns it off.
    """

    steps: int = Field(ge=1)
    batch: int = Field(64, ge=1)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(100, ge=0)
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = ()
    clip: float = Field(1.0, ge=0)
    ema: bool = True
    ema_max: float = 0.9999
    precision: Precision = "bf16"
    save_every: int = Field(500, ge=1)
    log_every: int = Field(20, ge=1)
    seed: int = 0


class Task(Protocol):
    """What is trained: `modules` by name, and the loss of one step."""

    modules: nn.ModuleDict

    def loss(self, step: int, device: torch.device, rank: int, world: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of this process's share of the step's batch, and figures to log."""
        ...


def learning_rate(config: LoopConfig, step: int) -> float:
    """Return the rate at `step`: linear warm-up, then constant, cosine to 2 % of lr, or ×0.1 at `milestones` (shares of steps)."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.schedule == "cosine":
        return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
    if config.schedule == "step":
        return config.lr * 0.1 ** sum(step >= milestone * config.steps for milestone in config.milestones)
    return config.lr


def epoch_rows(count: int, batch: int, step: int, seed: int, rank: int = 0, world: int = 1) -> np.ndarray:
    """Return the row numbers of a step: a fresh permutation each epoch, whole batches, this rank's share; int64 (batch / world,)."""
    batch = min(batch, count)
    per_epoch = count // batch
    order = numpy_rng(seed, step // per_epoch, "rows").permutation(count)
    start = (step % per_epoch) * batch
    return order[start : start + batch][rank::world]


def split_decay(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices and kernels decay, vectors (biases, norms, PReLU slopes) do not."""
    decayed = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def fit(task: Task, config: LoopConfig, out: Path, *, label: str) -> nn.ModuleDict:
    """Train `task.modules` and return them with the averaged weights (`config.ema`) or the last ones.

    Logs go to `out/log.jsonl` and `out/tensorboard`; the state to `out/state.pt` every `save_every` steps. A run started again in
    the same folder goes on from there.

    Raises:
        UserError: the folder holds the state of other settings, the state is damaged, or the loss is no longer finite.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="no" if config.precision == "fp32" else config.precision, cpu=not torch.cuda.is_available())
    run = _Run(task, config, out, accelerator)
    step = run.resume()
    with bar(label, config.steps) as advance:
        advance(step)
        for step in range(step, config.steps):
            figures = run.step(step)
            if accelerator.is_main_process:
                advance(1, f"loss {figures['loss']:.4f}")
                run.record(step, figures)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                run.save(step + 1)
    run.close()
    return run.shipped()


class _Run:
    """The moving parts of one training: optimiser, average, log, state."""

    def __init__(self, task: Task, config: LoopConfig, out: Path, accelerator: Any) -> None:
        self.task, self.config, self.out, self.accelerator = task, config, out, accelerator
        self.settings = {**config.model_dump(mode="json"), "settings": getattr(task, "fingerprint", "")}
        out.mkdir(parents=True, exist_ok=True)
        self.plain = task.modules.to(accelerator.device)
        self.optimiser = _optimiser(self.plain, config)
        task.modules, self.optimiser = accelerator.prepare(self.plain, self.optimiser)
        self.average = _moving_average(self.plain, config) if config.ema else None
        self.writer: Any = None
        self.started = time.monotonic()
        self.done_here = 0

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its figures."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.plain.train()
        # Layers with their own randomness (dropout) draw from torch's generator: pin it to the step, then give it back.
        with torch.random.fork_rng(devices=[]), self.accelerator.autocast():
            torch.manual_seed(int(numpy_rng(self.config.seed, step, "layers", self.accelerator.process_index).integers(2**31)))
            loss, figures = self.task.loss(step, self.accelerator.device, self.accelerator.process_index, self.accelerator.num_processes)
            self.accelerator.backward(loss)
        if not torch.isfinite(loss):
            raise UserError(f"the loss is {loss.item()} at step {step}; lower lr (now {self.config.lr}) or use precision fp32, and start again from {self.out / 'state.pt'}")
        if self.config.clip:
            figures["grad_norm"] = float(self.accelerator.clip_grad_norm_(self.plain.parameters(), self.config.clip))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.step(self.plain.parameters())
        self.done_here += 1
        return {"loss": loss.item(), **figures}

    def record(self, step: int, figures: dict[str, float]) -> None:
        """Write one line to log.jsonl and TensorBoard every `log_every` steps."""
        if step % self.config.log_every and step + 1 != self.config.steps:
            return
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=step)
        seconds = time.monotonic() - self.started
        figures = {**figures, "lr": learning_rate(self.config, step), "images_per_s": self.done_here * self.config.batch / seconds}
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def save(self, step: int) -> None:
        """Write the state, whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": step, "settings": json.dumps(self.settings, sort_keys=True), "weights": self.plain.state_dict(),
            "optimiser": self.optimiser.state_dict(), "average": self.average.state_dict() if self.average else None,
        }
        write_atomic(self.out / "state.pt", lambda temporary: torch.save(state, temporary))
        write_json(self.out / "settings.json", self.settings)

    def resume(self) -> int:
        """Load the state if there is one; return the step to go on from."""
        path = self.out / "state.pt"
        if not path.exists():
            return 0
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        except Exception as error:
            raise UserError(f"{path} cannot be read as a training state ({type(error).__name__}); delete it to start again") from error
        if state["settings"] != json.dumps(self.settings, sort_keys=True):
            changed = _changed(json.loads(state["settings"]), self.settings)
            raise UserError(f"{self.out} holds a run with other settings ({changed}); choose another --out, or restore the settings to go on")
        self.plain.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self._forget_after(int(state["step"]))
        log.info("resuming %s at step %d", self.out, state["step"])
        return int(state["step"])

    def _forget_after(self, step: int) -> None:
        """Drop log lines of steps that are about to be run again."""
        path = self.out / "log.jsonl"
        if self.accelerator.is_main_process and path.exists():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            write_bytes(path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] < step).encode())

    def shipped(self) -> nn.ModuleDict:
        """The modules in eval mode, with averaged weights where an average is kept."""
        if self.average is not None:
            self.average.copy_to(self.plain.parameters())
        return self.plain.eval()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _optimiser(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    groups = split_decay(module, config.weight_decay)
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def _moving_average(module: nn.Module, config: LoopConfig) -> Any:
    from diffusers.training_utils import EMAModel

    return EMAModel(module.parameters(), decay=config.ema_max, use_ema_warmup=True, inv_gamma=1.0, power=0.75)


def _changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return ", ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in keys)

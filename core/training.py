"""One training loop for every network of the house: accelerate underneath, exact resume, logs for people and machines.

A step is a function of (settings, data, step) and the state before it: learning rate, rows, noise, augmentation and dropout masks are
derived from the step. The state is therefore the weights, the optimiser's moments, the moving average and the step's number, and a
run that was killed ends where it would have ended.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from .config import Config
from .device import Precision, memory_format
from .errors import UserError
from .progress import bar
from .seeds import derive_seed, numpy_rng
from .training_state import Keeper, Log

Objective = nn.Module
"""A module with `.network` (what is trained for) whose forward takes a batch and returns named scalars, "loss" among them.

It may have `after_step(rate, scale)`, called after the optimiser's step with the learning rate and the factor on the loss (fp16), where it moves state of its
own; and `before_save()`, called on every process before its state is stored.
"""


class LoopConfig(Config):
    """What every training is told.

    Attributes:
        epochs: passes over the data; used where `steps` is 0.
        steps: number of steps, 0 = from `epochs`.
        batch: rows in a step over all processes together.
        accumulate: parts a process's rows of a step are computed in, one after the other, their gradients added; memory falls, the step stays the same
            up to rounding (not for networks with batch statistics, whose statistics are then a part's).
        optimiser: "sgd" (momentum 0.9) or "adamw".
        lr: peak learning rate for this batch size.
        schedule: after the warm-up: "constant", "cosine" to 0, "poly" (linear to 0), or "step" (times 0.1 at each of `milestones`).
        warmup: fraction of the steps in which the rate rises linearly.
        milestones: fractions of the steps at which "step" falls.
        weight_decay: on weights of convolutions, linear layers and class centres.
        decay_norms: also decay normalisation, PReLU and bias parameters (what TFace does to IR networks by accident).
        clip: largest gradient norm of the network (class centres are not clipped); 0 = off.
        ema: keep a moving average of the network, decay min(ema_max, 1 - (1 + n)^-0.75); the average is the result.
        precision: of the network's forward pass; heads and losses are float32.
        log_every, checkpoint_every: in steps; they do not change the result.
        seed: of the initial weights, the order, the augmentation, noise and dropout.
    """

    epochs: float = Field(20.0, gt=0)
    steps: int = Field(0, ge=0)
    batch: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    schedule: Literal["constant", "cosine", "poly", "step"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1)
    milestones: tuple[float, ...] = (0.5, 0.75, 0.9)
    weight_decay: float = Field(5e-4, ge=0)
    decay_norms: bool = False
    clip: float = Field(5.0, ge=0)
    ema: bool = False
    ema_max: float = Field(0.9999, gt=0, lt=1)
    precision: Precision = "fp32"
    log_every: int = Field(20, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    seed: int = 0

    def total_steps(self, batches: Batches) -> int:
        """Return the number of steps for this data."""
        return self.steps or max(1, round(self.epochs * batches.steps_per_epoch))

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step (from 0) of `total`."""
        rising = self.warmup * total
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        done = (step - rising) / max(1.0, total - rising)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "poly":
            return self.lr * (1 - done)
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(step >= fraction * total for fraction in self.milestones)
        return self.lr


class Batches(Protocol):
    """The data of a training as a function of the step."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data."""
        ...

    def __call__(self, step: int, rank: int, world: int) -> tuple[Tensor, ...]:
        """Return this process's share of a step: what the objective's forward takes, on the CPU."""
        ...


def epoch_order(count: int, epoch: int, seed: int) -> np.ndarray:
    """Return the order of the rows in an epoch, a permutation, (count,) int64."""
    return numpy_rng(seed, epoch, "order").permutation(count)


def step_rows(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Return the rows of a step over `count` rows of data: whole batches of each epoch's order, (batch,) int64.

    Raises:
        UserError: there are fewer rows than a batch takes.
    """
    if count < batch:
        raise UserError(f"there are {count} rows to train on, fewer than the {batch} of one batch; lower 'batch' or bring more data")
    epoch, place = divmod(step, count // batch)
    return epoch_order(count, epoch, seed)[place * batch : (place + 1) * batch]


def step_noise(shape: tuple[int, ...], seed: int, step: int, rank: int) -> Tensor:
    """Return standard normal noise that depends on (seed, step, rank) alone, float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed(seed, step, "noise", rank)))


def join_processes() -> None:
    """Meet the other processes of an `accelerate launch` now, not when the loop starts: for objectives whose shape depends on how many there are."""
    from accelerate import PartialState

    PartialState()


def fresh(build: Any, seed: int, purpose: str) -> Any:
    """Call `build` so that initial weights depend on (seed, purpose) alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, purpose))
        return build()


def decay_groups(objective: nn.Module, config: LoopConfig) -> list[dict[str, Any]]:
    """Split the parameters by the class of their module: normalisation, PReLU and biases are not decayed.

    A module with an attribute `rate_factor` has its own parameters (not its children's) trained at that multiple of the rate, without decay.
    """
    spared_classes = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for module in objective.modules():
        factor, own = float(getattr(module, "rate_factor", 1.0)), hasattr(module, "rate_factor")
        for name, parameter in module.named_parameters(recurse=False):
            decayed = not own and (config.decay_norms or not (isinstance(module, spared_classes) or name == "bias"))
            if parameter.requires_grad:
                groups.setdefault((decayed, factor), []).append(parameter)
    return [{"params": group, "weight_decay": config.weight_decay if decayed else 0.0, "rate_factor": factor} for (decayed, factor), group in groups.items()]


def data_digest(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of the training data, so that a state is never resumed with other data."""
    digest = sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def run_loop(objective: Objective, batches: Batches, config: LoopConfig, out: Path, *, data: str, settings: Mapping[str, Any] | None = None, label: str = "training") -> int:
    """Train in place, from the last checkpoint in `out` where there is one, and return the number of steps.

    Args:
        objective: see `Objective`; its `.network` holds the result (the average where `config.ema`).
        data: digest of the data (`data_digest`).
        settings: whatever else decides the result (the recipe around `config`); a state made with others is refused.

    Raises:
        UserError: loss or gradient not finite (names the step); `out` holds another run's state, or is no folder.
    """
    # Imported here: looking a backbone's name up imports this module, and accelerate takes a second to load.
    from accelerate import Accelerator

    total = config.total_steps(batches)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to the folder {out}: {error.strerror or error}; choose another output folder") from error
    accelerator = Accelerator(log_with="tensorboard", project_dir=str(out), mixed_precision="fp16" if config.precision == "fp16" else "no")
    if config.batch % accelerator.num_processes:
        raise UserError(f"batch {config.batch} cannot be shared by {accelerator.num_processes} processes; choose a multiple of {accelerator.num_processes}")
    objective.to(memory_format=memory_format(accelerator.device))
    optimiser = _optimiser(objective, config)
    objective, optimiser = accelerator.prepare(objective, optimiser)
    plain = accelerator.unwrap_model(objective)
    average = _moving_average(plain.network, config)
    keeper = Keeper(out, _decisive(config, settings, total, data), plain, optimiser, average)
    start = keeper.restore()
    log = Log(out, start, accelerator)
    with bar(label, total) as advance:
        advance(start)
        for step in range(start, total):
            losses = _step(objective, optimiser, batches, config, accelerator, (step, total))
            if average is not None:
                average.step(plain.network.parameters())
            if step % config.log_every == 0 or step == total - 1:
                log.write(step, {name: float(value) for name, value in losses.items()})
            if (step + 1) % config.checkpoint_every == 0 or step == total - 1:
                if hasattr(plain, "before_save"):
                    plain.before_save()
                if accelerator.is_main_process:
                    keeper.save(step + 1)
            advance(1, f"loss {losses['loss'].item():.3f}")
    # Not accelerator.end_training(): it would take the process group down, and a second network may be trained in the same run.
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    if average is not None:
        average.copy_to(plain.network.parameters())
    plain.cpu().eval()
    return total


def _step(objective: Objective, optimiser: Any, batches: Batches, config: LoopConfig, accelerator: Any, place: tuple[int, int]) -> dict[str, Tensor]:
    step, total = place
    rate = config.rate(step, total)
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    batch = [x.to(accelerator.device) for x in batches(step, accelerator.process_index, accelerator.num_processes)]
    optimiser.zero_grad()
    objective.train()
    # Layers with their own randomness (dropout) draw from torch's generator: pin it to the step, then give it back.
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, step, accelerator.process_index, "dropout"))
        losses = _gradients(objective, batch, config.accumulate, accelerator)
    plain = accelerator.unwrap_model(objective)
    network, scale = plain.network, float(accelerator.scaler.get_scale()) if accelerator.scaler is not None else 1.0
    norm = accelerator.clip_grad_norm_(network.parameters(), config.clip or math.inf)
    # Under fp16 the scaler itself skips a step whose gradient overflowed; the loss must still be finite.
    finite = losses["loss"].detach() if config.precision == "fp16" else losses["loss"].detach() + norm
    if not torch.isfinite(finite):
        raise UserError(
            f"training stopped at step {step} of {total}: loss {losses['loss'].item():.4g}, gradient norm {float(norm):.4g}, learning rate {rate:.4g}; "
            f"lower 'lr' or lengthen 'warmup' (the last checkpoint is from before this step)"
        )
    optimiser.step()
    if hasattr(plain, "after_step"):
        plain.after_step(rate, scale)
    return {**{name: value.detach() for name, value in losses.items()}, "gradient_norm": norm, "lr": torch.tensor(rate)}


def _gradients(objective: Objective, batch: list[Tensor], parts: int, accelerator: Any) -> dict[str, Tensor]:
    """Add up the gradients of the batch's parts, each weighted by its rows; return the same mean of the losses."""
    rows, sums = len(batch[0]), {}
    pieces = list(zip(*(x.chunk(parts) for x in batch)))
    for number, piece in enumerate(pieces):
        share = len(piece[0]) / rows
        # Processes exchange gradients once a step, with the last part.
        with contextlib.nullcontext() if number == len(pieces) - 1 else accelerator.no_sync(objective):
            losses = objective(*piece)
            accelerator.backward(losses["loss"] * share)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * share
    return sums


def _optimiser(objective: Objective, config: LoopConfig) -> torch.optim.Optimizer:
    groups = decay_groups(objective, config)
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)


def _moving_average(network: nn.Module, config: LoopConfig) -> Any:
    if not config.ema:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(network.parameters(), decay=config.ema_max, use_ema_warmup=True, inv_gamma=1.0, power=0.75)


def _decisive(config: LoopConfig, settings: Mapping[str, Any] | None, total: int, data: str) -> dict[str, Any]:
    """All that decides the result, flat, for comparison with the state found."""
    values = {**config.model_dump(mode="json", exclude={"log_every", "checkpoint_every", "epochs"}), **(settings or {}), "steps": total, "data": data}
    return json.loads(json.dumps(values, sort_keys=True, default=str))

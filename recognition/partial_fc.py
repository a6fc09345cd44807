"""Partial FC: class centres spread over the processes and sampled anew in every step, for 10⁵ identities and more (An et al., CVPR 2022).

Each process holds the centres of a stretch of the classes and sees the embeddings of all processes. Of its stretch a step uses the classes of the batch and,
up to `rate` of the stretch, classes drawn uniformly; the softmax runs over what all processes drew. rate 1 is the exact softmax, on any number of processes.

Only centres that were drawn move: they alone have a gradient, weight decay and a step of their moments, which rest otherwise, with a step count of their own
(as in the first release of insightface's code; in its second one momentum and decay move all centres). The moments are memory, not time.

Heads: all that judge a row by its own cosines, each other class by itself, and the row's target: softmax, CosFace, ArcFace (both), AdaFace, CurricularFace.
Where classes are sampled CurricularFace finds hard negatives among those drawn. CIFP ranks the false positives of all classes: it runs in one
process, over the classes drawn (its default rate 1 / (classes - 1) is then theirs), and is refused in several.
Axes: B rows of this process, N rows of all processes, I classes of this process, K classes drawn, D embedding, W processes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import UserError
from ..core.seeds import derive_seed
from .gather import each_alone, gather_rows, process_rank, sum_gradients, world_size
from .heads import FixedCosines, MarginHead, target_cosines

_BLOCK = 65_536
_BETAS, _EPS, _MOMENTUM = (0.9, 0.999), 1e-8, 0.9


class PartialFcConfig(Config):
    """Partial FC in a recipe.

    Attributes:
        rate: share of the classes in a step's softmax, those of the batch among them.
        shards: processes that the centres are spread over: 0 = however many train; another number must be theirs.
    """

    rate: float = Field(1.0, gt=0, le=1)
    shards: int = Field(0, ge=0)


def shard(classes: int, world: int, rank: int) -> tuple[int, int]:
    """Return where a process's classes begin, and how many there are: the first `classes mod world` processes have one more."""
    each, more = divmod(classes, world)
    return each * rank + min(rank, more), each + (rank < more)


def draw(label_N: Tensor, classes: int, rate: float) -> Tensor:
    """Return the classes of a step, sorted, (K,): all of `label_N` that are not -1, and others up to the share `rate`.

    Randomness is torch's global generator, which the training loop ties to the step.
    """
    if rate >= 1.0:
        return torch.arange(classes, device=label_N.device)
    positive_P = label_N[label_N >= 0].unique()
    wanted = int(rate * classes)
    if wanted <= len(positive_P):
        return positive_P
    score_I = torch.rand(classes, device=label_N.device)
    score_I[positive_P] = 2.0
    return score_I.topk(wanted).indices.sort().values


class PartialCentres(nn.Module):
    """This process's class centres and their moments; forward is `partial_loss`, the step is `step`.

    Weights are buffers, not parameters: DDP must not average them, nor the optimiser hold moments of all. A state holds all classes, whatever the
    number of processes that wrote it: `collect` must have been called on every process before `state_dict`.

    Args:
        classes: of all processes together.
        embed_dim: D.
        optimiser: "sgd" (momentum 0.9) or "adamw", as the rest of the training has it.
        weight_decay: of the centres drawn.
        seed: of the initial centres, which do not depend on the number of processes.
    """

    weight: Tensor
    first: Tensor
    second: Tensor
    count: Tensor

    def __init__(self, classes: int, embed_dim: int, config: PartialFcConfig, *, optimiser: Literal["sgd", "adamw"] = "sgd", weight_decay: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        world = world_size()
        if config.shards not in (0, world):
            raise UserError(f"partial_fc.shards is {config.shards}, but {world} process{'es' if world > 1 else ''} train{'s' if world == 1 else ''}; set it to 0, or start {config.shards} processes (accelerate launch)")
        if classes < world:
            raise UserError(f"{classes} identities cannot be spread over {world} processes; use fewer processes, or leave 'partial_fc' out")
        self.classes, self.config = classes, config
        self.start, self.held = shard(classes, world, process_rank())
        self._adaptive, self._decay = optimiser == "adamw", weight_decay
        self.register_buffer("weight", _initial(classes, embed_dim, seed, self.start, self.held))
        self.register_buffer("first", torch.zeros_like(self.weight))
        self.register_buffer("second", torch.zeros_like(self.weight) if self._adaptive else torch.zeros(0))
        self.register_buffer("count", torch.zeros(self.held, dtype=torch.int32))
        self._used: tuple[Tensor, Tensor] | None = None
        self._gathered: dict[str, Tensor] = {}

    def assign(self, centre_CD: Tensor) -> None:
        """Set the centres from those of all classes, (classes, D)."""
        self.weight.copy_(centre_CD[self.start : self.start + self.held])

    def use(self, label_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a step's classes; return their centres (K, D) with gradient, their places in this stretch (K,), and each row's column or -1, (N,)."""
        inside_N = (label_N >= self.start) & (label_N < self.start + self.held)
        local_N = torch.where(inside_N, label_N - self.start, -1)
        row_K = draw(local_N, self.held, self.config.rate)
        # All classes: no copy. The next step writes into them, after the backward pass.
        centre_KD = (self.weight.detach() if len(row_K) == self.held else self.weight[row_K]).requires_grad_(torch.is_grad_enabled())
        self._used = (row_K, centre_KD) if self.training else None
        column_N = torch.searchsorted(row_K, local_N.clamp(min=0))
        return centre_KD, row_K, torch.where(inside_N, column_N, -1)

    @torch.no_grad()
    def step(self, rate: float, scale: float = 1.0) -> None:
        """Move the centres that the last forward drew.

        Args:
            rate: learning rate.
            scale: what the loss was multiplied by before the backward pass (fp16); a gradient that overflowed moves nothing.
        """
        if self._used is None or self._used[1].grad is None:
            return
        (row_K, centre_KD), self._used = self._used, None
        gradient_KD = centre_KD.grad / scale
        if not bool(torch.isfinite(gradient_KD).all()):
            return
        before_KD = self.weight[row_K]
        self.count[row_K] += 1
        if self._adaptive:
            before_KD = before_KD * (1.0 - rate * self._decay)
            self.weight[row_K] = before_KD - rate * self._adam(row_K, gradient_KD)
            return
        moment_KD = _MOMENTUM * self.first[row_K] + gradient_KD + self._decay * before_KD
        self.first[row_K] = moment_KD
        self.weight[row_K] = before_KD - rate * moment_KD

    def _adam(self, row_K: Tensor, gradient_KD: Tensor) -> Tensor:
        first_KD = self.first[row_K].lerp(gradient_KD, 1.0 - _BETAS[0])
        second_KD = self.second[row_K].lerp(gradient_KD.square(), 1.0 - _BETAS[1])
        self.first[row_K], self.second[row_K] = first_KD, second_KD
        # Bias correction by each centre's own number of steps: a rare class's moments are young whenever it comes.
        count_K1 = self.count[row_K, None].to(first_KD.dtype)
        return first_KD / (1.0 - _BETAS[0] ** count_K1) / ((second_KD / (1.0 - _BETAS[1] ** count_K1)).sqrt() + _EPS)

    def collect(self) -> None:
        """Bring all stretches together on the first process, for the state it writes; every process must call it."""
        if world_size() == 1:
            return
        for name, value in self.named_buffers(recurse=False):
            if value.numel():
                whole = _joined(value, self.classes)
                self._gathered[name] = whole if process_rank() == 0 else value

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        for name, value in self.named_buffers(recurse=False):
            destination[prefix + name] = self._gathered.pop(name, value).detach()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        for name, value in self.named_buffers(recurse=False):
            held = state_dict.get(prefix + name)
            if held is not None and len(held) == self.classes != len(value):
                state_dict[prefix + name] = held[self.start : self.start + self.held]
        super()._load_from_state_dict(state_dict, prefix, *rest)


def partial_loss(head: MarginHead, centres: PartialCentres, raw_BD: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """As `heads.margin_loss`, over the rows of all processes and the classes drawn; every process must bring as many rows.

    The loss, the accuracy (among the classes drawn) and the mean target cosine are those of all rows, the same on every process.

    Raises:
        UserError: a head that needs the cosines of all classes at once, in several processes.
    """
    world = world_size()
    if "fixed" in head.reads and world > 1:
        raise UserError(f"the head '{type(head).__name__.lower()}' ranks the cosines of all classes and cannot be spread over {world} processes; train in one process, or choose another head")
    with torch.autocast(raw_BD.device.type, enabled=False):
        raw_ND = sum_gradients(gather_rows(raw_BD.float()))
        label_N = gather_rows(label_B)
        centre_KD, _, column_N = centres.use(label_N)
        unit_ND = F.normalize(raw_ND)
        cos_NK = (unit_ND @ F.normalize(centre_KD).T).clamp(-1.0, 1.0)
        own_N, here_N = target_cosines(cos_NK, column_N)
        target_N = _sum_parts(torch.where(here_N, own_N, 0.0))
        extra: dict[str, Any] = {}
        if "norm_B" in head.reads:
            extra["norm_B"] = raw_ND.detach().norm(dim=1)
        if "fixed" in head.reads:
            extra["fixed"] = _fixed(unit_ND, centre_KD)
        if world > 1 and "target_B" in head.reads_sharded:
            extra["target_B"] = target_N.detach()
        with each_alone():  # every process sees all rows: the head's statistics are whole already
            logit_NK = head(cos_NK, column_N, **extra)
        loss, best_N = sharded_cross_entropy(logit_NK, column_N, cos_NK)
    return {"loss": loss, "accuracy": (target_N.detach() >= best_N).float().mean(), "target_cosine": target_N.detach().mean()}


def sharded_cross_entropy(logit_NK: Tensor, column_N: Tensor, cos_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy over the columns of all processes, and each row's largest cosine among them, (N,).

    Args:
        column_N: each row's target column here, -1 on the processes that do not have it.
    """
    highest_N = _maximum(logit_NK.detach().amax(1))
    total_N = _sum_parts((logit_NK - highest_N[:, None]).exp().sum(1))
    own_N, here_N = target_cosines(logit_NK - highest_N[:, None], column_N)
    target_N = _sum_parts(torch.where(here_N, own_N, 0.0))
    return (total_N.log() - target_N).mean(), _maximum(cos_NK.detach().amax(1))


def _fixed(unit_ND: Tensor, centre_KD: Tensor) -> FixedCosines:
    still_KD = F.normalize(centre_KD.detach())
    return lambda row_P, column_P: (unit_ND[row_P] * still_KD[column_P]).sum(1).clamp(-1.0, 1.0)


def _initial(classes: int, embed_dim: int, seed: int, start: int, held: int) -> Tensor:
    """N(0, 0.01²), drawn in blocks of classes so that a stretch is the same however the classes are spread."""
    parts = []
    for number in range(start // _BLOCK, math.ceil((start + held) / _BLOCK)):
        low = number * _BLOCK
        generator = torch.Generator().manual_seed(derive_seed(seed, "centres", number))
        block = torch.randn(min(_BLOCK, classes - low), embed_dim, generator=generator).mul_(0.01)
        parts.append(block[max(0, start - low) : start + held - low])
    return torch.cat(parts)


def _joined(value_IX: Tensor, classes: int) -> Tensor:
    """The stretches of all processes, one after the other, on the CPU."""
    world = world_size()
    parts = [value_IX.new_empty(shard(classes, world, rank)[1], *value_IX.shape[1:]) for rank in range(world)]
    most = max(len(part) for part in parts)
    padded = [value_IX.new_zeros(most, *value_IX.shape[1:]) for _ in range(world)]
    own = value_IX.new_zeros(most, *value_IX.shape[1:])
    own[: len(value_IX)] = value_IX
    dist.all_gather(padded, own)
    return torch.cat([whole[: len(part)] for whole, part in zip(padded, parts)]).cpu()


def _maximum(value_N: Tensor) -> Tensor:
    if world_size() > 1:
        value_N = value_N.clone()
        dist.all_reduce(value_N, op=dist.ReduceOp.MAX)
    return value_N


def _sum_parts(value_N: Tensor) -> Tensor:
    """Sum over processes whose gradient goes to every part: each process has the same loss, so no exchange is needed on the way back."""
    return _SumParts.apply(value_N) if world_size() > 1 else value_N


class _SumParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value_N: Tensor) -> Tensor:
        value_N = value_N.clone()
        dist.all_reduce(value_N)
        return value_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> Tensor:
        return gradient_N

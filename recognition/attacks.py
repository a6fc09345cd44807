"""Attacks on face networks: projected gradient descent for training, and a library's attacks for judging.

The maintained collections (torchattacks, ART) take one strength for a whole batch and draw from torch's global generator. AFA's training needs a strength for
each sample, hence the short `pgd` here, which is tested against torchattacks'; judging uses torchattacks itself (`pip install --no-deps torchattacks`; it imports no torchvision).
Images are float RGB in [-1, 1]; strengths and steps are in grey levels, 8 = 8/255 of the range. Axes: B images, C H W, I identities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.config import Config
from ..core.errors import UserError, near_names

LEVEL = 2.0 / 255.0
"""A grey level in the house's range [-1, 1]."""

AttackName = Literal["pgd", "apgd", "apgd-t", "square", "autoattack"]
Logits = Callable[[Tensor], Tensor]


class AttackConfig(Config):
    """The attack a network is trained against.

    Attributes:
        strength: largest change of a pixel, in grey levels (of 255).
        steps: gradient steps.
        reach: length of all steps together, in strengths: 2.5 with 10 steps of strength 8 is the usual step of 2 levels.
        vary: draw a strength for each sample between 0 and `strength`.
    """

    strength: float = Field(8.0, gt=0, le=255)
    steps: int = Field(10, ge=1)
    reach: float = Field(2.5, gt=0)
    vary: bool = False

    def strengths(self, count: int, device: torch.device) -> Tensor:
        """Return a strength for each sample, (count,); drawn from torch's generator where they vary."""
        return self.strength * (torch.rand(count, device=device) if self.vary else torch.ones(count, device=device))

    def __call__(self, logits_of: Logits, image_BCHW: Tensor, label_B: Tensor) -> Tensor:
        """Return attacked copies, from a random start."""
        strength_B = self.strengths(len(image_BCHW), image_BCHW.device)
        return pgd(logits_of, image_BCHW, label_B, strength_B, steps=self.steps, reach=self.reach)


def pgd(logits_of: Logits, image_BCHW: Tensor, label_B: Tensor, strength_B: Tensor, *, steps: int, reach: float = 2.5, random_start: bool = True) -> Tensor:
    """Return images that raise the cross-entropy, within `strength_B` grey levels of the given ones and in [-1, 1] (Madry et al., ICLR 2018).

    No parameter gets a gradient; put the network in evaluation mode before, or its running statistics move.

    Args:
        reach: each step is reach · strength / steps.
        random_start: begin at a uniform point of the ball, from torch's generator.
    """
    image_BCHW = image_BCHW.detach()
    ball = (strength_B * LEVEL).to(image_BCHW)[:, None, None, None]
    low, high = (image_BCHW - ball).clamp(min=-1.0), (image_BCHW + ball).clamp(max=1.0)
    changed = image_BCHW + ball * (2 * torch.rand_like(image_BCHW) - 1) if random_start else image_BCHW
    changed = torch.clamp(changed, low, high)
    for _ in range(steps):
        changed = changed.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(logits_of(changed), label_B, reduction="sum"), changed)
        changed = torch.clamp(changed.detach() + (reach / steps) * ball * slope.sign(), low, high)
    return changed.detach()


class _UnitPixels(nn.Module):
    """What the library attacks: images in [0, 1] → logits."""

    def __init__(self, logits_of: nn.Module) -> None:
        super().__init__()
        self.logits_of = logits_of
        self.train(logits_of.training)  # the library leaves the mode as it found it

    def forward(self, unit_BCHW: Tensor) -> Tensor:
        return self.logits_of(2.0 * unit_BCHW - 1.0)


def library_attack(name: str, logits_of: nn.Module, image_BCHW: Tensor, label_B: Tensor, *, strength: float, steps: int, classes: int, seed: int = 0) -> Tensor:
    """Attack images with torchattacks and return them, in [-1, 1].

    Args:
        name: "pgd"; "apgd" (AutoAttack's step-size rule, cross-entropy); "apgd-t" (its targeted margin loss); "square" (no gradients, 20 queries a step); "autoattack" (the
            ensemble of apgd, apgd-t, fab and square, each with its own budget: minutes for a few faces).
        logits_of: images (B, 3, H, W) → (B, classes); must treat every row alike, whatever the batch ("pgd" alone keeps the rows in place).
        strength: grey levels; 0 returns the images.
        steps: not used by "autoattack".

    Raises:
        UserError: an unknown name, too few classes for the targeted attacks, or torchattacks is not installed.
    """
    if name not in get_args(AttackName):
        raise UserError(f"unknown attack '{name}'; {near_names(name, get_args(AttackName))}")
    if name in ("apgd-t", "autoattack") and classes < 4:
        raise UserError(f"'{name}' compares the four highest of the logits, got {classes} classes; use 'pgd' or 'apgd', or a gallery of more people")
    if strength == 0:
        return image_BCHW
    attack = _library(name, _UnitPixels(logits_of), strength=strength / 255.0, steps=steps, classes=classes, seed=seed)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        unit_BCHW = attack((image_BCHW.detach() + 1.0).div_(2.0).clamp_(0.0, 1.0), label_B)
    return unit_BCHW.detach() * 2.0 - 1.0


def _library(name: str, model: nn.Module, *, strength: float, steps: int, classes: int, seed: int) -> Any:
    try:
        import torchattacks
    except ImportError as error:
        # No extra of ours: the release pins a `requests` from 2021 that `datasets` refuses, and needs it for nothing that is used here.
        raise UserError("judging a recogniser under attack needs the package 'torchattacks', which is not installed; run: pip install --no-deps torchattacks") from error
    targets = min(9, classes - 1)
    match name:
        case "pgd":
            return torchattacks.PGD(model, eps=strength, alpha=2.5 * strength / steps, steps=steps)
        case "apgd":
            return torchattacks.APGD(model, eps=strength, steps=steps, seed=seed)
        case "apgd-t":
            return torchattacks.APGDT(model, eps=strength, steps=steps, seed=seed, n_classes=targets + 1)
        case "square":
            return torchattacks.Square(model, eps=strength, n_queries=20 * steps, seed=seed)
        case _:
            return torchattacks.AutoAttack(model, eps=strength, n_classes=targets + 1, seed=seed)

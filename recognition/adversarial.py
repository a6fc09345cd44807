"""Adversarial losses, and how one backward pass serves both sides of a game.

Both sides are added to one loss. What the one must not learn from the other's part is cut there: the critic sees detached fakes, and the player sees a critic
whose weights are constants (`frozen`). So the house's training loop with its one optimiser plays both sides at once, each from the same point.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


def frozen(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call a module with its weights as constants: the gradient reaches the inputs, not the weights."""
    return functional_call(module, {name: weight.detach() for name, weight in module.named_parameters()}, inputs)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(fake)), means over all scores (Goodfellow et al. 2014, the discriminator's cross-entropy)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def player_loss(fake: Tensor) -> Tensor:
    """softplus(-D(fake)), the non-saturating side: a mean over all scores."""
    return F.softplus(-fake).mean()


def uniform_loss(logits_BI: Tensor) -> Tensor:
    """Cross-entropy of a classifier's logits to the uniform distribution; its least value ln I means that nothing of the class is left.

    The obvious alternative, raising the classifier's own cross-entropy, has no bound.
    """
    return -logits_BI.log_softmax(1).mean()

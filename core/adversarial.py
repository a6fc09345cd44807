"""Adversarial losses, the critic of patches, and how one backward pass serves both sides of a game.

Both sides are added to one loss. What the one must not learn from the other's part is cut there: the critic sees detached fakes, and the player sees a critic
whose weights are constants (`frozen`). So the house's training loop with its one optimiser plays both sides at once, each from the same point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class PatchCritic(nn.Sequential):
    """Pictures (B, 3, H, W) → a score for each patch, (B, 1, H/8, W/8); a patch is 38 pixels wide (the form of Isola et al., CVPR 2017, smaller).

    Args:
        first: channels of the first layer; each of the next two has twice as many.
    """

    def __init__(self, first: int) -> None:
        steps = zip((3, first, 2 * first), (first, 2 * first, 4 * first))
        super().__init__(*(layer for c_in, c_out in steps for layer in (nn.Conv2d(c_in, c_out, 4, 2, 1), nn.LeakyReLU(0.2))), nn.Conv2d(4 * first, 1, 3, 1, 1))


def game(critic: nn.Module, real_BCHW: Tensor, fake_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return (the player's loss, the critic's loss) of one step; the player's reaches the fakes alone, the critic's its own weights alone."""
    return player_loss(frozen(critic, fake_BCHW)), critic_loss(critic(real_BCHW), critic(fake_BCHW.detach()))


def frozen(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call a module with its weights as constants: the gradient reaches the inputs, not the weights."""
    return functional_call(module, {name: weight.detach() for name, weight in module.named_parameters()}, inputs)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(fake)), means over all scores (Goodfellow et al. 2014, the discriminator's cross-entropy)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def player_loss(fake: Tensor) -> Tensor:
    """softplus(-D(fake)), the non-saturating side: a mean over all scores."""
    return F.softplus(-fake).mean()


def adaptive_weight(rec: Tensor, gan: Tensor, last: Tensor, *, most: float = 1e4) -> Tensor:
    """Return |∇ rec| / (|∇ gan| + 1e-6) at the decoder's last layer, clamped, without gradient (VQGAN, Esser et al., CVPR 2021, eq. 7).

    Of the reconstruction alone, not of the perceptual term too as VQGAN has it [C]: that would run the perceptual network backwards twice.
    """
    if not rec.requires_grad:
        return rec.new_ones(())
    norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (rec, gan)]
    return (norms[0] / (norms[1] + 1e-6)).clamp(0.0, most).detach()


def uniform_loss(logits_BI: Tensor) -> Tensor:
    """Cross-entropy of a classifier's logits to the uniform distribution; its least value ln I means that nothing of the class is left.

    The obvious alternative, raising the classifier's own cross-entropy, has no bound.
    """
    return -logits_BI.log_softmax(1).mean()

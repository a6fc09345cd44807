"""GloTok's residual refinement: one transformer block that guesses what quantisation took away (consumers.md §7).

The paper says "one transformer block each" for the semantic and the visual part. Its width, the learned places and the zero-initialised way out are
choices [C]: with the last layer at zero the decoder's input is plain VQ's. Axes: B images, L positions, D numbers of a code, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...generators.attention import Attention, zeroed


class ResidualRefinement(nn.Module):
    """R: quantised maps (B, D, H, W) → what to add to them, the same shape; 0 before training.

    Args:
        code_dim: D.
        positions: H · W.
        width: C, a multiple of `head_dim`.
    """

    def __init__(self, code_dim: int, positions: int, width: int = 64, head_dim: int = 32) -> None:
        super().__init__()
        self.project_in = nn.Linear(code_dim, width)
        self.place = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.norm, self.mlp_norm, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width, head_dim)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.project_out = zeroed(nn.Linear(width, code_dim))

    def forward(self, code_BDHW: Tensor) -> Tensor:
        height, width = code_BDHW.shape[-2:]
        x_BLC = self.project_in(code_BDHW.flatten(2).transpose(1, 2)) + self.place
        x_BLC = x_BLC + self.attention.over_self(self.norm(x_BLC), None)
        x_BLC = x_BLC + self.mlp(self.mlp_norm(x_BLC))
        return self.project_out(self.norm_out(x_BLC)).transpose(1, 2).unflatten(2, (height, width))


def residual_loss(before_BDHW: Tensor, quantised_BDHW: Tensor, residual_BDHW: Tensor) -> Tensor:
    """Return mean (sg[Z] - Ẑ - Z_res)² over all numbers; squared L2 [C], the paper does not print its norm.

    Args:
        quantised_BDHW: rows of the codebook, not their straight-through copy: that copy would carry a gradient to the encoder, which this loss must not move.
    """
    return (before_BDHW.detach() - quantised_BDHW - residual_BDHW).square().mean()

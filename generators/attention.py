"""Attention block of the IDiff-Face family, with the two hooks UIFace needs: shared self-attention and blended cross-attention.

Axes: B rows of the batch, L positions (H·W), T context tokens, C channels, N heads.
Source: the code of IDiff-Face (ICCV 2023) and UIFace (ICLR 2025); shapes in generators.md §0.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .watching import Watch

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


@dataclass
class AttentionControl:
    """What one forward pass does with attention beyond the plain computation.

    The batch holds `sources` rows of the empty context first, then rows of the identity context.

    Attributes:
        donors: for each identity row, its empty row; (identity rows,) int64.
        share_self: identity rows take over the self-attention maps of their donors.
        blend_cross: pull the cross-attention logits of identity rows half-way to their donors' statistics (stage 2).
        record: keep the cross-attention logits of the empty rows, one (sources, N, L, T) tensor a block (stage 1).
        memory: where cross-attention takes its keys and values from; None computes them from the pass's contexts.
        watch: shown the attention logits of each block (`watching`); where the pass itself forms none they are formed beside it, and change nothing in it.
    """

    sources: int
    donors: Tensor
    share_self: bool = True
    blend_cross: bool = False
    record: bool = False
    cross_logits: list[Tensor] = field(default_factory=list)
    memory: ContextMemory | None = None
    watch: Watch | None = None


class ContextMemory:
    """Keys and values of the contexts of one sampling, made once for each block: they do not depend on the step (generators.md (d) 4).

    Attributes:
        context_UD: the contexts that occur.
        of_row: for each row of the coming pass, its context's place in them; (B,) int64.
    """

    def __init__(self, context_UD: Tensor) -> None:
        self.context_UD, self.of_row = context_UD, torch.arange(len(context_UD), device=context_UD.device)
        self._made: dict[TokenMaker, tuple[Tensor, Tensor]] = {}

    def recall(self, block: TokenMaker) -> tuple[Tensor, Tensor]:
        """Return keys and values of the pass's rows, (B, N, T, H) each."""
        if block not in self._made:
            self._made[block] = block.keys_and_values(self.context_UD)
        key, value = self._made[block]
        return key[self.of_row], value[self.of_row]


class TokenMaker(Protocol):
    """A layer that makes keys and values of contexts."""

    def keys_and_values(self, context_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) contexts → keys and values, (B, N, T, H) each."""
        ...


def recalled(maker: TokenMaker, context_BD: Tensor, control: AttentionControl | None) -> tuple[Tensor, Tensor]:
    """Return keys and values of the pass's rows: from the memory where the pass has one, else made from its contexts."""
    return control.memory.recall(maker) if control is not None and control.memory is not None else maker.keys_and_values(context_BD)


class ContextAttention(nn.Module):
    """Self-attention, cross-attention to identity tokens and an MLP, around which a zero-initialised projection closes.

    One GroupNorm serves all three pre-norms, as in the published network.
    """

    def __init__(self, channels: int, context_dim: int, tokens: int, head_dim: int = 32, groups: int = 32) -> None:
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"attention over {channels} channels, expected a multiple of head_dim={head_dim}")
        self.tokens, self.head_dim = tokens, head_dim
        self.project_in = nn.Conv2d(channels, channels, 1)
        self.norm = nn.GroupNorm(groups, channels)
        self.self_attention = Attention(channels, channels, head_dim)
        self.to_tokens = nn.Linear(context_dim, context_dim * tokens)
        self.token_norm = nn.GroupNorm(groups, context_dim)
        self.cross_attention = Attention(channels, context_dim, head_dim)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.project_out = zeroed(nn.Conv2d(channels, channels, 1))

    def context_tokens(self, context_BD: Tensor) -> Tensor:
        """(B, D) context → (B, T, D) normalised tokens; depends on the identity alone, not on the step."""
        return self.token_norm(self.to_tokens(context_BD).unflatten(1, (-1, self.tokens))).transpose(1, 2)

    def keys_and_values(self, context_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) context → keys and values of cross-attention, (B, N, T, H) each."""
        return self.cross_attention.keys_and_values(self.context_tokens(context_BD))

    def forward(self, image_BCHW: Tensor, context_BD: Tensor, control: AttentionControl | None = None) -> Tensor:
        height, width = image_BCHW.shape[-2:]
        x_BLC = self.project_in(image_BCHW).flatten(2).transpose(1, 2)
        x_BLC = x_BLC + self.self_attention.over_self(self._normed(x_BLC), control)
        x_BLC = x_BLC + self.cross(self._normed(x_BLC), context_BD, control)
        x_BLC = x_BLC + self.mlp(self._normed(x_BLC))
        return image_BCHW + self.project_out(x_BLC.transpose(1, 2).unflatten(2, (height, width)))

    def cross(self, x_BLC: Tensor, context_BD: Tensor, control: AttentionControl | None) -> Tensor:
        """What the tokens of the context add at each position, (B, L, C)."""
        return self.cross_attention.over_tokens(x_BLC, *recalled(self, context_BD, control), control)

    def _normed(self, x_BLC: Tensor) -> Tensor:
        return self.norm(x_BLC.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention with separate query, key, value and output projections, all with bias."""

    def __init__(self, channels: int, source_dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(source_dim, channels)
        self.value = nn.Linear(source_dim, channels)
        self.out = nn.Linear(channels, channels)

    def over_self(self, x_BLC: Tensor, control: AttentionControl | None) -> Tensor:
        """Self-attention; identity rows use query and key of their donors, which equals replacing their logits, and compute none."""
        value_BNLH, asking_BLC = self._heads(self.value(x_BLC)), x_BLC
        shared = control is not None and control.share_self and len(control.donors) > 0
        if shared:
            asking_BLC = x_BLC[: control.sources]
        query_BNLH, key_BNLH = self._heads(self.query(asking_BLC)), self._heads(self.key(asking_BLC))
        if shared:
            query_BNLH, key_BNLH = (torch.cat([x, x[control.donors]]) for x in (query_BNLH, key_BNLH))
        if control is not None and control.watch is not None:
            control.watch.attention("self", self._logits(query_BNLH, key_BNLH))
        return self._merge(F.scaled_dot_product_attention(query_BNLH, key_BNLH, value_BNLH))

    def keys_and_values(self, source_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) tokens → keys and values, (B, N, T, H) each, H numbers a head."""
        return self._heads(self.key(source_BTD)), self._heads(self.value(source_BTD))

    def over_tokens(
        self, x_BLC: Tensor, key_BNTH: Tensor, value_BNTH: Tensor, control: AttentionControl | None, beside: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Cross-attention; the logits are formed only where they are recorded or blended.

        Args:
            beside: keys and values of further tokens, which have a softmax of their own: what they say is added.
        """
        query_BNLH = self._heads(self.query(x_BLC))
        more_BNLH = 0.0 if beside is None else F.scaled_dot_product_attention(query_BNLH, *beside)
        if control is None or not (control.record or control.blend_cross):
            if control is not None and control.watch is not None:
                control.watch.attention("cross", self._logits(query_BNLH, key_BNTH))
            return self._merge(F.scaled_dot_product_attention(query_BNLH, key_BNTH, value_BNTH) + more_BNLH)
        logits_BNLT = self._logits(query_BNLH, key_BNTH)
        if control.record:
            control.cross_logits.append(logits_BNLT[: control.sources])
        if control.blend_cross:
            empty, identity = logits_BNLT[: control.sources], logits_BNLT[control.sources :]
            logits_BNLT = torch.cat([empty, blend_statistics(identity, empty[control.donors])])
        if control.watch is not None:
            control.watch.attention("cross", logits_BNLT)
        return self._merge(logits_BNLT.softmax(-1).to(value_BNTH.dtype) @ value_BNTH + more_BNLH)

    def _logits(self, query_BNLH: Tensor, key_BNTH: Tensor) -> Tensor:
        return (query_BNLH @ key_BNTH.transpose(-1, -2)).float() * self.head_dim**-0.5

    def _heads(self, x_BLC: Tensor) -> Tensor:
        return x_BLC.unflatten(2, (-1, self.head_dim)).transpose(1, 2)

    def _merge(self, x_BNLH: Tensor) -> Tensor:
        return self.out(x_BNLH.transpose(1, 2).flatten(2))


def blend_statistics(logits: Tensor, source: Tensor) -> Tensor:
    """UIFace's AdaIN on cross-attention logits: mean and deviation over the tokens become ½ own + ½ source.

    Args:
        logits: identity pass, (B, N, L, T).
        source: empty pass, the same shape.
    """
    std, mean = torch.std_mean(logits, dim=-1, keepdim=True)
    source_std, source_mean = torch.std_mean(source, dim=-1, keepdim=True)
    # The floor keeps a row of equal logits finite; it is far below any trained network's deviation.
    return (logits - mean) / std.clamp_min(1e-8) * (0.5 * std + 0.5 * source_std) + 0.5 * mean + 0.5 * source_mean


def zeroed(layer: Layer) -> Layer:
    """Return the layer with weight and bias zero: a residual branch that starts as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

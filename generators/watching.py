"""A look into a sampling while it runs: what the sampler handed to its solver at each point, and the attention logits of each block.

The documented way to see inside: `UIFace.generate(..., watch=Recorder())`. What is shown is computed beside the sampling or copied from it, so
that no pixel depends on whether somebody looks (tests/generators/test_watching.py). Axes: B images, R rows of a pass (the B reference rows first),
N heads, L positions, T tokens or positions, C H W latent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

AttentionKind = Literal["self", "cross"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One point of the solver.

    Attributes:
        t, alpha: training step, and ᾱ there.
        latent_BCHW: what the network was shown, float32.
        noise_BCHW: the noise handed to the solver: guided in stage 2, the reference's own where a row is context-free.
        reference_BCHW: the noise the reference pass predicted.
        has_identity_B: rows whose pass had their identity's context; False = stage 1, context-free.
    """

    t: int
    alpha: float
    latent_BCHW: Tensor
    noise_BCHW: Tensor
    reference_BCHW: Tensor
    has_identity_B: Tensor

    def clean(self) -> Tensor:
        """Return the one-step estimate x̂0 = (z_t - √(1-ᾱ) ε) / √ᾱ (DDPM, Ho et al. 2020, eq. 15), float32 (B, C, H, W)."""
        return (self.latent_BCHW - (1 - self.alpha) ** 0.5 * self.noise_BCHW) / self.alpha**0.5


class Watch(Protocol):
    """Who may look."""

    def attention(self, kind: AttentionKind, logits_RNLT: Tensor) -> None:
        """Called in each block of a pass, in their order: self-attention, then cross-attention; float32 logits as used, injection and blending done.

        Their softmax over T are the attention weights; `uiface.attention_map` makes UIFace's own map of cross-attention logits.
        """
        ...

    def visit(self, visit: Visit) -> None:
        """Called after the pass, before the solver's step."""
        ...


@dataclass
class Recorder:
    """Keeps what it sees.

    Attributes:
        keep_attention: False leaves the logits out.
        visits: one a point, noisiest first.
        logits: for each visit, (kind, (R, N, L, T) on the CPU) of its blocks in order.
    """

    keep_attention: bool = True
    visits: list[Visit] = field(default_factory=list)
    logits: list[list[tuple[AttentionKind, Tensor]]] = field(default_factory=list)
    _pass: list[tuple[AttentionKind, Tensor]] = field(default_factory=list)

    def attention(self, kind: AttentionKind, logits_RNLT: Tensor) -> None:
        """See `Watch`."""
        if self.keep_attention:
            self._pass.append((kind, logits_RNLT.cpu()))

    def visit(self, visit: Visit) -> None:
        """See `Watch`."""
        self.visits.append(visit)
        self.logits.append(self._pass)
        self._pass = []

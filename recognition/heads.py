"""Margin heads: cosines in, logits out. The class centres and the softmax are not theirs.

A newcomer is one file with a registered `MarginHead`; recipes and the contract tests find it by themselves.
Axes: B images, I identities (classes), D embedding, P pairs of an image and a class.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.config import Config
from ..core.errors import UserError, near_names
from ..core.registry import Registry

FixedCosines = Callable[[Tensor, Tensor], Tensor]
"""(row_P, column_P) → cosines (P,) of these image-class pairs, whose gradient does not reach the class centres."""

HEADS: Registry[type[MarginHead]] = Registry("margin head", "facefoundry.recognition")

_EDGE = 1e-7


class MarginHead(nn.Module):
    """forward(cos_BI, label_B) → logits, (B, I) float32 (float64 stays float64); a row with label -1 gets no margin.

    State lives in buffers only and changes only in training mode. Each head names its own settings in its constructor.

    Attributes:
        reads: what the head wants beside cosines and labels, each a keyword of its forward: "norm_B" (length of each raw
            embedding) or "fixed" (a `FixedCosines`). `margin_loss` hands it over.
        reads_sharded: what it wants in addition where the classes are spread over processes (see `partial_fc`): "target_B".
        true_gradient: False where the gradient is by intention not that of the value.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    reads_sharded: ClassVar[frozenset[str]] = frozenset()
    true_gradient: ClassVar[bool] = True

    def __init__(self, *, scale: float) -> None:
        super().__init__()
        self.scale = scale

    @classmethod
    def tiny(cls) -> Self:
        """Return the head with its published settings (heads hold no weights)."""
        return cls()


class HeadConfig(Config):
    """Which head; None leaves a setting at the head's published value. A head from outside has settings of its own, flat beside these.

    Attributes:
        name: key in `HEADS`: "softmax", "cosface", "arcface", "arcface-straight-through", "adaface", "curricularface", "cifp".
        scale: factor on the logits; small data sets want 16-32 in place of 64.
        margin: angle in radians (CosFace and CIFP: taken from the cosine).
        t_alpha: weight of the new batch in the running means of CurricularFace and AdaFace.
        h: AdaFace: how far a standard deviation of the embedding's length moves the margin.
        mode: CIFP: "released" (what made the published figures) or "paper".
        far: CIFP: total false positive rate.
        alpha: CIFP, mode "paper": weight of the penalty.
        weighted: CIFP, mode "paper": sum squared similarities of false positives in place of counting them.
    """

    model_config = ConfigDict(extra="allow")  # checked below against the head's own settings

    name: str = "arcface"
    scale: float | None = Field(None, gt=0)
    margin: float | None = Field(None, ge=0, lt=math.pi / 2)
    t_alpha: float | None = Field(None, gt=0, le=1)
    h: float | None = Field(None, gt=0)
    mode: Literal["released", "paper"] | None = None
    far: float | None = Field(None, gt=0, lt=1)
    alpha: float | None = Field(None, ge=0)
    weighted: bool | None = None

    @model_validator(mode="after")
    def _keys_of_other_heads_are_theirs(self) -> Self:
        try:
            self._checked(self.model_extra or {})
        except UserError as error:
            raise ValueError(str(error)) from error  # told with its line of the file
        return self

    def build(self) -> MarginHead:
        """Return the head; a setting it does not have is an error, never ignored."""
        return HEADS[self.name](**self._checked({key: value for key, value in self.model_dump(exclude={"name"}).items() if value is not None}))

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        known = inspect.signature(HEADS[self.name]).parameters if given else {}  # the registry is not asked while it imports what holds a default head
        for key in given:
            if key not in known:
                raise UserError(f"the head '{self.name}' has no setting '{key}'; {near_names(key, known)}")
        return given


class ClassCentres(nn.Module):
    """One direction for each identity; forward(raw embedding) → cosines, (B, I) float32 in [-1, 1]."""

    def __init__(self, identities: int, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(identities, embed_dim) * 0.01)

    def forward(self, embed_BD: Tensor) -> Tensor:
        # Also where the caller, or `accelerate launch --mixed_precision`, has switched autocast on around everything.
        with torch.autocast(embed_BD.device.type, enabled=False):
            cos_BI = F.normalize(embed_BD.float()) @ F.normalize(self.weight.float()).T
        return cos_BI.clamp(-1.0, 1.0)

    def assign(self, centre_ID: Tensor) -> None:
        """Set the centres, (I, D)."""
        with torch.no_grad():
            self.weight.copy_(centre_ID)

    def fixed(self, embed_BD: Tensor) -> FixedCosines:
        """Return a function that gives the cosines of some (row, class) pairs with no gradient to the centres."""

        def cosines(row_P: Tensor, column_P: Tensor) -> Tensor:
            with torch.autocast(embed_BD.device.type, enabled=False):
                centre_PD = F.normalize(self.weight.detach()[column_P].float())
                return (F.normalize(embed_BD.float())[row_P] * centre_PD).sum(1).clamp(-1.0, 1.0)

        return cosines


def margin_loss(head: MarginHead, centres: ClassCentres, raw_BD: Tensor, label_B: Tensor) -> dict[str, Tensor]:
    """Return the mean cross-entropy of raw embeddings under a head, with the accuracy and mean target cosine for the log."""
    cos_BI = centres(raw_BD)
    extra: dict[str, Any] = {}
    if "norm_B" in head.reads:
        extra["norm_B"] = raw_BD.detach().float().norm(dim=1)
    if "fixed" in head.reads:
        extra["fixed"] = centres.fixed(raw_BD)
    seen_BI = cos_BI.detach()
    return {
        "loss": F.cross_entropy(head(cos_BI, label_B, **extra), label_B),
        "accuracy": (seen_BI.argmax(1) == label_B).float().mean(),
        "target_cosine": target_cosines(seen_BI, label_B)[0].mean(),
    }


def at_least_float32(cos_BI: Tensor) -> Tensor:
    """Margins and softmax lose the target's gradient in half precision; float64 is kept for gradient checks."""
    return cos_BI if cos_BI.dtype == torch.float64 else cos_BI.float()


def cos_plus_margin(cos_B: Tensor, margin: float) -> Tensor:
    """cos(θ + m) by expansion, with its true gradient, finite at cos = ±1."""
    return cos_B * math.cos(margin) - sine_of(cos_B) * math.sin(margin)


def sine_of(cos_B: Tensor) -> Tensor:
    """sin θ from a cosine clamped inside ±(1 - 1e-7): at exactly ±1 its slope would be infinite."""
    inside_B = cos_B.clamp(-1.0 + _EDGE, 1.0 - _EDGE)
    return (1.0 - inside_B.square()).sqrt()


def monotone_target(cos_B: Tensor, moved_B: Tensor, margin: float) -> Tensor:
    """Return cos(θ + m) where θ + m < π, else cos θ - m·sin m, so that a worse angle never gets a better logit."""
    return torch.where(cos_B > -math.cos(margin), moved_B, cos_B - margin * math.sin(margin))


def target_cosines(cos_BI: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's cosine to its own class, (B,) (column 0's for label -1), and which rows have a label, (B,) bool."""
    return cos_BI.gather(1, label_B.clamp(min=0)[:, None])[:, 0], label_B >= 0


def with_target(cos_BI: Tensor, label_B: Tensor, value_B: Tensor) -> Tensor:
    """Return a copy in which the target column of each labelled row holds `value_B`; gradients pass to both."""
    column_I = torch.arange(cos_BI.shape[1], device=cos_BI.device)
    return torch.where(column_I == label_B[:, None], value_B[:, None].to(cos_BI.dtype), cos_BI)

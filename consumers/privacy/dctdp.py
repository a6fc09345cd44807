"""DCTDP: 63 frequencies of each plane with Laplace noise, whose scale at every position is learned under a fixed mean budget.

Source: Ji et al., "Privacy-preserving face recognition with learnable privacy budgets in frequency domain", ECCV 2022 (consumers.md §3).
ε_i = N·ε_mean·softmax(θ)_i over all N positions, noise Laplace(0, b_i = Δ_i / ε_i), fresh for every face and query. What this proves: ε_i for one coefficient
of two faces, each clipped to the range seen in training. Over a whole face it composes to Σ ε_i = N·ε_mean, more than a million at 112 px and 0.5:
no protection in the usual sense. Only the attacks say what the noise hides. Axes: B faces, K = 189 channels, H W.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.images import to_float
from ...core.progress import track
from ...core.training import data_digest
from ...identity.sources import Faces
from ...recognition.backbones import BackboneConfig
from .draws import Draws
from .front_end import CHANNELS, LARGEST, forward_dct, inverse_dct, spread
from .protected import PRIVACY_METHODS, ClientPart, MethodSettings, PrivacyMethod, PrivacyRecipe, Protected
from .train import CoefficientServer, learn
from .wire import WireField

AC = tuple(range(1, CHANNELS))
CODE_1K = torch.tensor([AC])
CUT = 65504.0
"""What is sent is cut to the largest float16; after the noise that costs no privacy."""


class DctdpSettings(MethodSettings):
    """`release_compatible`: sensitivity 1 everywhere, mean budget 4, one noise tensor for a whole batch, no clipping.

    Attributes:
        epsilon: mean budget of a position; None = 0.5 (paper), or 4 in the public code.
    """

    epsilon: float | None = Field(None, gt=0)

    @property
    def mean_budget(self) -> float:
        """ε_mean, the mean budget of a position: `epsilon`, else 0.5, or 4 with `release_compatible`."""
        return self.epsilon or (4.0 if self.release_compatible else 0.5)


class DctdpRecipe(PrivacyRecipe):
    """A training of DCTDP.

    Attributes:
        budget_rate: learning rate of θ and of the learned shift, as a multiple of `lr`. Published: Adam at the rate of the rest's SGD. Here one
            optimiser serves all: choose "adamw", or expect θ to move little.
    """

    method: DctdpSettings = DctdpSettings()
    budget_rate: float = Field(1.0, gt=0)


class Budgets(nn.Module):
    """The learned part: θ and a shift of the noise, both (189, side, side), both beginning at 0. The shift does not depend on the face."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(3 * len(AC), side, side))
        self.shift = nn.Parameter(torch.zeros(3 * len(AC), side, side))


class DctdpClient(ClientPart):
    """Clips the coefficients to the training range and adds noise."""

    settings: DctdpSettings

    def __init__(self, settings: DctdpSettings) -> None:
        super().__init__(settings)
        self.budgets = Budgets(settings.side)
        # Until the ranges are measured they are what any picture can have.
        size = 0.5 if settings.release_compatible else LARGEST
        self.register_buffer("low", torch.full((3 * len(AC), settings.side, settings.side), -size))
        self.register_buffer("high", torch.full((3 * len(AC), settings.side, settings.side), size))

    @property
    def fields(self) -> tuple[WireField, ...]:
        """"coefficients": (189, side, side) noisy numbers within ±CUT."""
        return (self.number_field("coefficients", 3 * len(AC), self.settings.side, self.settings.side, lo=-CUT, hi=CUT),)

    def clean(self, image_BCHW: Tensor) -> Tensor:
        """Return the coefficients before clipping and noise, (B, 189, side, side)."""
        return forward_dct(self.seen(image_BCHW), CODE_1K)

    def forward(self, image_BCHW: Tensor, draws: Draws) -> dict[str, Tensor]:
        clean = self.clean(image_BCHW)
        released = self.settings.release_compatible
        shape = (1, *clean.shape[1:]) if released else tuple(clean.shape)
        noise = draws.laplace(shape).to(clean) * self.scale()
        clipped = clean if released else torch.minimum(torch.maximum(clean, self.low), self.high)
        return {"coefficients": (clipped + noise + self.budgets.shift).clamp(-CUT, CUT)}

    def epsilon(self) -> Tensor:
        """Budget of each position, (189, side, side); their mean is the settings'."""
        theta = self.budgets.theta
        return budgets_of(theta, self.settings.mean_budget)

    def scale(self) -> Tensor:
        """b of each position's Laplace noise."""
        return (self.high - self.low) / self.epsilon()

    def measure(self, image_NHWC: np.ndarray, batch: int = 64) -> None:
        """Set each coefficient's range to what the training faces span; `release_compatible` leaves it at 1."""
        if self.settings.release_compatible:
            return
        low, high = torch.full_like(self.low, torch.inf), torch.full_like(self.high, -torch.inf)
        for start in track(range(0, len(image_NHWC), batch), "coefficient ranges"):
            clean = self.clean(to_float(image_NHWC[start : start + batch]))
            low, high = torch.minimum(low, clean.amin(0)), torch.maximum(high, clean.amax(0))
        self.low.copy_(low)
        self.high.copy_(high)

    def guarantee(self) -> dict[str, float]:
        """What the noise proves, in figures for a card: budgets of single coefficients, and their composition over a face."""
        epsilon, scale = self.epsilon().detach().double(), self.scale().detach()
        return {
            "positions": epsilon.numel(), "epsilon_mean": float(epsilon.mean()), "epsilon_least": float(epsilon.min()), "epsilon_most": float(epsilon.max()),
            "epsilon_whole_face": float(epsilon.sum()), "noise_scale_mean": float(scale.mean()),
        }  # fmt: skip


def budgets_of(theta: Tensor, mean: float) -> Tensor:
    """ε_i = N·mean·softmax(θ)_i over all entries; adding a constant to θ changes nothing."""
    return theta.numel() * mean * torch.softmax(theta.flatten(), 0).reshape(theta.shape)


@PRIVACY_METHODS.register("dctdp")
class Dctdp(PrivacyMethod):
    """189 noisy channels in place of a face."""

    name = "dctdp"
    Settings, Recipe = DctdpSettings, DctdpRecipe
    client: DctdpClient

    @classmethod
    def build_client(cls, settings: DctdpSettings) -> DctdpClient:
        return DctdpClient(settings)

    @classmethod
    def build_server(cls, settings: DctdpSettings, backbone: BackboneConfig) -> CoefficientServer:
        return CoefficientServer(3 * len(AC), settings, backbone)

    @classmethod
    def train_on(cls, recipe: DctdpRecipe, faces: Faces, out: Path) -> Path:
        if len(faces) < 2:
            raise UserError(f"the sensitivity of DCTDP is the range of each coefficient over the training faces; {len(faces)} face has none, pass more")

        def network() -> Dctdp:
            method = cls(recipe.method, recipe.backbone)
            method.client.measure(faces.image_NHWC)
            method.client.budgets.rate_factor = recipe.budget_rate
            return method

        found, facts = learn(recipe, faces, out, network)
        measured = {"sensitivity_data_sha256": data_digest(faces.image_NHWC), "guarantee": found.network.client.guarantee()}
        return found.network.save(out, facts={**facts, **measured})

    def channel_codes(self) -> list[tuple[int, ...]]:
        return [AC]

    def view(self, protected: Protected) -> Tensor:
        return inverse_dct(spread(protected.tensors["coefficients"], CODE_1K.expand(len(protected), -1)))

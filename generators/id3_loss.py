"""The objective of ID³ (NeurIPS 2024, arXiv 2409.17576): denoising, and an embedding that the one-step estimate has to keep.

    L = E w_t ‖ε - ε_θ(x_t, t, y, s)‖² - E c(t) <y, f(x̂0(x_t))>,      c(t) = ½ (1 - 1 / (1 + exp(-t/T)))

The list of terms and c are second hand [S], the formula is a reconstruction [D] (generators.md §1.2): c(t) = λ_t κ_{x_t}, with κ the
concentration of a von Mises-Fisher law of y given x_t. f is a frozen recogniser; in latent mode gradients pass through the frozen decoder too.
Axes: B rows, R rows of the identity term, C H W latent, D embedding, A attributes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.config import Config
from ..core.device import autocast, memory_format
from ..core.types import Embedder
from .autoencoder import Autoencoder
from .id3_network import ID3Network
from .prediction import min_snr_weight, target, to_clean
from .schedule import STEPS, add_noise, alpha_bars
from .train import DenoiserRecipe


class IdentityTerm(Config):
    """The part of the objective that knows a recogniser.

    Attributes:
        form: "id3": -c(t) cos(y, f(x̂0)). "dcface" (Kim et al., CVPR 2023): -(t/T) cos(y, f(x̂0)) - (1 - t/T) cos(f(x_0), f(x̂0)), where x_0 is the
            row's own image; published with multiplier 0.05. "cemiface" (Sun et al., NeurIPS 2024): (1 - t/T)(1 - cos)² + (t/T)(m - cos)², m the row's
            attribute `similarity`, which the network must be conditioned on; published with 0.05. "none": denoising alone.
        multiplier: of the whole term; 1 is the paper's reading, and large identity weights cost accuracy downstream (CemiFace's table), so try 0.2.
        share: of a batch's rows that carry the term; in latent mode the decoder makes it dear. Its mean is scaled to the whole batch.
        least_alpha: rows with a smaller ᾱ are left out: x̂0 means nothing there (t ≥ 825 with 1e-3).
        reconstruction: the weight of rows at the first time step, the one-step reconstruction term: "simple", 1, as DDPM does; "likelihood", 1 / (2 ᾱ_1),
            which is -log N(x_0; μ_θ(x_1), β_1) for ε; "none", 0.
    """

    form: Literal["id3", "dcface", "cemiface", "none"] = "id3"
    multiplier: float = Field(1.0, ge=0)
    share: float = Field(0.125, gt=0, le=1)
    least_alpha: float = Field(1e-3, gt=0, lt=1)
    reconstruction: Literal["simple", "likelihood", "none"] = "simple"


def identity_weight(t: Tensor | float) -> Tensor:
    """c(t) = λ_t κ_{x_t} for t in 0..T: 0.250 at 0, 0.189 at T/2, 0.134 at T [S + D]."""
    return 0.5 * (1 - torch.sigmoid(torch.as_tensor(t, dtype=torch.float64) / STEPS)).float()


class ID3Objective(nn.Module):
    """Denoising error of all rows, identity term of some; see `IdentityTerm`.

    Args:
        network: what is trained.
        recipe: prediction, precision and weighting of the denoising error.
        guide: a differentiable recogniser; never trained, and no part of the training's state.
        autoencoder: its decoder leads from latents to faces; frozen.
    """

    def __init__(self, network: ID3Network, recipe: DenoiserRecipe, term: IdentityTerm, guide: Embedder, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.network, self._recipe, self._term = network, recipe, term
        # In a tuple, so that torch does not count them among this module's parameters.
        self._frozen = (guide, autoencoder.requires_grad_(False) if isinstance(autoencoder, nn.Module) else autoencoder)

    def forward(
        self, clean_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor, identity_BD: Tensor, empty_B: Tensor, attribute_BA: Tensor, bare_B: Tensor
    ) -> dict[str, Tensor]:
        """Return "loss" and its parts; `empty_B` and `bare_B` are the rows without identity and without attributes."""
        kind = self._recipe.network.prediction
        noisy_BCHW = add_noise(clean_BCHW, noise_BCHW, t_B).contiguous(memory_format=memory_format(clean_BCHW.device))
        with autocast(clean_BCHW.device, self._recipe.loop.precision):
            context_BD = self.network.condition(identity_BD, attribute_BA, no_identity_B=empty_B, no_attributes_B=bare_B)
            said_BCHW = self.network(noisy_BCHW, t_B, context_BD).float()
        error_B = (said_BCHW - target(kind, clean_BCHW, noise_BCHW, t_B)).square().mean((1, 2, 3)) * self._weight(t_B)
        losses = {"loss": error_B.mean(), "denoising": error_B.mean()}
        rows = self._rows(t_B, empty_B)
        if not len(rows):
            return {**losses, "identity": torch.zeros(()), "cosine": torch.zeros(())}
        alpha_R = alpha_bars()[t_B[rows].cpu()].to(clean_BCHW).view(-1, 1, 1, 1)
        estimate_RCHW = to_clean(kind, said_BCHW[rows], noisy_BCHW[rows], alpha_R)
        identity, cosine_R = self._identity(estimate_RCHW, clean_BCHW[rows], t_B[rows], identity_BD[rows], attribute_BA[rows])
        eligible = self._eligible(t_B, empty_B).float().mean()
        identity = self._term.multiplier * eligible * identity
        return {"loss": losses["loss"] + identity, "denoising": losses["denoising"], "identity": identity, "cosine": cosine_R.mean()}

    def _weight(self, t_B: Tensor) -> Tensor:
        weight_B = torch.ones(len(t_B), device=t_B.device)
        if self._recipe.min_snr:
            weight_B = min_snr_weight(self._recipe.network.prediction, t_B, self._recipe.min_snr)
        first = {"simple": 1.0, "likelihood": 0.5 / float(alpha_bars()[0]), "none": 0.0}[self._term.reconstruction]
        return torch.where(t_B == 0, first * weight_B, weight_B)

    def _eligible(self, t_B: Tensor, empty_B: Tensor) -> Tensor:
        return (alpha_bars()[t_B.cpu()].to(t_B.device) >= self._term.least_alpha) & ~empty_B

    def _rows(self, t_B: Tensor, empty_B: Tensor) -> Tensor:
        """Rows that carry the term: the first that may; the batch's own order is random and belongs to the step."""
        if self._term.form == "none" or self._term.multiplier == 0:
            return t_B.new_empty(0)
        return self._eligible(t_B, empty_B).nonzero()[:, 0][: max(1, round(self._term.share * len(t_B)))]

    def _identity(self, estimate_RCHW: Tensor, clean_RCHW: Tensor, t_R: Tensor, identity_RD: Tensor, attribute_RA: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of the term over its rows, and the cosines of identity and estimate, (R,)."""
        embed_RD = self._embed(estimate_RCHW)
        cosine_R, late_R = (identity_RD * embed_RD).sum(1), t_R / STEPS
        if self._term.form == "id3":
            return -(identity_weight(t_R).to(cosine_R) * cosine_R).mean(), cosine_R.detach()
        if self._term.form == "dcface":
            with torch.no_grad():
                own_RD = self._embed(clean_RCHW)
            return -(late_R * cosine_R + (1 - late_R) * (own_RD * embed_RD).sum(1)).mean(), cosine_R.detach()
        target_R = attribute_RA[:, self.network.config.attributes.index("similarity")]
        return ((1 - late_R) * (1 - cosine_R) ** 2 + late_R * (target_R - cosine_R) ** 2).mean(), cosine_R.detach()

    def _embed(self, latent_RCHW: Tensor) -> Tensor:
        guide, autoencoder = self._frozen
        if isinstance(autoencoder, nn.Module):
            autoencoder.to(latent_RCHW.device)
        return F.normalize(guide(autoencoder.decode(latent_RCHW)).to(latent_RCHW.device))

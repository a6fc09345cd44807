"""AFA: a network with dual normalisation and a predictor of the fusing weight, one model for every attack strength.

Source: Adaptive Feature Alignment (Wang et al., arXiv 2105.15157). Only the abstract was readable: this is a reconstruction (recognition.md §6.2), not verified
against the authors' implementation. The channel statistics of features move smoothly with the attack strength, so the predictor reads them where the network
begins; the strength itself is told to nothing, neither in training nor at test time.
Axes: B images, C H W, D embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from ..core.config import Config
from ..core.errors import UserError
from .attacks import LEVEL
from .dual_bn import DualNorm, Share, routed, to_dual


class DualConfig(Config):
    """The predictor.

    Attributes:
        hidden: width of its middle layer.
        sees: "mean" or "mean-std" of each channel of the stem (the reconstruction's words), or "detail" [C]: mean and deviation of log |Laplacian| of each colour,
            at the resolution the network works at. What faces show differs far more than what an attack adds: on 240 faces, clean or attacked with strength 4, a
            linear rule told them apart at 58 % by the stem's mean-std and at 92 % by the detail (quantiles of it).
    """

    hidden: int = Field(128, ge=1)
    sees: Literal["mean", "mean-std", "detail"] = "detail"


class FusingPredictor(nn.Module):
    """Statistics of an early feature, (B, F) → weight of the attacked branch, (B,) in (0, 1)."""

    def __init__(self, seen: int, config: DualConfig) -> None:
        super().__init__()
        self.register_buffer("centre_F", torch.zeros(seen))
        self.register_buffer("scale_F", torch.ones(seen))
        self.layers = nn.Sequential(nn.Linear(seen, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 2))

    def forward(self, seen_BF: Tensor) -> Tensor:
        return self.layers((seen_BF - self.centre_F) / self.scale_F).softmax(1)[:, 1]

    def calibrate(self, seen_BF: Tensor) -> None:
        """Take the mean and the deviation of clean faces as the units of what is seen."""
        self.centre_F.copy_(seen_BF.mean(0))
        self.scale_F.copy_(seen_BF.std(0).clamp(min=1e-6))


def channel_statistics(early_BCHW: Tensor, *, spread: bool) -> Tensor:
    """Return each channel's mean, and its standard deviation where `spread`, (B, C) or (B, 2 C) float32."""
    variance_BC, mean_BC = torch.var_mean(early_BCHW.float(), (2, 3), correction=0)
    return torch.cat((mean_BC, (variance_BC + 1e-6).sqrt()), 1) if spread else mean_BC


def detail_of(image_BCHW: Tensor) -> Tensor:
    """Return log(1 + |Laplacian| in grey levels) of images in [-1, 1], (B, C, H - 2, W - 2): the logarithm makes smooth places count, where ripples show."""
    x = image_BCHW.float() / LEVEL
    middle = x[:, :, 1:-1, 1:-1]
    around = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]
    return (4 * middle - around).abs().log1p()


class DualNetwork(nn.Module):
    """A recognition network whose every batch normalisation is dual.

    forward(image, share) → raw embedding (B, D); without `share` the predictor gives it, and the gradient passes through it: an attack on this network is
    white-box through the predictor.

    Args:
        network: any of `BACKBONES` (it has `pool` and `stem`); changed in place. Both branches start as its own normalisation.
    """

    def __init__(self, network: nn.Module, config: DualConfig = DualConfig()) -> None:
        super().__init__()
        channels = [module.num_features for module in network.stem.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        self._sees = config.sees
        self.body = to_dual(network)
        self.predictor = FusingPredictor({"mean": channels, "mean-std": 2 * channels, "detail": 6}[config.sees], config)

    @classmethod
    def tiny(cls) -> Self:
        """Return a network for tests: 16 numbers an embedding."""
        from .backbones import BackboneConfig

        return BackboneConfig(embed_dim=16, width=0.125, shrink=2, dual=DualConfig(hidden=8)).build()

    def forward(self, image_BCHW: Tensor, share: Share | None = None) -> Tensor:
        if share is None:
            share = self.share(image_BCHW)
        with routed(self.body, share):
            return self.body(image_BCHW)

    def share(self, image_BCHW: Tensor) -> Tensor:
        """Return the predicted weight of the attacked branch, (B,).

        Raises:
            UserError: in training mode, where the branches learn apart and nothing may be fused.
        """
        if self.training:
            raise UserError("a network with dual normalisation (backbone.dual) does not learn from an ordinary recogniser recipe; train it with: facefoundry train afa RECIPE")
        # float32 under autocast, as the other small last layers of the house.
        with torch.autocast(image_BCHW.device.type, enabled=False):
            return self.predictor(self._seen(image_BCHW))

    def calibrate(self, image_BCHW: Tensor) -> None:
        """Tell the predictor how clean faces look to it."""
        with torch.no_grad():
            self.predictor.calibrate(self._seen(image_BCHW))

    def _seen(self, image_BCHW: Tensor) -> Tensor:
        pooled = self.body.pool(image_BCHW.float())
        if self._sees == "detail":
            return channel_statistics(detail_of(pooled), spread=True)
        with routed(self.body, pooled.new_zeros(len(pooled))):
            return channel_statistics(self.body.stem(pooled), spread=self._sees == "mean-std")

    def norms(self) -> list[DualNorm]:
        """Return every dual normalisation, from the first to the last."""
        return [module for module in self.body.modules() if isinstance(module, DualNorm)]

"""FAN: one network that recognises a face at any resolution and shows it normalised, i.e. as it would look in a high-resolution crop.

Source: Feature Adaptation Network (Yin et al., ACCV 2020, arXiv 1911.11680). Only the abstract was readable: this is a reconstruction (recognition.md §5.2), not
verified against the authors' implementation. Axes: B images, D identity, N context.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..core.check import check
from ..core.config import Config
from ..core.images import to_float, to_uint8
from ..core.progress import track
from ..core.weights import load_into, load_weights, save_weights
from .backbones import BackboneConfig
from .fan_networks import ContextEncoder, Decoder, FanNetworkConfig

KIND = "fan"


class FanConfig(Config):
    """What the network is built from.

    Attributes:
        backbone: of the identity encoder.
        networks: the rest.
    """

    backbone: BackboneConfig = BackboneConfig(embed_dim=128)
    networks: FanNetworkConfig = FanNetworkConfig()


class Fan(nn.Module):
    """Identity encoder E_L, context encoder E_N and decoder G.

    forward(image) → raw identity embedding (B, D), so that `TorchEmbedder(fan, name=...)` is an `Embedder`; `normalise` shows the face.
    """

    def __init__(self, config: FanConfig, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.backbone.build() if encoder is None else encoder
        self.context = ContextEncoder(config.networks)
        self.decoder = Decoder(config.backbone.embed_dim, config.networks)

    @classmethod
    def tiny(cls) -> Self:
        """Return a network for tests with random weights."""
        return cls(FanConfig(backbone=BackboneConfig(embed_dim=16, width=0.125, shrink=2), networks=FanNetworkConfig(context_dim=8, width=0.125, critic=2)))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.encoder(image_BCHW)

    def normalise(self, image_BCHW: Tensor) -> Tensor:
        """Return the faces as in high resolution, (B, 3, 112, 112) in [-1, 1].

        Args:
            image_BCHW: aligned faces in [-1, 1], small ones enlarged to 112×112 (bicubic, as in training).
        """
        check("image_BCHW", image_BCHW, "B 3 112 112")
        return self.decoder(self.encoder(image_BCHW), self.context(image_BCHW))


def save_fan(path: Path, fan: Fan, *, facts: Mapping[str, Any]) -> None:
    """Write the whole network as float16; `facts` is provenance for the header."""
    save_weights(path, fan, kind=KIND, config=fan.config.model_dump(mode="json"), facts=dict(facts), dtype=torch.float16)


def load_fan(path: Path) -> tuple[Fan, dict[str, Any]]:
    """Return the network in evaluation mode (float32, CPU) and the facts of its header.

    Raises:
        UserError: not safetensors (a pickle is never opened), truncated, no FAN, or tensors that do not fit.
    """
    tensors, values, facts = load_weights(path, kind=KIND)
    with torch.random.fork_rng(devices=[]):
        fan = Fan(FanConfig.parse(values, source=f"header of {path}"))
    load_into(fan, tensors, path)
    return fan.eval(), facts


def normalise_faces(fan: Fan, image_NHWC: np.ndarray, batch: int = 32) -> np.ndarray:
    """Normalise uint8 faces, (N, 112, 112, 3), and return as many, with a progress bar."""
    check("image_NHWC", image_NHWC, "N 112 112 3")
    found = [np.empty((0, *image_NHWC.shape[1:]), np.uint8)]
    with torch.inference_mode():
        for start in track(range(0, len(image_NHWC), batch), "normalising"):
            found.append(to_uint8(fan.normalise(to_float(image_NHWC[start : start + batch]))))
    return np.concatenate(found)
